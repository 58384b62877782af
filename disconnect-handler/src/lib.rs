//! The Lambda function behind `$disconnect`.
//!
//! [`DisconnectHandler::handle`] removes the connection's row and always answers 200: API Gateway sends `$disconnect`
//! once, on a best-effort basis, and ignores the response. A row that is not removed here is removed by the first
//! post that is answered with 410, or by its TTL. A row that is already gone is normal.

pub mod config;

use std::time::{Instant, SystemTime};

use aws_lambda_events::apigw::ApiGatewayProxyResponse;
use streamer_connections::{Connection, ConnectionTable, TableError};
use streamer_events::WebSocketEvent;
use streamer_message::ConnectionId;
use streamer_telemetry::{Telemetry, metric};

/// The handler of `$disconnect`. It is created once per execution environment.
#[derive(Debug)]
pub struct DisconnectHandler {
    table: ConnectionTable,
    telemetry: Telemetry,
}

impl DisconnectHandler {
    /// Creates a handler that removes rows from `table`.
    #[must_use]
    pub fn new(table: ConnectionTable, telemetry: Telemetry) -> Self {
        Self { table, telemetry }
    }

    /// Removes the row of the event's connection.
    pub async fn handle(&self, event: WebSocketEvent) -> ApiGatewayProxyResponse {
        let started = Instant::now();
        let mut metrics = self.telemetry.metrics();
        let id = event.connection_id.as_deref().unwrap_or_default();
        let (status, reason) = (event.disconnect_status_code, event.disconnect_reason.as_deref());
        match self.remove(id).await {
            None => tracing::warn!(
                connection_id = id,
                "the event has no valid requestContext.connectionId, and no row was removed: invoke the function by the \
                 route $disconnect of a WebSocket API"
            ),
            Some(Ok(Some(connection))) => {
                let duration = SystemTime::now().duration_since(connection.connected_at).unwrap_or_default();
                metrics.time(metric::CONNECTION_DURATION, duration);
                tracing::info!(
                    connection_id = id,
                    user_id = %connection.user_id,
                    tenant_id = %connection.tenant_id,
                    duration_ms = duration.as_millis() as u64,
                    status,
                    reason,
                    "disconnected"
                );
            }
            Some(Ok(None)) => {
                tracing::info!(connection_id = id, status, reason, "disconnected; the row was already gone")
            }
            Some(Err(error @ TableError::Row(_))) => {
                tracing::warn!(connection_id = id, status, reason, %error, "disconnected; the row was malformed");
            }
            Some(Err(error @ TableError::Call { .. })) => {
                tracing::error!(connection_id = id, status, reason, %error, "disconnected; the row may remain");
            }
        }
        metrics.time(metric::DISCONNECT_LATENCY, started.elapsed());
        self.telemetry.emit(&metrics);

        let mut response = ApiGatewayProxyResponse::default();
        response.status_code = 200;
        response
    }

    /// Removes the row of a connection. `None` if the id is not valid, so that there is no row.
    async fn remove(&self, id: &str) -> Option<Result<Option<Connection>, TableError>> {
        let id = ConnectionId::new(id).ok()?;
        Some(self.table.delete(&id).await)
    }
}
