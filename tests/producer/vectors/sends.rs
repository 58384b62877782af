//! Calls to the queue: their messages, and the answers to them.

use std::time::Duration;

use serde_json::Value;
use streamer_producer::{Message, Producer, ProgressError, SendError};
use streamer_tests::doubles::{Answer, CallsDouble, Entry, Told};

use super::{cases, kind, text, url};
use crate::sending::{CALL, id};

/// Returns the n-th message of a case, with a body of so many bytes, or a short one.
fn message(case: &Value, number: usize, bytes: Option<u64>) -> Message {
    let build = |padding: usize| {
        let builder = match case["same_recipient"].as_bool() {
            Some(true) => Message::connection("c").request("r"),
            _ => Message::connection(format!("c{number}")),
        };
        builder.id(format!("m{number}")).payload(&"x".repeat(padding)).unwrap()
    };
    let Some(bytes) = bytes else { return build(0) };
    let [empty] = &build(0).bodies()[..] else { panic!("one body") };
    build(usize::try_from(bytes).unwrap() - empty.len())
}

/// Returns the indexes of the messages in each call.
fn calls(queue: &CallsDouble) -> Vec<Vec<u64>> {
    let number = |body: &str| id(body).strip_prefix('m').unwrap().parse().unwrap();
    let calls = queue.calls().into_iter();
    calls.map(|call| call.entries.iter().map(|entry| number(&entry.body)).collect()).collect()
}

fn indexes(calls: &Value) -> Vec<Vec<u64>> {
    serde_json::from_value(calls.clone()).unwrap()
}

fn told(answer: Option<&Value>) -> Told {
    let Some(answer) = answer else { return Told::Entries(Vec::new()) };
    if let Some(code) = answer["error"].as_str() {
        let message = answer["message"].as_str().unwrap_or("scripted");
        return Told::FailsWith(code.to_owned().leak(), message.to_owned().leak());
    }
    let Some(entries) = answer.as_array() else { return Told::Nothing { taken: true } };
    let entry = |entry: &Value| match entry.as_str().unwrap() {
        "taken" => Entry::Taken,
        "unmentioned" => Entry::Unmentioned,
        "throttled" => Entry::NotTaken,
        "refused" => Entry::Refused,
        other => panic!("unknown answer {other}"),
    };
    Told::Entries(entries.iter().map(entry).collect())
}

fn scripted(answers: Vec<Value>) -> CallsDouble {
    CallsDouble::new(move |call, _| Answer { after: CALL, what: told(answers.get(call)) })
}

#[tokio::test(start_paused = true)]
async fn batches_are_those_of_the_vectors() {
    for case in cases("batches") {
        let queue = CallsDouble::taking(CALL);
        let sizes = case["bodies"].as_array().unwrap().iter().enumerate();
        let messages = sizes.map(|(number, bytes)| message(case, number, bytes.as_u64()));
        Producer::new(&queue.client(), url(case)).send_all(messages).await.unwrap();
        assert_eq!(calls(&queue), indexes(&case["calls"]), "{}", case["name"]);
    }
}

#[tokio::test(start_paused = true)]
async fn answers_have_the_results_of_the_vectors() {
    for case in cases("sends") {
        let queue = scripted(case["answers"].as_array().unwrap().clone());
        let number = usize::try_from(case["messages"].as_u64().unwrap()).unwrap();
        let messages = (0..number).map(|number| message(case, number, None));
        let mut results = vec!["sent"; number];
        if let Err(error) = Producer::new(&queue.client(), url(case)).send_all(messages).await {
            for unsent in error.unsent {
                let number: usize = unsent.id.as_str()[1..].parse().unwrap();
                results[number] = kind(&ProgressError::Send(unsent.error));
            }
        }
        assert_eq!(calls(&queue), indexes(&case["calls"]), "{}", case["name"]);
        assert_eq!(serde_json::json!(results), case["results"], "{}", case["name"]);
    }
}

#[tokio::test(start_paused = true)]
async fn codes_are_retried_as_the_vectors_say() {
    for case in cases("codes") {
        let code = text(&case["code"]);
        let queue = scripted(vec![serde_json::json!({ "error": code, "message": case.get("message") })]);
        let sent = Producer::new(&queue.client(), url(case)).send(message(case, 0, None)).await;
        let expected = match case["retried"].as_bool().unwrap() {
            true => Ok(()),
            false => {
                let message = case["message"].as_str().unwrap_or("scripted").to_owned();
                Err(SendError::Refused { code: code.clone(), message })
            }
        };
        assert_eq!(sent, expected, "{code}");
        if let Err(error) = sent {
            assert_eq!(error.is_queue_fault(), case["queue_fault"].as_bool().unwrap(), "{code}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_are_within_those_of_the_vectors() {
    let pauses: Vec<_> =
        cases("pauses_ms").iter().map(|pause| Duration::from_millis(pause.as_u64().unwrap())).collect();
    let attempts = pauses.len();
    let queue = CallsDouble::new(move |call, _| {
        let entry = if call < attempts { Entry::NotTaken } else { Entry::Taken };
        Answer { after: Duration::ZERO, what: Told::Entries(vec![entry]) }
    });
    let producer = Producer::new(&queue.client(), url(&Value::Null)).timeout(Duration::from_secs(60));
    producer.send(message(&Value::Null, 0, None)).await.unwrap();
    let times: Vec<_> = queue.calls().iter().map(|call| call.at).collect();
    assert_eq!(times.len(), attempts + 1);
    for (pair, pause) in times.windows(2).zip(pauses) {
        assert!(
            pair[1] - pair[0] <= pause + Duration::from_millis(1),
            "{:?} over {pause:?}",
            pair[1] - pair[0]
        );
    }
}
