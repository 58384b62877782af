//! The worker's behaviour on whole batches, in virtual time. The table and the queues are test doubles inside the
//! SDK's HTTP client; the gateway is in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admission;
mod audiences;
mod bad_input;
mod elsewhere;

mod fifo;
mod handing_back;
mod model;
mod outage;
mod outcomes;
mod settling;
mod simulation;
mod telemetry;

use std::{collections::BTreeSet, time::SystemTime};

use delivery_worker::classify::Answer;
use streamer_tests::{doubles::LONG_AGO, event::epoch, gateway::MemoryGateway};

/// Returns a connection time that is past every grace.
fn long_ago() -> SystemTime {
    epoch() - LONG_AGO
}

/// Returns record ids as [`Rig::invoke`](streamer_tests::worker::Rig::invoke) reports them.
fn ids<const N: usize>(ids: [&str; N]) -> BTreeSet<String> {
    ids.map(str::to_owned).into()
}

/// Returns a gateway that answers every post at once, with the answer for its connection.
fn answering(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> MemoryGateway {
    MemoryGateway::scripted(move |connection, _| (std::time::Duration::ZERO, answer(connection)))
}
