//! The management endpoint's answers.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    answer::{Answer, Framing},
    expected::expected,
    probe::{HTTP1, HTTP2, Probe, Wire},
    run::{Run, Session, ms, shown},
};
use crate::doctor::Check;

/// Names of the checks of answers.
pub(super) const ANSWERS: [&str; 4] =
    ["endpoint.post", "endpoint.framing", "endpoint.keep_alive", "endpoint.http2"];

/// A connection id that no connection has.
const UNKNOWN: &str = "c3RyZWFtZXI=";

/// Time after an answer in which a server that keeps no connection closes it.
const CLOSE_DELAY: Duration = Duration::from_millis(100);

/// Checks that the endpoint can be reached. Returns a probe if so.
pub(super) async fn reach(run: &Run<'_>, done: &mut dyn FnMut(Check)) -> Option<Probe> {
    const NAME: &str = "endpoint.address";
    let expected = expected(NAME);
    let remedy = remedy(run);
    let failed = |seen: String| Check::failed(NAME, expected, seen, remedy.clone());
    let Some(endpoint) = run.endpoint() else {
        done(failed(format!("{} has no WEBSOCKET_ENDPOINT", run.worker())));
        return None;
    };
    let Some(probe) = Probe::new(&run.subject.config, endpoint) else {
        done(failed(format!("{endpoint} is not an http or https URL")));
        return None;
    };
    let host = &probe.server.host;
    let addresses = match probe.server.resolve().await {
        Ok(addresses) => addresses,
        Err(error) => {
            done(failed(format!("{host} does not resolve: {error}")));
            return None;
        }
    };
    let count = addresses.len();
    let opened = match probe.server.open(&[HTTP2, HTTP1]).await {
        Ok(opened) => opened,
        Err(error) => {
            done(failed(format!("{host}:{} ({count} addresses): {error}", probe.server.port)));
            return None;
        }
    };
    let seen = format!(
        "{host}: {count} address{}, connected in {}",
        if count == 1 { "" } else { "es" },
        shown(opened.connect_time)
    );
    done(Check::ok(NAME, expected, seen).with_values(json!({
        "host": host, "addresses": count, "connect_ms": ms(opened.connect_time),
    })));
    done(protocols(&probe, opened.tls).await);
    Some(probe)
}

/// Returns the remedy for a wrong endpoint.
fn remedy(run: &Run<'_>) -> String {
    format!(
        "set WEBSOCKET_ENDPOINT of {} to https://API.execute-api.REGION.amazonaws.com/STAGE (Terraform's output \
         management_endpoint)",
        run.worker()
    )
}

/// Checks the protocols that ALPN negotiates.
async fn protocols(probe: &Probe, both: Option<super::net::Handshake>) -> Check {
    const NAME: &str = "endpoint.alpn";
    let expected = expected(NAME);
    let Some(both) = both else { return Check::skipped(NAME, expected, "the endpoint has no TLS") };
    let mut alone = [None, None];
    for (found, protocol) in alone.iter_mut().zip([HTTP2, HTTP1]) {
        *found = probe.server.open(&[protocol]).await.ok().and_then(|opened| opened.tls?.protocol);
    }
    let name = |protocol: &Option<String>| protocol.clone().unwrap_or_else(|| "none".to_owned());
    let seen = format!(
        "{}, chooses {} of h2 and http/1.1; handshake {}",
        both.version,
        name(&both.protocol),
        shown(both.time)
    );
    Check::ok(NAME, expected, seen).with_values(json!({
        "tls": both.version, "handshake_ms": ms(both.time),
        "offered_both": both.protocol, "offered_h2": alone[0], "offered_http1": alone[1],
    }))
}

/// Checks how the endpoint answers posts to the client's connection, or without a client, to one that does not exist.
pub(super) async fn answers(
    run: &Run<'_>,
    probe: &Probe,
    session: Option<&mut Session>,
    done: &mut dyn FnMut(Check),
) -> bool {
    let expected = expected(ANSWERS[0]);
    let id = session.as_ref().map_or(UNKNOWN, |session| session.row.connection_id.as_str()).to_owned();
    let payload = json!({ "id": format!("{}-endpoint", run.id) }).to_string();
    let mut wire = match probe.open().await {
        Ok(wire) => wire,
        Err(error) => {
            done(Check::failed(ANSWERS[0], expected, error, remedy(run)));
            return false;
        }
    };
    let (answer, time) = match probe.post(&mut wire, &id, payload.clone()).await {
        Ok(answered) => answered,
        Err(error) => {
            done(Check::failed(ANSWERS[0], expected, format!("no answer: {error}"), remedy(run)));
            return false;
        }
    };
    let check = judge(run, &answer, time, session.is_some(), expected);
    let works = check.verdict == crate::doctor::Verdict::Ok;
    done(check.with_values(json!({
        "version": answer.version, "status": answer.status, "error_type": answer.error_type,
        "headers": answer.headers, "post_ms": ms(time),
    })));
    if !works {
        return false;
    }
    done(framing(&answer));
    done(keep_alive(probe, &mut wire, &id, &answer).await);
    done(http2(probe, &id, answer.status).await);
    true
}

/// Judges the answer to a signed post.
fn judge(run: &Run<'_>, answer: &Answer, time: Duration, is_connected: bool, expected: &str) -> Check {
    const NAME: &str = ANSWERS[0];
    let seen = match answer.message() {
        Some(message) if !answer.is_success() => {
            format!("{}: {}", answer.describe(), message.chars().take(160).collect::<String>())
        }
        _ => answer.describe(),
    };
    let kind = answer.error_type.as_deref().unwrap_or_default();
    let message = answer.message().unwrap_or_default();
    let is_denied = kind.starts_with("AccessDenied") || message.contains("not authorized");
    match answer.status {
        200..=299 => Check::ok(NAME, expected, format!("{seen} in {}", shown(time))),
        410 if !is_connected => Check::ok(NAME, expected, seen),
        400 if !is_connected && kind.starts_with("BadRequest") => Check::ok(NAME, expected, seen),
        410 => Check::failed(NAME, expected, format!("{seen} for a client that is connected"), remedy(run)),
        403 if is_denied => Check::skipped(
            NAME,
            expected,
            "your credentials do not permit execute-api:ManageConnections on POST/@connections/* of the stage",
        ),
        403 if ["ExpiredToken", "UnrecognizedClient", "InvalidClientTokenId"]
            .iter()
            .any(|code| kind.contains(code)) =>
        {
            Check::failed(NAME, expected, seen, "sign in again: the credentials are expired or not valid")
        }
        403 if kind.contains("Signature") || message.contains("ignature") => {
            Check::failed(NAME, expected, seen, "correct this machine's clock, and check AWS_REGION")
        }
        401 | 403 => Check::failed(
            NAME,
            expected,
            seen,
            format!("{}: API or stage do not exist there, or an API mapping is missing", remedy(run)),
        ),
        429 => Check::failed(
            NAME,
            expected,
            seen,
            "raise the account's quota of API Gateway requests per second",
        ),
        _ => Check::failed(NAME, expected, seen, format!("{}: no WebSocket API answers there", remedy(run))),
    }
}

/// Checks how the end of an answer is known.
fn framing(answer: &Answer) -> Check {
    const NAME: &str = ANSWERS[1];
    let expected = expected(NAME);
    let values = json!({ "framing": answer.framing.name(), "body_bytes": answer.body.len() });
    let seen = format!("{}, {}", answer.framing.name(), answer.shape());
    let check = match answer.framing {
        Framing::UntilClose => Check::warning(
            NAME,
            expected,
            seen,
            "each post needs a connection of its own: remove proxies between the worker and API Gateway, or lower \
             requests_per_second",
        ),
        Framing::Length | Framing::Chunked | Framing::Bodiless => Check::ok(NAME, expected, seen),
    };
    check.with_values(values)
}

/// Checks that a connection takes a second post.
async fn keep_alive(probe: &Probe, wire: &mut Wire, id: &str, first: &Answer) -> Check {
    const NAME: &str = ANSWERS[2];
    let expected = expected(NAME);
    let remedy = "each post opens a connection: remove proxies between the worker and API Gateway, or raise \
                  worker_memory_mb, \
                  because TLS handshakes take CPU";
    let lost = |seen: String, values: Value| Check::warning(NAME, expected, seen, remedy).with_values(values);
    if first.closes {
        return lost("the answer announces `connection: close`".to_owned(), json!({ "kept": false }));
    }
    tokio::time::sleep(CLOSE_DELAY).await;
    let began = Instant::now();
    match probe.post(wire, id, r#"{"id":"second"}"#).await {
        Ok((_, time)) => Check::ok(NAME, expected, format!("kept; a second post took {}", shown(time)))
            .with_values(json!({ "kept": true, "second_post_ms": ms(time) })),
        Err(error) => {
            let seen = format!("the connection was closed after one post: {error}");
            lost(seen, json!({ "kept": false, "failed_after_ms": ms(began.elapsed()) }))
        }
    }
}

/// Checks that a post over HTTP/2 gets the same status.
async fn http2(probe: &Probe, id: &str, status: u16) -> Check {
    const NAME: &str = ANSWERS[3];
    let expected = expected(NAME);
    if !probe.server.has_tls {
        return Check::skipped(NAME, expected, "the endpoint has no TLS");
    }
    let opened = probe.server.open(&[HTTP2]).await;
    let protocol = opened.ok().and_then(|opened| opened.tls?.protocol);
    if protocol.as_deref() != Some(HTTP2) {
        return Check::skipped(NAME, expected, "the endpoint speaks HTTP/1.1 only");
    }
    match probe.post_http2(id, r#"{"id":"http2"}"#.into()).await {
        Ok((answered, time)) if answered == status => {
            Check::ok(NAME, expected, format!("{status} in {}", shown(time)))
                .with_values(json!({ "status": status, "post_ms": ms(time) }))
        }
        Ok((status, _)) => Check::failed(
            NAME,
            expected,
            format!("status {status}"),
            "report this answer: the worker expects the statuses of HTTP/1.1",
        ),
        Err(error) => Check::failed(NAME, expected, error, "remove HTTP/2 from the proxy before API Gateway"),
    }
}
