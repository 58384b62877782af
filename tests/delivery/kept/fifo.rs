//! Kept messages on a FIFO queue, which holds the rest of a message group behind an unfinished message.

use std::time::Duration;

use serde_json::Value;
use streamer_events::SqsEvent;
use streamer_queue::QueueKind;
use streamer_tests::{
    doubles::{MailboxDouble, MailboxFault, QueueDouble, TableDouble},
    event::{batch, epoch, message},
    gateway::{MemoryGateway, status},
    worker::Rig,
};

use super::{frames, kept, kept_for, numbered, register, with_devices};
use crate::ids;

fn rig(gateway: MemoryGateway, mailbox: &MailboxDouble) -> Rig {
    let mut rig = Rig::fifo(gateway);
    rig.worker.mailbox = Some(mailbox.mailbox());
    assert_eq!(rig.worker.policy.queue_kind, QueueKind::Fifo);
    rig
}

fn grouped<const N: usize>(messages: [(&str, Value); N]) -> SqsEvent {
    let mut event = batch(messages.iter().map(|(_, body)| body.to_string()));
    for (record, (group, _)) in event.records.iter_mut().zip(messages) {
        record.attributes.insert("MessageGroupId".to_owned(), group.to_owned());
    }
    event
}

fn received(mut event: SqsEvent, attribute: &str, value: &str) -> SqsEvent {
    for record in &mut event.records {
        record.attributes.insert(attribute.to_owned(), value.to_owned());
    }
    event
}

/// Nothing is stored behind a message whose append failed, for any user. Other groups go on.
#[tokio::test(start_paused = true)]
async fn failed_append_holds_the_group() -> anyhow::Result<()> {
    let mailbox = MailboxDouble::failing_once("2", MailboxFault::Refused);
    register(&mailbox, &["a"]);
    let rig = rig(MemoryGateway::always(status(200)), &mailbox);
    let event = grouped([
        ("g", kept("1")),
        ("g", kept("2")),
        ("g", kept_for("bob", "3")),
        ("h", kept_for("bob", "4")),
        ("g", kept("5")),
    ]);
    assert_eq!(rig.invoke(event.clone()).await?, ids(["record-1", "record-2", "record-4"]));
    let stored = |user| mailbox.messages(user).into_iter().map(|(_, id)| id).collect::<Vec<_>>();
    assert_eq!((stored("anna"), stored("bob")), (vec!["1".to_owned()], vec!["4".to_owned()]));
    assert!(rig.handed_back().is_empty() && rig.dead().is_empty());

    let rest = SqsEvent { records: [1, 2, 4].map(|index| event.records[index].clone()).into() };
    let rest = received(rest, "ApproximateReceiveCount", "2");
    assert_eq!(rig.invoke(rest).await?, ids([]));
    assert_eq!(
        (stored("anna"), stored("bob")),
        (["1", "2", "5"].map(str::to_owned).into(), ["4", "3"].map(str::to_owned).into())
    );
    assert_eq!(frames(&rig, "a"), numbered([(1, "1"), (2, "2"), (3, "5")]));
    Ok(())
}

/// Each group keeps its order, so all wait for the mailbox, for at most half of the time.
#[tokio::test(start_paused = true)]
async fn silent_mailbox_leaves_other_groups_time() -> anyhow::Result<()> {
    let rig = rig(MemoryGateway::always(status(200)), &MailboxDouble::failing(|_| MailboxFault::Silence));
    let event = grouped([("g", kept("m")), ("h", message("other", &["b"]))]);
    let report = rig.invoke_within(epoch(), Duration::from_secs(8), event).await?;
    assert_eq!(report, ids(["record-0"]));
    assert_eq!(rig.worker.gateway.texts("b"), ["\"other\""]);
    Ok(())
}

/// Messages of one user in several groups do not compete for numbers.
#[tokio::test(start_paused = true)]
async fn one_append_serves_several_groups() -> anyhow::Result<()> {
    let mailbox = with_devices(&["a"]);
    let rig = rig(MemoryGateway::always(status(200)), &mailbox);
    let event = grouped([("g", kept("1")), ("h", kept("2")), ("i", kept("3"))]);
    assert_eq!(rig.invoke(event).await?, ids([]));
    assert_eq!(mailbox.calls().iter().filter(|call| *call == "UpdateItem").count(), 1);
    assert_eq!(mailbox.messages("anna"), numbered([(1, "1"), (2, "2"), (3, "3")]));
    Ok(())
}

/// A record that stays on a FIFO queue carries no note of its position.
#[tokio::test(start_paused = true)]
async fn redelivered_message_keeps_its_number() -> anyhow::Result<()> {
    let mailbox = with_devices(&["a"]);
    let event = grouped([("g", kept("1")), ("g", kept("2"))]);
    let failing = rig(MemoryGateway::always(status(429)), &mailbox);
    assert_eq!(failing.invoke(event.clone()).await?, ids(["record-0", "record-1"]));
    assert_eq!(mailbox.messages("anna"), numbered([(1, "1"), (2, "2")]));

    let working = rig(MemoryGateway::always(status(200)), &mailbox);
    assert_eq!(working.invoke(received(event, "ApproximateReceiveCount", "2")).await?, ids([]));
    assert_eq!(mailbox.messages("anna"), numbered([(1, "1"), (2, "2")]));
    assert_eq!(frames(&working, "a"), numbered([(1, "1"), (2, "2")]));
    Ok(())
}

/// A stored message that is too old is kept, and one that cannot be stored must not hold its group for ever.
#[tokio::test(start_paused = true)]
async fn old_message_does_not_hold_the_group() -> anyhow::Result<()> {
    let old = || received(grouped([("g", kept("1"))]), "ApproximateFirstReceiveTimestamp", "0");
    let mailbox = with_devices(&["a"]);
    let failing = rig(MemoryGateway::always(status(429)), &mailbox);
    assert_eq!(failing.invoke(old()).await?, ids([]));
    assert!(failing.dead().is_empty());
    assert_eq!((mailbox.messages("anna"), failing.worker.gateway.posts().len()), (numbered([(1, "1")]), 1));

    let mailbox = MailboxDouble::failing(|_| MailboxFault::Refused);
    let unstored = rig(MemoryGateway::always(status(200)), &mailbox);
    assert_eq!(unstored.invoke(old()).await?, ids([]));
    assert_eq!(unstored.dead()[0].attribute("streamer.reason"), "exhausted");
    Ok(())
}

/// As for messages that are not kept, the devices that have the message are remembered.
#[tokio::test(start_paused = true)]
async fn served_device_gets_no_second_frame() -> anyhow::Result<()> {
    let mailbox = with_devices(&["a", "b"]);
    let gateway = MemoryGateway::scripted(|connection, nth| {
        (std::time::Duration::ZERO, status(if connection == "b" && nth == 0 { 429 } else { 200 }))
    });
    let mut rig = Rig::of(
        QueueKind::Fifo,
        gateway,
        TableDouble::default(),
        QueueDouble::taking(),
        QueueDouble::taking(),
    );
    rig.worker.mailbox = Some(mailbox.mailbox());
    let event = grouped([("g", kept("1"))]);
    assert_eq!(rig.invoke(event.clone()).await?, ids(["record-0"]));
    assert_eq!(rig.invoke(received(event, "ApproximateReceiveCount", "2")).await?, ids([]));
    assert_eq!((frames(&rig, "a").len(), frames(&rig, "b").len()), (1, 2));
    Ok(())
}
