//! The resources that one execution environment keeps between invocations.

use streamer_connections::{ConnectionTable, Endpoints};
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
    /// The management endpoint behind the gateway, with its aliases and the endpoints of all cells. Connections of other
    /// endpoints are skipped.
    pub endpoints: Endpoints,
    /// Finds the connections of users and tenants, and loses the rows of connections that are gone. Without it, only
    /// messages for connections are delivered.
    pub table: Option<ConnectionTable>,
    /// Stores the messages that are to be kept. Without it, they are rejected.
    pub mailbox: Option<Mailbox<DynamoTable>>,
    /// The queue that invokes the worker, and that takes messages which are handed back.
    pub outbound: Queue,
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
