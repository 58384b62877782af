//! Calls to the queues at the end of an invocation: time limits and retries.

use std::time::Duration;

use serde_json::json;
use streamer_events::SqsEvent;
use streamer_queue::Queue;
use streamer_tests::{
    doubles::{Answer, CallsDouble, Entry, Told},
    event::{batch, message},
    gateway::{MemoryGateway, status},
    worker::{Rig, TIMEOUT},
};
use tokio::time::Instant;

use crate::ids;

/// Time that the queue takes for a call.
const CALL: Duration = Duration::from_millis(10);
/// Time after which the worker gives up an attempt.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Returns a queue that gives these answers, and then accepts everything.
fn scripted(answers: Vec<Told>) -> CallsDouble {
    CallsDouble::new(move |call, _| {
        let what = answers.get(call).cloned().unwrap_or(Told::Entries(Vec::new()));
        Answer { after: CALL, what }
    })
}

/// Builds a worker whose posts are throttled, so that it hands every message back to this queue.
fn rig(outbound: &CallsDouble) -> Rig {
    let mut rig = Rig::new(MemoryGateway::always(status(429)));
    rig.worker.outbound = Queue::new(outbound.client(), "https://sqs.example.com/outbound");
    rig
}

fn messages(number: usize) -> SqsEvent {
    batch((0..number).map(|id| message(&format!("id-{id}"), &[&id.to_string()]).to_string()))
}

/// Puts each record into a message group of its own.
fn grouped(mut event: SqsEvent) -> SqsEvent {
    for (group, record) in event.records.iter_mut().enumerate() {
        record.attributes.insert("MessageGroupId".to_owned(), group.to_string());
    }
    event
}

#[tokio::test(start_paused = true)]
async fn hanging_call_costs_2_s() -> anyhow::Result<()> {
    let queue = scripted(vec![Told::Nothing { taken: false }]);
    let started = Instant::now();
    assert_eq!(rig(&queue).invoke(messages(2)).await?, ids([]));
    let calls = queue.calls();
    assert_eq!((calls.len(), calls[0].ended.as_ref().map(|(at, _)| *at - calls[0].at)), (2, Some(ATTEMPT)));
    assert!(started.elapsed() < ATTEMPT + Duration::from_millis(100), "{:?}", started.elapsed());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn only_unconfirmed_entries_are_retried() -> anyhow::Result<()> {
    let first = vec![Entry::Taken, Entry::NotTaken, Entry::Refused, Entry::Unmentioned];
    let queue = scripted(vec![
        Told::Entries(first),
        Told::Fails("InternalFailure"),
        Told::Entries(vec![Entry::NotTaken]),
    ]);
    assert_eq!(rig(&queue).invoke(messages(5)).await?, ids(["record-2"]), "a refused entry is not retried");
    let ids_in = |call: &streamer_tests::doubles::Call| {
        let contains = |id: &usize| call.entries.iter().any(|entry| entry.body.contains(&format!("id-{id}")));
        (0..5).filter(contains).collect::<Vec<_>>()
    };
    let sent: Vec<_> = queue.calls().iter().map(ids_in).collect();
    assert_eq!(sent, [vec![0, 1, 2, 3, 4], vec![1, 3], vec![1, 3], vec![1]]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn refused_call_is_made_once() -> anyhow::Result<()> {
    for code in ["AccessDenied", "AWS.SimpleQueueService.NonExistentQueue", "KMS.DisabledException"] {
        let queue = CallsDouble::new(move |_, _| Answer { after: CALL, what: Told::Fails(code) });
        assert_eq!(rig(&queue).invoke(messages(2)).await?, ids(["record-0", "record-1"]));
        assert_eq!(queue.calls().len(), 1, "{code}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn no_attempt_outlasts_the_settling_time() -> anyhow::Result<()> {
    for answer in [Told::Nothing { taken: false }, Told::Fails("RequestThrottled")] {
        let every = answer.clone();
        let queue = CallsDouble::new(move |_, _| Answer { after: CALL, what: every.clone() });
        let (started, settling_end) = (Instant::now(), TIMEOUT - Duration::from_millis(300));
        assert_eq!(rig(&queue).invoke(messages(1)).await?, ids(["record-0"]));
        let took = started.elapsed();
        assert!((settling_end - Duration::from_secs(1)..=settling_end).contains(&took), "{took:?}");
        let calls = queue.calls();
        assert!((10..150).contains(&calls.len()), "{} calls", calls.len());
        for call in calls {
            let (ended, _) = call.ended.unwrap();
            assert!(ended - call.at <= ATTEMPT && ended - started <= settling_end, "{answer:?}");
        }
    }
    Ok(())
}

/// SQS may have accepted an attempt that it did not answer; it drops the retry by the deduplication id.
#[tokio::test(start_paused = true)]
async fn retried_dead_letter_keeps_its_deduplication_id() -> anyhow::Result<()> {
    let queue = scripted(vec![Told::Nothing { taken: true }, Told::Fails("InternalFailure")]);
    let mut rig = Rig::fifo(MemoryGateway::always(status(413)));
    rig.worker.dead_letters = Queue::new(queue.client(), "https://sqs.example.com/dead-letters.fifo");
    assert_eq!(rig.invoke(grouped(messages(2))).await?, ids([]));
    assert_eq!(rig.invoke(grouped(messages(2))).await?, ids([]));
    let attempts: Vec<Vec<_>> = queue
        .calls()
        .iter()
        .map(|call| call.entries.iter().map(|entry| entry.deduplication.clone().unwrap()).collect())
        .collect();
    assert_eq!(attempts.len(), 4);
    assert!(attempts[0] == attempts[1] && attempts[1] == attempts[2], "{attempts:?}");
    assert!(attempts[0][0] != attempts[0][1] && attempts[3] != attempts[2], "{attempts:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn visibility_change_is_retried_for_failed_records() -> anyhow::Result<()> {
    let queue = scripted(vec![
        Told::Nothing { taken: false },
        Told::Entries(vec![Entry::Taken, Entry::NotTaken, Entry::Refused]),
    ]);
    let mut rig = Rig::fifo(MemoryGateway::always(status(429)));
    rig.worker.outbound = Queue::new(queue.client(), "https://sqs.example.com/outbound.fifo");
    let started = Instant::now();
    let reported = rig.invoke(grouped(messages(3))).await?;
    assert_eq!(json!(reported), json!(["record-0", "record-1", "record-2"]));
    let receipts: Vec<Vec<_>> = queue
        .calls()
        .iter()
        .map(|call| call.entries.iter().filter_map(|entry| entry.receipt.clone()).collect())
        .collect();
    let all = vec!["receipt-0", "receipt-1", "receipt-2"];
    assert_eq!(json!(receipts), json!([all, all, ["receipt-1"]]));
    assert!(started.elapsed() < ATTEMPT + Duration::from_millis(300));
    Ok(())
}
