//! Handshakes with and without a valid token, and the rows that they write.

use std::{
    collections::{BTreeSet, HashSet},
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

/// Why checks that need a URL are skipped.
const NO_URL: &str = "the worker has no WEBSOCKET_ENDPOINT: pass the clients' URL with --url";

/// Why checks that need the table are skipped.
const NO_TABLE: &str = "the worker has no CONNECTIONS_TABLE";

/// Time for API Gateway's answer to a frame without a route.
const ANSWER: Duration = Duration::from_secs(3);

/// Lifetime of a row that is not in a table: the longest connection.
const ROW_LIFETIME: Duration = Duration::from_secs(7200);

/// Tolerated offset between this machine's clock and that of the function that writes a row.
const CLOCK_OFFSET: Duration = Duration::from_secs(60);

/// Maximum lag of an index.
const LAG: Duration = Duration::from_secs(10);

/// Time between two reads of an index.
const POLL: Duration = Duration::from_millis(20);

/// Pages of an index that one read looks at.
const MAX_PAGES: usize = 10;

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
    let others = ids_of_user(run, table).await.ok()?;
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
        sleep(POLL * 5).await;
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

/// Checks that the row of a connection appears in the table and in its indexes.
pub(super) async fn row(
    run: &Run<'_>,
    mut socket: Socket,
    opened: Instant,
    done: &mut dyn FnMut(Check),
) -> Option<Session> {
    if run.table.is_none() {
        ROW.into_iter().for_each(|name| done(Check::skipped(name, expected(name), NO_TABLE)));
        let row = answered_row(run, &mut socket).await;
        if row.is_none() {
            let reason = "without a connection table, the connection's id comes from API Gateway's answer to a frame \
                          without a route, and none came";
            done(Check::skipped("delivery.first", expected("delivery.first"), reason));
        }
        return row.map(|row| Session { socket, row });
    }
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
            "set WEBSOCKET_ENDPOINT of {} to {}, or add that to WEBSOCKET_ENDPOINT_ALIASES (Terraform: \
             management_endpoint_aliases)",
            run.worker(),
            row.endpoint
        ),
    )
}

async fn tenant_index(run: &Run<'_>, name: &'static str, id: &ConnectionId, opened: Instant) -> Check {
    let expected = expected(name);
    let Some(table) = &run.table else { return Check::skipped(name, expected, "there is no table") };
    let mut reads = 0;
    while opened.elapsed() < LAG {
        match is_in_shard(run, table, id).await {
            Ok(true) => {
                let lag = opened.elapsed();
                // The first read follows the wait for the other index, so it only gives an upper bound.
                let bound = if reads == 0 { "at most" } else { "after" };
                return Check::ok(name, expected, format!("{bound} {}", shown(lag)))
                    .with_values(json!({ "lag_ms": ms(lag), "is_upper_bound": reads == 0 }));
            }
            Ok(false) => {
                reads += 1;
                sleep(POLL).await;
            }
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

/// Finds the row of the run's newest connection, and notes its id. Without a table, makes one with the id that API
/// Gateway answers.
///
/// # Errors
/// When the table or its index cannot be read.
pub(super) async fn find(run: &Run<'_>, socket: &mut Socket) -> Result<Option<Connection>, TableError> {
    match run.table {
        Some(_) => find_row(run).await,
        None => Ok(answered_row(run, socket).await),
    }
}

/// Sends a frame without a route, and returns a row with the connection id of API Gateway's answer.
async fn answered_row(run: &Run<'_>, socket: &mut Socket) -> Option<Connection> {
    socket.send(json!({ "type": run.id, "action": run.id }).to_string()).await;
    let began = Instant::now();
    while let Ok(arrival) = socket.next(ANSWER.saturating_sub(began.elapsed())).await {
        let Some(connection_id) = connection_in(&arrival.text) else { continue };
        let now = SystemTime::now();
        return Some(Connection {
            connection_id,
            user_id: run.client.user.clone(),
            tenant_id: run.client.tenant.clone(),
            endpoint: run.endpoint().unwrap_or_default().to_owned(),
            connected_at: now,
            expires_at: now + ROW_LIFETIME,
            permissions: BTreeSet::new(),
            source_ip: None,
            user_agent: Some(run.user_agent()),
        });
    }
    None
}

/// Returns the connection id of API Gateway's answer to a frame that it cannot route.
fn connection_in(text: &str) -> Option<ConnectionId> {
    let answer: Value = serde_json::from_str(text).ok()?;
    ConnectionId::new(answer.get("connectionId")?.as_str()?).ok()
}

/// Finds the row of the run's newest connection, and notes its id: the row with the run's user agent, or the only new
/// one without a user agent, which a function that is not Streamer's may omit.
async fn find_row(run: &Run<'_>) -> Result<Option<Connection>, TableError> {
    let Some(table) = &run.table else { return Ok(None) };
    let (began, mut others) = (Instant::now(), run.made.connections.borrow().iter().cloned().collect());
    while began.elapsed() < LAG {
        let rows = rows_where(run, table, &mut others, |row| has_agent(run, row) || is_new(run, row)).await?;
        let (mut own, mut unnamed): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| has_agent(run, row));
        let row = own.pop().or_else(|| unnamed.pop().filter(|_| unnamed.is_empty()));
        if let Some(row) = row {
            run.made.connections.borrow_mut().insert(row.connection_id.clone());
            return Ok(Some(row));
        }
        sleep(POLL).await;
    }
    Ok(None)
}

fn has_agent(run: &Run<'_>, row: &Connection) -> bool {
    row.user_agent.as_deref() == Some(run.user_agent().as_str())
}

/// Returns whether a row without a user agent was written since the run began.
fn is_new(run: &Run<'_>, row: &Connection) -> bool {
    row.user_agent.is_none()
        && row.connected_at >= run.began - CLOCK_OFFSET
        && !run.before.borrow().contains(&row.connection_id)
}

/// Returns the rows of the user that have the run's user agent, except for `others`, to which it adds foreign ones.
pub(super) async fn rows_of_run(
    run: &Run<'_>,
    table: &ConnectionTable,
    others: &mut HashSet<ConnectionId>,
) -> Result<Vec<Connection>, TableError> {
    rows_where(run, table, others, |row| has_agent(run, row)).await
}

/// Returns the rows of the user that are the run's, except for `others`, to which it adds foreign ones.
async fn rows_where(
    run: &Run<'_>,
    table: &ConnectionTable,
    others: &mut HashSet<ConnectionId>,
    is_own: impl Fn(&Connection) -> bool,
) -> Result<Vec<Connection>, TableError> {
    let mut own = Vec::new();
    for id in ids_of_user(run, table).await? {
        if others.contains(&id) {
            continue;
        }
        match table.get(&id, SystemTime::now()).await? {
            Some(row) if is_own(&row) => own.push(row),
            // A row of an index may be gone from the table, and other clients have other user agents.
            _ => _ = others.insert(id),
        }
    }
    Ok(own)
}

/// Returns the connections of the user that the index shows.
async fn ids_of_user(run: &Run<'_>, table: &ConnectionTable) -> Result<HashSet<ConnectionId>, TableError> {
    let (mut ids, mut after) = (HashSet::new(), None);
    for _ in 0..MAX_PAGES {
        let page =
            table.by_user(&run.client.tenant, &run.client.user, after.as_ref(), SystemTime::now()).await?;
        ids.extend(page.connections.into_iter().map(|row| row.connection_id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(ids)
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
    Check::warning(
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
    fn answer_to_unrouted_frame_has_the_id() {
        let answer = r#"{"message":"Forbidden","connectionId":"c3RyZWFtZXI=","requestId":"r"}"#;
        assert_eq!(connection_in(answer).map(|id| id.to_string()).as_deref(), Some("c3RyZWFtZXI="));
        assert_eq!(connection_in(r#"{"id":"doctor-1"}"#), None);
    }

    #[test]
    fn damaged_token_differs_in_its_signature() {
        assert_eq!(damage("a.b.cd"), "a.b.Ad");
        assert_eq!(damage("a.b.Ad"), "a.b.Bd");
    }
}
