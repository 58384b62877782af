//! The limit on the connections of a user.

use std::{
    num::NonZeroUsize,
    time::{Duration, SystemTime},
};

use aws_config::SdkConfig;
use futures::{StreamExt as _, stream};
use streamer_connections::{
    CloseOutcome, Connection, ConnectionTable, Endpoints, IndexedConnection, TableError,
};
use tokio::time::timeout;

/// Maximum time for listing and closing the user's other connections. After it the client may connect all the same: the
/// limit guards against waste, and the user's next connection closes the remaining ones.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Connections that are closed concurrently.
const CONCURRENCY: usize = 8;

/// Closes the oldest connections of a user who has too many.
#[derive(Debug)]
pub struct ConnectionLimit {
    maximum: NonZeroUsize,
    connect_grace: Duration,
    aws: SdkConfig,
}

impl ConnectionLimit {
    /// Creates a limit of `maximum` connections per user. A client with the configuration `aws` closes connections over
    /// the limit; a 410 for one younger than `connect_grace` means "not yet connected".
    #[must_use]
    pub fn new(maximum: NonZeroUsize, connect_grace: Duration, aws: SdkConfig) -> Self {
        Self { maximum, connect_grace, aws }
    }

    /// Closes the oldest connections of the user of `newest` if there are more than the maximum, and removes their
    /// rows.
    ///
    /// - Connections made after `newest` stay open, so that concurrent connections do not close each other.
    /// - Connections of another management endpoint do not count.
    /// - A failure is logged, and the client may connect all the same. Since the index lags, or after a failure, the
    ///   user may exceed the limit until the next connection.
    pub async fn enforce(&self, table: &ConnectionTable, newest: &Connection, now: SystemTime) {
        match timeout(TIMEOUT, self.close_oldest(table, newest, now)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "failed to count the user's connections"),
            Err(_) => tracing::warn!("timed out while counting and closing the user's connections"),
        }
    }

    async fn close_oldest(
        &self,
        table: &ConnectionTable,
        newest: &Connection,
        now: SystemTime,
    ) -> Result<(), TableError> {
        let (tenant, user) = (&newest.tenant_id, &newest.user_id);
        let endpoints = Endpoints::from(newest.endpoint.as_str());
        let newest = IndexedConnection::from(newest.clone());
        let (mut all, mut after) = (vec![newest.clone()], None);
        loop {
            // Includes connections whose rows have expired: a socket may outlive its token.
            let page = table.by_user(tenant, user, after.as_ref(), SystemTime::UNIX_EPOCH).await?;
            let here = page.connections.into_iter().filter(|other| endpoints.include(&other.endpoint));
            all.extend(here.filter(|other| other.connection_id != newest.connection_id));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        all.sort_unstable_by_key(|connection| (connection.connected_at, connection.connection_id.clone()));
        let excess = all.len().saturating_sub(self.maximum.get());
        let older = all.iter().take(excess).take_while(|other| other.connection_id != newest.connection_id);
        let closing: Vec<_> = older.map(|other| self.close(table, other, now)).collect();
        stream::iter(closing).buffer_unordered(CONCURRENCY).collect::<()>().await;
        Ok(())
    }

    async fn close(&self, table: &ConnectionTable, connection: &IndexedConnection, now: SystemTime) {
        let id = &connection.connection_id;
        match table.close(&self.aws, connection, now - self.connect_grace).await {
            Ok(CloseOutcome::Closed) => {
                tracing::info!(connection_id = %id, "closed a connection over the user's limit");
            }
            Ok(CloseOutcome::Gone | CloseOutcome::TooYoung) => {}
            Err(error) => {
                tracing::warn!(connection_id = %id, %error, "failed to close a connection over the user's limit");
            }
        }
    }
}
