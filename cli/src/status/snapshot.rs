//! The state of a deployment at one time.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::Serialize;

/// Period that the numbers of functions and circuit breakers cover.
pub(super) const WINDOW: Duration = Duration::from_secs(300);

/// The state of a deployment.
#[derive(Debug, Clone, Serialize)]
pub struct DeploymentStatus {
    #[serde(skip)]
    pub(super) at: SystemTime,
    pub(super) name: String,
    pub(super) region: String,
    pub(super) outbound: Queue,
    /// `None` without a parts queue.
    pub(super) parts: Option<Queue>,
    pub(super) dead_letters: Queue,
    /// Number of dead letters by reason.
    pub(super) reasons: BTreeMap<String, usize>,
    /// `None` without a receipts queue.
    pub(super) receipts: Option<Queue>,
    /// Number of live connections. `None` without a connection table.
    pub(super) connections: Option<usize>,
    /// Whether `connections` counts the whole table.
    pub(super) all_connections: bool,
    #[serde(skip)]
    pub(super) counted_at: SystemTime,
    pub(super) functions: BTreeMap<String, Function>,
    pub(super) circuit: Circuit,
}

/// The messages of a queue.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Queue {
    pub waiting: usize,
    pub in_flight: usize,
    pub delayed: usize,
    /// Age of the oldest message. `None` if it is not measured.
    pub oldest_seconds: Option<u64>,
}

/// A function's state, with its numbers of the last [`WINDOW`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Function {
    /// `None` if CloudWatch has no value: the function was not invoked, or invocations are not measured.
    pub invocations: Option<usize>,
    pub errors: Option<usize>,
    pub throttles: Option<usize>,
    /// Time of the last change of its code or configuration.
    pub updated: String,
    /// SHA-256 of its package, as `streamer package` prints it.
    pub code_sha256: String,
}

/// The circuit breakers of all execution environments of the worker, in the last [`WINDOW`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Circuit {
    /// Whether one was open at the end of its last invocation. `None` if there was no invocation.
    pub open: Option<bool>,
    /// How often one opened.
    pub opened: usize,
}
