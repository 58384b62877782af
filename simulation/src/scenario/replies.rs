//! Replies to single clients beside a broadcast, without and with a parts queue.

use std::{
    io::{self, Write},
    time::Duration,
};

use super::loads::{SEED, broadcast, singles};
use crate::{
    model::Setup,
    report::Report,
    table::{Table, count, time},
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
///
/// # Errors
/// When the output cannot be written.
pub fn table(out: &mut dyn Write, connections: usize) -> io::Result<()> {
    let one = Setup::WHOLE_ACCOUNT;
    let two = Setup { concurrency: 4, parts_concurrency: Some(16), ..one.clone() };
    let title = format!("Replies beside a broadcast to {}", count(connections as u64));
    let head = ["queues", "reply p50", "reply p99", "broadcast p50", "broadcast p99"];
    let mut table = Table::begin(out, &title, 37, &head)?;
    for (name, setup) in [("one", one), ("outbound and parts, 4 : 16 environments", two)] {
        let report = run(&setup, connections);
        let quantile = |kind, share| time(report.quantile(kind, share));
        table.row(&[
            name.to_owned(),
            quantile(Kind::Single, 0.5),
            quantile(Kind::Single, 0.99),
            quantile(Kind::Broadcast, 0.5),
            quantile(Kind::Broadcast, 0.99),
        ])?;
    }
    table.end()
}
