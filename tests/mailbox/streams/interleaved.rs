//! Writers whose steps interleave, and writers that are killed.

use streamer_mailbox::{Appended, NewMessage};
use streamer_message::frame::{MissingReason, Start};
use streamer_tests::mailbox::{Call, MemoryTable};

use crate::{
    LIMITS, all_ids, append, append_again, at, id, ids, mailbox, message, page, page_at, seqs, stream,
    tasks::Task,
};

/// Appends a message in steps. Each call of the table is two: one before it, one after it.
fn writer(table: &MemoryTable, text: &'static str, now: u64) -> Task<'static, Appended> {
    let mailbox = mailbox(table.yielding(), 100);
    Task::new(async move {
        let id = id(text);
        let new = NewMessage { until: at(now + 600), ..message(&id, "1") };
        mailbox.append(&stream(), &[new], at(now)).await
    })
}

/// Steps of an append to a stream that exists, up to and including the put.
const TO_PUT: usize = 4;

/// Two writers in all orders of their first 12 calls: numbers are dense, and each message has one.
#[tokio::test]
async fn any_order_of_two_writers_is_dense() {
    for order in 0_u32..1 << 12 {
        let table = MemoryTable::default();
        let mut writers = [Some(writer(&table, "a", 0)), Some(writer(&table, "b", 0))];
        let mut results = Vec::new();
        for call in 0.. {
            let first = (order >> (call % 12) & 1) as usize;
            let chosen = if writers[first].is_some() { first } else { 1 - first };
            let Some(task) = &mut writers[chosen] else { break };
            if let Some(appended) = task.steps(2) {
                results.extend(seqs(&appended));
                writers[chosen] = None;
            }
        }
        results.sort_unstable();
        assert_eq!(results, [1, 2], "order {order:b}");
        assert_eq!(table.peek(&stream()).unwrap().top, 2, "order {order:b}");
        assert_eq!(all_ids(&mailbox(table, 100)).await.len(), 2, "order {order:b}");
    }
}

/// However far a writer came, the next one appends, and a retry of the first stores nothing twice.
#[tokio::test]
async fn writer_may_be_killed_at_any_step() {
    for steps in 0..10 {
        let table = MemoryTable::default();
        let mailbox = mailbox(table.clone(), 100);
        let mut killed = writer(&table, "a", 0);
        let done = killed.steps(steps).is_some();
        drop(killed);
        append(&mailbox, &["b"]).await;
        let again = append_again(&mailbox, "a").await;
        let mut all = all_ids(&mailbox).await;
        let top = table.peek(&stream()).unwrap().top;
        assert_eq!((top, all[seqs(&again)[0] as usize - 1].as_str()), (2, "a"), "after {steps} steps");
        all.sort_unstable();
        assert_eq!(all, ["a", "b"], "after {steps} steps, done: {done}");
    }
}

/// The stream is erased between a writer's put and its raise of `top`: it appends in the new epoch.
#[tokio::test]
async fn erased_stream_is_appended_to_again() {
    for steps in [2, TO_PUT, TO_PUT + 1] {
        let table = MemoryTable::default();
        let mailbox = mailbox(table.clone(), 100);
        let old = append(&mailbox, &["a"]).await.positions.remove(0);
        let mut writer = writer(&table, "b", 0);
        assert!(writer.steps(steps).is_none());
        mailbox.erase(&stream()).await.unwrap();
        let appended = writer.finish();
        assert_eq!(seqs(&appended), [1]);
        assert_ne!(appended.positions[0].epoch, old.epoch);
        assert_eq!(all_ids(&mailbox).await, ["b"]);
    }
}

/// A killed writer's message has expired beyond `top` and may be removed at any time. A writer that passes it holds it,
/// so that a slower writer cannot store at its number, which readers have passed.
#[tokio::test]
async fn passed_message_holds_its_number() {
    const LATER: u64 = 6 * 3600;
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 100);
    append(&mailbox, &["a"]).await;
    drop({
        let mut killed = writer(&table, "killed", 0);
        assert!(killed.steps(TO_PUT).is_none());
        killed
    });
    // The slow writer has read `top`.
    let mut slow = writer(&table, "slow", LATER);
    assert!(slow.steps(2).is_none());
    assert_eq!(seqs(&writer(&table, "fast", LATER).finish()), [3]);
    let passed = page_at(&mailbox, Start::Oldest, LIMITS, LATER).await;
    assert_eq!((ids(&passed), passed.through), (vec!["fast"], 3));

    table.remove_expired(at(LATER), |_| true);
    assert_eq!(seqs(&slow.finish()), [4]);
    drop(table.bill());
    assert_eq!(seqs(&append(&mailbox, &["b"]).await), [5]);
    assert_eq!(table.bill().of(Call::HoldMessage).calls, 0);
}

/// A killed writer's message was removed by TTL before another writer came: the number is given out once more.
#[tokio::test]
async fn number_without_reader_is_used_again() {
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 100);
    append(&mailbox, &["a"]).await;
    let mut killed = writer(&table, "killed", 0);
    assert!(killed.steps(TO_PUT).is_none());
    drop(killed);
    table.remove_expired(at(2 * 3600 + 600), |key| key.starts_with('m'));
    assert_eq!(seqs(&append(&mailbox, &["b"]).await), [2]);
}

/// A retry finds its message beyond `top` and beyond a number that TTL has freed. It gives the free number a message, so
/// that no later writer stores at a number that readers have passed.
#[tokio::test]
async fn retry_leaves_no_free_number_behind() {
    const LATER: u64 = 3600 + 700;
    let table = MemoryTable::default();
    let mailbox = mailbox(table.clone(), 100);
    append(&mailbox, &["a"]).await;
    for (text, now) in [("short", 0), ("mine", 1500)] {
        let mut killed = writer(&table, text, now);
        // The second one finds the number of the first taken.
        assert!(killed.steps(if now == 0 { TO_PUT } else { TO_PUT + 2 }).is_none());
    }
    table.remove_expired(at(LATER), |key| key.ends_with("02"));
    let mine = id("mine");
    let again = NewMessage { tried_since: Some(at(1500)), until: at(9000), ..message(&mine, "1") };
    let appended = mailbox.append(&stream(), &[again], at(LATER)).await;
    assert_eq!(seqs(&appended), [2]);
    assert_eq!(seqs(&append(&mailbox, &["b"]).await), [4]);
    let page = page(&mailbox, Start::Oldest).await;
    assert_eq!(ids(&page), ["a", "mine", "mine", "b"]);
    assert!(page.missing.iter().all(|missing| missing.reason == MissingReason::Expired));
}
