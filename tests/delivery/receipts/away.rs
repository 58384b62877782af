//! Receipts while their queue is missing or away: no message waits, and no receipt is lost.

use streamer_queue::ReceiptsQueue;
use streamer_tests::{doubles::CallsDouble, worker::Sent};
use tokio::time::Instant;
use tracing::Level;

use super::*;
use crate::telemetry::Log;

fn away() -> QueueDouble {
    QueueDouble::failing("ServiceUnavailable")
}

fn rig_without_receipts() -> Rig {
    let mut rig = Rig::new(by_name());
    rig.set_receipts(away());
    rig
}

/// Delivers a handed-back body a second time, `seconds` after [`epoch`].
async fn invoke_later(rig: &Rig, body: &str, seconds: u64) -> anyhow::Result<()> {
    assert_eq!(rig.invoke_at(epoch() + Duration::from_secs(seconds), batch([body])).await?, ids([]));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn missing_queue_is_logged_once() -> anyhow::Result<()> {
    let mut rig = Rig::new(by_name());
    rig.worker.receipts = ReceiptsQueue::new(None, "test");
    let run = async {
        for id in ["1", "2", "3"] {
            assert_eq!(rig.invoke(batch([asking(message(id, &["200-a"]))])).await?, ids([]));
        }
        Ok(())
    };
    let (_, text) = Log::capture(Level::WARN, run).await?;
    assert_eq!(text.matches("set RECEIPTS_QUEUE_URL").count(), 1, "{text}");
    assert_eq!(rig.worker.gateway.texts("200-a").len(), 3);
    assert!(rig.handed_back().is_empty());
    Ok(())
}

/// The message is not delivered again: its receipt waits alone.
#[tokio::test(start_paused = true)]
async fn receipt_alone_is_handed_back() -> anyhow::Result<()> {
    let rig = rig_without_receipts();
    assert_eq!(rig.invoke(batch([asking(message("m", &["200-a"]))])).await?, ids([]));
    let [back] = &rig.handed_back()[..] else { panic!("{:?}", rig.handed_back()) };
    assert_eq!(back.json()["data"]["id"], "m");
    let mut retry = back.json()["retry"].clone();
    let since = retry.as_object_mut().unwrap().remove("since").unwrap().as_u64().unwrap();
    assert!((EPOCH_MILLIS..=EPOCH_MILLIS + 2000).contains(&since), "{since}");
    let cause = "the receipts queue did not confirm the receipt";
    assert_eq!(retry, json!({ "count": 1, "receives": 0, "cause": cause }));

    let next = Rig::new(by_name());
    invoke_later(&next, &back.body, 60).await?;
    assert_eq!(only(&next), (ReceiptOutcome::Delivered, counts([(ReceiptOutcome::Delivered, 1)])));
    assert!(next.worker.gateway.posts().is_empty() && next.handed_back().is_empty());
    let event = |entry: &str| serde_json::from_str::<Value>(entry).unwrap()["id"].clone();
    assert_eq!(event(next.receipts.taken()[0].message_body()), back.json()["id"], "the event stays the same");
    assert!(!next.receipts.taken()[0].message_body().contains("retry"));
    Ok(())
}

/// An hour's outage: later attempts have longer delays, and the message's age does not count.
#[tokio::test(start_paused = true)]
async fn receipt_waits_for_an_hour() -> anyhow::Result<()> {
    let rig = rig_without_receipts();
    let mut body = message("m", &["429-a"]);
    body["retry"] = json!({ "count": 9, "receives": 0, "since": 0, "cause": "429" });
    rig.invoke(batch([asking(body)])).await?;
    let mut back = rig.handed_back().remove(0).body;
    for minute in 1..=60 {
        let rig = rig_without_receipts();
        invoke_later(&rig, &back, minute * 60).await?;
        assert!(rig.dead().is_empty(), "after {minute} min");
        let sent = rig.handed_back().remove(0);
        assert_eq!(sent.json()["retry"]["count"], minute + 1);
        assert!((0..=60).contains(&sent.delay.unwrap()));
        back = sent.body;
    }
    let rig = Rig::new(by_name());
    invoke_later(&rig, &back, 3700).await?;
    assert_eq!(only(&rig).0, ReceiptOutcome::Exhausted);
    Ok(())
}

/// A redrive sends the receipt, and not the message.
#[tokio::test(start_paused = true)]
async fn old_receipt_becomes_dead_letter() -> anyhow::Result<()> {
    let rig = rig_without_receipts();
    rig.invoke(batch([asking(message("m", &["200-a"]))])).await?;
    let old = rig.handed_back().remove(0).body;
    let rig = rig_without_receipts();
    let event = batch([old]);
    assert_eq!(rig.invoke_at(epoch() + Duration::from_secs(7803), event).await?, ids([]));
    let [dead] = &rig.dead()[..] else { panic!("{:?}", rig.dead()) };
    assert!(dead.attributes.contains(&("streamer.reason".to_owned(), "exhausted".to_owned())));
    assert!(!dead.body.contains("retry"), "its age would count from the first attempt: {}", dead.body);
    let rig = Rig::new(by_name());
    invoke_later(&rig, &dead.body, 90_000).await?;
    assert_eq!((only(&rig).0, rig.worker.gateway.posts().len()), (ReceiptOutcome::Delivered, 0));
    Ok(())
}

/// After a failure, no invocation waits for the queue for 10 s.
#[tokio::test(start_paused = true)]
async fn queue_that_hangs_delays_one_invocation() -> anyhow::Result<()> {
    let mut rig = Rig::new(by_name());
    let silent = streamer_queue::Queue::new(QueueDouble::silent(), "https://sqs.example.com/receipts");
    rig.worker.receipts = ReceiptsQueue::new(Some(silent), "test");
    let mut waited = Vec::new();
    // The monotonic clock stands still between them, as in a frozen environment.
    for seconds in [0, 1, 9, 10, 0] {
        let (started, now) = (Instant::now(), epoch() + Duration::from_secs(seconds));
        assert_eq!(rig.invoke_at(now, batch([asking(message("m", &["200-a"]))])).await?, ids([]));
        waited.push(started.elapsed().as_secs());
        assert_eq!(rig.invoke_at(now, batch([message("n", &["200-a"]).to_string()])).await?, ids([]));
    }
    assert_eq!(waited, [2, 0, 0, 2, 2], "the last clock was set back");
    assert_eq!(rig.handed_back().len(), 5);
    Ok(())
}

/// Its messages have a group of their own, so no group waits.
#[tokio::test(start_paused = true)]
async fn receipt_leaves_its_fifo_group() -> anyhow::Result<()> {
    let mut rig = Rig::fifo(by_name());
    rig.set_receipts(away());
    let in_group = |body: String, group: &str| {
        let mut event = batch([body]);
        event.records[0].attributes.insert("MessageGroupId".to_owned(), group.to_owned());
        event
    };
    let event = in_group(asking(message("m", &["200-a"])), "g");
    assert_eq!(rig.invoke(event).await?, ids([]));
    let [back] = &rig.handed_back()[..] else { panic!("{:?}", rig.handed_back()) };
    let group = back.group.clone().unwrap();
    assert!(group.starts_with("receipt.") && back.deduplication_id.is_some(), "{back:?}");

    // On its own, it stays on the queue.
    let event = in_group(back.body.clone(), &group);
    assert_eq!(rig.invoke(event.clone()).await?, ids(["record-0"]));
    let (receipt, seconds) = rig.outbound.waits().remove(0);
    assert!(receipt == "receipt-0" && seconds <= 60, "{seconds}");
    assert_eq!(rig.handed_back().len(), 1);
    let old = epoch() + Duration::from_secs(7803);
    assert_eq!(rig.invoke_at(old, event.clone()).await?, ids([]));
    assert_eq!(Sent::from(rig.dead_letters.taken().remove(0)).group, Some(group));
    rig.set_receipts(QueueDouble::taking());
    assert_eq!(rig.invoke(event).await?, ids([]));
    assert_eq!(only(&rig).0, ReceiptOutcome::Delivered);
    Ok(())
}

/// Posts that take until the deadline leave little time for receipts. Half of it is for those that are not confirmed.
#[tokio::test(start_paused = true)]
async fn late_receipts_are_handed_back_in_time() -> anyhow::Result<()> {
    let gateway = MemoryGateway::scripted(|_, _| (Duration::from_millis(4200), status(200)));
    let mut rig = Rig::new(gateway);
    let silent = streamer_queue::Queue::new(QueueDouble::silent(), "https://sqs.example.com/receipts");
    rig.worker.receipts = ReceiptsQueue::new(Some(silent), "test");
    let outbound = CallsDouble::taking(Duration::from_millis(100));
    rig.worker.outbound = streamer_queue::Queue::new(outbound.client(), "https://sqs.example.com/outbound");
    let lane = (0..6).map(|nth| asking(message(&nth.to_string(), &["a"])));
    assert_eq!(rig.invoke_within(epoch(), Duration::from_secs(27), batch(lane)).await?, ids([]));
    assert_eq!(outbound.calls().iter().map(|call| call.entries.len()).sum::<usize>(), 6);
    Ok(())
}

/// A receipt that waits is escaped like any other.
#[tokio::test(start_paused = true)]
async fn waiting_receipt_has_characters_that_sqs_takes() -> anyhow::Result<()> {
    let rig = rig_without_receipts();
    let body = asking(message("m\u{FFFF}", &["200-a"])).replace('\u{FFFF}', r"\uffff");
    rig.invoke(batch([body])).await?;
    let [back] = &rig.handed_back()[..] else { panic!("{:?}", rig.handed_back()) };
    assert!(!back.body.contains('\u{FFFF}') && back.json()["data"]["id"] == "m\u{FFFF}", "{}", back.body);
    Ok(())
}

/// With neither queue, the message itself is delivered again: its receipt must not be lost.
#[tokio::test(start_paused = true)]
async fn record_is_reported_if_both_queues_fail() -> anyhow::Result<()> {
    let outbound = QueueDouble::failing("ServiceUnavailable");
    let mut rig = Rig::on(by_name(), TableDouble::default(), outbound, QueueDouble::taking());
    rig.set_receipts(away());
    let event = batch([asking(message("m", &["200-a"])), message("n", &["200-a"]).to_string()]);
    assert_eq!(rig.invoke(event).await?, ids(["record-0"]));
    Ok(())
}
