//! Handshakes with and without a valid token, and the rows that they write.
//!
//! - [`rows`] finds rows. [`mod@row`] has the checks of the client's row.

mod row;
mod rows;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

pub(super) use self::{
    row::{removal, row},
    rows::{find, rows_of_run},
};
use super::{
    Client,
    expected::expected,
    run::{Run, ms, shown},
    socket::{NotConnected, Socket},
};
use crate::doctor::Check;

/// The reason that checks that need a URL are skipped.
const NO_URL: &str = "the worker has no WEBSOCKET_ENDPOINT: pass the clients' URL with --url";

/// Time between two reads of the log of the connect function.
const LOG_POLL: Duration = Duration::from_millis(100);

/// Connects the client.
///
/// # Errors
/// When the server refuses it, or there is no URL or no answer.
pub(super) async fn open(run: &Run<'_>) -> Result<Socket, NotConnected> {
    let Client { url, token, .. } = run.client;
    let url = url.as_deref().ok_or_else(|| NotConnected::Failed(NO_URL.to_owned()))?;
    Socket::connect(url, token.as_deref(), &run.user_agent()).await
}

/// Checks that `$connect` accepts the client's token. Returns its WebSocket, and the moment in which it was open.
pub(super) async fn let_in(run: &Run<'_>, done: &mut dyn FnMut(Check)) -> Option<(Socket, Instant)> {
    const NAME: &str = "connect.token";
    let expected = expected(NAME);
    if let Some(reason) = obstacle(run).await {
        done(Check::skipped(NAME, expected, reason));
        return None;
    }
    let began = Instant::now();
    let (seen, remedy) = match open(run).await {
        Ok(socket) => {
            let time = began.elapsed();
            done(
                Check::ok(NAME, expected, format!("connected after {}", shown(time)))
                    .with_values(json!({ "connect_ms": ms(time) })),
            );
            return Some((socket, Instant::now()));
        }
        Err(NotConnected::Refused(status)) => {
            let reason = refusal(run).await;
            let seen = match &reason {
                Some(reason) => format!("refused with {status}; {} logs: {reason}", run.function("connect")),
                None => format!("refused with {status}"),
            };
            (seen, refused_remedy(run, status, reason.is_some()))
        }
        Err(NotConnected::Failed(error)) => {
            let seen = format!("no WebSocket at {}: {error}", run.client.shown_url());
            (seen, "correct the clients' URL: --url".to_owned())
        }
    };
    done(Check::failed(NAME, expected, seen, remedy));
    None
}

/// Returns why the client is not connected, if it is not. Notes the user's other connections.
async fn obstacle(run: &Run<'_>) -> Option<String> {
    let client = run.client;
    if client.url.is_none() {
        return Some(NO_URL.to_owned());
    }
    if client.token.is_none() && !client.has_query() {
        return Some(
            "there is no token: pass --token-file FILE, set STREAMER_TOKEN, or sign one with --key FILE"
                .to_owned(),
        );
    }
    let table = run.table.as_ref()?;
    let others = rows::ids_of_user(run, table).await.ok()?;
    let count = others.len();
    *run.before.borrow_mut() = others;
    let limit: usize =
        run.subject.functions.get("connect")?.variable("MAX_CONNECTIONS_PER_USER")?.parse().ok()?;
    (count + 1 > limit).then(|| {
        format!(
            "user {} has {count} connections, and MAX_CONNECTIONS_PER_USER is {limit}: another one would close the \
             oldest; pass the token of a user without connections",
            client.user
        )
    })
}

fn refused_remedy(run: &Run<'_>, status: u16, is_logged: bool) -> String {
    let connect = run.function("connect");
    match status {
        401 | 403 => {
            let address = match is_logged {
                true => "",
                false => "; or the URL has a wrong stage, or its domain no API mapping",
            };
            format!(
                "compare the token's issuer, audience, tenant, permissions and expiry with JWT_ISSUER, JWT_AUDIENCE, \
                 ALLOWED_TENANTS, REQUIRED_PERMISSION of {connect}, the names of its claims with USER_CLAIM, \
                 TENANT_CLAIM, JWT_AUDIENCE_CLAIM, PERMISSIONS_CLAIM (add claims with --claim), and its key with \
                 JWT_JWKS_URL or JWT_PUBLIC_KEY{address}"
            )
        }
        404 => "correct the clients' URL: --url needs the stage at its end".to_owned(),
        429 => "raise the account's quota of new connections per second".to_owned(),
        _ => format!(
            "look at the log of {connect}: it may lack dynamodb:PutItem on the connection table, or its environment is \
             faulty"
        ),
    }
}

/// Returns the reason that the connect function logged for a refusal.
async fn refusal(run: &Run<'_>) -> Option<String> {
    let function = &run.subject.functions.get("connect")?.name;
    for _ in 0..10 {
        let lines = run.log(function, "\"refused\"").await.ok()?;
        let reason = lines.iter().rev().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "refused").then(|| line["reason"].as_str().map(str::to_owned))?
        });
        if reason.is_some() || !run.subject.is_local {
            return reason;
        }
        sleep(LOG_POLL).await;
    }
    None
}

/// Checks that a client without a token, or with a damaged one, is refused.
pub(super) async fn refuse(run: &Run<'_>, done: &mut dyn FnMut(Check)) {
    let damaged = run.client.token.as_deref().map(damage);
    for (name, token) in [("connect.no_token", None), ("connect.damaged_token", Some(damaged))] {
        let expected = expected(name);
        let skipped = |reason: &str| Check::skipped(name, expected, reason);
        let check = match (&run.client.url, token) {
            (None, _) => skipped(NO_URL),
            (Some(_), _) if run.client.has_query() => {
                skipped("the URL has a query: a token in it would let the client in")
            }
            (Some(_), Some(None)) => skipped("there is no token to damage"),
            (Some(url), token) => {
                let token = token.flatten();
                judge_refusal(run, name, Socket::connect(url, token.as_deref(), &run.user_agent()).await)
                    .await
            }
        };
        done(check);
    }
}

/// Judges the handshake of a client without a valid token. A function that is not Streamer's may admit such clients.
async fn judge_refusal(run: &Run<'_>, name: &'static str, handshake: Result<Socket, NotConnected>) -> Check {
    let (expected, connect) = (expected(name), run.function("connect"));
    match handshake {
        Ok(socket) => {
            socket.close().await;
            let subject = run.subject;
            if !subject.functions.contains_key("connect") && !subject.unreadable.contains("connect") {
                let remedy = "check that the function behind $connect admits such clients on purpose";
                return Check::warning(
                    name,
                    expected,
                    "connected; the deployment has no connect function",
                    remedy,
                );
            }
            let remedy = format!("give the route $connect to {connect}, and check its JWT settings");
            Check::failed(name, expected, "connected: every client can connect", remedy)
        }
        Err(NotConnected::Refused(status @ (401 | 403))) => {
            Check::ok(name, expected, format!("refused with {status}"))
                .with_values(json!({ "status": status }))
        }
        Err(NotConnected::Refused(status)) => {
            let remedy = format!("look at the log of {connect}: a refusal has the status 401 or 403");
            Check::failed(name, expected, format!("status {status}"), remedy)
        }
        Err(NotConnected::Failed(error)) => {
            Check::failed(name, expected, error, "check --url and the network")
        }
    }
}

/// Changes a token's signature.
fn damage(token: &str) -> String {
    let (rest, signature) = token.rsplit_once('.').unwrap_or((token, ""));
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{rest}.{first}{}", signature.get(1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_token_differs_in_its_signature() {
        assert_eq!(damage("a.b.cd"), "a.b.Ad");
        assert_eq!(damage("a.b.Ad"), "a.b.Bd");
    }
}
