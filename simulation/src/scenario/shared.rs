//! Breaker, limiter and pace of each environment against shared ones, which no Lambda has.

use std::{
    io::{self, Write},
    time::Duration,
};

use super::loads::{run_broadcast, run_singles};
use crate::{
    model::Setup,
    report::Report,
    table::{Table, count},
    world::Kind,
};

/// Connections of the broadcast.
const CONNECTIONS: usize = 100_000;

/// Requests a second that all environments share.
const TOTAL: usize = 10_000;

fn setup(environments: usize, shares: bool) -> Setup {
    Setup { concurrency: environments, pace: Some((TOTAL / environments) as u32), shares, ..Setup::DEFAULT }
}

fn line(load: &str, environments: usize, shares: bool, report: &Report, kind: Kind) -> [String; 10] {
    let [last, p50, p99] = report.arrivals(kind);
    [
        load.to_owned(),
        environments.to_string(),
        if shares { "shared" } else { "private" }.to_owned(),
        p50,
        p99,
        last,
        count(report.posts),
        count(report.throttled),
        count(report.failed),
        count(report.handed_back),
    ]
}

/// Simulates all, and writes the table.
///
/// # Errors
/// When the output cannot be written.
pub fn table(out: &mut dyn Write, numbers: &[usize]) -> io::Result<()> {
    let head = ["load", "environments", "state", "p50", "p99", "last", "posts", "429", "5xx", "hand-backs"];
    let mut table = Table::begin(out, "Private and shared state", 23, &head)?;
    for environments in numbers.iter().copied() {
        for shares in [false, true] {
            let setup = setup(environments, shares);
            let report = run_broadcast(&setup, CONNECTIONS);
            table.row(&line("broadcast to 100 000", environments, shares, &report, Kind::Broadcast))?;
            let busy = Setup { account: (2000.0, 1000.0), ..setup.clone() };
            let report = run_broadcast(&busy, CONNECTIONS / 4);
            table.row(&line("to 25 000, 2 000/s left", environments, shares, &report, Kind::Broadcast))?;
            let down = Setup { outage: (10, 70), ..setup };
            let report = run_singles(&down, CONNECTIONS, 500.0, Duration::from_secs(80));
            table.row(&line("outage of 60 s at 500/s", environments, shares, &report, Kind::Single))?;
        }
    }
    table.end()
}
