//! API Gateway fails for some time, while single messages keep coming.

use std::{
    io::{self, Write},
    time::Duration,
};

use super::loads::run_singles;
use crate::{
    model::Setup,
    report::Report,
    table::{Table, count, time},
};

/// A deployment and its messages a second.
#[derive(Debug, Clone, PartialEq)]
pub struct Traffic {
    /// Messages a second.
    pub rate: f64,
    /// The deployment.
    pub setup: Setup,
}

/// A fiftieth of a thousand messages a second, on the default's two environments.
pub const QUIET: Traffic = Traffic { rate: 20.0, setup: Setup::DEFAULT };

/// A thousand messages a second on 20 environments: the default's two would need all their pace for them, and could
/// not catch up.
pub const BUSY: Traffic = Traffic { rate: 1000.0, setup: Setup::WHOLE_ACCOUNT };

/// Seconds of the outages.
pub const SECONDS: [u64; 3] = [60, 600, 3600];

/// Number of the lengths that are simulated at a thousand messages a second. An hour would be up to 84 million
/// hand-backs, with about two hours of CPU time.
pub const BUSY_LENGTHS: usize = 2;

/// Seconds before an outage, and the time for which messages keep coming after it.
pub const AROUND: u64 = 60;

/// Simulates an outage.
#[must_use]
pub fn run(traffic: &Traffic, seconds: u64) -> Report {
    let setup = Setup { outage: (AROUND, AROUND + seconds), ..traffic.setup.clone() };
    let time = Duration::from_secs(AROUND + seconds + AROUND);
    run_singles(&setup, 10_000, traffic.rate, time)
}

/// Simulates outages of so many seconds, writes the messages on the queue at most, the times after the end until a
/// hundredth of these are left and until the last delivery, and further figures. Returns the last report.
///
/// # Errors
/// When the output cannot be written.
pub fn table(out: &mut dyn Write, traffic: &Traffic, lengths: &[u64]) -> io::Result<Option<Report>> {
    let head = [
        "outage",
        "messages",
        "posts that failed",
        "hand-backs",
        "for a message",
        "queue requests",
        "invocations",
        "on the queue",
        "1 % of it after",
        "last delivery after",
        "$",
    ];
    let title = format!("An outage of API Gateway at {} messages a second", count(traffic.rate as u64));
    let mut table = Table::begin(out, &title, 0, &head)?;
    let mut last = None;
    for seconds in lengths.iter().copied() {
        let report = run(traffic, seconds);
        let during = traffic.rate * seconds as f64;
        let end = AROUND + seconds;
        let late = report.last_delivery() - end as f64;
        let deepest = report.depth.iter().max().copied().unwrap_or_default();
        let drained = report.depth.iter().skip(end as usize).position(|depth| depth * 100 <= deepest);
        table.row(&[
            time(seconds as f64 * 1000.0),
            count(report.sent_by_producers),
            count(report.failed),
            count(report.handed_back),
            format!("{:.1}", report.handed_back as f64 / during),
            count(report.queue_requests),
            count(report.invocations),
            count(deepest as u64),
            drained.map_or_else(String::new, |seconds| time(seconds as f64 * 1000.0)),
            time(late.max(0.0) * 1000.0),
            format!("{:.2}", report.bill().total()),
        ])?;
        last = Some(report);
    }
    table.end()?;
    Ok(last)
}
