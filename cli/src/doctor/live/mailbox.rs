//! The two-way route: kept messages, pages and acknowledgments.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use streamer_message::{
    Epoch, MessageId, Position, Receipt, ReceiptOutcome,
    frame::{AckFrame, ClientFrame, Start, StreamRequest, SyncFrame},
};
use streamer_producer::Message;

use super::{
    DEFAULT_USER,
    cause::Cause,
    delivery::failed,
    expected::expected,
    permissions::crowded,
    run::{EXPIRY, Run, Session, ms, shown},
    socket::{Ended, Socket},
    take::Others,
};
use crate::doctor::Check;

/// Names of the checks.
pub(super) const NAMES: [&str; 3] = ["mailbox.sync", "mailbox.kept", "mailbox.ack"];

/// Time for an answer of the function behind `streamer.sync`, which may start cold.
const LIMIT: Duration = Duration::from_secs(15);

/// Time after which a sync that got no answer, or a page without the message, is repeated.
const REPEAT: Duration = Duration::from_secs(1);

/// Time for which the message is kept, unless the cleanup removes it before.
const KEEP: Duration = Duration::from_secs(60);

/// Checks that a client that was away reads a kept message, and that its acknowledgment becomes a receipt.
pub(super) async fn round_trip(
    run: &Run<'_>,
    mut session: Session,
    done: &mut dyn FnMut(Check),
) -> Option<Session> {
    if let Some(reason) = reason_to_skip(run).await {
        NAMES.iter().for_each(|name| done(Check::skipped(name, expected(name), reason.clone())));
        return Some(session);
    }
    run.made.stream.set(true);
    let expected = expected(NAMES[0]);
    let began = Instant::now();
    let page = match sync(&mut session.socket, 1, Start::Oldest, None).await {
        Ok(page) => page,
        Err(seen) => {
            done(failed(NAMES[0], expected, cause(run, seen).await));
            return Some(session);
        }
    };
    let time = began.elapsed();
    done(
        Check::ok(NAMES[0], expected, format!("after {}", shown(time)))
            .with_values(json!({ "time_ms": ms(time) })),
    );
    session.socket.close().await;
    let (mut session, id) = match kept(run, &page, done).await {
        Some(kept) => kept,
        None => return run.connect().await.ok(),
    };
    done(acknowledged(run, &mut session.socket, &id).await);
    Some(session)
}

/// Returns why the mailbox cannot be checked. A stream with messages of a person must not be erased.
async fn reason_to_skip(run: &Run<'_>) -> Option<String> {
    let Some(mailbox) = run.mailbox() else { return Some("the worker has no MAILBOX_TABLE".to_owned()) };
    if run.client.user.as_str() == DEFAULT_USER {
        return None;
    }
    match mailbox.list(&run.stream(), SystemTime::now()).await {
        Ok(None) => None,
        Ok(Some(_)) => Some(format!("user {} has a mailbox: use a user of its own", run.client.user)),
        Err(error) => Some(format!(
            "the mailbox cannot be read, which needs dynamodb:GetItem and dynamodb:Query: {error}"
        )),
    }
}

/// Sends a sync until a page comes that has the message with this id, or any page without an id.
///
/// # Errors
/// The reason as text.
async fn sync(socket: &mut Socket, first: u64, start: Start, id: Option<&str>) -> Result<Value, String> {
    let (began, mut n, mut seen) = (Instant::now(), first, "no answer".to_owned());
    while began.elapsed() < LIMIT {
        let frame = ClientFrame::Sync(SyncFrame::new(n, n == 1, StreamRequest::user(start.clone())));
        let text = serde_json::to_string(&frame).map_err(|error| error.to_string())?;
        socket.send(text).await;
        let sent = Instant::now();
        while let Some(left) = REPEAT.checked_sub(sent.elapsed()).filter(|left| !left.is_zero()) {
            let arrival = match socket.next(left).await {
                Ok(arrival) => arrival,
                Err(Ended::Late) => break,
                Err(ended) => return Err(ended.describe()),
            };
            let frame: Value = serde_json::from_str(&arrival.text).unwrap_or_default();
            let is_message = |message: &Value| id.is_none_or(|id| message["id"] == id);
            match frame["type"].as_str() {
                Some("streamer.page") => {
                    let messages = frame["messages"].as_array().map_or(&[][..], Vec::as_slice);
                    if id.is_none() || messages.iter().any(is_message) {
                        return Ok(frame);
                    }
                    seen = "a page without the message".to_owned();
                }
                Some("streamer.message") if is_message(&frame) => return Ok(frame),
                _ if frame["connectionId"].is_string() => {
                    let message = frame["message"].as_str().unwrap_or_default();
                    seen = format!("API Gateway answers: {}", message.chars().take(80).collect::<String>());
                }
                _ => {}
            }
        }
        n += 1;
    }
    Err(seen)
}

/// Returns the cause of a sync without a page.
async fn cause(run: &Run<'_>, seen: String) -> Cause {
    let mailbox = run.function("mailbox");
    let logged = run.log(&mailbox, "?ERROR ?WARN").await.unwrap_or_default();
    let logged = logged.iter().rev().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let text = line["cause"].as_str().or_else(|| line["error"].as_str())?;
        Some(text.chars().take(200).collect::<String>())
    });
    let remedy = format!(
        "give the route streamer.sync to {mailbox}; allow its role execute-api:ManageConnections on POST, \
         dynamodb:GetItem on the connection table, and dynamodb:GetItem, dynamodb:PutItem, dynamodb:Query on the \
         mailbox table"
    );
    match logged {
        Some(logged) => Cause::new(format!("{seen}; {mailbox} logs: {logged}"), remedy),
        None => Cause::new(seen, remedy),
    }
}

/// Keeps a message while the client is away, and reads it with a new connection.
async fn kept(run: &Run<'_>, page: &Value, done: &mut dyn FnMut(Check)) -> Option<(Session, String)> {
    const NAME: &str = NAMES[1];
    let expected = expected(NAME);
    let epoch = page["epoch"].as_str().and_then(|epoch| Epoch::new(epoch).ok());
    let position = epoch.zip(page["through"].as_u64()).map(|(epoch, seq)| Position { epoch, seq });
    let Some(position) = position else {
        done(Check::failed(
            NAME,
            expected,
            "the page has no position",
            "deploy the mailbox function of the worker's version",
        ));
        return None;
    };
    let id = format!("{}-kept", run.id);
    let to = Message::user(run.client.tenant.as_str(), run.client.user.as_str())
        .id(&id)
        .keep(KEEP)
        .expires_in(EXPIRY);
    let to = match run.subject.variable("RECEIPTS_QUEUE_URL") {
        Some(_) => to.receipt(),
        None => to,
    };
    if run.subject.variable("RECEIPTS_QUEUE_URL").is_some() {
        // One for the message, and one for its acknowledgment.
        run.made.receipts.set(run.made.receipts.get() + 2);
    }
    let sent = match to.payload(&json!({ "id": id })) {
        Ok(message) => run.send(&id, message).await,
        Err(error) => Err(Cause::new(error.to_string(), "run the command again")),
    };
    if let Err(cause) = sent {
        done(failed(NAME, expected, cause));
        return None;
    }
    let began = Instant::now();
    let mut session = match run.connect().await {
        Ok(session) => session,
        Err(error) => {
            done(Check::skipped(NAME, expected, error));
            return None;
        }
    };
    match sync(&mut session.socket, 1, Start::After(position), Some(&id)).await {
        Ok(_) => {
            run.arrived(&id);
            let time = began.elapsed();
            done(
                Check::ok(NAME, expected, format!("read {} after it was sent", shown(time)))
                    .with_values(json!({ "time_ms": ms(time) })),
            );
            Some((session, id))
        }
        Err(seen) => {
            let cause = match run.logged_cause(&id).await {
                Some(cause) => cause,
                None => cause(run, seen).await,
            };
            done(failed(NAME, expected, cause));
            None
        }
    }
}

/// Checks that an acknowledgment becomes a receipt.
async fn acknowledged(run: &Run<'_>, socket: &mut Socket, id: &str) -> Check {
    const NAME: &str = NAMES[2];
    let expected = expected(NAME);
    let Some(receipts) = run.subject.variable("RECEIPTS_QUEUE_URL") else {
        return Check::skipped(NAME, expected, "the worker has no RECEIPTS_QUEUE_URL");
    };
    if let Some(skipped) = crowded(run, NAME, expected, receipts, "receipts").await {
        return skipped;
    }
    let Ok(message) = MessageId::new(id) else {
        return Check::skipped(NAME, expected, "the id is not valid");
    };
    let frame = ClientFrame::Ack(AckFrame::new(vec![message]));
    let Ok(text) = serde_json::to_string(&frame) else { return Check::skipped(NAME, expected, "no frame") };
    let began = Instant::now();
    socket.send(text).await;
    while began.elapsed() < LIMIT {
        // The receipt of the message comes first.
        let taken =
            match run.take("receipts queue", receipts, 1, Duration::from_secs(2), Others::Awaited).await {
                Ok(taken) => taken,
                Err(error) => return Check::skipped(NAME, expected, error.to_string()),
            };
        run.made.receipts.set(run.made.receipts.get().saturating_sub(taken.len()));
        let outcomes = taken.iter().filter_map(|taken| Some(Receipt::decode(&taken.body).ok()?.outcome));
        if outcomes.into_iter().any(|outcome| outcome == ReceiptOutcome::Acknowledged) {
            let time = began.elapsed();
            return Check::ok(NAME, expected, format!("after {}", shown(time)))
                .with_values(json!({ "time_ms": ms(time) }));
        }
    }
    let mailbox = run.function("mailbox");
    let remedy = format!(
        "give the route streamer.ack to {mailbox}, set its RECEIPTS_QUEUE_URL, and allow sqs:SendMessage on the receipts \
         queue to its role; or another consumer took the receipt"
    );
    Check::failed(NAME, expected, format!("no receipt within {} s", LIMIT.as_secs()), remedy)
}
