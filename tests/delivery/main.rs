//! What the worker does with a batch, in virtual time: table and queues are doubles inside the SDK's HTTP
//! client, the gateway is in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod audiences;
mod bad_input;
mod elsewhere;
mod fan_out;
mod fifo;
mod handing_back;
mod model;
mod outage;
mod outcomes;
mod settling;
mod simulation;
mod telemetry;

use std::{collections::BTreeSet, time::SystemTime};

use delivery_worker::classify::PostResult;
use streamer_tests::{doubles::LONG_AGO, event::epoch, gateway::MemoryGateway};

/// When a connection was made that is past every grace.
fn old() -> SystemTime {
    epoch() - LONG_AGO
}

fn ids<const N: usize>(ids: [&str; N]) -> BTreeSet<String> {
    ids.map(str::to_owned).into()
}

/// A gateway that answers each connection as `answer` says, at once and always.
fn answering(answer: impl Fn(&str) -> PostResult + Send + Sync + 'static) -> MemoryGateway {
    MemoryGateway::scripted(move |connection, _| (std::time::Duration::ZERO, answer(connection)))
}
