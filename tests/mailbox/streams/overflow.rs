//! Streams with more messages than are kept.

use streamer_message::frame::{Missing, MissingReason, Start};
use streamer_tests::mailbox::{Call, Fault, MemoryTable};

use crate::{
    LIMITS, all_ids, append, at, id, ids, mailbox, message, page, page_at, seqs, stream, tasks::Task,
};

/// The maximum of these tests. Messages are removed when a stream has 25 more.
const MAX: u64 = 10;

async fn fill(table: &MemoryTable, count: usize) {
    let texts: Vec<_> = (1..=count).map(|number| format!("m{number}")).collect();
    append(&mailbox(table.clone(), MAX), &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

fn overflow(from: u64, to: u64) -> Missing {
    Missing { from, to, reason: MissingReason::Overflow }
}

#[tokio::test]
async fn oldest_messages_are_removed() {
    let table = MemoryTable::default();
    fill(&table, 35).await;
    assert_eq!(table.peek(&stream()).unwrap().floor, 0);
    fill(&table, 1).await;
    let head = table.peek(&stream()).unwrap();
    assert_eq!((head.floor, head.top), (26, 36));
    assert_eq!(all_ids(&mailbox(table.clone(), MAX)).await.len(), 10);
    // The head and ten messages.
    assert_eq!(table.len(), 11);
}

#[tokio::test]
async fn removed_messages_are_an_overflow() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), MAX);
    let position = append(&mailbox, &["first", "second"]).await.positions.remove(0);
    fill(&table, 40).await;
    let page = page(&mailbox, Start::After(position)).await;
    assert_eq!((page.after, page.through, page.top, page.reset), (1, 42, 42, None));
    assert_eq!(page.missing, [overflow(2, 32)]);
    assert_eq!(page.messages.len(), 10);
}

/// The range of an overflow and of messages that expired next to it are exact.
#[tokio::test]
async fn overflow_and_expiry_are_told_apart() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), MAX);
    let position = append(&mailbox, &["first"]).await.positions.remove(0);
    fill(&table, 40).await;
    table.remove_expired(at(9000), |key| key.ends_with("32") || key.ends_with("35"));
    let page = page(&mailbox, Start::After(position)).await;
    let expired = |from, to| Missing { from, to, reason: MissingReason::Expired };
    assert_eq!(page.missing, [overflow(2, 31), expired(32, 32), expired(35, 35)]);
}

#[tokio::test]
async fn new_device_is_told_no_overflow() {
    let table = MemoryTable::default();
    fill(&table, 40).await;
    let page = page(&mailbox(table, MAX), Start::Oldest).await;
    assert_eq!((page.after, page.through, page.messages.len()), (30, 40, 10));
    assert_eq!((page.missing, page.reset), (Vec::new(), None));
}

/// A writer with an old view stores at a number that was removed meanwhile, and begins again.
#[tokio::test]
async fn slow_writer_below_floor_begins_again() {
    for steps in [2, 3] {
        let table = MemoryTable::default();
        fill(&table, 3).await;
        let slow = mailbox(table.yielding(), MAX);
        let id = id("slow");
        let (stream, messages) = (stream(), [message(&id, "1")]);
        let mut slow = Task::new(slow.append(&stream, &messages, at(0)));
        assert!(slow.steps(steps).is_none());
        fill(&table, 40).await;
        assert_eq!(seqs(&slow.finish()), [44], "after {steps} steps");
        let page = page(&mailbox(table, MAX), Start::Oldest).await;
        assert_eq!(ids(&page).last(), Some(&"slow"), "after {steps} steps");
    }
}

/// A reader has read the head before the removal, and its page after it: the gap is exact.
#[tokio::test]
async fn removal_during_a_page_leaves_exact_gap() {
    let table = MemoryTable::default();
    fill(&table, 30).await;
    let (slow, stream) = (mailbox(table.yielding(), MAX), stream());
    let epoch = page(&mailbox(table.clone(), MAX), Start::Now).await.epoch;
    let start = Start::After(streamer_message::Position { epoch, seq: 5 });
    let mut reader = Task::new(slow.page(&stream, &start, LIMITS, at(0)));
    assert!(reader.steps(2).is_none());
    fill(&table, 6).await;
    let page = reader.finish().unwrap();
    assert_eq!((page.top, page.through), (30, 30));
    assert_eq!(page.missing, [overflow(6, 26)]);
}

/// Messages are removed while a page is read, and a writer with an old view stores at a removed number: the message is no
/// part of the page. The writer appends it again.
#[tokio::test]
async fn message_below_floor_is_on_no_page() {
    for has_position in [true, false] {
        let table = MemoryTable::default();
        fill(&table, 24).await;
        let (slow, id, stream) = (mailbox(table.yielding(), MAX), id("slow"), stream());
        let messages = [message(&id, "1")];
        let mut writer = Task::new(slow.append(&stream, &messages, at(0)));
        assert!(writer.steps(2).is_none());
        fill(&table, 6).await;
        let epoch = page(&mailbox(table.clone(), MAX), Start::Now).await.epoch;
        let position = streamer_message::Position { epoch, seq: 5 };
        let start = if has_position { Start::After(position) } else { Start::Oldest };
        let mut reader = Task::new(slow.page(&stream, &start, LIMITS, at(0)));
        assert!(reader.steps(2).is_none());
        fill(&table, 6).await;
        assert!(writer.steps(2).is_none());
        let page = reader.finish().unwrap();
        assert_eq!(ids(&page), ["m3", "m4", "m5", "m6"]);
        assert_eq!((page.after, page.through), (if has_position { 5 } else { 26 }, 30));
        assert_eq!(page.missing, if has_position { vec![overflow(6, 26)] } else { Vec::new() });
        assert_eq!(seqs(&writer.finish()), [37]);
    }
}

/// A failed removal does not fail the append, and the next append removes more.
#[tokio::test]
async fn failed_removal_is_repeated() {
    for call in [Call::RaiseFloor, Call::DeleteItems] {
        let table = MemoryTable::default();
        let mailbox = mailbox(table.clone(), MAX);
        fill(&table, 35).await;
        table.inject_into(call, [Fault::Fails]);
        assert_eq!(seqs(&append(&mailbox, &["late"]).await), [36], "{call:?}");
        fill(&table, 26).await;
        assert_eq!(table.peek(&stream()).unwrap().floor, 52, "{call:?}");
        assert_eq!(page_at(&mailbox, Start::Oldest, LIMITS, 0).await.messages.len(), 10, "{call:?}");
    }
}
