//! The two-way route: kept messages, pages and acknowledgments.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use streamer_message::{
    Epoch, MessageId, Position, Receipt, ReceiptOutcome,
    frame::{AckFrame, ClientFrame, Start, StreamRequest, SyncFrame},
};
use streamer_producer::Message;

use super::{
    cause::Cause,
    delivery::failed,
    expected::expected,
    permissions::not_found,
    run::{EXPIRY, Run, Session, ms, shown},
    socket::{Ended, Socket},
    take::{OpenQueue, RECEIPTS},
};
use crate::{doctor::Check, queue::Received};

/// Names of the checks.
pub(super) const NAMES: [&str; 3] = ["mailbox.sync", "mailbox.kept", "mailbox.ack"];

/// Time for an answer of the function behind `streamer.sync`, which may start cold.
const LIMIT: Duration = Duration::from_secs(15);

/// Time for the answer to a ping, which no function gives.
const PONG: Duration = Duration::from_secs(5);

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
    if let Some(reason) = reason_to_skip(run, &session).await {
        NAMES.iter().for_each(|name| done(Check::skipped(name, expected(name), reason.clone())));
        return Some(session);
    }
    run.made.stream.set(true);
    let expected = expected(NAMES[0]);
    run.made.devices.borrow_mut().insert(session.row.connection_id.clone());
    let began = Instant::now();
    let page = match sync(&mut session.socket, 1, Start::Oldest, None).await {
        Ok(page) => page,
        Err(seen) => {
            done(failed(NAMES[0], expected, cause(run, &session, seen).await));
            return Some(session);
        }
    };
    let time = began.elapsed();
    done(match ping(&mut session.socket).await {
        Ok(pong) => {
            Check::ok(NAMES[0], expected, format!("after {}; pong after {}", shown(time), shown(pong)))
                .with_values(json!({ "time_ms": ms(time), "pong_ms": ms(pong) }))
        }
        Err(seen) => Check::warning(
            NAMES[0],
            expected,
            format!("after {}; no streamer.pong: {seen}", shown(time)),
            "give the route streamer.ping its mock integration and its response (infra)",
        ),
    });
    session.socket.close().await;
    let receipts = match run.subject.variable("RECEIPTS_QUEUE_URL") {
        None => Err("the worker has no RECEIPTS_QUEUE_URL".to_owned()),
        Some(url) => run.open(RECEIPTS, url).await.map_err(|not_open| not_open.to_string()),
    };
    let Some((mut session, id)) = kept(run, &page, receipts.is_ok(), done).await else {
        if let Ok(receipts) = receipts {
            receipts.release().await;
        }
        return run.connect().await.ok();
    };
    done(match receipts {
        Ok(receipts) => acknowledged(run, &mut session, &id, receipts).await,
        Err(reason) => Check::skipped(NAMES[2], super::expected::expected(NAMES[2]), reason),
    });
    Some(session)
}

/// Returns the reason for which the mailbox cannot be checked. The checks read, and afterwards remove, messages of the
/// client's stream, and a message for a user reaches each of the user's devices.
async fn reason_to_skip(run: &Run<'_>, session: &Session) -> Option<String> {
    let Some(mailbox) = run.mailbox() else { return Some("the worker has no MAILBOX_TABLE".to_owned()) };
    if run.is_own_user() {
        return None;
    }
    let Some(table) = &run.table else { return Some("the worker has no CONNECTIONS_TABLE".to_owned()) };
    let (tenant, user) = (&run.client.tenant, &run.client.user);
    match mailbox.list(&run.stream(), SystemTime::now()).await {
        Ok(None) => {}
        Ok(Some(_)) => {
            return Some(format!(
                "user {user} has a mailbox: leave out --user, or pass a user of the checks' own"
            ));
        }
        Err(error) => {
            return Some(format!(
                "the mailbox cannot be read, which needs dynamodb:GetItem and dynamodb:Query: {error}"
            ));
        }
    }
    let own = &session.row.connection_id;
    match table.by_user(tenant, user, None, SystemTime::now()).await {
        Ok(page) if page.next.is_some() || page.connections.iter().any(|row| row.connection_id != *own) => {
            Some(format!(
                "user {user} has other connections: leave out --user, or pass a user of the checks' own"
            ))
        }
        Ok(_) => None,
        Err(error) => Some(format!("the user's connections cannot be read: {error}")),
    }
}

/// Sends a ping, and returns the time until its pong.
///
/// # Errors
/// The reason as text.
async fn ping(socket: &mut Socket) -> Result<Duration, String> {
    let text = serde_json::to_string(&ClientFrame::Ping).map_err(|error| error.to_string())?;
    let began = Instant::now();
    socket.send(text).await;
    while let Some(left) = PONG.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
        let arrival = socket.next(left).await.map_err(|ended| ended.describe())?;
        let frame: Value = serde_json::from_str(&arrival.text).unwrap_or_default();
        if frame["type"] == "streamer.pong" {
            return Ok(arrival.at.saturating_duration_since(began));
        }
        if let Some(answer) = answer_of_api(&frame) {
            return Err(answer);
        }
    }
    Err(Ended::Late.describe())
}

/// Describes an error that API Gateway sends to a client, such as that of a missing route.
fn answer_of_api(frame: &Value) -> Option<String> {
    frame["connectionId"].as_str()?;
    let message = frame["message"].as_str().unwrap_or_default();
    Some(format!("API Gateway answers: {}", message.chars().take(80).collect::<String>()))
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
                _ => seen = answer_of_api(&frame).unwrap_or(seen),
            }
        }
        n += 1;
    }
    Err(seen)
}

/// Returns the error that the mailbox function logged for a frame of this connection.
async fn logged(run: &Run<'_>, session: &Session) -> Option<String> {
    let (mailbox, id) = (run.function("mailbox"), session.row.connection_id.as_str());
    let lines = run.log(&mailbox, &format!("\"{id}\"")).await.ok()?;
    lines.iter().rev().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let text = (line["connection_id"] == id).then(|| line["error"].as_str())??;
        Some(text.chars().take(200).collect())
    })
}

/// Returns the cause of a sync without a page.
async fn cause(run: &Run<'_>, session: &Session, seen: String) -> Cause {
    let mailbox = run.function("mailbox");
    let remedy = format!(
        "give the route streamer.sync to {mailbox}; allow its role execute-api:ManageConnections on POST, \
         dynamodb:GetItem on the connection table, and dynamodb:GetItem, dynamodb:PutItem, dynamodb:Query on the \
         mailbox table"
    );
    match logged(run, session).await {
        Some(logged) => Cause::new(format!("{seen}; {mailbox} logs: {logged}"), remedy),
        None => Cause::new(seen, remedy),
    }
}

/// Keeps a message while the client is away, and reads it with a new connection.
async fn kept(
    run: &Run<'_>,
    page: &Value,
    asks_receipt: bool,
    done: &mut dyn FnMut(Check),
) -> Option<(Session, String)> {
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
    let to = if asks_receipt { to.receipt() } else { to };
    if asks_receipt {
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
    run.made.devices.borrow_mut().insert(session.row.connection_id.clone());
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
                None => cause(run, &session, seen).await,
            };
            done(failed(NAME, expected, cause));
            None
        }
    }
}

/// Checks that an acknowledgment becomes a receipt.
async fn acknowledged(run: &Run<'_>, session: &mut Session, id: &str, receipts: OpenQueue<'_>) -> Check {
    const NAME: &str = NAMES[2];
    let expected = expected(NAME);
    let message = MessageId::new(id).map_err(|error| error.to_string());
    let frame = message.map(|message| ClientFrame::Ack(AckFrame::new(vec![message])));
    let text = frame.and_then(|frame| serde_json::to_string(&frame).map_err(|error| error.to_string()));
    let text = match text {
        Ok(text) => text,
        Err(error) => return Check::skipped(NAME, expected, error),
    };
    let began = Instant::now();
    session.socket.send(text).await;
    let is_acknowledged = |own: &[Received]| {
        // The receipt of the message comes first.
        let outcomes = own.iter().filter_map(|own| Some(Receipt::decode(&own.body).ok()?.outcome));
        outcomes.into_iter().any(|outcome| outcome == ReceiptOutcome::Acknowledged)
    };
    let taken = match receipts.take(LIMIT, is_acknowledged).await {
        Ok(taken) => taken,
        Err(error) => return Check::skipped(NAME, expected, error.to_string()),
    };
    run.made.receipts.set(run.made.receipts.get().saturating_sub(taken.len()));
    if is_acknowledged(&taken) {
        let time = began.elapsed();
        return Check::ok(NAME, expected, format!("after {}", shown(time)))
            .with_values(json!({ "time_ms": ms(time) }));
    }
    let mailbox = run.function("mailbox");
    let remedy = format!(
        "give the route streamer.ack to {mailbox}, set its RECEIPTS_QUEUE_URL, and allow sqs:SendMessage on the receipts \
         queue to its role"
    );
    match fault(run, session).await {
        Some(fault) => {
            let seen = format!("no receipt within {} s; {fault}", LIMIT.as_secs());
            Check::failed(NAME, expected, seen, remedy)
        }
        None => Check::skipped(NAME, expected, not_found(run, "receipt")),
    }
}

/// Returns the fault that API Gateway answered to an acknowledgment, or that the mailbox function logged.
async fn fault(run: &Run<'_>, session: &mut Session) -> Option<String> {
    while let Ok(arrival) = session.socket.next(Duration::from_millis(10)).await {
        let frame = serde_json::from_str(&arrival.text).unwrap_or_default();
        if let Some(answer) = answer_of_api(&frame) {
            return Some(answer);
        }
    }
    let mailbox = run.function("mailbox");
    let failure = match run.subject.variable("RECEIPTS_QUEUE_URL") {
        Some(url) => run.queue_failure(&mailbox, url).await,
        None => None,
    };
    let failure = match failure {
        Some(failure) => failure,
        None => logged(run, session).await?,
    };
    Some(format!("{mailbox} logs: {failure}"))
}
