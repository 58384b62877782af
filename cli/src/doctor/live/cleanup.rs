//! Removes everything that the checks made.

use std::{
    collections::HashSet,
    time::{Duration, Instant, SystemTime},
};

use streamer_connections::ConnectionTable;
use streamer_message::ConnectionId;
use tokio::time::{sleep, timeout};

use super::{
    connect::rows_of_run,
    expected::expected,
    kept::{self, Removed},
    run::{EXPIRY, Run},
    take::{DEAD_LETTERS, NotOpen, OUTBOUND, PARTS, RECEIPTS},
};
use crate::doctor::Check;

/// The check's name.
pub(super) const NAME: &str = "cleanup.complete";

/// Maximum time for the whole cleanup.
const LIMIT: Duration = Duration::from_secs(30);

/// Time in which `$disconnect` may remove a row by itself.
const DISCONNECT: Duration = Duration::from_secs(2);

/// Time to find messages on a queue.
const TAKE: Duration = Duration::from_secs(4);

/// The result of the cleanup.
#[derive(Debug, Default)]
struct Summary {
    removed: Vec<String>,
    /// Items that remain, each with its remedy.
    left: Vec<(String, String)>,
    /// Notes about items that need no remedy.
    notes: Vec<String>,
}

impl Summary {
    fn left(&mut self, item: impl Into<String>, remedy: impl Into<String>) {
        self.left.push((item.into(), remedy.into()));
    }
}

/// Removes everything that the checks made.
pub(super) async fn clean(run: &Run<'_>) -> Check {
    let expected = expected(NAME);
    let mut summary = Summary::default();
    let steps = async {
        let held = run.made.held.take();
        for mut queue in held {
            queue.release().await;
        }
        if run.made.stream.get() {
            remove_kept(run, &mut summary).await;
        }
        remove_rows(run, &mut summary).await;
        take_dead_letters(run, &mut summary).await;
        take_messages(run, &mut summary).await;
        take_receipts(run, &mut summary).await;
    };
    if timeout(LIMIT, steps).await.is_err() {
        let item = format!("items that were not removed within {} s", LIMIT.as_secs());
        summary.left(item, format!("look for ids that begin with {}", run.id));
    }
    let Summary { removed, left, notes } = summary;
    let removed = match removed.is_empty() {
        true => "nothing is left".to_owned(),
        false => format!("removed {}", removed.join(", ")),
    };
    if left.is_empty() {
        return Check::ok(NAME, expected, [vec![removed], notes].concat().join("; "));
    }
    let (items, mut remedies): (Vec<_>, Vec<_>) = left.into_iter().unzip();
    remedies.dedup();
    let seen = [vec![format!("left: {}", items.join(", "))], notes].concat().join("; ");
    Check::warning(NAME, expected, seen, remedies.join("; "))
}

async fn remove_kept(run: &Run<'_>, summary: &mut Summary) {
    let on_aws = |table: &str| match run.subject.is_local {
        true => String::new(),
        false => {
            let connections = run.subject.variable("CONNECTIONS_TABLE").unwrap_or("TABLE");
            format!(" --aws --table {connections} --mailbox-table {table}")
        }
    };
    let Some(name) = run.subject.variable("MAILBOX_TABLE") else { return };
    match kept::remove(run).await {
        Ok(Removed { items, left }) => {
            if items > 0 {
                summary.removed.push(count(items, "item of the mailbox", "items of the mailbox"));
            }
            if let Some(left) = left {
                summary.left(left, "wait until it expires");
            }
        }
        Err(error) if run.is_own_user() => {
            let (tenant, user) = (&run.client.tenant, &run.client.user);
            let remedy = format!("streamer forget{} --tenant {tenant} --user {user} --yes", on_aws(name));
            summary.left(format!("the user's stream in the mailbox ({error})"), remedy);
        }
        Err(error) => {
            summary.left(
                format!("{}-kept in the mailbox ({error})", run.id),
                "allow the calls that the line names; the message expires within 60 s of its storing",
            );
        }
    }
}

/// Takes the run's dead letters, and its messages that became dead letters, off their queue.
async fn take_dead_letters(run: &Run<'_>, summary: &mut Summary) {
    let (wanted, Some(url)) =
        (run.made.messages.borrow().len(), run.subject.variable("DEAD_LETTER_QUEUE_URL"))
    else {
        return;
    };
    if wanted == 0 {
        return;
    }
    let taken = take(run, DEAD_LETTERS, url, wanted).await;
    let cause = match taken {
        Ok(taken) => {
            if taken > 0 {
                summary.removed.push(count(taken, "dead letter", "dead letters"));
            }
            "not found".to_owned()
        }
        Err(not_open) => not_open.to_string(),
    };
    let queue = match (run.subject.is_local, run.subject.variable("QUEUE_URL")) {
        (false, Some(url)) => format!(" --aws --queue-url {url}"),
        _ => String::new(),
    };
    for id in run.made.dead_letters.borrow().iter() {
        let remedy = format!(
            "streamer redrive{queue} --show {id}, and if it is there, streamer redrive{queue} --id {id} --drop --yes"
        );
        summary.left(format!("the dead letter {id} ({cause})"), remedy);
    }
}

/// Takes messages that were not delivered off the outbound queue, and their parts off the parts queue.
async fn take_messages(run: &Run<'_>, summary: &mut Summary) {
    let is_dead_letter = |id: &String| run.made.dead_letters.borrow().contains(id);
    let missing = || run.made.messages.borrow().iter().filter(|id| !is_dead_letter(id)).count();
    let (expiry, mut cause) = (EXPIRY.as_secs(), "it still holds them".to_owned());
    for (queue, variable) in [(OUTBOUND, "QUEUE_URL"), (PARTS, "PARTS_QUEUE_URL")] {
        let (wanted, Some(url)) = (missing(), run.subject.variable(variable)) else { continue };
        if wanted == 0 {
            return;
        }
        match take(run, queue, url, wanted).await {
            Ok(0) => {}
            Ok(taken) => summary.removed.push(count(taken, "message", "messages")),
            Err(NotOpen::Crowded(reason)) => cause = reason,
            Err(NotOpen::Failed(error)) => {
                let item = format!("{} on the {queue}", count(wanted, "message", "messages"));
                let remedy =
                    format!("allow the call; the worker drops a message {expiry} s after its sending");
                return summary.left(format!("{item} ({error})"), remedy);
            }
        }
    }
    let left = missing();
    if left > 0 {
        let messages = count(left, "message", "messages");
        let item = format!(
            "{messages} of the worker, which drops messages {expiry} s after their sending ({cause})"
        );
        let id = &run.id;
        summary.left(item, format!("wait; a worker that fails turns them into dead letters and receipts, whose ids begin with {id}"));
    }
}

async fn take_receipts(run: &Run<'_>, summary: &mut Summary) {
    let (wanted, Some(url)) = (run.made.receipts.get(), run.subject.variable("RECEIPTS_QUEUE_URL")) else {
        return;
    };
    if wanted == 0 {
        return;
    }
    let cause = match take(run, RECEIPTS, url, wanted).await {
        Ok(taken) => {
            if taken > 0 {
                summary.removed.push(count(taken, "receipt", "receipts"));
            }
            None
        }
        Err(not_open) => Some(not_open.to_string()),
    };
    let left = run.made.receipts.get();
    if left == 0 {
        return;
    }
    let receipts = count(left, "receipt", "receipts");
    match cause {
        Some(cause) => {
            let remedy = format!("ignore receipts whose ids begin with {}", run.id);
            summary.left(format!("{receipts} ({cause})"), remedy);
        }
        None => summary.notes.push(format!("{receipts} not found, perhaps taken by another consumer")),
    }
}

/// Takes up to `wanted` of the run's messages off a queue, and notes that they are gone. Returns their number.
async fn take(run: &Run<'_>, name: &'static str, url: &str, wanted: usize) -> Result<usize, NotOpen> {
    let queue = run.open(name, url).await?;
    let taken = queue.take(TAKE, |own| own.len() >= wanted).await;
    let taken = taken.map_err(|error| NotOpen::Failed(error.to_string()))?;
    if name == RECEIPTS {
        run.made.receipts.set(run.made.receipts.get().saturating_sub(taken.len()));
    } else {
        run.made.messages.borrow_mut().retain(|id| !is_among(&taken, id));
        run.made.dead_letters.borrow_mut().retain(|id| !is_among(&taken, id));
    }
    Ok(taken.len())
}

fn is_among(taken: &[crate::queue::Received], id: &str) -> bool {
    let quoted = format!("\"{id}\"");
    taken.iter().any(|message| message.body.contains(&quoted))
}

/// Removes rows that `$disconnect` has not removed.
async fn remove_rows(run: &Run<'_>, summary: &mut Summary) {
    const REMEDY: &str = "allow the call to your own role; rows expire within 2 h 10 min";
    let Some(table) = &run.table else { return };
    let mut ids: HashSet<ConnectionId> = run.made.connections.borrow().iter().cloned().collect();
    // A handshake that was interrupted may have written a row all the same.
    match rows_of_run(run, table, &mut HashSet::new()).await {
        Ok(rows) => ids.extend(rows.into_iter().map(|row| row.connection_id)),
        Err(error) if ids.is_empty() => summary.left(format!("rows, if there are any ({error})"), REMEDY),
        Err(_) => {}
    }
    let (began, mut rows) = (Instant::now(), 0);
    for id in ids {
        match remove_row(table, &id, began).await {
            Ok(removed) => rows += usize::from(removed),
            Err(error) => summary.left(format!("the row of {id} ({error})"), REMEDY),
        }
    }
    if rows > 0 {
        summary.removed.push(count(rows, "row", "rows"));
    }
}

/// Removes a row that `$disconnect` does not remove soon after `began`. Returns whether it was there.
async fn remove_row(
    table: &ConnectionTable,
    id: &ConnectionId,
    began: Instant,
) -> Result<bool, streamer_connections::TableError> {
    while table.get(id, SystemTime::now()).await?.is_some() {
        if began.elapsed() >= DISCONNECT {
            return Ok(table.delete(id).await?.is_some());
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(false)
}

/// Returns a number with its noun.
fn count(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
