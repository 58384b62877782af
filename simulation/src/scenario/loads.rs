//! Loads: the messages that producers send, and when.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::{
    model::Setup,
    random::Random,
    report::Report,
    world::{self, Kind, Note, Producers, TENANT, USER},
};

/// The seed of all runs.
pub const SEED: u64 = 7;

/// Returns the body of a message.
pub(super) fn body(to: &serde_json::Value, note: Note, more: &str) -> String {
    let payload = note.write();
    let id = note.number;
    format!(r#"{{"version":1,"id":"m{id}","to":{to},"payload":{payload}{more}}}"#)
}

fn single(producers: &Producers, connections: u64, number: u64, random: &mut Random) -> String {
    let to = json!({ "connection": format!("one-{}", random.below(connections)) });
    body(&to, Note { kind: Kind::Single, at: producers.clock.millis(), number }, "")
}

/// Returns the body of a message that names so many connections.
#[must_use]
pub fn named(number: u64, connections: usize) -> String {
    let ids: Vec<_> = (0..connections).map(|id| format!("L0SM9cOFv{number:03}{id:03}=")).collect();
    body(&json!({ "connections": ids }), Note { kind: Kind::Single, at: 0, number }, "")
}

/// Sends messages to single connections, `rate` a second, and returns how many.
pub async fn singles(producers: &Producers, connections: u64, rate: f64, time: Duration) -> u64 {
    let mut random = Random::of(SEED + 10);
    let number = (rate * time.as_secs_f64()).round() as u64;
    for sent in 0..number {
        producers.clock.wait_until(sent as f64 / rate * 1000.0).await;
        producers.send(single(producers, connections, sent, &mut random));
    }
    number
}

/// Sends messages that are kept for a day to users, `rate` a second.
pub async fn kept(producers: &Producers, users: u64, rate: f64, time: Duration) {
    let mut random = Random::of(SEED + 11);
    let number = (rate * time.as_secs_f64()).round() as u64;
    for sent in 0..number {
        producers.clock.wait_until(sent as f64 / rate * 1000.0).await;
        let user = format!("{USER}{}", random.below(users));
        let to = json!({ "user": { "tenant": TENANT, "user": user } });
        let note = Note { kind: Kind::Kept, at: producers.clock.millis(), number: sent };
        producers.send(body(&to, note, r#","keep":86400"#));
    }
}

/// Sends one message to all connections of the tenant.
pub fn broadcast(producers: &Producers) {
    let note = Note { kind: Kind::Broadcast, at: producers.clock.millis(), number: 0 };
    producers.send(body(&json!({ "tenant": TENANT }), note, ""));
}

/// Updates of a stream, of which the last one is not superseded.
pub const UPDATES: u64 = 100;

/// Sends progress streams of [`UPDATES`] updates each, one every 100 ms in each stream.
pub async fn progress(producers: &Producers, streams: u64) {
    for update in 0..UPDATES {
        for stream in 0..streams {
            let note =
                Note { kind: Kind::Update, at: producers.clock.millis(), number: stream * UPDATES + update };
            let to = json!({ "connection": format!("stream-{stream}") });
            let supersedable = update + 1 < UPDATES;
            let request = json!({ "id": format!("r{stream}"), "seq": update + 1 });
            let more = format!(r#","request":{request},"supersedable":{supersedable}"#);
            producers.send(body(&to, note, &more));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Runs one broadcast.
#[must_use]
pub fn run_broadcast(setup: &Setup, connections: usize) -> Report {
    let report = world::run(setup, connections, SEED, async |producers| broadcast(&producers));
    Report { sent_by_producers: 1, ..report }
}

/// Runs messages to single connections for some time.
#[must_use]
pub fn run_singles(setup: &Setup, connections: usize, rate: f64, time: Duration) -> Report {
    let sent = (rate * time.as_secs_f64()).round() as u64;
    let report = world::run(setup, connections, SEED, async |producers| {
        singles(&producers, connections as u64, rate, time).await;
    });
    Report { sent_by_producers: sent, ..report }
}

/// Runs progress streams.
#[must_use]
pub fn run_progress(setup: &Setup, streams: u64) -> Report {
    let report = world::run(setup, 1, SEED, async |producers| progress(&producers, streams).await);
    Report { sent_by_producers: streams * UPDATES, ..report }
}

/// Runs messages that are kept for users.
#[must_use]
pub fn run_kept(setup: &Setup, users: usize, rate: f64, time: Duration) -> Report {
    let sent = (rate * time.as_secs_f64()).round() as u64;
    let report = world::run(setup, 1, SEED, async |producers| {
        kept(&producers, users as u64, rate, time).await;
    });
    Report { sent_by_producers: sent, ..report }
}
