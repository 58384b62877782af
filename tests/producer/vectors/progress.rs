//! The progress of a request, in virtual time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use streamer_producer::{EndError, Producer, Progress, ProgressError};
use streamer_tests::doubles::{Answer, CallsDouble, Entry, Told};
use tokio::time::{Instant, sleep_until};

use super::{assert_refused, cases, text, to, url, with_options};

/// Returns a sent message as the cases write it.
fn written(body: &str, id: &Value) -> Value {
    let mut body: Value = serde_json::from_str(body).unwrap();
    let fields = body.as_object_mut().unwrap();
    fields.insert("has_id".to_owned(), (fields["id"] == *id).into());
    for name in ["version", "id", "to", "request"] {
        fields.remove(name);
    }
    for name in ["id", "request_id", "seq"] {
        fields["payload"].as_object_mut().unwrap().remove(name);
    }
    body
}

/// Makes the call of a step. An end that fails returns the handle.
async fn call(progress: &mut Option<Progress>, step: &Value) -> Result<(), ProgressError> {
    if let Some(update) = step.get("update") {
        let percent = u8::try_from(update["percent"].as_u64().unwrap()).unwrap();
        return progress.as_mut().unwrap().update(percent, update["message"].as_str()).await;
    }
    if step.get("flush").is_some() {
        return progress.as_mut().unwrap().flush().await;
    }
    let handle = progress.take().unwrap();
    let ended = if let Some(result) = step.get("complete") {
        handle.complete(result).await
    } else if let Some(data) = step.get("respond") {
        handle.respond(data).await
    } else {
        handle.fail(&text(&step["fail"]["code"]), &text(&step["fail"]["message"])).await
    };
    ended.map_err(|EndError { error, progress: handle, .. }| {
        *progress = Some(*handle);
        error
    })
}

#[tokio::test(start_paused = true)]
async fn progress_sends_the_messages_of_the_vectors() {
    for case in cases("progress") {
        let (name, fails) = (text(&case["name"]), Arc::new(AtomicBool::new(false)));
        let failing = Arc::clone(&fails);
        let queue = CallsDouble::new(move |_, entries| {
            let entry = if failing.load(Ordering::Relaxed) { Entry::NotTaken } else { Entry::Taken };
            Answer { after: Duration::ZERO, what: Told::Entries(vec![entry; entries.len()]) }
        });
        let producer = Producer::new(&queue.client(), url(case));
        let progress = match producer.progress(with_options(to(&case["to"]), &case["options"])) {
            Ok(progress) => progress,
            Err(error) => {
                assert_refused(&name, &error.into(), &case["refused"]);
                continue;
            }
        };
        let interval = case["min_interval_ms"].as_u64();
        let mut progress = Some(match interval {
            Some(interval) => progress.min_interval(Duration::from_millis(interval)),
            None => progress,
        });
        let began = Instant::now();
        for step in case["steps"].as_array().unwrap_or_else(|| panic!("{name} is not refused")) {
            sleep_until(began + Duration::from_millis(step["at"].as_u64().unwrap())).await;
            fails.store(step["queue"] == "failing", Ordering::Relaxed);
            let before = queue.taken().len();
            match call(&mut progress, step).await {
                Ok(()) => assert!(step["refused"].is_null(), "{name}: {step}"),
                Err(error) => assert_refused(&name, &error, &step["refused"]),
            }
            let sent = queue.taken().into_iter().skip(before);
            let sent: Vec<_> = sent.map(|body| written(&body, &case["options"]["id"])).collect();
            assert_eq!(json!(sent), step["sent"], "{name}: {step}");
        }
    }
}
