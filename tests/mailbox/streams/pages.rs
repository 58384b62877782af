//! Pages: their bounds, their gaps and where they begin.

use streamer_mailbox::{Mailbox, NewMessage, PageLimits, Settings};
use streamer_message::{
    Position,
    frame::{Missing, MissingReason, Reset, Start},
};
use streamer_tests::mailbox::{Call, MemoryTable};

use crate::{LIMITS, append, at, id, ids, mailbox, message, page, page_at, stream};

/// Appends a message with a body of so many bytes that is kept until a second.
async fn add(mailbox: &Mailbox<MemoryTable>, text: &str, bytes: usize, until: u64) -> Position {
    let (id, body) = (id(text), "1".repeat(bytes));
    let new = NewMessage { id: &id, body: &body, until: at(until), ack: false, tried_since: None };
    mailbox.append(&stream(), &[new], at(0)).await.positions.remove(0)
}

fn expired(from: u64, to: u64) -> Missing {
    Missing { from, to, reason: MissingReason::Expired }
}

#[tokio::test]
async fn page_has_requests_for_acknowledgments() {
    let mailbox = mailbox(MemoryTable::default(), 100);
    for (text, ack) in [("a", true), ("b", false)] {
        let id = id(text);
        mailbox.append(&stream(), &[NewMessage { ack, ..message(&id, "1") }], at(0)).await;
    }
    let page = page(&mailbox, Start::Oldest).await;
    let acks = page.messages.iter().map(|(_, message)| (message.id.as_str(), message.ack));
    assert_eq!(acks.collect::<Vec<_>>(), [("a", true), ("b", false)]);
}

/// Two messages of one byte ids and 100 bytes fit into 2 * (48 + 1 + 100) bytes, and not into a byte less.
#[tokio::test]
async fn page_ends_at_its_size() {
    let mailbox = mailbox(MemoryTable::default(), 100);
    for text in ["a", "b", "c"] {
        add(&mailbox, text, 100, 600).await;
    }
    for (bytes, expected) in [(298, 2), (297, 1), (447, 3), (446, 2), (1, 1)] {
        let limits = PageLimits { bytes, ..LIMITS };
        let page = page_at(&mailbox, Start::Oldest, limits, 0).await;
        assert_eq!((page.messages.len(), page.through, page.top), (expected, expected as u64, 3), "{bytes}");
        assert_eq!(page.missing, []);
    }
}

#[tokio::test]
async fn larger_message_has_page_of_its_own() {
    let mailbox = mailbox(MemoryTable::default(), 100);
    let first = add(&mailbox, "a", 100, 600).await;
    let large = add(&mailbox, "b", 127 * 1024, 600).await;
    add(&mailbox, "c", 100, 600).await;
    assert_eq!(ids(&page(&mailbox, Start::Oldest).await), ["a"]);
    assert_eq!(ids(&page(&mailbox, Start::After(first)).await), ["b"]);
    assert_eq!(ids(&page(&mailbox, Start::After(large)).await), ["c"]);
}

/// Pages follow each other up to the newest message, and each names every number once.
#[tokio::test]
async fn ranges_of_large_messages_fill_pages() {
    let mailbox = mailbox(MemoryTable::default(), 100);
    let mut position = add(&mailbox, "first", 1, 600).await;
    for number in 0..60 {
        add(&mailbox, &format!("large-{number}"), 200, 600).await;
        add(&mailbox, &format!("short-{number}"), 1, 60).await;
    }
    let (limits, mut covered) = (PageLimits { bytes: 1000, payload_bytes: 100, reads: 8 }, 1);
    loop {
        let page = page_at(&mailbox, Start::After(position.clone()), limits, 100).await;
        // A range has 64 bytes, and a page up to two more than fit.
        assert!(page.missing.len() <= 1000 / 64 + 2, "{}", page.missing.len());
        for missing in &page.missing {
            let reason = if missing.from % 2 == 0 { MissingReason::TooLarge } else { MissingReason::Expired };
            assert_eq!(*missing, Missing { from: covered + 1, to: covered + 1, reason });
            covered += 1;
        }
        assert_eq!((page.messages.len(), page.through), (0, covered));
        if page.through == page.top {
            break;
        }
        position.seq = page.through;
    }
    assert_eq!(covered, 121);
}

/// A gap before a large message takes the page, and the message the next one.
#[tokio::test]
async fn gap_and_larger_message_are_two_pages() {
    let mailbox = mailbox(MemoryTable::default(), 100);
    let position = add(&mailbox, "a", 1, 600).await;
    add(&mailbox, "b", 1, 60).await;
    add(&mailbox, "c", 127 * 1024, 600).await;
    let gap = page_at(&mailbox, Start::After(position.clone()), LIMITS, 100).await;
    assert_eq!((gap.through, gap.top, gap.messages.len(), gap.missing), (2, 3, 0, vec![expired(2, 2)]));
    let next = page_at(&mailbox, Start::After(Position { seq: 2, ..position }), LIMITS, 100).await;
    assert_eq!((ids(&next), next.through), (vec!["c"], 3));
}

#[tokio::test]
async fn expired_messages_are_exact_ranges() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 100);
    let position = add(&mailbox, "a", 1, 600).await;
    for (text, until) in [("b", 60), ("c", 60), ("d", 600), ("e", 60), ("f", 600), ("g", 60)] {
        add(&mailbox, text, 1, until).await;
    }
    // TTL has removed one of them already.
    table.remove_expired(at(60 + 3600), |key| key.ends_with("03"));
    let page = page_at(&mailbox, Start::After(position), LIMITS, 60).await;
    assert_eq!((page.after, page.through, page.top), (1, 7, 7));
    assert_eq!(ids(&page), ["d", "f"]);
    assert_eq!(page.missing, [expired(2, 3), expired(5, 5), expired(7, 7)]);
}

/// Runs of expired messages that several calls read are one range, and the calls grow.
#[tokio::test]
async fn expired_run_is_one_range() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 1000);
    let position = add(&mailbox, "a", 1, 600).await;
    for number in 0..150 {
        add(&mailbox, &format!("m{number}"), 1, 60).await;
    }
    add(&mailbox, "z", 1, 600).await;
    drop(table.bill());
    let page = page_at(&mailbox, Start::After(position), LIMITS, 100).await;
    assert_eq!((page.through, page.top, ids(&page)), (152, 152, vec!["z"]));
    assert_eq!(page.missing, [expired(2, 151)]);
    assert_eq!(table.bill().of(Call::Messages).calls, 4);
}

/// A page ends after its last call, with the range that the calls have covered.
#[tokio::test]
async fn calls_bound_a_page() {
    let mailbox = mailbox(MemoryTable::default(), 1000);
    let position = add(&mailbox, "a", 1, 600).await;
    for number in 0..30 {
        add(&mailbox, &format!("m{number}"), 1, 60).await;
    }
    let limits = PageLimits { reads: 2, ..LIMITS };
    let page = page_at(&mailbox, Start::After(position.clone()), limits, 100).await;
    assert_eq!((page.through, page.top, page.missing), (21, 31, vec![expired(2, 21)]));
    let rest = page_at(&mailbox, Start::After(Position { seq: 21, ..position }), limits, 100).await;
    assert_eq!((rest.through, rest.missing), (31, vec![expired(22, 31)]));
}

#[tokio::test]
async fn new_device_is_told_no_gap() {
    let mailbox = mailbox(MemoryTable::default(), 100);
    for (text, until) in [("a", 60), ("b", 60), ("c", 600), ("d", 60), ("e", 600)] {
        add(&mailbox, text, 1, until).await;
    }
    let page = page_at(&mailbox, Start::Oldest, LIMITS, 100).await;
    assert_eq!((page.after, page.through, ids(&page)), (2, 5, vec!["c", "e"]));
    // From its first message on, it is told of every gap.
    assert_eq!((page.missing, page.reset), (vec![expired(4, 4)], None));
    let all_expired = page_at(&mailbox, Start::Oldest, LIMITS, 700).await;
    assert_eq!((all_expired.after, all_expired.through, all_expired.missing), (5, 5, Vec::new()));
}

#[tokio::test]
async fn now_begins_after_the_newest() {
    let mailbox = mailbox(MemoryTable::default(), 100);
    append(&mailbox, &["a", "b"]).await;
    let page = page(&mailbox, Start::Now).await;
    assert_eq!((page.after, page.through, page.top, page.messages.len()), (2, 2, 2, 0));
    assert_eq!((page.missing, page.reset), (Vec::new(), None));
}

#[tokio::test]
async fn empty_stream_has_a_position() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 100);
    for start in [Start::Oldest, Start::Now] {
        let page = page(&mailbox, start).await;
        assert_eq!((page.after, page.through, page.top, page.reset), (0, 0, 0, None));
        let position = Position { epoch: page.epoch.clone(), seq: 0 };
        assert_eq!(self::page(&mailbox, Start::After(position)).await.reset, None);
        append(&mailbox, &[]).await;
        assert_eq!(self::page(&mailbox, Start::Oldest).await.epoch, page.epoch);
    }
}

#[tokio::test]
async fn foreign_positions_are_reset() {
    let mailbox = mailbox(MemoryTable::default(), 100);
    let position = append(&mailbox, &["a", "b"]).await.positions.remove(1);
    let other = Position { epoch: "other.0".try_into().unwrap(), seq: 1 };
    let ahead = Position { seq: 3, ..position };
    for (position, reset) in [(other, Reset::Epoch), (ahead, Reset::Ahead)] {
        let page = page(&mailbox, Start::After(position)).await;
        assert_eq!((page.reset, page.after, ids(&page)), (Some(reset), 0, vec!["a", "b"]));
    }
}

#[tokio::test]
async fn generation_changes_the_epoch() {
    let table = MemoryTable::default();
    let old = mailbox(table.clone(), 100);
    let position = append(&old, &["a"]).await.positions.remove(0);
    let settings = Settings { generation: "1".to_owned(), ..Settings::default() };
    let restored = Mailbox::new(table, settings);
    let page = page(&restored, Start::After(position.clone())).await;
    assert_eq!((page.reset, ids(&page)), (Some(Reset::Epoch), vec!["a"]));
    assert_ne!(page.epoch, position.epoch);
    let next = append(&restored, &["b"]).await.positions.remove(0);
    assert_eq!((next.seq, next.epoch), (2, page.epoch));
}

/// A user who only reads keeps the stream: a sync renews the head when less than 45 of its 60 days are left.
#[tokio::test]
async fn syncs_renew_old_heads() {
    const DAY: u64 = 24 * 3600;
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 100);
    append(&mailbox, &["a"]).await;
    for (day, renewed) in [(14, 60), (16, 76), (30, 76), (70, 130)] {
        page_at(&mailbox, Start::Now, LIMITS, day * DAY).await;
        assert_eq!(table.peek(&stream()).unwrap().expires_at, at(renewed * DAY), "day {day}");
    }
}

/// Messages beyond `top` are on no page.
#[tokio::test]
async fn page_ends_at_top() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 100);
    append(&mailbox, &["a"]).await;
    table.inject_into(Call::RaiseTop, [streamer_tests::mailbox::Fault::Fails]);
    append(&mailbox, &["b"]).await;
    let page = page(&mailbox, Start::Oldest).await;
    assert_eq!((ids(&page), page.through, page.top), (vec!["a"], 1, 1));
}

/// Every other message has expired: the ranges count towards the size of a page too.
#[tokio::test]
async fn missing_ranges_fill_a_page() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 1000);
    let texts: Vec<_> = (1..=300).map(|number| format!("m{number}")).collect();
    append(&mailbox, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    table.remove_expired(at(9000), |key| key.starts_with('m') && key.ends_with(['1', '3', '5', '7', '9']));
    let epoch = page(&mailbox, Start::Now).await.epoch;
    let limits = PageLimits { bytes: 5000, reads: 8, ..LIMITS };
    let page = page_at(&mailbox, Start::After(Position { epoch, seq: 0 }), limits, 0).await;
    let messages = page.messages.iter().map(|(seq, message)| {
        format!("{{\"seq\":{seq},\"id\":\"{}\",\"payload\":{}}},", message.id, message.body).len()
    });
    let bytes = messages.sum::<usize>() + serde_json::to_string(&page.missing).unwrap().len();
    assert!((3000..=5000).contains(&bytes), "{bytes} bytes");
    assert!(page.messages.len().abs_diff(page.missing.len()) <= 1);
}
