//! How many connections a user may have.

use std::{
    num::NonZeroUsize,
    time::{Duration, SystemTime},
};

use aws_config::SdkConfig;
use aws_sdk_apigatewaymanagement::{Client, config::Builder};
use futures::{StreamExt as _, stream};
use streamer_connections::{Connection, ConnectionTable, Endpoints, IndexedConnection, TableError};
use streamer_environment::aws::cause;
use tokio::time::timeout;

/// How long looking for the user's other connections, and closing one, may take. Past it the client is let in: the
/// limit is there against waste, and the next connection closes what this one did not.
const TIME: Duration = Duration::from_secs(2);

/// How young a connection may be for a 410 to mean that it is not there yet.
const CONNECT_GRACE: Duration = Duration::from_secs(5);

/// Connections that are closed at the same time.
const AT_ONCE: usize = 8;

/// Closes the oldest connections of a user who has too many.
#[derive(Debug)]
pub struct ConnectionLimit {
    maximum: NonZeroUsize,
    aws: SdkConfig,
}

impl ConnectionLimit {
    /// At most `maximum` connections. Those that are too many are closed by a client with this configuration.
    #[must_use]
    pub fn new(maximum: NonZeroUsize, aws: SdkConfig) -> Self {
        Self { maximum, aws }
    }

    /// Closes the oldest connections of the user who has just made this one, if they are too many, and removes their
    /// rows; of those that were made at the same time, each leaves the younger ones alone. What cannot be done is
    /// logged, and nobody is kept out for it. The index lags by a moment, so what is too many then stays until the
    /// next connection. Connections of another management endpoint are not counted.
    pub async fn enforce(&self, table: &ConnectionTable, newest: &Connection, now: SystemTime) {
        match timeout(TIME, self.close_oldest(table, newest, now)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the user's connections were not counted"),
            Err(_) => tracing::warn!("not all of the user's connections were counted and closed in time"),
        }
    }

    async fn close_oldest(
        &self,
        table: &ConnectionTable,
        newest: &Connection,
        now: SystemTime,
    ) -> Result<(), TableError> {
        let (tenant, user) = (&newest.tenant_id, &newest.user_id);
        let newest = IndexedConnection::from(newest.clone());
        let (mut all, mut after) = (vec![newest.clone()], None);
        loop {
            // Those past their expiry, too: a socket may outlive its token.
            let page = table.by_user(tenant, user, after.as_ref(), SystemTime::UNIX_EPOCH).await?;
            let of_this_api = page.connections.into_iter().filter(|other| other.endpoint == newest.endpoint);
            all.extend(of_this_api.filter(|other| other.connection_id != newest.connection_id));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        all.sort_unstable_by_key(|connection| (connection.connected_at, connection.connection_id.clone()));
        let too_many = all.len().saturating_sub(self.maximum.get());
        let older = all.iter().take(too_many).take_while(|other| other.connection_id != newest.connection_id);
        let closing: Vec<_> = older.map(|other| self.close(table, other, now)).collect();
        stream::iter(closing).buffer_unordered(AT_ONCE).collect::<()>().await;
        Ok(())
    }

    async fn close(&self, table: &ConnectionTable, connection: &IndexedConnection, now: SystemTime) {
        let config = Builder::from(&self.aws).endpoint_url(&connection.endpoint).build();
        let id = &connection.connection_id;
        let closed = Client::from_conf(config).delete_connection().connection_id(id.as_str()).send().await;
        let removed = match closed {
            Ok(_) => {
                tracing::info!(connection_id = %id, "closed: its user has a newer one");
                table.delete(id).await.map(drop)
            }
            // Gone, or still being made: until `$connect` has answered, a connection does not exist.
            Err(error) if error.raw_response().is_some_and(|response| response.status().as_u16() == 410) => {
                let here = Endpoints::from(connection.endpoint.as_str());
                table.delete_if_older(id, now - CONNECT_GRACE, &here).await.map(drop)
            }
            // Its row stays, so that the next connection tries again.
            Err(error) => {
                tracing::warn!(connection_id = %id, cause = cause(&error), "a connection too many is still open");
                Ok(())
            }
        };
        if let Err(error) = removed {
            tracing::warn!(connection_id = %id, %error, "the row of a connection too many is still there");
        }
    }
}
