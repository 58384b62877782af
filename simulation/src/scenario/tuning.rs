//! A grid of settings.

use std::{
    io::{self, Write},
    time::Duration,
};

use super::loads::{run_broadcast, run_singles};
use crate::{
    model::Setup,
    table::{Table, time},
    world::Kind,
};

/// Connections of the broadcast.
const CONNECTIONS: usize = 20_000;

/// Returns the settings that are tried, each with its name.
fn grid() -> Vec<(String, Setup)> {
    let base = Setup::WHOLE_ACCOUNT;
    let mut grid = vec![("the module, 10 000 requests/s".to_owned(), base.clone())];
    for memory_mb in [128, 256, 1024, 1769] {
        grid.push((format!("memory {memory_mb} MB"), Setup { memory_mb, ..base.clone() }));
    }
    for batch in [1, 5] {
        grid.push((format!("batch {batch}"), Setup { batch, ..base.clone() }));
    }
    for (batch, seconds) in [(10, 1), (100, 1), (1000, 1)] {
        let window = Duration::from_secs(seconds);
        grid.push((format!("batch {batch}, window {seconds} s"), Setup { batch, window, ..base.clone() }));
    }
    for concurrency in [2, 5, 10, 50, 100] {
        let pace = Some((10_000 / concurrency) as u32);
        grid.push((
            format!("{concurrency} environments × {}/s", 10_000 / concurrency),
            Setup { concurrency, pace, ..base.clone() },
        ));
    }
    grid.push(("2 provisioned pollers".to_owned(), Setup { provisioned: Some(2), ..base }));
    grid
}

/// Simulates all, and writes the table.
///
/// # Errors
/// When the output cannot be written.
pub fn table(out: &mut dyn Write) -> io::Result<()> {
    let head = ["setting", "broadcast p50", "p99", "$", "single p50", "p99", "$ for a million"];
    let title = format!("A broadcast to {CONNECTIONS}, and 1 000 single messages a second");
    let mut table = Table::begin(out, &title, 30, &head)?;
    for (name, setup) in grid() {
        let broadcast = run_broadcast(&setup, CONNECTIONS);
        let singles = run_singles(&setup, CONNECTIONS, 1000.0, Duration::from_secs(20));
        table.row(&[
            name,
            time(broadcast.quantile(Kind::Broadcast, 0.5)),
            time(broadcast.quantile(Kind::Broadcast, 0.99)),
            format!("{:.4}", broadcast.bill().total()),
            time(singles.quantile(Kind::Single, 0.5)),
            time(singles.quantile(Kind::Single, 0.99)),
            format!("{:.2}", singles.bill().total() / singles.sent_by_producers as f64 * 1e6),
        ])?;
    }
    table.end()
}
