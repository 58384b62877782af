//! The Lambda function behind the routes `streamer.sync` and `streamer.ack`. With a sync, a client asks for the kept
//! messages after its position, and receives a page of them. With an acknowledgment, it says which messages it has
//! handled, and their producers get receipts.
//!
//! [`MailboxHandler::handle`] reads the frame, a [`SyncFrame`] or an [`AckFrame`], and then the connection's row, which
//! names the tenant and the user. A frame names neither, so a client can only read and acknowledge the messages of its
//! own user.
//!
//! A sync is then answered in this order (`sync`):
//!
//! 1. For the first sync of a connection, the handler registers the connection as a device. Only then does it read the
//!    page, so that the worker posts every message that the page lacks: see [`streamer_mailbox`].
//! 2. It encodes the page (`frame`) and posts it to the connection (`post`) within the invocation's [`time`].
//!
//! For an acknowledgment, the handler sends one receipt `acknowledged` for each distinct id to the receipts queue
//! (`acknowledge`), and retries for up to 2 s. It does not look the ids up: each receipt names the client's user, so one
//! with the id of another user's message is only a claim of this user.
//!
//! The function keeps no state. Lambda may end it anywhere: the client asks again when no page arrives, and a receipt
//! `acknowledged` is sent at best effort.
//!
//! The answer to API Gateway is 200 without a body, also if the frame was not understood, because a body could reach
//! the client as a message. Only a fault of the deployment, a [`HandlerError`], fails the invocation.

mod acknowledge;
pub mod config;
mod error;
mod frame;
mod post;
mod sync;
pub mod time;

use aws_lambda_events::apigw::ApiGatewayProxyResponse;
use streamer_connections::{Connection, ConnectionTable, TableError};
use streamer_environment::aws::chain;
use streamer_events::WebSocketEvent;
use streamer_gateway::{Gateway, PayloadLimit};
use streamer_mailbox::{DynamoTable, Mailbox, Table};
use streamer_message::{
    ConnectionId,
    frame::{AckFrame, ClientFrame, SyncFrame},
};
use streamer_queue::ReceiptsQueue;
use streamer_telemetry::{Metrics, Telemetry, metric};
use tokio::time::timeout_at;

use crate::time::Time;
pub use error::HandlerError;
pub use post::PostError;

/// The handler of `streamer.sync` and `streamer.ack`. It is created once per execution environment.
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
    /// The maximum size of a page, and of a kept payload with its position.
    pub payloads: PayloadLimit,
    /// The queue for receipts of acknowledged messages.
    pub receipts: ReceiptsQueue,
    /// Logs and metrics.
    pub telemetry: Telemetry,
}

/// A frame that the function handles.
enum Frame {
    Sync(SyncFrame),
    Ack(AckFrame),
}

impl<G: Gateway, T: Table> MailboxHandler<G, T> {
    /// Posts a page to the client that sent the event, or sends receipts for the messages that it has handled.
    ///
    /// # Errors
    /// [`HandlerError`] if the deployment is at fault. The client gets no page and asks again; the receipts that the
    /// error counts are lost.
    pub async fn handle(
        &self,
        event: WebSocketEvent,
        time: Time,
    ) -> Result<ApiGatewayProxyResponse, HandlerError> {
        let mut metrics = self.telemetry.metrics();
        let handled = timeout_at(time.cutoff(), self.handle_frame(&event, &time, &mut metrics)).await;
        let handled = handled.unwrap_or(Err(HandlerError::Deadline));
        self.telemetry.emit(&metrics);
        if let Err(error) = &handled {
            let (connection_id, route_key) = (event.connection_id.as_deref(), event.route_key.as_deref());
            tracing::error!(connection_id, route_key, error = chain(error), "failed to handle a frame");
        }
        handled.map(|()| {
            let mut response = ApiGatewayProxyResponse::default();
            response.status_code = 200;
            response
        })
    }

    async fn handle_frame(
        &self,
        event: &WebSocketEvent,
        time: &Time,
        metrics: &mut Metrics<'_>,
    ) -> Result<(), HandlerError> {
        let id = event.connection_id.as_deref();
        let frame = match read(event) {
            Ok(frame) => frame,
            Err(error) => {
                let (route_key, event_type) = (event.route_key.as_deref(), event.event_type.as_deref());
                tracing::warn!(connection_id = id, route_key, event_type, error, "ignored an invalid frame");
                metrics.count(metric::INVALID_FRAMES, 1);
                return Ok(());
            }
        };
        metrics.count(metric::SYNCS, usize::from(matches!(frame, Frame::Sync(_))));
        let Some(connection) = self.connection(id, time).await? else {
            tracing::debug!(connection_id = id, "ignored a frame of a connection without a live row");
            metrics.count(metric::UNKNOWN_CONNECTIONS, 1);
            return Ok(());
        };
        match frame {
            Frame::Sync(sync) => self.answer(&sync, &connection, time, metrics).await,
            Frame::Ack(ack) => self.acknowledge(ack, &connection, time, metrics).await,
        }
    }

    /// Returns the live row of the connection, if there is one.
    async fn connection(&self, id: Option<&str>, time: &Time) -> Result<Option<Connection>, TableError> {
        // Without a valid id there is no row.
        let Some(id) = id.and_then(|id| ConnectionId::new(id).ok()) else { return Ok(None) };
        self.connections.get(&id, time.now()).await
    }
}

/// Reads the frame of an event. The error does not repeat the frame.
fn read(event: &WebSocketEvent) -> Result<Frame, String> {
    match ClientFrame::decode(event.body.as_deref().unwrap_or_default()) {
        Ok(ClientFrame::Sync(sync)) => Ok(Frame::Sync(sync)),
        Ok(ClientFrame::Ack(ack)) => Ok(Frame::Ack(ack)),
        Ok(_) => Err("the frame is neither a sync nor an acknowledgment: route only `streamer.sync` and `streamer.ack` \
                      to this function"
            .to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
