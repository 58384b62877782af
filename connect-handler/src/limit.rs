//! How many connections a user may have.

use std::{
    num::NonZeroUsize,
    time::{Duration, SystemTime},
};

use aws_config::SdkConfig;
use aws_sdk_apigatewaymanagement::{Client, config::Builder};
use streamer_connections::{Connection, ConnectionTable, IndexedConnection, TableError};
use streamer_environment::aws::cause;
use tokio::time::timeout;

/// How long looking for the user's other connections, and closing one, may take. Past it the client is let in: the
/// limit is there against waste, and the next connection closes what this one did not.
const TIME: Duration = Duration::from_secs(2);

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
    /// rows. What cannot be done is logged, and nobody is kept out for it. The index lags by a moment, so
    /// connections that are made at the same time may be too many until the next one comes.
    pub async fn enforce(&self, table: &ConnectionTable, newest: &Connection, now: SystemTime) {
        match timeout(TIME, self.close_oldest(table, newest, now)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the user's connections were not counted"),
            Err(_) => tracing::warn!("the user's connections were not counted in time"),
        }
    }

    async fn close_oldest(
        &self,
        table: &ConnectionTable,
        newest: &Connection,
        now: SystemTime,
    ) -> Result<(), TableError> {
        let (tenant, user) = (&newest.tenant_id, &newest.user_id);
        let (mut others, mut after) = (Vec::new(), None);
        loop {
            let page = table.by_user(tenant, user, after.as_ref(), now).await?;
            let of_this_api = page.connections.into_iter().filter(|other| other.endpoint == newest.endpoint);
            others.extend(of_this_api.filter(|other| other.connection_id != newest.connection_id));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        others.sort_unstable_by(|one, other| {
            (one.connected_at, &one.connection_id).cmp(&(other.connected_at, &other.connection_id))
        });
        // The newest itself is one of those that may stay.
        let too_many = (others.len() + 1).saturating_sub(self.maximum.get());
        for oldest in others.iter().take(too_many) {
            self.close(table, oldest).await?;
        }
        Ok(())
    }

    async fn close(&self, table: &ConnectionTable, connection: &IndexedConnection) -> Result<(), TableError> {
        let config = Builder::from(&self.aws).endpoint_url(&connection.endpoint).build();
        let id = &connection.connection_id;
        let closed = Client::from_conf(config).delete_connection().connection_id(id.as_str()).send().await;
        match closed {
            Ok(_) => tracing::info!(connection_id = %id, "closed: its user has a newer one"),
            Err(error) if error.raw_response().is_some_and(|response| response.status().as_u16() == 410) => {}
            Err(error) => {
                // Its row stays, so that the next connection tries again.
                tracing::warn!(connection_id = %id, cause = cause(&error), "a connection too many is still open");
                return Ok(());
            }
        }
        table.delete(id).await.map(drop)
    }
}
