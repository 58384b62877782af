//! Erasures, lists and devices.

use streamer_mailbox::{MailboxError, TableError};
use streamer_message::{
    Position,
    frame::{Reset, Start},
};
use streamer_tests::{
    doubles::MailboxDouble,
    mailbox::{Fault, MemoryTable},
};

use crate::{all_ids, append, at, device, id, ids, mailbox, message, page, seqs, stream, tasks::Task};

#[tokio::test]
async fn erasure_removes_every_item() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 1000);
    let texts: Vec<_> = (0..60).map(|number| format!("m{number}")).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let position = append(&mailbox, &texts).await.positions.remove(0);
    mailbox.register(&stream(), &device("phone")).await.unwrap();
    assert_eq!(mailbox.erase(&stream()).await.unwrap().items, 62);
    assert!(table.is_empty());
    assert_eq!(mailbox.list(&stream(), at(0)).await.unwrap(), None);
    assert_eq!(page(&mailbox, Start::After(position)).await.reset, Some(Reset::Epoch));
    assert_eq!(mailbox.erase(&stream()).await.unwrap().items, 1);
    assert_eq!(mailbox.erase(&stream()).await.unwrap().items, 0);
}

#[tokio::test]
async fn erasure_leaves_other_users() {
    let mailbox = mailbox(MemoryTable::default(), 100);
    append(&mailbox, &["a"]).await;
    let other = streamer_mailbox::Stream { user: "anna2".try_into().unwrap(), ..stream() };
    mailbox.erase(&other).await.unwrap();
    assert_eq!(all_ids(&mailbox).await, ["a"]);
}

/// A writer appends at each step of an erasure: its message is erased too, or begins a new stream.
#[tokio::test]
async fn appends_during_erasure_are_whole() {
    for steps in 0..20 {
        let table = MemoryTable::default();
        let mailbox = mailbox(table.clone(), 100);
        let old = append(&mailbox, &["a", "b"]).await.positions.remove(0).epoch;
        let (slow, stream) = (crate::mailbox(table.yielding(), 100), stream());
        let mut erasure = Task::new(slow.erase(&stream));
        let done = erasure.steps(steps);
        let id = id("new");
        let messages = [message(&id, "1")];
        let mut writer = Task::new(slow.append(&stream, &messages, at(0)));
        assert!(writer.steps(4).is_none());
        done.unwrap_or_else(|| erasure.finish()).unwrap();
        let appended = writer.finish();
        assert!(appended.failure.is_none(), "after {steps} steps");
        let position = &appended.positions[0];
        let left = mailbox.list(&stream, at(0)).await.unwrap();
        let kept = left.map(|listing| listing.messages.len());
        assert_eq!(kept, (position.epoch != old).then_some(1), "after {steps} steps");
        assert_eq!(seqs(&appended), [position.seq]);
    }
}

/// A page of a stream that is erased while it is read is that of the new stream.
#[tokio::test]
async fn erasure_during_a_page_resets() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 100);
    let position = append(&mailbox, &["a", "b"]).await.positions.remove(0);
    let (slow, stream, start) = (crate::mailbox(table.yielding(), 100), stream(), Start::After(position));
    let mut reader = Task::new(slow.page(&stream, &start, crate::LIMITS, at(0)));
    assert!(reader.steps(2).is_none());
    mailbox.erase(&stream).await.unwrap();
    let page = reader.finish().unwrap();
    assert_eq!((page.reset, page.top, page.missing), (Some(Reset::Epoch), 0, Vec::new()));
}

/// An erasure that fails is run again.
#[tokio::test]
async fn failed_erasure_is_repeated() {
    for call in 0..6 {
        let table = MemoryTable::default();
        let mailbox = mailbox(table.clone(), 100);
        append(&mailbox, &["a", "b"]).await;
        let mut calls = 0;
        table.inject(move |_| {
            calls += 1;
            (calls == call + 1).then_some(Fault::AnswerLost)
        });
        let failed = mailbox.erase(&stream()).await.is_err();
        table.inject(|_| None);
        assert!(failed || call >= 5, "call {call}");
        mailbox.erase(&stream()).await.unwrap();
        assert!(table.is_empty(), "call {call}");
    }
}

#[tokio::test]
async fn list_has_live_messages_and_devices() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 1000);
    let texts: Vec<_> = (0..120).map(|number| format!("m{number}")).collect();
    append(&mailbox, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    mailbox.register(&stream(), &device("phone")).await.unwrap();
    let listing = mailbox.list(&stream(), at(0)).await.unwrap().unwrap();
    assert_eq!((listing.top, listing.floor, listing.messages.len()), (120, 0, 120));
    assert!(listing.messages.iter().map(|message| message.seq).eq(1..=120));
    assert_eq!(listing.devices, [device("phone")]);
    assert_eq!(listing.epoch, page(&mailbox, Start::Now).await.epoch);
    let later = mailbox.list(&stream(), at(600)).await.unwrap().unwrap();
    assert_eq!((later.top, later.messages.len()), (120, 0));
}

#[tokio::test]
async fn devices_end_with_their_connections() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 100);
    let connections = async |seconds| {
        let devices = mailbox.devices(&stream(), at(seconds)).await.unwrap();
        devices.into_iter().map(|device| device.connection.as_str().to_owned()).collect::<Vec<_>>()
    };
    // Each call reads two devices.
    table.limit_reads(300);
    for connection in ["a", "b", "c", "d", "e"] {
        mailbox.register(&stream(), &device(connection)).await.unwrap();
    }
    append(&mailbox, &["m"]).await;
    assert_eq!(connections(0).await, ["a", "b", "c", "d", "e"]);
    mailbox.unregister(&stream(), &device("c").connection).await.unwrap();
    mailbox.unregister(&stream(), &device("unknown").connection).await.unwrap();
    assert_eq!(connections(0).await, ["a", "b", "d", "e"]);
    assert_eq!(connections(7800).await, [""; 0]);
}

#[tokio::test]
async fn at_most_1000_devices_are_served() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 100);
    for number in 0..1005 {
        mailbox.register(&stream(), &device(&format!("d{number}"))).await.unwrap();
    }
    table.limit_reads(20_000);
    assert_eq!(mailbox.devices(&stream(), at(0)).await.unwrap().len(), 1000);
}

/// A position of the stream as it was before the erasure is of no use in the new one.
#[tokio::test]
async fn erased_user_begins_again_at_one() {
    let mailbox = mailbox(MemoryTable::default(), 100);
    let old = append(&mailbox, &["a"]).await.positions.remove(0);
    mailbox.erase(&stream()).await.unwrap();
    assert_eq!(seqs(&append(&mailbox, &["b"]).await), [1]);
    let page = page(&mailbox, Start::After(Position { seq: 1, ..old })).await;
    assert_eq!((page.reset, ids(&page)), (Some(Reset::Epoch), vec!["b"]));
}

#[tokio::test]
async fn unreadable_streams_are_erased() {
    for attribute in ["epoch", "top", "body", "endpoint", "expires_at"] {
        let table = MailboxDouble::default();
        let mailbox = table.mailbox();
        append(&mailbox, &["a", "b"]).await;
        mailbox.register(&stream(), &device("phone")).await.unwrap();
        table.remove_attribute("anna", attribute);
        let listed = mailbox.list(&stream(), at(0)).await;
        assert!(matches!(listed, Err(MailboxError::Table(TableError::Item(_)))), "{attribute}: {listed:?}");
        assert_eq!(mailbox.erase(&stream()).await.unwrap().items, 4, "{attribute}");
        assert_eq!(mailbox.list(&stream(), at(0)).await.unwrap(), None, "{attribute}");
    }
}
