//! Progress at a limited rate.

use std::time::Duration;

use serde_json::Value;
use streamer_message::{OutboundMessage, Percent};
use streamer_producer::{EndError, Message, MessageError, Progress, ProgressError, SendError};
use streamer_tests::doubles::{Answer, CallsDouble, Told};
use tokio::time::{Instant, advance, sleep};

use crate::sending::{CALL, message, producer};

fn progress(queue: &CallsDouble) -> Progress {
    producer(queue).progress(Message::connection("c").request("r").id("end")).unwrap()
}

/// The messages on the queue: type, content and `seq`.
fn arrived(queue: &CallsDouble) -> Vec<(String, Value, u64)> {
    let payload = |body: &String| {
        let outbound = OutboundMessage::decode(body).unwrap();
        let payload: Value = serde_json::from_str(outbound.payload.as_str()).unwrap();
        let kind = payload["type"].as_str().unwrap().to_owned();
        assert_eq!(outbound.supersedable, kind == "progress");
        assert_eq!(outbound.id.as_str() == "end", kind != "progress");
        let content = ["progress", "result", "data", "error"].into_iter().find_map(|key| payload.get(key));
        (kind, content.unwrap().clone(), payload["seq"].as_u64().unwrap())
    };
    queue.taken().iter().map(payload).collect()
}

fn contents(queue: &CallsDouble) -> Vec<(String, Value)> {
    arrived(queue).into_iter().map(|(kind, content, _)| (kind, content)).collect()
}

fn update(percent: u8) -> (String, Value) {
    ("progress".to_owned(), percent.into())
}

/// The updates of a kept request are worthless later; its end is not.
#[tokio::test(start_paused = true)]
async fn only_the_end_is_kept() {
    let queue = CallsDouble::taking(CALL);
    let to = Message::user("acme", "anna").request("r").keep(Duration::from_secs(3600));
    let mut progress = producer(&queue).progress(to).unwrap();
    progress.update(40, None).await.unwrap();
    progress.complete("done").await.unwrap();
    let kept: Vec<_> =
        queue.taken().iter().map(|body| OutboundMessage::decode(body).unwrap().keep.is_some()).collect();
    assert_eq!(kept, [false, true]);
}

/// Updates at any rate leave 10 times per second, and the end leaves after the last update.
#[tokio::test(start_paused = true)]
async fn at_most_ten_updates_leave_per_second() {
    let queue = CallsDouble::taking(CALL);
    let (mut progress, started) = (progress(&queue), Instant::now());
    for step in 0..10_000 {
        // 10 000 updates per second, apart from the time of the calls.
        progress.update(Percent::of(step, 10_000), "working").await.unwrap();
        advance(Duration::from_micros(100)).await;
    }
    let left: Vec<_> = queue.calls().iter().map(|call| call.at - started).collect();
    println!("10 000 updates in {:.2} s: {} messages", started.elapsed().as_secs_f64(), left.len());
    for start in 0..=left.last().unwrap().as_millis() {
        let updates = left.iter().filter(|at| (start..start + 1000).contains(&at.as_millis())).count();
        assert!(updates <= 11, "{updates} within a second");
    }
    let longest = left.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest < Duration::from_millis(112), "{longest:?} between two updates");
    progress.complete("done").await.unwrap();

    let arrived = arrived(&queue);
    assert!(arrived.is_sorted_by(|one, next| one.2 < next.2), "in order of seq");
    assert_eq!(contents(&queue)[arrived.len() - 2..], [update(99), ("complete".to_owned(), "done".into())]);
}

#[tokio::test(start_paused = true)]
async fn latest_update_leaves_after_the_interval() {
    let queue = CallsDouble::taking(CALL);
    let mut progress = progress(&queue).min_interval(Duration::from_secs(1));
    for percent in [1_u8, 2, 3] {
        progress.update(percent, None).await.unwrap();
    }
    assert_eq!(contents(&queue), [update(1)]);
    sleep(Duration::from_secs(1)).await;
    progress.update(4, "four").await.unwrap();
    assert_eq!(contents(&queue), [update(1), update(4)]);
    progress.update(5, None).await.unwrap();
    progress.flush().await.unwrap();
    progress.flush().await.unwrap();
    assert_eq!(contents(&queue), [update(1), update(4), update(5)]);
    progress.fail("broken", "no paper").await.unwrap();
    assert_eq!(contents(&queue)[3].1["code"], "broken");
}

#[tokio::test(start_paused = true)]
async fn each_end_has_its_type() {
    let queue = CallsDouble::taking(CALL);
    progress(&queue).complete(&1).await.unwrap();
    progress(&queue).respond(&2).await.unwrap();
    progress(&queue).fail("c", "m").await.unwrap();
    let kinds: Vec<_> = contents(&queue).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["complete", "response", "error"]);
}

#[tokio::test(start_paused = true)]
async fn percentage_only_increases_up_to_100() {
    let queue = CallsDouble::taking(CALL);
    let mut progress = progress(&queue).min_interval(Duration::ZERO);
    progress.update(40, None).await.unwrap();
    progress.update(40, "still").await.unwrap();
    let error = progress.update(39, None).await.unwrap_err();
    assert_eq!(error.to_string(), "progress cannot go backwards: it was at 40 percent, got 39");
    assert!(matches!(progress.update(101, None).await, Err(ProgressError::Percent(_))));
    progress.update(Percent::of(1, 1), None).await.unwrap();
    assert_eq!(contents(&queue), [update(40), update(40), update(100)]);
    progress.complete(&()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn failed_update_is_kept() {
    let queue = CallsDouble::new(|call, _| Answer {
        after: CALL,
        what: if call == 0 { Told::Fails("AccessDenied") } else { Told::Entries(Vec::new()) },
    });
    let mut progress = progress(&queue);
    let error = progress.update(10, None).await.unwrap_err();
    assert!(matches!(error, ProgressError::Send(SendError::Refused { .. })), "{error}");
    progress.complete(&()).await.unwrap();
    assert_eq!(contents(&queue), [update(10), ("complete".to_owned(), Value::Null)]);
}

#[tokio::test(start_paused = true)]
async fn failed_update_counts_towards_the_rate() {
    let queue = CallsDouble::new(|call, _| Answer {
        after: CALL,
        what: if call == 0 { Told::Fails("AccessDenied") } else { Told::Entries(Vec::new()) },
    });
    let mut progress = progress(&queue);
    assert!(progress.update(10, None).await.is_err());
    progress.update(20, None).await.unwrap();
    assert_eq!(queue.calls().len(), 1, "100 ms have not passed since the first update left");
    sleep(Duration::from_millis(100)).await;
    progress.update(30, None).await.unwrap();
    assert_eq!(contents(&queue), [update(30)]);
}

/// A failed update must not keep the request from its end.
#[tokio::test(start_paused = true)]
async fn end_drops_an_update_that_fails() {
    let queue = CallsDouble::new(|_, entries| {
        let is_update = entries[0].body.contains(r#""progress""#);
        let what = if is_update { Told::Fails("RequestThrottled") } else { Told::Entries(Vec::new()) };
        Answer { after: CALL, what }
    });
    let mut progress = progress(&queue);
    let too_long = "x".repeat(128 * 1024);
    assert!(matches!(progress.update(1, too_long.as_str()).await, Err(ProgressError::Message(_))));
    assert!(matches!(progress.update(2, None).await, Err(ProgressError::Send(_))));
    let started = Instant::now();
    progress.complete("done").await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    assert_eq!(contents(&queue), [("complete".to_owned(), "done".into())]);
}

#[tokio::test(start_paused = true)]
async fn failed_end_is_retried_with_same_id() {
    let queue = CallsDouble::new(|call, _| Answer {
        after: CALL,
        what: if call == 1 { Told::Fails("AccessDenied") } else { Told::Entries(Vec::new()) },
    });
    let mut progress = progress(&queue);
    progress.update(10, None).await.unwrap();
    let EndError { error, progress, .. } = progress.complete("done").await.unwrap_err();
    assert!(matches!(error, ProgressError::Send(_)));
    let too_large = "x".repeat(128 * 1024);
    let EndError { error, progress, .. } = progress.complete(&too_large).await.unwrap_err();
    assert!(error.to_string().contains("API Gateway delivers at most 131072"), "{error}");
    progress.complete("done").await.unwrap();
    let ends = queue.calls().into_iter().flat_map(|call| call.entries).skip(1);
    assert!(ends.map(|end| OutboundMessage::decode(&end.body).unwrap().id.to_string()).all(|id| id == "end"));
}

/// Without an id from the caller, all ends share one id, and every update has its own.
#[tokio::test(start_paused = true)]
async fn ends_share_one_generated_id() {
    let queue = CallsDouble::new(|call, _| Answer {
        after: CALL,
        what: if call == 2 { Told::Fails("AccessDenied") } else { Told::Entries(Vec::new()) },
    });
    let to = Message::user("acme", "anna").request("r");
    let mut progress = producer(&queue).progress(to).unwrap().min_interval(Duration::ZERO);
    progress.update(1, None).await.unwrap();
    progress.update(2, None).await.unwrap();
    progress.complete(&()).await.unwrap_err().progress.complete(&()).await.unwrap();
    let entries = queue.calls().into_iter().flat_map(|call| call.entries);
    let ids: Vec<_> = entries.map(|entry| crate::sending::id(&entry.body)).collect();
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[2] == ids[3], "{ids:?}");
}

#[tokio::test(start_paused = true)]
async fn invalid_audience_fails_at_creation() {
    let queue = CallsDouble::taking(CALL);
    let error = |builder| producer(&queue).progress(builder).map(drop).unwrap_err();
    assert!(matches!(error(Message::connection("c")), MessageError::NoRequest));
    assert!(matches!(error(Message::connection("").request("r")), MessageError::Id(_)));
    assert!(matches!(error(Message::connection("c").request("")), MessageError::Id(_)));
    producer(&queue).send(message("m")).await.unwrap();
}
