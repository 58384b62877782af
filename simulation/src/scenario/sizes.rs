//! Broadcasts, single messages and progress streams by the number of connections.

use std::{
    io::{self, Write},
    time::Duration,
};

use super::loads::{run_broadcast, run_progress, run_singles};
use crate::{
    model::Setup,
    report::Report,
    table::{Table, count},
    world::Kind,
};

/// Numbers of connections.
pub const SIZES: [usize; 5] = [1000, 10_000, 100_000, 1_000_000, 10_000_000];

/// Time for which single messages are sent.
const TIME: Duration = Duration::from_secs(60);

/// Broadcasts to each of these numbers of connections, sends single messages and progress streams, and writes the
/// tables. Returns the reports of the broadcasts.
///
/// # Errors
/// When the output cannot be written.
pub fn tables(out: &mut dyn Write, sizes: &[usize]) -> io::Result<Vec<(usize, Report)>> {
    let setup = Setup::WHOLE_ACCOUNT;
    let mut broadcasts = Vec::new();
    of(out, "A broadcast to a tenant", sizes, |connections| {
        let report = run_broadcast(&setup, connections);
        broadcasts.push((connections, report.clone()));
        (Kind::Broadcast, report)
    })?;
    let title = "A message in 1 000 s for each connection, for 60 s";
    of(out, title, sizes, |connections| {
        (Kind::Single, run_singles(&setup, connections, connections as f64 / 1000.0, TIME))
    })?;
    let title = "A progress stream for each 10 000 connections, 100 updates in 10 s";
    of(out, title, sizes, |connections| {
        (Kind::Update, run_progress(&setup, (connections / 10_000).max(1) as u64))
    })?;
    Ok(broadcasts)
}

fn of(
    out: &mut dyn Write,
    title: &str,
    sizes: &[usize],
    mut run: impl FnMut(usize) -> (Kind, Report),
) -> io::Result<()> {
    let head = [
        "connections",
        "last delivery",
        "p50",
        "p99",
        "posts",
        "429",
        "hand-backs",
        "invocations",
        "GB-s",
        "$",
        "bound by",
    ];
    let mut table = Table::begin(out, title, 0, &head)?;
    for connections in sizes.iter().copied() {
        let (kind, report) = run(connections);
        table.row(&line(connections, kind, &report))?;
    }
    table.end()
}

fn line(connections: usize, kind: Kind, report: &Report) -> [String; 11] {
    let [last, p50, p99] = report.arrivals(kind);
    [
        count(connections as u64),
        last,
        p50,
        p99,
        count(report.posts),
        count(report.throttled),
        count(report.handed_back),
        count(report.invocations),
        format!("{:.1}", report.gb_seconds),
        format!("{:.4}", report.bill().total()),
        report.bound.to_owned(),
    ]
}
