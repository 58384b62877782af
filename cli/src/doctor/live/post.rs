//! Posts of every size to an open connection, and posts to connections that do not exist.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use streamer_message::limits::PAYLOAD_BYTES;

use super::{
    answer::Answer,
    connect,
    expected::expected,
    probe::Probe,
    run::{Run, Session, ms},
    socket::{Arrival, Ended},
};
use crate::doctor::{Check, Verdict};

/// Names of the checks.
pub(super) const NAMES: [&str; 7] = [
    "post.31_kib",
    "post.33_kib",
    "post.128_kib",
    "post.over_128_kib",
    "post.malformed_id",
    "connect.disconnect",
    "post.gone",
];

/// Payloads of up to this size travel in one frame, by the page of quotas.
///
/// Source: <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html>.
const FRAME_BYTES: usize = 32 * 1024;

/// The remedy for payloads that close connections.
const REMEDY: &str = "set max_payload_bytes to 32768 (variable MAX_PAYLOAD_BYTES of the worker): larger payloads close \
                      connections";

/// Time for a posted payload to arrive.
const LIMIT: Duration = Duration::from_secs(8);

/// Time after a close in which posts may still be accepted.
const GONE_LIMIT: Duration = Duration::from_secs(10);

/// The fate of a payload.
struct Fate {
    answer: Result<Answer, String>,
    arrival: Result<Arrival, Ended>,
    /// Whether a further payload arrives.
    after: Result<(), Ended>,
}

/// Checks posts to the client's connection. Returns its session, or a new one, if it is still connected.
pub(super) async fn sizes(
    run: &Run<'_>,
    probe: &Probe,
    session: Session,
    done: &mut dyn FnMut(Check),
) -> Option<Session> {
    let mut session = Some(session);
    for (name, bytes) in NAMES.into_iter().zip([31 * 1024, 33 * 1024, PAYLOAD_BYTES]) {
        let expected = expected(name);
        let mut open = match session.take() {
            Some(open) => open,
            None => match run.connect().await {
                Ok(open) => open,
                Err(error) => {
                    done(Check::skipped(name, expected, error));
                    continue;
                }
            },
        };
        let fate = post(run, probe, &mut open, bytes).await;
        let limit = run.subject.variable("MAX_PAYLOAD_BYTES").and_then(|limit| limit.parse().ok());
        let check = judge(name, expected, bytes, &fate, limit);
        if fate.after.is_ok() {
            session = Some(open);
        }
        done(check);
    }
    if session.is_none() {
        session = run.connect().await.ok();
    }
    done(too_large(run, probe, session.as_ref()).await);
    done(malformed(run, probe).await);
    session
}

/// Returns a JSON object with exactly this size.
fn payload(id: &str, bytes: usize) -> String {
    let empty = json!({ "id": id, "padding": "" }).to_string();
    json!({ "id": id, "padding": "x".repeat(bytes.saturating_sub(empty.len())) }).to_string()
}

async fn post(run: &Run<'_>, probe: &Probe, session: &mut Session, bytes: usize) -> Fate {
    let connection = session.row.connection_id.to_string();
    let id = format!("{}-{bytes}", run.id);
    let receive = async |id: &str, session: &mut Session| loop {
        match session.socket.next(LIMIT).await {
            Ok(arrival) if arrival.text.contains(id) => return Ok(arrival),
            Ok(_) => {}
            Err(ended) => return Err(ended),
        }
    };
    let (answer, arrival) =
        tokio::join!(probe.post_once(&connection, payload(&id, bytes)), receive(&id, session));
    let after = match &arrival {
        Err(ended @ Ended::Closed(_)) => Err(ended.clone()),
        _ => {
            let id = format!("{id}-after");
            let small = payload(&id, 0);
            let (_, arrival) = tokio::join!(probe.post_once(&connection, small), receive(&id, session));
            arrival.map(|_| ())
        }
    };
    Fate { answer, arrival, after }
}

/// Judges the fate of a payload. `limit` is the worker's own limit.
fn judge(name: &'static str, expected: &str, bytes: usize, fate: &Fate, limit: Option<usize>) -> Check {
    let status = fate.answer.as_ref().ok().map(|answer| answer.status);
    let is_whole = fate.arrival.as_ref().is_ok_and(|arrival| arrival.text.len() == bytes);
    let code = match &fate.after {
        Err(Ended::Closed(code)) => *code,
        _ => None,
    };
    let values = json!({
        "bytes": bytes, "status": status, "arrived": is_whole, "open": fate.after.is_ok(), "close_code": code,
        "frames": fate.arrival.as_ref().ok().map(|arrival| arrival.frames),
    });
    let frames =
        |frames: usize| if frames == 1 { "one frame".to_owned() } else { format!("{frames} frames") };
    let seen = match (&fate.answer, &fate.arrival, &fate.after) {
        (Err(error), _, _) => format!("the post failed: {error}"),
        (Ok(answer), _, _) if !answer.is_success() => answer.describe(),
        (_, Ok(_), _) if !is_whole => "a payload of another size arrived".to_owned(),
        (_, Ok(arrival), Ok(())) => format!("whole, in {}; the connection is open", frames(arrival.frames)),
        (_, Ok(arrival), Err(ended)) => {
            format!("whole, in {}; then {}", frames(arrival.frames), ended.describe())
        }
        (_, Err(ended), _) => ended.describe(),
    };
    let check = if is_whole && fate.after.is_ok() {
        Check::ok(name, expected, seen)
    } else if bytes > FRAME_BYTES && limit.is_some_and(|limit| limit <= FRAME_BYTES) {
        Check::ok(name, expected, format!("{seen}; MAX_PAYLOAD_BYTES prevents such posts"))
    } else if bytes > FRAME_BYTES && status.is_some_and(|status| status < 300) {
        Check::failed(name, expected, seen, REMEDY)
    } else {
        let remedy = "run the command again; if it repeats, check proxies between the client and API Gateway";
        Check::failed(name, expected, seen, remedy)
    };
    check.with_values(values)
}

/// Checks that a payload of one byte too many is refused.
async fn too_large(run: &Run<'_>, probe: &Probe, session: Option<&Session>) -> Check {
    const NAME: &str = NAMES[3];
    let expected = expected(NAME);
    let Some(session) = session else { return Check::skipped(NAME, expected, "no client is connected") };
    let payload = payload(&format!("{}-over", run.id), PAYLOAD_BYTES + 1);
    match probe.post_once(session.row.connection_id.as_str(), payload).await {
        Ok(answer) => {
            let remedy = "report this answer: the worker takes 413 as the sign that a payload is too large";
            refused(run, NAME, &answer, 413, remedy)
        }
        Err(error) => {
            Check::warning(NAME, expected, error, "report this: the connection broke without an answer")
        }
    }
}

/// Checks the answer to a post to an id that no connection can have.
async fn malformed(run: &Run<'_>, probe: &Probe) -> Check {
    const NAME: &str = NAMES[4];
    let expected = expected(NAME);
    match probe.post_once("not-a-connection", "{}").await {
        Ok(answer) => {
            let remedy =
                "none is needed if this is 410, which the worker takes as gone; report any other status";
            refused(run, NAME, &answer, 400, remedy)
        }
        Err(error) => Check::failed(NAME, expected, error, "check WEBSOCKET_ENDPOINT"),
    }
}

/// Returns the check of a post that API Gateway should refuse with `status`. The emulator does not.
fn refused(run: &Run<'_>, name: &'static str, answer: &Answer, status: u16, remedy: &str) -> Check {
    let (expected, seen) = (expected(name), answer.describe());
    let check = if answer.status == status {
        Check::ok(name, expected, seen)
    } else if run.subject.is_local {
        Check::skipped(name, expected, format!("{seen}; the emulator differs from API Gateway"))
    } else {
        Check::warning(name, expected, seen, remedy)
    };
    check.with_values(shape(answer))
}

/// Closes the client's connection, and checks that its row is removed and that posts get 410.
pub(super) async fn gone(
    run: &Run<'_>,
    probe: Option<&Probe>,
    session: Session,
    done: &mut dyn FnMut(Check),
) {
    let Session { socket, row } = session;
    socket.close().await;
    let closed = Instant::now();
    let removal = connect::removal(run, &row.connection_id, closed).await;
    if removal.verdict == Verdict::Ok {
        run.made.connections.borrow_mut().remove(&row.connection_id);
    }
    done(removal);
    const NAME: &str = NAMES[6];
    let expected = expected(NAME);
    let Some(probe) = probe else { return };
    let mut last = None;
    while last.is_none() || closed.elapsed() < GONE_LIMIT {
        let answer = probe.post_once(row.connection_id.as_str(), "{}").await;
        let is_gone = answer.as_ref().is_ok_and(|answer| answer.status == 410);
        last = Some(answer);
        if is_gone {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    done(match last {
        Some(Ok(answer)) if answer.status == 410 => {
            let seen = format!("{}; {}", answer.describe(), answer.shape());
            let mut values = shape(&answer);
            values["gone_after_ms"] = ms(closed.elapsed());
            Check::ok(NAME, expected, seen).with_values(values)
        }
        Some(Ok(answer)) => Check::failed(
            NAME,
            expected,
            answer.describe(),
            "report this answer: rows of connections without a socket stay until they expire",
        )
        .with_values(shape(&answer)),
        Some(Err(error)) => Check::failed(NAME, expected, error, "check WEBSOCKET_ENDPOINT"),
        None => Check::skipped(NAME, expected, "no post was made"),
    });
}

/// Returns the parts of an answer that the report shows.
fn shape(answer: &Answer) -> Value {
    json!({
        "status": answer.status, "error_type": answer.error_type, "framing": answer.framing.name(),
        "body": answer.shape(), "keeps_connection": !answer.closes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_has_its_exact_size() {
        for bytes in [31 * 1024, 33 * 1024, PAYLOAD_BYTES, PAYLOAD_BYTES + 1] {
            assert_eq!(payload("doctor-1", bytes).len(), bytes);
        }
    }

    #[test]
    fn limit_makes_a_close_harmless() {
        let answer = Answer {
            version: "HTTP/1.1".to_owned(),
            status: 200,
            framing: super::super::answer::Framing::Length,
            closes: false,
            error_type: None,
            headers: Vec::new(),
            body: Vec::new(),
        };
        let closed = Ended::Closed(Some(1009));
        let fate = Fate { answer: Ok(answer), arrival: Err(closed.clone()), after: Err(closed) };
        let judged = |limit| judge("post.33_kib", "", 33 * 1024, &fate, limit);
        assert_eq!(judged(None).verdict, Verdict::Failed);
        assert!(judged(None).remedy.is_some_and(|remedy| remedy.contains("max_payload_bytes")));
        assert_eq!(judged(Some(64 * 1024)).verdict, Verdict::Failed);
        assert_eq!(judged(Some(32 * 1024)).verdict, Verdict::Ok);
    }
}
