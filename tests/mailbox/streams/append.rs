//! Appends, one after another, and their faults.

use streamer_mailbox::{MailboxError, NewMessage};
use streamer_message::frame::Start;
use streamer_tests::mailbox::{Call, Fault, MemoryTable};

use crate::{all_ids, append, append_again, at, id, ids, mailbox, message, page, seqs, stream};

#[tokio::test]
async fn numbers_begin_at_one_without_holes() {
    let mailbox = mailbox(MemoryTable::default(), 100);
    assert_eq!(seqs(&append(&mailbox, &["a", "b", "c"]).await), [1, 2, 3]);
    let appended = append(&mailbox, &["d"]).await;
    assert_eq!((seqs(&appended), appended.collisions), (vec![4], 0));
    assert_eq!(all_ids(&mailbox).await, ["a", "b", "c", "d"]);
    assert_eq!(appended.positions[0].epoch, page(&mailbox, Start::Oldest).await.epoch);
}

#[tokio::test]
async fn users_have_streams_of_their_own() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table, 100);
    append(&mailbox, &["a"]).await;
    let other = streamer_mailbox::Stream { user: "bo".try_into().unwrap(), ..stream() };
    let id = id("b");
    let appended = mailbox.append(&other, &[message(&id, "1")], at(0)).await;
    assert_eq!(seqs(&appended), [1]);
    assert_eq!(all_ids(&mailbox).await, ["a"]);
}

/// A writer that fails after the put leaves a message that no reader sees, and the next writer makes it visible.
#[tokio::test]
async fn next_writer_raises_top_past_orphan() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 100);
    table.inject_into(Call::RaiseTop, [Fault::Fails]);
    let appended = append(&mailbox, &["a"]).await;
    assert!(matches!(appended.failure, Some(MailboxError::Table(_))) && appended.positions.is_empty());
    assert_eq!(ids(&page(&mailbox, Start::Oldest).await), [""; 0]);

    let appended = append(&mailbox, &["b"]).await;
    assert_eq!((seqs(&appended), appended.collisions), (vec![2], 1));
    assert_eq!(all_ids(&mailbox).await, ["a", "b"]);
}

#[tokio::test]
async fn retry_finds_orphan() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 100);
    table.inject_into(Call::RaiseTop, [Fault::Fails]);
    append(&mailbox, &["a"]).await;
    assert_eq!(seqs(&append_again(&mailbox, "a").await), [1]);
    assert_eq!(all_ids(&mailbox).await, ["a"]);
}

/// The retry's message is beyond `top`, behind the message of another killed writer.
#[tokio::test]
async fn retry_finds_second_orphan() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 100);
    table.inject_into(Call::RaiseTop, [Fault::Fails; 2]);
    append(&mailbox, &["a"]).await;
    append(&mailbox, &["b"]).await;
    assert_eq!(seqs(&append_again(&mailbox, "b").await), [2]);
    assert_eq!(all_ids(&mailbox).await, ["a", "b"]);
    assert_eq!(seqs(&append_again(&mailbox, "a").await), [1]);
    assert_eq!(all_ids(&mailbox).await, ["a", "b"]);
}

#[tokio::test]
async fn retry_finds_message_below_top() {
    let mailbox = mailbox(MemoryTable::default(), 100);
    append(&mailbox, &["a", "b", "c"]).await;
    let appended = append_again(&mailbox, "b").await;
    assert_eq!((seqs(&appended), appended.collisions), (vec![2], 0));
    assert_eq!(all_ids(&mailbox).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn retry_finds_only_its_own_message() {
    let mailbox = mailbox(MemoryTable::default(), 100);
    append(&mailbox, &["a"]).await;
    assert_eq!(seqs(&append_again(&mailbox, "b").await), [2]);
}

/// The search ends at the first message that is older than the first attempt by more than clocks may differ.
#[tokio::test]
async fn search_ends_at_older_messages() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 1000);
    let texts: Vec<_> = (0..50).map(|number| format!("m{number}")).collect();
    for (number, text) in texts.iter().enumerate() {
        let id = id(text);
        mailbox.append(&stream(), &[message(&id, "1")], at(60 * number as u64)).await;
    }
    // A call reads about five messages.
    table.limit_reads(600);
    let find = async |text: &str, since| {
        drop(table.bill());
        let id = id(text);
        let message = NewMessage { tried_since: Some(at(since)), ..message(&id, "1") };
        let appended = mailbox.append(&stream(), &[message], at(3000)).await;
        (seqs(&appended), table.bill().of(Call::NewestIds).calls)
    };
    let (seqs, calls) = find("new", 2900).await;
    assert!(seqs == [51] && calls <= 3, "{seqs:?} after {calls} calls");
    let (seqs, calls) = find("m40", 2400).await;
    assert!(seqs == [41] && calls <= 5, "{seqs:?} after {calls} calls");
}

#[tokio::test]
async fn lost_answers_store_nothing_twice() {
    for call in [Call::CreateHead, Call::PutMessage, Call::RaiseTop] {
        let table = MemoryTable::default();
        let mailbox = mailbox(table.clone(), 100);
        table.inject_into(call, [Fault::AnswerLost]);
        let appended = append(&mailbox, &["a"]).await;
        assert!(appended.failure.is_some() && appended.positions.is_empty(), "{call:?}");
        assert_eq!(seqs(&append_again(&mailbox, "a").await), [1], "{call:?}");
        assert_eq!(all_ids(&mailbox).await, ["a"], "{call:?}");
    }
}

/// The SDK repeats a put whose answer was lost, and finds the number taken by its own message.
#[tokio::test]
async fn own_message_is_no_collision() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 100);
    table.inject_into(Call::PutMessage, [Fault::AnswerLost]);
    append(&mailbox, &["a"]).await;
    let appended = append(&mailbox, &["a"]).await;
    assert_eq!((seqs(&appended), appended.collisions), (vec![1], 0));
}

#[tokio::test]
async fn failed_put_keeps_earlier_messages() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 100);
    let mut puts = 0;
    table.inject(move |call| {
        puts += usize::from(call == Call::PutMessage);
        (call == Call::PutMessage && puts == 3).then_some(Fault::Throttled)
    });
    let appended = append(&mailbox, &["a", "b", "c", "d"]).await;
    assert!(matches!(appended.failure, Some(MailboxError::Table(_))));
    assert_eq!(seqs(&appended), [1, 2]);
    assert_eq!(all_ids(&mailbox).await, ["a", "b"]);
}

/// A writer that finds 16 numbers taken gives up, but makes the messages of the others visible.
#[tokio::test]
async fn contended_append_raises_top() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 100);
    table.inject(|call| (call == Call::RaiseTop).then_some(Fault::Fails));
    let texts: Vec<_> = (1..=20).map(|number| format!("m{number}")).collect();
    append(&mailbox, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(all_ids(&mailbox).await, [""; 0]);

    table.inject(|_| None);
    let appended = append(&mailbox, &["late"]).await;
    assert!(matches!(appended.failure, Some(MailboxError::Contended)), "{appended:?}");
    assert_eq!(all_ids(&mailbox).await, texts[..16]);
    assert_eq!(seqs(&append(&mailbox, &["late"]).await), [21]);
    assert_eq!(all_ids(&mailbox).await.len(), 21);
}
