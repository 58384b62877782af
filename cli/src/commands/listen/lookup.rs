//! Finds the row of a connection, which has its id.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use streamer_connections::ConnectionTable;
use streamer_message::{ConnectionId, TenantId, UserId};
use tokio::time::{sleep, timeout};

/// How often, and for how long, the connection's row is looked for.
const LOOKUP_INTERVAL: Duration = Duration::from_millis(200);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns a user agent that no other connection has, so that the connection's row can be told from the user's others.
pub(super) fn user_agent() -> String {
    format!("streamer-listen/{} ({:016x})", env!("CARGO_PKG_VERSION"), fastrand::u64(..))
}

/// Finds the connection of a user that has this user agent. `$connect` wrote its row before it answered.
pub(super) async fn find(
    table: &ConnectionTable,
    tenant: &TenantId,
    user: &UserId,
    agent: &str,
) -> Option<ConnectionId> {
    let searching = async {
        let mut others = HashSet::new();
        loop {
            let mut after = None;
            while let Ok(page) = table.by_user(tenant, user, after.as_ref(), SystemTime::now()).await {
                for id in page.connections.into_iter().map(|row| row.connection_id) {
                    if others.contains(&id) {
                        continue;
                    }
                    match table.get(&id, SystemTime::now()).await {
                        Ok(Some(row)) if row.user_agent.as_deref() == Some(agent) => return id,
                        Ok(_) => _ = others.insert(id),
                        Err(_) => {}
                    }
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            sleep(LOOKUP_INTERVAL).await;
        }
    };
    timeout(LOOKUP_TIMEOUT, searching).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_agent_is_unique() {
        assert_ne!(user_agent(), user_agent());
    }
}
