//! API Gateway fails for some time, while single messages keep coming.

use std::time::Duration;

use super::loads::run_singles;
use crate::{
    model::Setup,
    report::Report,
    table::{count, time},
};

/// Messages a second of the outage that is drawn: a fiftieth of a thousand.
pub const RATE: f64 = 20.0;

/// Seconds of that outage: ten minutes. An hour takes the simulation several minutes.
pub const SECONDS: u64 = 600;

/// Seconds before it, and the time for which messages keep coming after it.
pub const AROUND: u64 = 60;

/// Simulates an outage.
#[must_use]
pub fn run(rate: f64, seconds: u64) -> Report {
    let setup = Setup { outage: (AROUND, AROUND + seconds), ..Setup::DEFAULT };
    let time = Duration::from_secs(AROUND + seconds + AROUND);
    run_singles(&setup, 10_000, rate, time)
}

/// Writes the figures.
#[must_use]
pub fn summary(report: &Report, rate: f64, seconds: u64) -> String {
    let end = (AROUND + seconds) as f64;
    let deepest = report.depth.iter().max().copied().unwrap_or_default();
    format!(
        "An outage of {} at {rate} messages a second: {} messages, {} posts, of which {} failed, {} hand-backs, \
         {} requests to the queue, {} invocations, at most {} messages on the queue; the last delivery {} after \
         its end; {:.2} $\n\n",
        time(seconds as f64 * 1000.0),
        count(report.sent_by_producers),
        count(report.posts),
        count(report.failed),
        count(report.handed_back),
        count(report.queue_requests),
        count(report.invocations),
        count(deepest as u64),
        time((report.last_delivery() - end).max(0.0) * 1000.0),
        report.bill().total()
    )
}
