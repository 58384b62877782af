//! Finds the rows of the run's connections.

use std::{
    collections::{BTreeSet, HashSet},
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};
use streamer_connections::{Connection, ConnectionTable, TableError};
use streamer_message::ConnectionId;
use tokio::time::sleep;

use crate::doctor::live::{run::Run, socket::Socket};

/// Time for API Gateway's answer to a frame without a route.
const ANSWER: Duration = Duration::from_secs(3);

/// Lifetime of a row that is not in a table: the longest connection.
const ROW_LIFETIME: Duration = Duration::from_secs(7200);

/// Tolerated offset between this machine's clock and that of the function that writes a row.
const CLOCK_OFFSET: Duration = Duration::from_secs(60);

/// Maximum lag of an index.
pub(super) const LAG: Duration = Duration::from_secs(10);

/// Time between two reads of an index.
pub(super) const POLL: Duration = Duration::from_millis(20);

/// Maximum number of pages that one read of an index takes.
pub(super) const MAX_PAGES: usize = 10;

/// Finds the row of the run's newest connection, and notes its id. Without a table, makes one with the id that API
/// Gateway answers.
///
/// # Errors
/// When the table or its index cannot be read.
pub(in crate::doctor::live) async fn find(
    run: &Run<'_>,
    socket: &mut Socket,
) -> Result<Option<Connection>, TableError> {
    match run.table {
        Some(_) => find_row(run).await,
        None => Ok(answered_row(run, socket).await),
    }
}

/// Sends a frame without a route, and returns a row with the connection id of API Gateway's answer.
pub(super) async fn answered_row(run: &Run<'_>, socket: &mut Socket) -> Option<Connection> {
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
pub(super) async fn find_row(run: &Run<'_>) -> Result<Option<Connection>, TableError> {
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
    row.user_agent.as_deref().unwrap_or_default().is_empty()
        && row.connected_at >= run.began - CLOCK_OFFSET
        && !run.before.borrow().contains(&row.connection_id)
}

/// Returns the rows of the user that have the run's user agent, except for `others`, to which it adds foreign ones.
pub(in crate::doctor::live) async fn rows_of_run(
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
pub(super) async fn ids_of_user(
    run: &Run<'_>,
    table: &ConnectionTable,
) -> Result<HashSet<ConnectionId>, TableError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_to_unrouted_frame_has_the_id() {
        let answer = r#"{"message":"Forbidden","connectionId":"c3RyZWFtZXI=","requestId":"r"}"#;
        assert_eq!(connection_in(answer).map(|id| id.to_string()).as_deref(), Some("c3RyZWFtZXI="));
        assert_eq!(connection_in(r#"{"id":"doctor-1"}"#), None);
    }
}
