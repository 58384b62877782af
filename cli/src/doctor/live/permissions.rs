//! The worker's permissions that only rare messages need.

use std::time::{Duration, Instant, SystemTime};

use aws_sdk_sqs::error::DisplayErrorContext;
use serde_json::{Value, json};
use streamer_connections::Connection;
use streamer_message::{Receipt, limits::PAYLOAD_BYTES, sqs::is_fifo};
use streamer_producer::Message;
use tokio::time::sleep;

use super::{
    cause::Cause,
    delivery::failed,
    expected::expected,
    run::{EXPIRY, Run, is_of_key, ms, shown, table_failure},
    take::{DEAD_LETTERS, RECEIPTS},
};
use crate::doctor::{Check, Verdict};

/// Names of the checks.
pub(super) const NAMES: [&str; 3] =
    ["permissions.gone_row", "permissions.dead_letter", "permissions.receipt"];

/// Time for the worker to act.
const LIMIT: Duration = Duration::from_secs(10);

/// Time between two looks.
const POLL: Duration = Duration::from_millis(100);

/// Checks that the worker removes the row of a connection that does not exist, by writing the row of a closed one again.
pub(super) async fn gone_row(run: &Run<'_>, row: &Connection) -> Check {
    const NAME: &str = NAMES[0];
    let expected = expected(NAME);
    let Some(table) = &run.table else { return Check::skipped(NAME, expected, "the worker has no table") };
    let id = &row.connection_id;
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    run.made.connections.borrow_mut().insert(id.clone());
    if let Err(error) = table.put(&Connection { connected_at: hour_ago, ..row.clone() }).await {
        return table_failure(NAME, expected, &error);
    }
    let message = run.message("gone", Message::connection(id));
    let sent = match message {
        Ok((id, message)) => run.send(&id, message).await.map(|()| id),
        Err(error) => Err(Cause::new(error, "run the command again")),
    };
    let message = match sent {
        Ok(message) => message,
        Err(cause) => return failed(NAME, expected, cause),
    };
    let began = Instant::now();
    while began.elapsed() < LIMIT {
        match table.get(id, SystemTime::now()).await {
            Ok(None) => {
                run.arrived(&message);
                run.made.connections.borrow_mut().remove(id);
                let time = began.elapsed();
                return Check::ok(NAME, expected, format!("after {}", shown(time)))
                    .with_values(json!({ "removed_ms": ms(time) }));
            }
            Ok(Some(_)) => sleep(POLL).await,
            Err(error) => return table_failure(NAME, expected, &error),
        }
    }
    let allow = format!("allow dynamodb:DeleteItem on the connection table to the role of {}", run.worker());
    let (seen, remedy) = match run.logged_cause(&message).await {
        Some(cause) if cause.seen.contains("connected at ") => (cause.seen, cause.remedy),
        Some(cause) => (format!("the row is still there; {}", cause.seen), allow),
        None => ("the row is still there".to_owned(), allow),
    };
    Check::failed(NAME, expected, seen, remedy)
}

/// Checks that the worker writes dead letters, with a payload that no connection takes.
pub(super) async fn dead_letter(run: &Run<'_>, row: &Connection) -> Check {
    const NAME: &str = NAMES[1];
    let expected = expected(NAME);
    let (Some(queue), Some(dead_letters)) =
        (run.subject.variable("QUEUE_URL"), run.subject.variable("DEAD_LETTER_QUEUE_URL"))
    else {
        return Check::skipped(NAME, expected, "the worker has no QUEUE_URL or no DEAD_LETTER_QUEUE_URL");
    };
    let open = match run.open(DEAD_LETTERS, dead_letters).await {
        Ok(open) => open,
        Err(not_open) => return Check::skipped(NAME, expected, not_open.to_string()),
    };
    let id = format!("{}-letter", run.id);
    let expires_at = SystemTime::now() + EXPIRY;
    let expires_at = expires_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let body = json!({
        "version": 1, "id": id, "to": { "connection": row.connection_id.as_str() }, "expires_at": expires_at,
        "payload": "x".repeat(PAYLOAD_BYTES),
    });
    run.made.messages.borrow_mut().insert(id.clone());
    run.made.dead_letters.borrow_mut().insert(id.clone());
    let send = run.sqs.send_message().queue_url(queue).message_body(body.to_string());
    let send = match is_fifo(queue) {
        true => send.message_group_id(&run.id).message_deduplication_id(&id),
        false => send,
    };
    if let Err(error) = send.send().await {
        run.arrived(&id);
        open.release().await;
        let seen = format!("sqs:SendMessage on the outbound queue failed: {}", DisplayErrorContext(&error));
        return Check::skipped(NAME, expected, seen);
    }
    let began = Instant::now();
    let taken = match open.take(LIMIT, |own| !own.is_empty()).await {
        Ok(taken) => taken,
        Err(error) => return Check::skipped(NAME, expected, error.to_string()),
    };
    match taken.first() {
        Some(letter) => {
            run.arrived(&id);
            let attributes = letter.message.message_attributes.as_ref();
            let reason =
                attributes.and_then(|all| all.get("streamer.reason")?.string_value()).unwrap_or("none");
            let time = began.elapsed();
            Check::ok(NAME, expected, format!("after {}, reason {reason}", shown(time)))
                .with_values(json!({ "time_ms": ms(time), "reason": reason }))
        }
        None => unsent(run, NAME, DEAD_LETTERS, dead_letters, "dead letter").await,
    }
}

/// Checks that the worker sends receipts.
pub(super) async fn receipt(run: &Run<'_>, row: &Connection) -> Check {
    const NAME: &str = NAMES[2];
    let expected = expected(NAME);
    let Some(receipts) = run.subject.variable("RECEIPTS_QUEUE_URL") else {
        return Check::skipped(NAME, expected, "the worker has no RECEIPTS_QUEUE_URL");
    };
    let open = match run.open(RECEIPTS, receipts).await {
        Ok(open) => open,
        Err(not_open) => return Check::skipped(NAME, expected, not_open.to_string()),
    };
    run.made.receipts.set(run.made.receipts.get() + 1);
    // The connection is closed, so the outcome is `gone`.
    let sent = match run.message("receipt", Message::connection(&row.connection_id).receipt()) {
        Ok((id, message)) => run.send(&id, message).await.map(|()| id),
        Err(error) => Err(Cause::new(error, "run the command again")),
    };
    let id = match sent {
        Ok(id) => id,
        Err(cause) => {
            open.release().await;
            run.made.receipts.set(run.made.receipts.get() - 1);
            return failed(NAME, expected, cause);
        }
    };
    let began = Instant::now();
    let taken = match open.take(LIMIT, |own| !own.is_empty()).await {
        Ok(taken) => taken,
        Err(error) => return Check::skipped(NAME, expected, error.to_string()),
    };
    match taken.first() {
        Some(taken) => {
            run.arrived(&id);
            run.made.receipts.set(run.made.receipts.get() - 1);
            let outcome = Receipt::decode(&taken.body).ok().map(|receipt| json!(receipt.outcome));
            let outcome = outcome.as_ref().and_then(Value::as_str).unwrap_or("unknown").to_owned();
            let time = began.elapsed();
            Check::ok(NAME, expected, format!("after {}, outcome {outcome}", shown(time)))
                .with_values(json!({ "time_ms": ms(time), "outcome": outcome }))
        }
        None => {
            let check = unsent(run, NAME, RECEIPTS, receipts, "receipt").await;
            // The connection is closed, so `gone` is no fault.
            let cause = run.logged_cause(&id).await.filter(|cause| !cause.seen.ends_with(": gone"));
            match cause {
                Some(cause) if check.verdict == Verdict::Skipped => failed(NAME, expected, cause),
                _ => check,
            }
        }
    }
}

/// Returns the check of a dead letter or receipt that was not found. It failed only if the worker could not send it.
async fn unsent(run: &Run<'_>, name: &'static str, queue: &str, url: &str, item: &str) -> Check {
    let (expected, worker) = (expected(name), run.worker());
    match run.queue_failure(worker, url).await {
        Some(cause) => {
            let actions = match is_of_key(&cause) {
                true => format!("kms:GenerateDataKey and kms:Decrypt on the key of the {queue}"),
                false => format!("sqs:SendMessage on the {queue}"),
            };
            let seen = format!("no {item} within {} s; {worker} logs: {cause}", LIMIT.as_secs());
            Check::failed(name, expected, seen, format!("allow {actions} to the role of {worker}"))
        }
        None => Check::skipped(name, expected, not_found(run, item)),
    }
}

/// Describes a receipt or dead letter that was not found for an unknown cause.
pub(super) fn not_found(run: &Run<'_>, item: &str) -> String {
    let seen = format!("no {item} was found: another consumer may have taken it");
    match run.unread_log.borrow().as_ref() {
        Some(error) => format!("{seen}; {error}"),
        None => seen,
    }
}
