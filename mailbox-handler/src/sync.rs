//! Answers a sync with a page of kept messages.

use streamer_connections::Connection;
use streamer_gateway::Gateway;
use streamer_mailbox::{Device, Page, PageLimits, Stream, Table};
use streamer_message::{
    ConnectionId, StreamName,
    frame::{MissingReason, Reset, SyncFrame},
};
use streamer_telemetry::{Metrics, metric};

use crate::{
    HandlerError, MailboxHandler, frame,
    post::{self, Posted},
    time::Time,
};

/// Maximum number of calls that read the messages of one page. Each reads up to 100 messages or 1 MB, so a page that
/// skips many expired messages ends early.
const MAX_READS: usize = 8;

impl<G: Gateway, T: Table> MailboxHandler<G, T> {
    /// Registers the connection if the client asks for it, and then reads and posts a page.
    pub(crate) async fn answer(
        &self,
        sync: &SyncFrame,
        connection: &Connection,
        time: &Time,
        metrics: &mut Metrics<'_>,
    ) -> Result<(), HandlerError> {
        let stream = Stream { tenant: connection.tenant_id.clone(), user: connection.user_id.clone() };
        if sync.hello {
            self.mailbox.register(&stream, &self.device(connection)).await?;
        }
        // The user's stream is the only one. A frame that names it several times gets one page.
        let Some(request) = sync.streams.iter().find(|request| request.stream == StreamName::User) else {
            return Ok(());
        };
        let payload_bytes = self.payloads.kept_bytes();
        let limits =
            PageLimits { bytes: sync.max_bytes().min(payload_bytes), payload_bytes, reads: MAX_READS };
        let page = self.mailbox.page(&stream, &request.start(), limits, time.now()).await?;
        let frame = frame::encode(sync.n, request.stream, &page, connection.connected_at, time.now());
        let id = &connection.connection_id;
        match post::post(&self.gateway, id, frame.map_err(HandlerError::Payload)?, time).await? {
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

/// Logs and counts a page that API Gateway accepted.
fn report(connection: &ConnectionId, sync: &SyncFrame, page: &Page, time: &Time, metrics: &mut Metrics<'_>) {
    let ranges = |reason: MissingReason| page.missing.iter().filter(|range| range.reason == reason).count();
    let missing: u64 = page.missing.iter().map(|range| range.to - range.from + 1).sum();
    metrics.count(metric::PAGES_POSTED, 1);
    metrics.count(metric::PAGE_MESSAGES, page.messages.len());
    metrics.count(metric::GAPS, page.missing.len());
    metrics.time(metric::PAGE_LATENCY, time.elapsed());
    if !page.missing.is_empty() {
        let gaps = serde_json::json!({
            "expired": ranges(MissingReason::Expired),
            "overflow": ranges(MissingReason::Overflow),
            "too_large": ranges(MissingReason::TooLarge),
        });
        metrics.property("gaps", gaps);
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
