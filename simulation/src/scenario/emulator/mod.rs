//! The same loads in the simulation and on the local stack: an emulator of AWS with the real functions.
//!
//! The simulation gets the emulator's own latencies, measured on the same stack by single calls and messages. It has to
//! find out by itself how they add up under the loads.

mod stack;

use std::{io::Write, time::Duration};

use anyhow::Context as _;
use serde_json::json;
use tokio::time::sleep;

use super::loads::{SEED, body};
use crate::{
    model::{Emulator, MEMORY_OF_A_CPU, NO_FAULTS, NO_QUOTA, Setup},
    report::Report,
    table::Table,
    world::{self, Kind, Note, Producers, TENANT},
};

/// Connections of the tenant that broadcasts are for, and connections that have messages of their own.
const AUDIENCE: usize = 100;
const CONNECTIONS: usize = 200;

/// A load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    /// So many messages for one connection, each after the one before has arrived.
    OneByOne(usize),
    /// So many messages for one connection at once, which are posted one after another.
    Lane(usize),
    /// A message for each of so many connections at once.
    Burst(usize),
    /// A message for [`AUDIENCE`] connections of a tenant.
    Broadcast,
}

const LOADS: [Load; 5] =
    [Load::OneByOne(20), Load::Lane(50), Load::Burst(50), Load::Burst(CONNECTIONS), Load::Broadcast];

/// Times from the beginning of a load's send to its arrival, in milliseconds, and the time of the send itself.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Times {
    p50: f64,
    p99: f64,
    last: f64,
    send: Duration,
}

/// Runs the loads, and writes the table.
///
/// # Errors
/// When the functions cannot be built, the emulator cannot be installed or started, or a message does not arrive.
pub fn table(out: &mut dyn Write) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let measured = runtime.block_on(stack::measure());
    let (emulator, measured) = measured.context("the comparison with the emulator failed")?;
    drop(runtime);
    let millis = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    writeln!(
        out,
        "The emulator: {} from a queue to the worker, {} after it, {} a post, {} if many posts wait, {} a query, {} a \
         send, {} concurrent batches\n",
        millis(emulator.dispatch),
        millis(emulator.rest),
        millis(emulator.post),
        millis(emulator.post_of_many),
        millis(emulator.query),
        millis(emulator.send),
        emulator.pollers,
    )?;
    let head = [
        "load",
        "p50: simulation",
        "emulator",
        "p99: simulation",
        "emulator",
        "last: simulation",
        "emulator",
        "ratio",
    ];
    let mut table = Table::begin(out, "Times from the send to the client", 44, &head)?;
    for (load, times) in LOADS.into_iter().zip(measured) {
        let simulated = simulated(load, emulator, times.send);
        let pairs = [(simulated.p50, times.p50), (simulated.p99, times.p99), (simulated.last, times.last)];
        let cells = pairs.map(|(one, other)| [format!("{one:.0} ms"), format!("{other:.0} ms")]);
        let ratio = format!("{:.2}", simulated.last / times.last);
        let row: Vec<_> =
            std::iter::once(load.name()).chain(cells.into_iter().flatten()).chain([ratio]).collect();
        table.row(&row)?;
    }
    Ok(table.end()?)
}

impl Load {
    fn name(self) -> String {
        match self {
            Self::OneByOne(number) => format!("{number} messages, one after another"),
            Self::Lane(number) => format!("{number} messages at once for one connection"),
            Self::Burst(number) => format!("{number} messages at once for {number} connections"),
            Self::Broadcast => format!("a broadcast to {AUDIENCE} connections"),
        }
    }
}

fn setup(emulator: Emulator) -> Setup {
    Setup {
        memory_mb: MEMORY_OF_A_CPU as u32,
        concurrency: emulator.pollers,
        parts_concurrency: Some(emulator.pollers),
        pace: None,
        // The emulator's pollers don't grow.
        provisioned: Some(emulator.pollers),
        account: NO_QUOTA,
        faults: NO_FAULTS,
        emulator: Some(emulator),
        ..Setup::DEFAULT
    }
}

/// Returns the times of a load in the simulation, on environments that have run.
fn simulated(load: Load, emulator: Emulator, send: Duration) -> Times {
    let report = world::run(&setup(emulator), AUDIENCE, SEED, async |producers| {
        for number in 0..CONNECTIONS {
            producers.send(message(&producers, Kind::Update, number, number));
        }
        sleep(Duration::from_secs(10)).await;
        play(load, &producers, send).await;
    });
    times(&report, if load == Load::Broadcast { Kind::Broadcast } else { Kind::Single }, send)
}

fn times(report: &Report, kind: Kind, send: Duration) -> Times {
    let quantile = |share| report.quantile(kind, share);
    Times { p50: quantile(0.5), p99: quantile(0.99), last: quantile(1.0), send }
}

/// Sends a load within the time that its send took on the stack.
async fn play(load: Load, producers: &Producers, send: Duration) {
    let (number, is_lane) = match load {
        Load::OneByOne(number) => {
            for sent in 0..number {
                let message = message(producers, Kind::Single, sent, 0);
                sleep(send).await;
                producers.send(message);
                sleep(Duration::from_secs(2)).await;
            }
            return;
        }
        Load::Broadcast => {
            let note = Note { kind: Kind::Broadcast, at: producers.clock.millis(), number: 0 };
            sleep(send).await;
            producers.send(body(&json!({ "tenant": TENANT }), note, ""));
            return;
        }
        Load::Lane(number) => (number, true),
        Load::Burst(number) => (number, false),
    };
    let began = producers.clock.millis() as f64;
    let connection = |sent| if is_lane { 0 } else { sent };
    let messages: Vec<_> =
        (0..number).map(|sent| message(producers, Kind::Single, sent, connection(sent))).collect();
    // Ten share a call.
    for (call, messages) in messages.chunks(10).enumerate() {
        let part = (call + 1) as f64 / number.div_ceil(10) as f64;
        producers.clock.wait_until(began + send.as_secs_f64() * 1e3 * part).await;
        messages.iter().for_each(|message| producers.send(message.clone()));
    }
}

/// Returns the body of a message that is sent now to a connection.
fn message(producers: &Producers, kind: Kind, number: usize, connection: usize) -> String {
    let note = Note { kind, at: producers.clock.millis(), number: number as u64 };
    body(&json!({ "connection": format!("one-{connection}") }), note, "")
}
