//! The result of a run.

use std::collections::BTreeMap;

use crate::{
    cost::Bill,
    histogram::Histogram,
    model::{ACCOUNT, Setup},
    table::time,
    world::{Counts, Figures, Kept, Kind, Load, Usage},
};

/// The result of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Until every message had completed, in milliseconds.
    pub millis: u64,
    /// Until the last first delivery of each kind, in milliseconds since the start.
    pub last: BTreeMap<Kind, u64>,
    /// Latencies of first deliveries.
    pub latencies: BTreeMap<Kind, Histogram>,
    /// Recipients that were reached.
    pub delivered: u64,
    /// Deliveries to a recipient that had the message.
    pub duplicates: u64,
    /// Recipients whose connection was gone.
    pub gone: u64,
    /// Posts.
    pub posts: u64,
    /// Posts refused for the account's quota.
    pub throttled: u64,
    /// Posts that failed.
    pub failed: u64,
    /// Posts that API Gateway admitted in each second.
    pub admitted: Vec<u64>,
    /// Deliveries in each second.
    pub deliveries: Vec<u64>,
    /// Messages on the queues at the end of each second.
    pub depth: Vec<usize>,
    /// Messages that workers handed back.
    pub handed_back: u64,
    /// Messages on the queues that producers, workers' parts included, have sent once.
    pub sent: u64,
    /// Messages that producers sent.
    pub sent_by_producers: u64,
    /// Calls of workers and pollers to the queues.
    pub queue_requests: u64,
    /// Invocations.
    pub invocations: u64,
    /// Execution environments.
    pub environments: u64,
    /// Billed time by memory.
    pub gb_seconds: f64,
    /// Time of the invocation that ended last, in milliseconds.
    pub last_invocation: u64,
    /// Queries of the table.
    pub queries: usize,
    /// Rows that they read.
    pub rows_read: usize,
    /// Messages in the mailbox, and the use of its table.
    pub kept: Kept,
    /// The quota or resource that bounds the run.
    pub bound: &'static str,
}

impl Report {
    /// Sums up a run.
    pub(crate) fn new(
        setup: &Setup,
        millis: u64,
        figures: Figures,
        usage: Usage,
        counts: impl Iterator<Item = Counts>,
        loads: impl Iterator<Item = Load>,
        (queries, rows_read): (usize, usize),
    ) -> Self {
        let delivered = figures.first_deliveries();
        let counts = counts.fold(Counts::default(), |one, other| Counts {
            calls: one.calls + other.calls,
            receives: one.receives + other.receives,
            sent: one.sent + other.sent,
            handed_back: one.handed_back + other.handed_back,
        });
        let loads: Vec<_> = loads.collect();
        let bound = bound(setup, &figures, usage, &loads);
        Self {
            millis,
            last: figures.last,
            latencies: figures.latencies,
            delivered,
            duplicates: figures.duplicates,
            gone: figures.gone,
            posts: figures.posts,
            throttled: figures.throttled,
            failed: figures.failed,
            admitted: figures.admitted,
            deliveries: figures.delivered,
            depth: figures.depth,
            handed_back: counts.handed_back,
            sent: counts.sent - counts.handed_back,
            sent_by_producers: 0,
            queue_requests: counts.calls + 2 * counts.receives,
            invocations: usage.invocations,
            environments: usage.environments,
            gb_seconds: usage.billed as f64 / 1000.0 * f64::from(setup.memory_mb) / 1024.0,
            last_invocation: usage.last,
            queries,
            rows_read,
            kept: Kept::default(),
            bound,
        }
    }

    /// Returns a quantile of the latencies of a kind, in milliseconds.
    #[must_use]
    pub fn quantile(&self, kind: Kind, share: f64) -> f64 {
        self.latencies.get(&kind).map_or(0.0, |latencies| latencies.quantile(share))
    }

    /// Returns cells of a table: the time until the last first delivery of any kind, and p50 and p99 of the latencies of
    /// one kind.
    #[must_use]
    pub fn arrivals(&self, kind: Kind) -> [String; 3] {
        [self.last_delivery() * 1000.0, self.quantile(kind, 0.5), self.quantile(kind, 0.99)].map(time)
    }

    /// Returns the time until the last first delivery of any kind, in seconds.
    #[must_use]
    pub fn last_delivery(&self) -> f64 {
        self.last.values().max().copied().unwrap_or_default() as f64 / 1000.0
    }

    /// Returns the bill.
    #[must_use]
    pub fn bill(&self) -> Bill {
        Bill::of(self)
    }
}

/// Returns the quota or resource that bounds a run.
fn bound(setup: &Setup, figures: &Figures, usage: Usage, loads: &[Load]) -> &'static str {
    let seconds = figures.last.values().max().copied().unwrap_or_default() as f64 / 1000.0;
    let posts = figures.posts as f64;
    let busy = usage.billed as f64 / 1000.0;
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let account = share(posts, setup.account.0 * seconds);
    let paced = setup.pace.map_or(0.0, |pace| share(posts, busy * f64::from(pace)));
    let cpu = share(figures.cpu / 1000.0, busy * setup.cpu());
    let full: u64 = loads.iter().map(|load| load.full).sum();
    let ramp: u64 = loads.iter().map(|load| load.ramp).sum();
    let waited = |millis: u64| share(millis as f64 / 1000.0, seconds);
    if account >= 0.8 || figures.throttled * 50 > figures.posts {
        return if setup.account == ACCOUNT {
            "API Gateway's 10 000 requests/s"
        } else {
            "API Gateway's requests/s"
        };
    }
    if paced >= 0.7 {
        return "requests_per_second";
    }
    if cpu >= 0.8 {
        return "the worker's CPU";
    }
    match (waited(ramp) >= 0.4, waited(full) >= 0.4) {
        (true, _) => "the pollers' growth",
        (_, true) => "the mapping's concurrency",
        (_, _) => "nothing: latencies only",
    }
}
