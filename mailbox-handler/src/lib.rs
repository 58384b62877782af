//! The Lambda function behind the route `streamer.sync`: a client asks for the kept messages after its position, and
//! receives a page of them.
//!
//! [`MailboxHandler::handle`] does the following, in this order:
//!
//! 1. It reads the frame, [`SyncFrame`].
//! 2. It reads the connection's row, which names the tenant and the user. The frame names neither, so a client can only
//!    read the messages of its own user.
//! 3. For the first sync of a connection, it registers the connection as a device. Only then does it read the page, so
//!    that the worker posts every message that the page lacks: see [`streamer_mailbox`].
//! 4. It encodes the page (`frame`) and posts it to the connection (`post`) within the invocation's [`time`].
//!
//! The function keeps no state. Lambda may end it anywhere: the client asks again when no page arrives.
//!
//! The answer to API Gateway is 200 without a body, also if the sync was not understood, because a body could reach the
//! client as a message. Only a fault of the deployment, a [`SyncError`], fails the invocation.

pub mod config;
mod error;
mod frame;
mod post;
pub mod time;

use aws_lambda_events::apigw::ApiGatewayProxyResponse;
use streamer_connections::{Connection, ConnectionTable, TableError};
use streamer_environment::aws::chain;
use streamer_events::WebSocketEvent;
use streamer_gateway::Gateway;
use streamer_mailbox::{Device, DynamoTable, Mailbox, Page, PageLimits, Stream, Table};
use streamer_message::{
    ConnectionId, StreamName,
    frame::{ClientFrame, MissingReason, Reset, SyncFrame},
};
use streamer_telemetry::{Metrics, Telemetry, metric};
use tokio::time::timeout_at;

use crate::{post::Posted, time::Time};
pub use error::SyncError;
pub use post::PostError;

/// Maximum number of calls that read the messages of one page. Each reads up to 100 messages or 1 MB, so a page that
/// skips many expired messages ends early.
const MAX_READS: usize = 8;

/// The handler of `streamer.sync`. It is created once per execution environment.
#[derive(Debug)]
pub struct MailboxHandler<G, T = DynamoTable> {
    /// The connection table.
    pub connections: ConnectionTable,
    /// The mailbox.
    pub mailbox: Mailbox<T>,
    /// Posts to connections.
    pub gateway: G,
    /// The management endpoint behind the gateway, which registered devices have.
    pub endpoint: String,
    /// Logs and metrics.
    pub telemetry: Telemetry,
}

impl<G: Gateway, T: Table> MailboxHandler<G, T> {
    /// Posts a page to the client that sent the event.
    ///
    /// # Errors
    /// [`SyncError`] if the deployment is at fault. The client gets no page and asks again.
    pub async fn handle(
        &self,
        event: WebSocketEvent,
        time: Time,
    ) -> Result<ApiGatewayProxyResponse, SyncError> {
        let mut metrics = self.telemetry.metrics();
        let synced = timeout_at(time.cutoff(), self.sync(&event, &time, &mut metrics)).await;
        let synced = synced.unwrap_or(Err(SyncError::Deadline));
        self.telemetry.emit(&metrics);
        if let Err(error) = &synced {
            let (connection_id, error) = (event.connection_id.as_deref(), chain(error));
            tracing::error!(connection_id, error, "failed to answer a sync");
        }
        synced.map(|()| {
            let mut response = ApiGatewayProxyResponse::default();
            response.status_code = 200;
            response
        })
    }

    async fn sync(
        &self,
        event: &WebSocketEvent,
        time: &Time,
        metrics: &mut Metrics<'_>,
    ) -> Result<(), SyncError> {
        let id = event.connection_id.as_deref();
        let sync = match read(event) {
            Ok(sync) => sync,
            Err(error) => {
                let (route_key, event_type) = (event.route_key.as_deref(), event.event_type.as_deref());
                tracing::warn!(connection_id = id, route_key, event_type, error, "ignored an invalid frame");
                metrics.count(metric::INVALID_FRAMES, 1);
                return Ok(());
            }
        };
        metrics.count(metric::SYNCS, 1);
        let Some(connection) = self.connection(id, time).await? else {
            tracing::debug!(connection_id = id, "ignored a sync of a connection without a live row");
            metrics.count(metric::UNKNOWN_CONNECTIONS, 1);
            return Ok(());
        };
        self.answer(&sync, &connection, time, metrics).await
    }

    /// Returns the live row of the connection, if there is one.
    async fn connection(&self, id: Option<&str>, time: &Time) -> Result<Option<Connection>, TableError> {
        // Without a valid id there is no row.
        let Some(id) = id.and_then(|id| ConnectionId::new(id).ok()) else { return Ok(None) };
        self.connections.get(&id, time.now()).await
    }

    /// Registers the connection if the client asks for it, and then reads and posts a page.
    async fn answer(
        &self,
        sync: &SyncFrame,
        connection: &Connection,
        time: &Time,
        metrics: &mut Metrics<'_>,
    ) -> Result<(), SyncError> {
        let stream = Stream { tenant: connection.tenant_id.clone(), user: connection.user_id.clone() };
        if sync.hello {
            self.mailbox.register(&stream, &self.device(connection)).await?;
        }
        // The user's stream is the only one. A frame that names it several times gets one page.
        let Some(request) = sync.streams.iter().find(|request| request.stream == StreamName::User) else {
            return Ok(());
        };
        let limits = PageLimits { bytes: sync.max_bytes(), reads: MAX_READS };
        let page = self.mailbox.page(&stream, &request.start(), limits, time.now()).await?;
        let frame = frame::encode(sync.n, request.stream, &page, connection.connected_at, time.now());
        let id = &connection.connection_id;
        match post::post(&self.gateway, id, frame.map_err(SyncError::Payload)?, time).await? {
            Posted::Accepted => report(id, sync, &page, time, metrics),
            Posted::Gone => self.unregister(&stream, id).await,
            Posted::Throttled => {
                tracing::warn!(connection_id = %id, "a client gets no page: API Gateway answers 429");
            }
        }
        Ok(())
    }

    fn device(&self, connection: &Connection) -> Device {
        Device {
            connection: connection.connection_id.clone(),
            endpoint: self.endpoint.clone(),
            expires_at: connection.expires_at,
        }
    }

    /// Removes a device that left before its page. If that fails, the worker's next post to it or its TTL removes it.
    async fn unregister(&self, stream: &Stream, connection: &ConnectionId) {
        match self.mailbox.unregister(stream, connection).await {
            Ok(()) => tracing::info!(connection_id = %connection, "a client left before its page"),
            Err(error) => {
                tracing::warn!(connection_id = %connection, %error, "a client left before its page; its device remains");
            }
        }
    }
}

/// Reads the sync of an event. The error does not repeat the frame.
fn read(event: &WebSocketEvent) -> Result<SyncFrame, String> {
    match ClientFrame::decode(event.body.as_deref().unwrap_or_default()) {
        Ok(ClientFrame::Sync(sync)) => Ok(sync),
        Ok(_) => Err("the frame is not a sync: route only `streamer.sync` to this function".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Logs and counts a page that API Gateway accepted.
fn report(connection: &ConnectionId, sync: &SyncFrame, page: &Page, time: &Time, metrics: &mut Metrics<'_>) {
    let ranges = |reason: MissingReason| page.missing.iter().filter(|range| range.reason == reason).count();
    let missing: u64 = page.missing.iter().map(|range| range.to - range.from + 1).sum();
    metrics.count(metric::PAGES_POSTED, 1);
    metrics.count(metric::PAGE_MESSAGES, page.messages.len());
    metrics.count(metric::GAPS, page.missing.len());
    metrics.time(metric::PAGE_LATENCY, time.elapsed());
    if !page.missing.is_empty() {
        let (expired, overflow) = (ranges(MissingReason::Expired), ranges(MissingReason::Overflow));
        metrics.property("gaps", serde_json::json!({ "expired": expired, "overflow": overflow }));
    }
    tracing::info!(
        connection_id = %connection,
        hello = sync.hello,
        after = page.after,
        through = page.through,
        top = page.top,
        messages = page.messages.len(),
        missing,
        reset = page.reset.map(|reset| match reset {
            Reset::Epoch => "epoch",
            Reset::Ahead => "ahead",
        }),
        "posted a page"
    );
}
