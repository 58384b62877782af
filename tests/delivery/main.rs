//! The worker's behaviour on whole batches, in virtual time. The table and the queues are test doubles inside the
//! SDK's HTTP client; the gateway is in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod absence;
mod admission;
mod audiences;
mod away_tries;
mod bad_input;
mod cells;
mod dead_letters;
mod deadline;
mod elsewhere;
mod fifo;
mod hand_back;
mod kept;
mod large_batches;
mod model;
mod null_fields;
mod outage;
mod outcomes;
mod parts;
mod receipts;
mod retries;
mod settling;
mod simulation;
mod telemetry;
mod throttling;

use std::{collections::BTreeSet, time::SystemTime};

use serde_json::{Value, json};
use streamer_gateway::PostResult;
use streamer_tests::{
    doubles::{LONG_AGO, QueueDouble, TableDouble, connection},
    event::epoch,
    gateway::MemoryGateway,
    worker::Rig,
};

/// Returns a connection time that is past every grace.
fn long_ago() -> SystemTime {
    epoch() - LONG_AGO
}

/// Returns record ids as [`Rig::invoke`] reports them.
fn ids<const N: usize>(ids: [&str; N]) -> BTreeSet<String> {
    ids.map(str::to_owned).into()
}

/// Returns a gateway that answers every post at once, with the answer for its connection.
fn answering(answer: impl Fn(&str) -> PostResult + Send + Sync + 'static) -> MemoryGateway {
    MemoryGateway::scripted(move |connection, _| (std::time::Duration::ZERO, answer(connection)))
}

/// Adds rows of the user `anna` for these connections.
async fn connect(rig: &Rig, ids: &[&str]) {
    for id in ids {
        rig.table.client().put(&connection(id, long_ago())).await.unwrap();
    }
}

/// Builds a message for the user `anna`.
fn message_to_anna(id: &str) -> Value {
    json!({ "version": 1, "id": id, "to": { "user": { "tenant": "acme", "user": "anna" } }, "payload": id })
}

/// Returns the id and the cause of each hand-back.
fn causes(rig: &Rig) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let sent = rig.handed_back().into_iter().map(|sent| sent.json());
    sent.map(|body| (text(&body["id"]), text(&body["retry"]["cause"]))).collect()
}

/// Builds a worker on this table, with queues that accept everything.
fn rig_with_table(gateway: MemoryGateway, table: TableDouble) -> Rig {
    Rig::on(gateway, table, QueueDouble::taking(), QueueDouble::taking())
}
