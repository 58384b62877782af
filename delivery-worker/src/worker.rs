//! The resources that one execution environment keeps between invocations.

use streamer_connections::{ConnectionTable, Endpoints};
use streamer_events::SqsEvent;
use streamer_gateway::PayloadLimit;
use streamer_mailbox::{DynamoTable, Mailbox};
use streamer_queue::{Queue, ReceiptsQueue};
use streamer_telemetry::Telemetry;

use crate::{admission::Gate, policy::Policy, served::Served};

/// The resources that one execution environment keeps between invocations.
#[derive(Debug)]
pub struct Worker<G> {
    /// Posts to connections.
    pub gateway: G,
    /// The management endpoint behind the gateway, with its aliases, and the endpoints of all cells. The worker
    /// posts to connections at the endpoint or an alias only.
    pub endpoints: Endpoints,
    /// Finds the connections of users and tenants, and loses the rows of connections that are gone. Without it, only
    /// messages for connections are delivered.
    pub table: Option<ConnectionTable>,
    /// Stores the messages that are to be kept. Without it, they are rejected.
    pub mailbox: Option<Mailbox<DynamoTable>>,
    /// The queue of producers' messages.
    pub outbound: Queue,
    /// The queue of the parts of large audiences. Without it, they are on the outbound queue.
    pub parts: Option<Queue>,
    /// The queue for messages that cannot be delivered.
    pub dead_letters: Queue,
    /// The queue for receipts.
    pub receipts: ReceiptsQueue,
    /// When to retry and when to give up.
    pub policy: Policy,
    /// The maximum size of a payload. A larger one is rejected.
    pub payloads: PayloadLimit,
    /// Decides which posts may begin.
    pub gate: Gate,
    /// Connections that have already received a FIFO queue's message.
    pub served: Served,
    /// Logs and metrics.
    pub telemetry: Telemetry,
}

/// The queue that a batch came from. Its messages are handed back to it, so that parts never wait among producers'
/// messages, nor those among parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The outbound queue.
    Outbound,
    /// The parts queue.
    Parts,
}

impl<G> Worker<G> {
    /// Returns the queue that a batch came from: an event source mapping has one queue. Records of any queue but the
    /// parts queue are taken for those of the outbound queue.
    pub(crate) fn origin(&self, event: &SqsEvent) -> Origin {
        let is_parts = |arn: &String| self.parts.as_ref().is_some_and(|parts| parts.has_arn(arn));
        match event.records.iter().all(|record| record.queue_arn.as_ref().is_some_and(is_parts)) {
            true => Origin::Parts,
            false => Origin::Outbound,
        }
    }

    /// Returns a queue. Without a parts queue, the outbound queue has the parts, too.
    pub(crate) fn queue(&self, origin: Origin) -> &Queue {
        match origin {
            Origin::Outbound => &self.outbound,
            Origin::Parts => self.parts.as_ref().unwrap_or(&self.outbound),
        }
    }
}
