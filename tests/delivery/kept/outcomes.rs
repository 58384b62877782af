//! The outcomes of stored messages: the outcome table.

use std::time::Duration;

use serde_json::json;
use streamer_connections::Connection;
use streamer_events::SqsEvent;
use streamer_message::Position;
use streamer_queue::QueueKind;
use streamer_tests::{
    doubles::{MailboxDouble, MailboxFault, connection},
    event::{EPOCH_MILLIS, batch, epoch, message},
    gateway::{MemoryGateway, status},
    worker::{ENDPOINT, Rig},
};
use tracing::Level;

use super::{HOUR, frames, kept, numbered, register, rig, with_devices};
use crate::{answering, causes, connect, ids, telemetry::Log};

const ELSEWHERE: &str = "https://other.example.com/production";

/// A message for a user who is away does not wait on the queue.
#[tokio::test(start_paused = true)]
async fn message_without_a_device_is_kept() -> anyhow::Result<()> {
    let mailbox = MailboxDouble::default();
    mailbox.register("anna", "expired", ENDPOINT, epoch());
    let rig = rig(MemoryGateway::always(status(200)), &mailbox);
    connect(&rig, &["without-sync"]).await;
    assert_eq!(rig.invoke(batch([kept("m").to_string()])).await?, ids([]));
    assert_eq!((mailbox.messages("anna"), mailbox.top("anna")), (numbered([(1, "m")]), 1));
    assert!(rig.worker.gateway.posts().is_empty(), "only devices that have synced get frames");
    assert!(rig.handed_back().is_empty() && rig.dead().is_empty());
    Ok(())
}

/// Neither the age of the message nor that of the connection matters: the client has synced.
#[tokio::test(start_paused = true)]
async fn gone_device_is_removed_without_grace() -> anyhow::Result<()> {
    let mailbox = with_devices(&["a", "b"]);
    let rig = rig(answering(|connection| status(if connection == "a" { 410 } else { 200 })), &mailbox);
    for id in ["a", "b"] {
        rig.table.client().put(&connection(id, epoch())).await?;
    }
    assert_eq!(rig.invoke(batch([kept("m").to_string()])).await?, ids([]));
    assert_eq!((mailbox.devices("anna"), rig.table.connections()), (vec!["b".into()], vec!["b".into()]));
    assert!(rig.handed_back().is_empty());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn message_is_kept_if_all_devices_are_gone() -> anyhow::Result<()> {
    let mailbox = with_devices(&["a", "b"]);
    let rig = rig(MemoryGateway::always(status(410)), &mailbox);
    assert_eq!(rig.invoke(batch([kept("m").to_string()])).await?, ids([]));
    assert!(mailbox.devices("anna").is_empty());
    assert_eq!(mailbox.messages("anna"), numbered([(1, "m")]));
    assert!(rig.handed_back().is_empty() && rig.dead().is_empty());
    Ok(())
}

/// Returns the outcomes in the log, in order of the alphabet.
async fn logged(rig: &Rig, event: SqsEvent) -> anyhow::Result<Vec<String>> {
    let invocation = async {
        rig.invoke(event).await?;
        Ok(())
    };
    let (lines, text) = Log::capture(Level::DEBUG, invocation).await?;
    assert!(!text.contains("s3cret"), "{text}");
    let outcomes = lines.iter().filter_map(|line| line["outcome"].as_str().map(str::to_owned));
    let mut outcomes: Vec<_> = outcomes.collect();
    outcomes.sort_unstable();
    Ok(outcomes)
}

/// A message that reached no device counts once, beside its devices that are gone.
#[tokio::test(start_paused = true)]
async fn kept_message_counts_once() -> anyhow::Result<()> {
    let mut message = kept("m");
    message["payload"] = "s3cret".into();
    let event = batch([message.to_string()]);
    let mut old = event.clone();
    old.records[0].attributes.insert("ApproximateFirstReceiveTimestamp".to_owned(), "0".to_owned());
    for kind in [QueueKind::Standard, QueueKind::Fifo] {
        let outcomes = async |connections: &[&str], code: u16, event: &SqsEvent| {
            let mut rig = rig(MemoryGateway::always(status(code)), &with_devices(connections));
            rig.worker.policy.queue_kind = kind;
            logged(&rig, event.clone()).await
        };
        assert_eq!(outcomes(&[], 200, &event).await?, ["kept"]);
        assert_eq!(outcomes(&["a", "b"], 410, &event).await?, ["gone", "gone", "kept"]);
        assert_eq!(outcomes(&["a", "b"], 429, &old).await?, ["kept", "kept"]);
        assert_eq!(outcomes(&["a"], 200, &old).await?, ["delivered"]);
    }
    Ok(())
}

/// The next worker tries again.
#[tokio::test(start_paused = true)]
async fn failed_removal_of_device_hands_back() -> anyhow::Result<()> {
    let mailbox = MailboxDouble::failing_at("DeleteItem", MailboxFault::Refused);
    register(&mailbox, &["a"]);
    let rig = rig(MemoryGateway::always(status(410)), &mailbox);
    assert_eq!(rig.invoke(batch([kept("m").to_string()])).await?, ids([]));
    assert!(causes(&rig)[0].1.starts_with("DeleteItem on table mailbox failed"));
    Ok(())
}

/// A stored message that would be a dead letter is kept instead: for its age, or for receives that may have crashed
/// workers.
#[tokio::test(start_paused = true)]
async fn stored_message_is_never_exhausted() -> anyhow::Result<()> {
    for (code, count, receives) in [(429, "1", 0), (503, "1", 0), (503, "10", EPOCH_MILLIS)] {
        let mailbox = with_devices(&["a"]);
        let rig = rig(MemoryGateway::always(status(code)), &mailbox);
        let mut event = batch([kept("m").to_string()]);
        let attributes = &mut event.records[0].attributes;
        attributes.insert("ApproximateReceiveCount".to_owned(), count.to_owned());
        attributes.insert("ApproximateFirstReceiveTimestamp".to_owned(), receives.to_string());
        assert_eq!(rig.invoke(event).await?, ids([]));
        assert!(rig.handed_back().is_empty() && rig.dead().is_empty(), "{code}, {count}");
        assert_eq!(mailbox.messages("anna"), numbered([(1, "m")]));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn message_that_cannot_be_stored_is_exhausted() -> anyhow::Result<()> {
    let mailbox = MailboxDouble::failing(|_| MailboxFault::Refused);
    let rig = rig(MemoryGateway::always(status(200)), &mailbox);
    let mut event = batch([kept("m").to_string()]);
    event.records[0].attributes.insert("ApproximateFirstReceiveTimestamp".to_owned(), "0".to_owned());
    assert_eq!(rig.invoke(event).await?, ids([]));
    let [dead] = &rig.dead()[..] else { panic!("one dead letter") };
    assert_eq!(dead.attribute("streamer.reason"), "exhausted");
    assert!(dead.attribute("streamer.detail").starts_with("GetItem on table mailbox failed"));
    Ok(())
}

/// The dead letter has no position: a redrive stores the message again.
#[tokio::test(start_paused = true)]
async fn rejected_message_is_kept_all_the_same() -> anyhow::Result<()> {
    let mailbox = with_devices(&["a"]);
    let rig = rig(MemoryGateway::always(status(413)), &mailbox);
    assert_eq!(rig.invoke(batch([kept("m").to_string()])).await?, ids([]));
    let [dead] = &rig.dead()[..] else { panic!("one dead letter") };
    assert_eq!((dead.attribute("streamer.reason"), dead.json().get("retry")), ("rejected", None));
    assert_eq!(mailbox.messages("anna"), numbered([(1, "m")]));
    Ok(())
}

/// It waits for a worker that knows the other endpoint, but only for the away grace.
#[tokio::test(start_paused = true)]
async fn message_waits_for_devices_elsewhere() -> anyhow::Result<()> {
    let mailbox = MailboxDouble::default();
    mailbox.register("anna", "z", ELSEWHERE, epoch() + HOUR);
    let rig = rig(MemoryGateway::always(status(410)), &mailbox);
    assert_eq!(rig.invoke(batch([kept("m").to_string()])).await?, ids([]));
    let [back] = &rig.handed_back()[..] else { panic!("one hand-back") };
    assert!(causes(&rig)[0].1.contains(ELSEWHERE) && back.json()["retry"]["kept"]["seq"] == 1);
    let position: Position = serde_json::from_value(back.json()["retry"]["kept"].clone())?;
    assert!(position.epoch.as_str().ends_with(".0"), "as clients see it");

    // The only device here is gone.
    register(&mailbox, &["a"]);
    assert_eq!(rig.invoke(batch([back.body.clone()])).await?, ids([]));
    assert_eq!((rig.handed_back().len(), rig.worker.gateway.posts().len()), (2, 1));

    rig.invoke_at(epoch() + Duration::from_secs(30), batch([back.body.clone()])).await?;
    assert_eq!(rig.handed_back().len(), 2, "the stream has it");
    assert!(rig.dead().is_empty());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn devices_here_suffice() -> anyhow::Result<()> {
    let mailbox = with_devices(&["a"]);
    mailbox.register("anna", "z", ELSEWHERE, epoch() + HOUR);
    let rig = rig(MemoryGateway::always(status(200)), &mailbox);
    assert_eq!(rig.invoke(batch([kept("m").to_string()])).await?, ids([]));
    assert_eq!(rig.worker.gateway.posts().len(), 1);
    assert!(rig.handed_back().is_empty());
    Ok(())
}

/// A kept message replaces progress updates, and no message replaces it.
#[tokio::test(start_paused = true)]
async fn kept_message_is_never_superseded() -> anyhow::Result<()> {
    let mailbox = with_devices(&["a"]);
    let rig = rig(MemoryGateway::always(status(200)), &mailbox);
    let of_request = |mut message: serde_json::Value, seq: u64| {
        message["request"] = json!({ "id": "r", "seq": seq });
        message["supersedable"] = true.into();
        message.to_string()
    };
    let bodies = [
        of_request(message("progress", &["a"]), 1),
        of_request(kept("1"), 2),
        of_request(kept("2"), 3),
        of_request(message("later", &["a"]), 4),
    ];
    assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
    let posts = rig.worker.gateway.texts("a");
    assert_eq!((posts.len(), posts[2].as_str()), (3, "\"later\""));
    assert_eq!(mailbox.messages("anna"), numbered([(1, "1"), (2, "2")]));
    Ok(())
}

/// A user's audience is fanned out from 101 connections on.
#[tokio::test(start_paused = true)]
async fn many_devices_are_not_fanned_out() -> anyhow::Result<()> {
    let mailbox = MailboxDouble::default();
    let devices: Vec<_> = (0..300).map(|device| format!("d{device}")).collect();
    devices.iter().for_each(|device| mailbox.register("anna", device, ENDPOINT, epoch() + HOUR));
    let rig = rig(MemoryGateway::always(status(200)), &mailbox);
    assert_eq!(rig.invoke(batch([kept("m").to_string()])).await?, ids([]));
    assert!(devices.iter().all(|device| frames(&rig, device) == numbered([(1, "m")])));
    assert_eq!(rig.outbound.calls(), 0);
    Ok(())
}

/// The row names another endpoint, so it stays.
#[tokio::test(start_paused = true)]
async fn row_of_another_endpoint_stays() -> anyhow::Result<()> {
    let mailbox = with_devices(&["a"]);
    let rig = rig(MemoryGateway::always(status(410)), &mailbox);
    let row = Connection { endpoint: ELSEWHERE.to_owned(), ..connection("a", crate::long_ago()) };
    rig.table.client().put(&row).await?;
    assert_eq!(rig.invoke(batch([kept("m").to_string()])).await?, ids([]));
    assert_eq!((rig.table.connections(), mailbox.devices("anna")), (vec!["a".to_owned()], vec![]));
    assert!(rig.handed_back().is_empty());
    Ok(())
}
