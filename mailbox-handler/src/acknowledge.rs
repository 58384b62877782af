//! Sends receipts for the messages that a client has handled.

use std::collections::BTreeSet;

use streamer_connections::Connection;
use streamer_gateway::Gateway;
use streamer_mailbox::Table;
use streamer_message::{
    Audience, MessageId, OutcomeCounts, Receipt, ReceiptOutcome, Version, frame::AckFrame,
};
use streamer_queue::Outgoing;
use streamer_telemetry::{Metrics, metric};

use crate::{
    HandlerError, MailboxHandler,
    time::{Time, millis},
};

impl<G: Gateway, T: Table> MailboxHandler<G, T> {
    /// Sends a receipt for each message that the client names, in one batch. Tries for 2 s, so that a receipts queue that
    /// is away does not keep the function from answering syncs.
    pub(crate) async fn acknowledge(
        &self,
        ack: AckFrame,
        connection: &Connection,
        time: &Time,
        metrics: &mut Metrics<'_>,
    ) -> Result<(), HandlerError> {
        let ids: BTreeSet<_> = ack.ids.into_iter().collect();
        let (messages, at) = (ids.len(), millis(time.now()));
        let receipts = ids.into_iter().enumerate().map(|(index, id)| {
            let event = self.receipts.event(acknowledged(id, connection, at));
            Outgoing { index, body: event.encode(), ..Outgoing::default() }
        });
        let sent = self.receipts.send(&receipts.collect::<Vec<_>>(), time.now(), time.cutoff()).await;
        metrics.count(metric::ACKNOWLEDGMENTS, sent.confirmed);
        metrics.count(metric::RECEIPTS_WITHOUT_QUEUE, sent.without_queue);
        match sent.unconfirmed.len() {
            0 => {
                let connection_id = connection.connection_id.as_str();
                tracing::info!(connection_id, messages, receipts = sent.confirmed, "acknowledged messages");
                Ok(())
            }
            unconfirmed => Err(HandlerError::Receipts { unconfirmed, messages }),
        }
    }
}

/// Returns the receipt of a message that the connection's client has handled by `at`, in milliseconds since the epoch.
fn acknowledged(id: MessageId, connection: &Connection, at: u64) -> Receipt {
    let (tenant, user) = (connection.tenant_id.clone(), connection.user_id.clone());
    Receipt {
        version: Version,
        id,
        at,
        outcome: ReceiptOutcome::Acknowledged,
        to: Some(Audience::User { tenant, user }),
        connections: OutcomeCounts::new(),
        connection: Some(connection.connection_id.clone()),
        kept: None,
        attempts: None,
        cause: None,
        request: None,
        part: None,
        parts: None,
    }
}
