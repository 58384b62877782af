//! The checks of the client's row.

use std::time::{Instant, SystemTime};

use serde_json::json;
use streamer_connections::{Connection, ConnectionTable, Endpoints, Scope, TableError};
use streamer_message::ConnectionId;
use tokio::time::sleep;

use super::rows::{LAG, MAX_PAGES, POLL, answered_row, find_row};
use crate::doctor::{
    Check,
    live::{
        expected::expected,
        run::{Run, Session, ms, shown, table_failure},
        socket::Socket,
    },
};

/// Names of the checks.
const NAMES: [&str; 4] =
    ["connect.row", "connect.index_by_user", "connect.index_by_tenant", "connect.endpoint"];

/// The reason that checks that need the table are skipped.
const NO_TABLE: &str = "the worker has no CONNECTIONS_TABLE";

/// Checks that the row of a connection appears in the table and in its indexes.
pub(in crate::doctor::live) async fn row(
    run: &Run<'_>,
    mut socket: Socket,
    opened: Instant,
    done: &mut dyn FnMut(Check),
) -> Option<Session> {
    if run.table.is_none() {
        NAMES.into_iter().for_each(|name| done(Check::skipped(name, expected(name), NO_TABLE)));
        let row = answered_row(run, &mut socket).await;
        if row.is_none() {
            let reason = "without a connection table, the connection's id comes from API Gateway's answer to a frame \
                          without a route, and none came";
            done(Check::skipped("delivery.first", expected("delivery.first"), reason));
        }
        return row.map(|row| Session { socket, row });
    }
    let [row_name, user_name, tenant_name, endpoint_name] = NAMES;
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
        match is_in_tenant(run, table, id).await {
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

/// Returns whether one of the shards that the worker reads has the connection.
async fn is_in_tenant(run: &Run<'_>, table: &ConnectionTable, id: &ConnectionId) -> Result<bool, TableError> {
    let (scope, now) = (Scope::Tenant(run.client.tenant.clone()), SystemTime::now());
    let mut cursor = None;
    for _ in 0..MAX_PAGES + usize::from(table.shards().count()) {
        let page = table.live(&scope, cursor.as_ref(), now).await?;
        if page.connections.iter().any(|live| live.connection.connection_id == *id) {
            return Ok(true);
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    Ok(false)
}

/// Checks that `$disconnect` removes the row of a connection that was closed.
pub(in crate::doctor::live) async fn removal(run: &Run<'_>, id: &ConnectionId, closed: Instant) -> Check {
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
