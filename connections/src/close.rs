//! Closes connections through the management API.

use std::time::SystemTime;

use aws_config::SdkConfig;
use aws_sdk_apigatewaymanagement::{Client, config::Builder};
use streamer_environment::{aws::cause, failure::FailureKind};

use crate::{
    endpoints::Endpoints, error::TableError, removal::Removal, row::IndexedConnection, table::ConnectionTable,
};

/// The result of closing a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseOutcome {
    /// The connection was open. It is closed, and its row removed.
    Closed,
    /// The connection no longer existed. Its row is removed.
    Gone,
    /// The row stays: the connection may not be established yet, or its row has changed since it was read.
    TooYoung,
}

/// The reason why a connection may still be open or have a row.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// The connection may still be open. Its row stays, so that a later call can close it.
    #[error("DeleteConnection failed: {cause}; check that the role may call execute-api:ManageConnections")]
    Call {
        /// The kind of the failure.
        kind: FailureKind,
        /// The error of API Gateway, or of a call without a response.
        cause: String,
    },
    /// The connection is closed, but its row may remain.
    #[error("the connection is closed, but its row may remain: {0}")]
    Row(TableError),
}

impl ConnectionTable {
    /// Closes a connection with `DeleteConnection` and removes its row. Until `$connect` has been answered, API Gateway
    /// answers 410 for a connection, so a 410 leaves the row of a connection made at `cutoff` or later.
    ///
    /// # Errors
    /// [`CloseError`]. Call again: closing is idempotent.
    pub async fn close(
        &self,
        aws: &SdkConfig,
        connection: &IndexedConnection,
        cutoff: SystemTime,
    ) -> Result<CloseOutcome, CloseError> {
        let IndexedConnection { connection_id: id, endpoint, .. } = connection;
        let client = Client::from_conf(Builder::from(aws).endpoint_url(endpoint).build());
        match client.delete_connection().connection_id(id.as_str()).send().await {
            Ok(_) => {
                self.delete(id).await.map_err(CloseError::Row)?;
                Ok(CloseOutcome::Closed)
            }
            Err(error) if error.raw_response().is_some_and(|response| response.status().as_u16() == 410) => {
                let endpoints = Endpoints::from(endpoint.as_str());
                match self.delete_if_older(id, cutoff, &endpoints).await.map_err(CloseError::Row)? {
                    Removal::Removed => Ok(CloseOutcome::Gone),
                    Removal::TooYoung | Removal::Elsewhere(_) => Ok(CloseOutcome::TooYoung),
                }
            }
            Err(error) => Err(CloseError::Call { kind: FailureKind::of(&error), cause: cause(&error) }),
        }
    }
}
