//! Removes everything that the checks made.

use std::{
    collections::HashSet,
    time::{Duration, Instant, SystemTime},
};

use streamer_message::ConnectionId;
use tokio::time::{sleep, timeout};

use super::{
    connect::rows_of_run,
    expected::expected,
    run::{EXPIRY, Run},
    take::Others,
};
use crate::doctor::Check;

/// The check's name.
pub(super) const NAME: &str = "cleanup";

/// Maximum time for the whole cleanup.
const LIMIT: Duration = Duration::from_secs(30);

/// Time in which `$disconnect` may remove a row by itself.
const DISCONNECT: Duration = Duration::from_secs(2);

/// Time to find messages on a queue.
const TAKE: Duration = Duration::from_secs(4);

/// What was removed, and what could not be.
#[derive(Debug, Default)]
struct Result {
    removed: Vec<String>,
    left: Vec<String>,
    passing: Vec<String>,
}

/// Removes everything that the checks made.
pub(super) async fn clean(run: &Run<'_>) -> Check {
    let expected = expected(NAME);
    let mut result = Result::default();
    let steps = async {
        if run.made.stream.get() {
            erase_stream(run, &mut result).await;
        }
        take_messages(run, &mut result).await;
        take_receipts(run, &mut result).await;
        remove_rows(run, &mut result).await;
    };
    if timeout(LIMIT, steps).await.is_err() {
        result.left.push(format!("what was not removed within {} s", LIMIT.as_secs()));
    }
    let Result { removed, left, passing } = result;
    if !left.is_empty() {
        let remedy = format!(
            "rows expire after 2 h 10 min; remove kept messages with `streamer forget --tenant {} --user {} --yes`, and \
             dead letters with `streamer redrive --drop`",
            run.client.tenant, run.client.user
        );
        return Check::warning(NAME, expected, format!("left: {}", left.join(", ")), remedy);
    }
    let removed = if removed.is_empty() {
        "nothing is left".to_owned()
    } else {
        format!("removed {}", removed.join(", "))
    };
    let seen = [vec![removed], passing].concat().join("; ");
    Check::ok(NAME, expected, seen)
}

async fn erase_stream(run: &Run<'_>, result: &mut Result) {
    let Some(mailbox) = run.mailbox() else { return };
    match mailbox.erase(&run.stream()).await {
        Ok(erased) if erased.items > 0 => {
            result.removed.push(items(erased.items, "item of the mailbox", "items of the mailbox"))
        }
        Ok(_) => {}
        Err(error) => result.left.push(format!("the user's stream in the mailbox ({error})")),
    }
}

/// Takes messages that did not arrive off the outbound queue and the dead-letter queue.
async fn take_messages(run: &Run<'_>, result: &mut Result) {
    let mut missing = run.made.messages.borrow().len();
    for (name, variable, others) in [
        ("dead-letter queue", "DEAD_LETTER_QUEUE_URL", Others::Awaited),
        ("outbound queue", "QUEUE_URL", Others::Consumed),
    ] {
        let (Some(url), true) = (run.subject.variable(variable), missing > 0) else { continue };
        if let Ok(taken) = run.take(name, url, missing, TAKE, others).await {
            missing = missing.saturating_sub(taken.len());
            if !taken.is_empty() {
                result.removed.push(items(taken.len(), "message", "messages"));
            }
        }
    }
    if missing > 0 {
        let expiry = EXPIRY.as_secs();
        result.passing.push(format!(
            "{} that the worker still holds, and drops within {expiry} s of their sending",
            items(missing, "message", "messages")
        ));
    }
}

async fn take_receipts(run: &Run<'_>, result: &mut Result) {
    let (wanted, Some(url)) = (run.made.receipts.get(), run.subject.variable("RECEIPTS_QUEUE_URL")) else {
        return;
    };
    if wanted == 0 {
        return;
    }
    if let Ok(taken) = run.take("receipts queue", url, wanted, TAKE, Others::Awaited).await {
        if !taken.is_empty() {
            result.removed.push(items(taken.len(), "receipt", "receipts"));
        }
    }
}

/// Removes rows that `$disconnect` has not removed.
async fn remove_rows(run: &Run<'_>, result: &mut Result) {
    let Some(table) = &run.table else { return };
    let mut ids: HashSet<ConnectionId> = run.made.connections.borrow().iter().cloned().collect();
    // A handshake that was interrupted may have written a row all the same.
    if let Ok(rows) = rows_of_run(run, table, &mut HashSet::new()).await {
        ids.extend(rows.into_iter().map(|row| row.connection_id));
    }
    let (began, mut rows) = (Instant::now(), 0);
    for id in ids {
        let is_there = async || table.get(&id, SystemTime::now()).await.is_ok_and(|row| row.is_some());
        while is_there().await && began.elapsed() < DISCONNECT {
            sleep(Duration::from_millis(50)).await;
        }
        if !is_there().await {
            continue;
        }
        match table.delete(&id).await {
            Ok(row) => rows += usize::from(row.is_some()),
            Err(error) => result.left.push(format!("the row of {id} ({error})")),
        }
    }
    if rows > 0 {
        result.removed.push(items(rows, "row", "rows"));
    }
}

/// Returns a number with its noun.
fn items(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
