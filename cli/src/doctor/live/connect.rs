//! Who may connect, and when the indexes show it.

use std::{
    collections::HashSet,
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};
use streamer_connections::{Connection, ConnectionTable, Endpoints, TableError, shard_of};
use streamer_message::ConnectionId;
use tokio::time::sleep;

use super::{
    Client,
    expected::expected,
    run::{Run, Session, ms, shown, table_failure},
    socket::{NotConnected, Socket},
};
use crate::doctor::Check;

/// Names of the checks of a connection's row.
pub(super) const ROW: [&str; 4] =
    ["connect.row", "connect.index_by_user", "connect.index_by_tenant", "connect.endpoint"];

/// How long an index may lag.
const LAG: Duration = Duration::from_secs(10);

/// Time between two reads of an index.
const POLL: Duration = Duration::from_millis(20);

/// Pages of an index that one read looks at.
const MAX_PAGES: usize = 10;

/// Checks that the client's token lets it in. Returns its WebSocket, and the moment in which it was open.
pub(super) async fn let_in(run: &Run<'_>, done: &mut dyn FnMut(Check)) -> Option<(Socket, Instant)> {
    const NAME: &str = "connect.token";
    let Client { url, token, .. } = run.client;
    let expected = expected(NAME);
    let began = Instant::now();
    let remedy = match Socket::connect(url, Some(token), &run.user_agent()).await {
        Ok(socket) => {
            let time = began.elapsed();
            done(
                Check::ok(NAME, expected, format!("in, after {}", shown(time)))
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
            (seen, refused_remedy(run, status))
        }
        Err(NotConnected::Failed(error)) => {
            (format!("no WebSocket at {url}: {error}"), "correct the clients' URL: --url".to_owned())
        }
    };
    done(Check::failed(NAME, expected, remedy.0, remedy.1));
    None
}

fn refused_remedy(run: &Run<'_>, status: u16) -> String {
    let connect = run.function("connect");
    match status {
        401 | 403 => format!(
            "compare the token's issuer, audience, tenant and expiry with JWT_ISSUER, JWT_AUDIENCE, ALLOWED_TENANTS of \
             {connect}, and its key with JWT_JWKS_URL or JWT_PUBLIC_KEY"
        ),
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
        sleep(POLL * 5).await;
    }
    None
}

/// Checks that no client gets in without a token, or with a damaged one.
pub(super) async fn refuse(run: &Run<'_>, done: &mut dyn FnMut(Check)) {
    let Client { url, token, .. } = run.client;
    let damaged = damage(token);
    for (name, token) in [("connect.no_token", None), ("connect.damaged_token", Some(damaged.as_str()))] {
        let expected = expected(name);
        let connect = run.function("connect");
        let check = match Socket::connect(url, token, &run.user_agent()).await {
            Ok(socket) => {
                socket.close().await;
                let remedy = format!("give the route $connect to {connect}, and check its JWT settings");
                Check::failed(name, expected, "let in: anyone can connect", remedy)
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
        };
        done(check);
    }
}

/// Changes a token's signature.
fn damage(token: &str) -> String {
    let (rest, signature) = token.rsplit_once('.').unwrap_or((token, ""));
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{rest}.{first}{}", signature.get(1..).unwrap_or_default())
}

/// Checks that the row of a connection appears in the table and in its indexes.
pub(super) async fn row(
    run: &Run<'_>,
    socket: Socket,
    opened: Instant,
    done: &mut dyn FnMut(Check),
) -> Option<Session> {
    let [row_name, user_name, tenant_name, endpoint_name] = ROW;
    let (expected_row, expected) = (expected(row_name), expected(user_name));
    let row = match find_row(run).await {
        Ok(Some(row)) => row,
        Ok(None) => {
            done(Check::failed(
                user_name,
                expected,
                format!("no row within {} s", LAG.as_secs()),
                format!(
                    "pass the token's own --user and --tenant; check that {} and {} use one table, and that it has the \
                     index by_user (infra/table.tf)",
                    run.function("connect"),
                    run.worker()
                ),
            ));
            return None;
        }
        Err(error) => {
            done(table_failure(user_name, expected, &error));
            return None;
        }
    };
    let lag = opened.elapsed();
    done(if row.tenant_id == run.client.tenant && row.user_id == run.client.user {
        Check::ok(row_name, expected_row, "found")
    } else {
        Check::failed(
            row_name,
            expected_row,
            "the row has another user or tenant",
            "pass the token's own user and tenant: --user, --tenant",
        )
    });
    done(
        Check::ok(user_name, expected, format!("after {}", shown(lag)))
            .with_values(json!({ "lag_ms": ms(lag) })),
    );
    done(tenant_index(run, tenant_name, &row.connection_id, opened).await);
    done(endpoint(run, endpoint_name, &row));
    Some(Session { socket, row })
}

/// Checks that the row has the endpoint that the worker posts to.
fn endpoint(run: &Run<'_>, name: &'static str, row: &Connection) -> Check {
    let expected = expected(name);
    let aliases = run.subject.variable("WEBSOCKET_ENDPOINT_ALIASES").unwrap_or_default();
    let aliases = aliases.split(',').map(|alias| alias.trim().to_owned());
    let endpoints = Endpoints::new(run.endpoint().unwrap_or_default(), aliases);
    if endpoints.include(&row.endpoint) {
        return Check::ok(name, expected, "that of the worker")
            .with_values(json!({ "endpoint": row.endpoint }));
    }
    Check::failed(
        name,
        expected,
        format!("the row has {}, the worker {}", row.endpoint, endpoints.name()),
        format!(
            "set WEBSOCKET_ENDPOINT of {} to {}, or add that to WEBSOCKET_ENDPOINT_ALIASES",
            run.worker(),
            row.endpoint
        ),
    )
}

async fn tenant_index(run: &Run<'_>, name: &'static str, id: &ConnectionId, opened: Instant) -> Check {
    let expected = expected(name);
    let Some(table) = &run.table else { return Check::skipped(name, expected, "there is no table") };
    while opened.elapsed() < LAG {
        match is_in_shard(run, table, id).await {
            Ok(true) => {
                let lag = opened.elapsed();
                return Check::ok(name, expected, format!("after {}", shown(lag)))
                    .with_values(json!({ "lag_ms": ms(lag) }));
            }
            Ok(false) => sleep(POLL).await,
            Err(error) => return table_failure(name, expected, &error),
        }
    }
    let seen = format!("no row within {} s", LAG.as_secs());
    Check::failed(
        name,
        expected,
        seen,
        "create the index by_tenant with the hash key tenant_shard (infra/table.tf)",
    )
}

async fn is_in_shard(run: &Run<'_>, table: &ConnectionTable, id: &ConnectionId) -> Result<bool, TableError> {
    let mut after = None;
    for _ in 0..MAX_PAGES {
        let page =
            table.by_tenant(&run.client.tenant, shard_of(id), after.as_ref(), SystemTime::now()).await?;
        if page.connections.iter().any(|row| row.connection_id == *id) {
            return Ok(true);
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(false)
}

/// Finds the row of the run's newest connection by its user agent, and notes its id.
///
/// # Errors
/// When the table or its index cannot be read.
pub(super) async fn find_row(run: &Run<'_>) -> Result<Option<Connection>, TableError> {
    let Some(table) = &run.table else { return Ok(None) };
    let (began, mut others) = (Instant::now(), run.made.connections.borrow().iter().cloned().collect());
    while began.elapsed() < LAG {
        if let Some(row) = rows_of_run(run, table, &mut others).await?.pop() {
            run.made.connections.borrow_mut().insert(row.connection_id.clone());
            return Ok(Some(row));
        }
        sleep(POLL).await;
    }
    Ok(None)
}

/// Returns the rows of the user that have the run's user agent, except for `others`, to which it adds foreign ones.
pub(super) async fn rows_of_run(
    run: &Run<'_>,
    table: &ConnectionTable,
    others: &mut HashSet<ConnectionId>,
) -> Result<Vec<Connection>, TableError> {
    let (agent, mut own, mut after) = (run.user_agent(), Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let page =
            table.by_user(&run.client.tenant, &run.client.user, after.as_ref(), SystemTime::now()).await?;
        for id in page.connections.into_iter().map(|row| row.connection_id) {
            if others.contains(&id) {
                continue;
            }
            match table.get(&id, SystemTime::now()).await? {
                Some(row) if row.user_agent.as_deref() == Some(&agent) => own.push(row),
                // A row of an index may be gone from the table, and another kind of client has another user agent.
                _ => _ = others.insert(id),
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(own)
}

/// Checks that `$disconnect` removes the row of a connection that was closed.
pub(super) async fn removal(run: &Run<'_>, id: &ConnectionId, closed: Instant) -> Check {
    const NAME: &str = "connect.disconnect";
    let expected = expected(NAME);
    let Some(table) = &run.table else { return Check::skipped(NAME, expected, "there is no table") };
    while closed.elapsed() < LAG {
        match table.get(id, SystemTime::now()).await {
            Ok(None) => {
                let time = closed.elapsed();
                return Check::ok(NAME, expected, format!("after {}", shown(time)))
                    .with_values(json!({ "removed_ms": ms(time) }));
            }
            Ok(Some(_)) => sleep(POLL).await,
            Err(error) => return table_failure(NAME, expected, &error),
        }
    }
    let disconnect = run.function("disconnect");
    Check::failed(
        NAME,
        expected,
        format!("the row is still there after {} s", LAG.as_secs()),
        format!(
            "give the route $disconnect to {disconnect}, and allow dynamodb:DeleteItem on the connection table to its role"
        ),
    )
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
