//! Broadcasts, single messages and progress streams by the number of connections.

use std::time::Duration;

use super::loads::{run_broadcast, run_progress, run_singles};
use crate::{
    model::Setup,
    report::Report,
    table::{count, markdown, row, time},
    world::Kind,
};

/// Numbers of connections.
pub const SIZES: [usize; 5] = [1000, 10_000, 100_000, 1_000_000, 10_000_000];

/// Time for which single messages are sent.
const TIME: Duration = Duration::from_secs(60);

/// A broadcast, single messages and progress streams to so many connections.
#[derive(Debug, Clone, PartialEq)]
pub struct Size {
    /// Number of connections.
    pub connections: usize,
    /// A message for the whole tenant.
    pub broadcast: Report,
    /// A message a second for each thousand connections.
    pub singles: Report,
    /// A progress stream for each 10 000 connections, at least one.
    pub progress: Report,
}

/// Simulates a number of connections, with the whole account's quota.
#[must_use]
pub fn run(connections: usize) -> Size {
    let setup = Setup::WHOLE_ACCOUNT;
    let streams = (connections / 10_000).max(1) as u64;
    Size {
        connections,
        broadcast: run_broadcast(&setup, connections),
        singles: run_singles(&setup, connections, connections as f64 / 1000.0, TIME),
        progress: run_progress(&setup, streams),
    }
}

/// Writes the tables.
#[must_use]
pub fn tables(sizes: &[Size]) -> String {
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
    let of = |title: &str, kind: Kind, report: fn(&Size) -> &Report| {
        let mut rows = vec![row(head)];
        rows.extend(sizes.iter().map(|size| line(size.connections, kind, report(size))));
        format!("{title}\n\n{}\n", markdown(&rows))
    };
    [
        of("A broadcast to a tenant", Kind::Broadcast, |size| &size.broadcast),
        of("A message in 1 000 s for each connection, for 60 s", Kind::Single, |size| &size.singles),
        of("A progress stream for each 10 000 connections, 100 updates in 10 s", Kind::Update, |size| {
            &size.progress
        }),
    ]
    .concat()
}

fn line(connections: usize, kind: Kind, report: &Report) -> Vec<String> {
    vec![
        count(connections as u64),
        time(report.last_delivery() * 1000.0),
        time(report.quantile(kind, 0.5)),
        time(report.quantile(kind, 0.99)),
        count(report.posts),
        count(report.throttled),
        count(report.handed_back),
        count(report.invocations),
        format!("{:.1}", report.gb_seconds),
        format!("{:.4}", report.bill().total()),
        report.bound.to_owned(),
    ]
}
