//! Messages that are kept for users, of whom a part is away.

use std::{
    io::{self, Write},
    time::Duration,
};

use super::loads::run_kept;
use crate::{
    model::Setup,
    report::Report,
    table::{Table, count},
    world::Kind,
};

/// The share of the users who are away.
pub const AWAY: f64 = 0.1;

/// Time for which messages are sent to all users, and to one.
const TIME: Duration = Duration::from_secs(60);
const TIME_OF_ONE: Duration = Duration::from_secs(10);

/// Messages a second for one user.
const RATES: [f64; 4] = [50.0, 100.0, 200.0, 400.0];

/// Sends messages to all users, and to one user, and writes the tables.
///
/// # Errors
/// When the output cannot be written.
pub fn tables(out: &mut dyn Write, sizes: &[usize]) -> io::Result<()> {
    let setup = Setup { away: Some(AWAY), ..Setup::WHOLE_ACCOUNT };
    let head = [
        "connections",
        "last delivery",
        "p50",
        "p99",
        "posts",
        "hand-backs",
        "appends",
        "for users away",
        "RRU",
        "WRU",
        "invocations",
        "GB-s",
        "$",
        "bound by",
    ];
    let title = "A kept message in 1 000 s for each user, for 60 s";
    let mut table = Table::begin(out, title, 0, &head)?;
    for users in sizes.iter().copied() {
        let report = run_kept(&setup, users, users as f64 / 1000.0, TIME);
        table.row(&line(users, &report))?;
    }
    table.end()?;
    one_user(out, &Setup { away: Some(0.0), ..setup })
}

fn line(users: usize, report: &Report) -> [String; 14] {
    let (kept, [last, p50, p99]) = (&report.kept, report.arrivals(Kind::Kept));
    [
        count(users as u64),
        last,
        p50,
        p99,
        count(report.posts),
        count(report.handed_back),
        count(kept.appended),
        count(kept.waiting),
        count(kept.reads),
        count(kept.writes),
        count(report.invocations),
        format!("{:.1}", report.gb_seconds),
        format!("{:.4}", report.bill().total()),
        report.bound.to_owned(),
    ]
}

/// Sends all messages to one user, whose stream is one partition of the table.
fn one_user(out: &mut dyn Write, setup: &Setup) -> io::Result<()> {
    let head = ["messages/s", "last delivery", "p50", "p99", "WRU for a message", "throttled", "hand-backs"];
    let mut table = Table::begin(out, "Kept messages for one user, for 10 s", 0, &head)?;
    for rate in RATES {
        let report = run_kept(setup, 1, rate, TIME_OF_ONE);
        let [last, p50, p99] = report.arrivals(Kind::Kept);
        table.row(&[
            count(rate as u64),
            last,
            p50,
            p99,
            format!("{:.1}", report.kept.writes as f64 / report.sent_by_producers as f64),
            count(report.kept.throttled),
            count(report.handed_back),
        ])?;
    }
    table.end()
}
