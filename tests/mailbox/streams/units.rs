//! The units that DynamoDB charges, with which the costs of the mailbox are calculated.

use streamer_mailbox::NewMessage;
use streamer_message::{Position, frame::Start};
use streamer_tests::mailbox::{MemoryTable, Usage};

use crate::{append, at, device, id, mailbox, page, stream};

async fn total(table: &MemoryTable, work: impl Future) -> Usage {
    drop(table.bill());
    work.await;
    table.bill().total()
}

fn usage(calls: usize, reads: usize, writes: usize) -> Usage {
    Usage { calls, reads, writes }
}

#[tokio::test]
async fn units_are_as_documented() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 1000);
    let stream = stream();
    append(&mailbox, &["first"]).await;
    mailbox.register(&stream, &device("phone")).await.unwrap();
    let keep = async |bytes: usize, count: usize| {
        let body = "1".repeat(bytes);
        let ids: Vec<_> =
            (0..count).map(|_| id(&format!("0190a1b2-c3d4-7e5f-8a9b-{:012x}", fastrand::u32(..)))).collect();
        let new = |id| NewMessage { id, body: &body, until: at(600), ack: false, tried_since: None };
        let messages: Vec<_> = ids.iter().map(new).collect();
        assert!(mailbox.append(&stream, &messages, at(0)).await.failure.is_none());
        mailbox.devices(&stream, at(0)).await.unwrap();
    };

    // A kept message with one device online: head, put, top, devices.
    assert_eq!(total(&table, keep(1024, 1)).await, usage(4, 2, 3), "1 KiB");
    assert_eq!(total(&table, keep(840, 1)).await, usage(4, 2, 2), "840 bytes");
    assert_eq!(total(&table, keep(127 * 1024, 1)).await, usage(4, 2, 129), "127 KiB");
    // Ten messages of a user in one batch share the head, `top` and the devices.
    assert_eq!(total(&table, keep(840, 10)).await, usage(13, 2, 11), "ten");

    let page_after = async |seq: u64| {
        let epoch = page(&mailbox, Start::Now).await.epoch;
        drop(table.bill());
        page(&mailbox, Start::After(Position { epoch, seq })).await
    };
    let top = table.peek(&stream).unwrap().top;
    // A reconnect to an empty page: device and head. Without a message to read there is no query.
    let reconnect = async {
        mailbox.register(&stream, &device("phone")).await.unwrap();
        page(&mailbox, Start::Now).await
    };
    assert_eq!(total(&table, reconnect).await, usage(2, 1, 1), "reconnect");
    page_after(top).await;
    assert_eq!(table.bill().total(), usage(1, 1, 0), "idle sync");

    // A page of ten messages of 840 bytes, from two queries between two reads of the head.
    assert_eq!(page_after(top - 10).await.messages.len(), 10);
    assert_eq!(table.bill().total(), usage(4, 5, 0), "page of ten");
    // A full page: 30 KB of messages of 840 bytes.
    keep(840, 60).await;
    let full = page_after(top).await;
    assert_eq!((full.messages.len(), full.through - full.after), (33, 33));
    assert_eq!(table.bill().total(), usage(4, 11, 0), "full page");
}

/// Redeliveries pay for the search of their id, and a search reads newest messages first.
#[tokio::test]
async fn search_reads_one_unit_for_recent_messages() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 1000);
    append(&mailbox, &["a", "b"]).await;
    assert_eq!(total(&table, crate::append_again(&mailbox, "b")).await, usage(2, 2, 0));
}
