//! Replies to single persons while a broadcast flows, on one queue and on two.

use std::time::Duration;

use super::loads::{SEED, broadcast, singles};
use crate::{
    model::Setup,
    report::Report,
    table::{markdown, row, time},
    world::{self, Kind},
};

/// Replies a second.
const RATE: f64 = 20.0;

/// Simulates replies beside a broadcast, for at most as long as that lasts.
#[must_use]
pub fn run(setup: &Setup, connections: usize) -> Report {
    let total = setup.environments() as f64 * f64::from(setup.pace.unwrap_or(500));
    let length = Duration::from_secs_f64((connections as f64 / total).max(5.0));
    let report = world::run(setup, connections, SEED, async |producers| {
        broadcast(&producers);
        singles(&producers, connections as u64, RATE, length).await;
    });
    Report { sent_by_producers: 1 + (RATE * length.as_secs_f64()).round() as u64, ..report }
}

/// Simulates both, and writes the table.
#[must_use]
pub fn table(connections: usize) -> String {
    let one = Setup::WHOLE_ACCOUNT;
    let two = Setup { concurrency: 4, parts_concurrency: Some(16), ..one.clone() };
    let mut rows = vec![row(["queues", "reply p50", "reply p99", "broadcast p50", "broadcast p99"])];
    for (name, setup) in [("one", one), ("two, 4 environments for replies", two)] {
        let report = run(&setup, connections);
        let quantile = |kind, share| time(report.quantile(kind, share));
        rows.push(vec![
            name.to_owned(),
            quantile(Kind::Single, 0.5),
            quantile(Kind::Single, 0.99),
            quantile(Kind::Broadcast, 0.5),
            quantile(Kind::Broadcast, 0.99),
        ]);
    }
    format!("Replies beside a broadcast to {connections}\n\n{}\n", markdown(&rows))
}
