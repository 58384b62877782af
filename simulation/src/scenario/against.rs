//! The same batches in the simulation and in the worker's process, behind the scripted gateway of the tests.
//!
//! The process is on a core of its own, and speaks plain HTTP; the gateway and the Runtime API are in this process.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use streamer_cli::package::runtime_api::{Answer, RuntimeApi};
use streamer_tests::{
    event,
    wire::{Reply, WireGateway},
};
use tokio::time::sleep;

use super::loads::{SEED, named};
use crate::{
    model::{EVENT_CPU, MEMORY_OF_A_CPU, NO_FAULTS, NO_QUOTA, Setup},
    table::{Table, count},
    world,
};

/// Latency of a post, in milliseconds, a constant.
const LATENCY: u64 = 7;

/// Time between two invocations, in which the pace's burst and the queue's window pass.
const PAUSE: Duration = Duration::from_millis(1500);

/// Invocations that are measured. The first one opens connections, and isn't.
const INVOCATIONS: usize = 3;

/// A batch: messages, connections of each, and the pace.
struct Shape(usize, usize, Option<u32>);

const SHAPES: [Shape; 5] = [
    Shape(10, 1, Some(500)),
    Shape(10, 100, None),
    Shape(100, 100, None),
    Shape(10, 100, Some(500)),
    Shape(100, 100, Some(500)),
];

/// Runs the batches, and writes the table.
///
/// # Errors
/// When the worker's binary is not beside this program's, or does not run.
pub fn table(out: &mut dyn Write) -> anyhow::Result<()> {
    let worker = env::current_exe()?.with_file_name("delivery-worker");
    ensure!(
        worker.exists(),
        "{} is missing: build it with `cargo build --profile bench -p delivery-worker`",
        worker.display()
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let head = ["batch", "posts/s", "simulation", "process", "ratio", "CPU µs/post"];
    let title = format!("Time of an invocation, posts answered after {LATENCY} ms");
    let mut table = Table::begin(out, &title, 32, &head)?;
    for shape in &SHAPES {
        let (measured, cpu) = runtime.block_on(measured(&worker, shape))?;
        let Shape(messages, connections, pace) = shape;
        let post_cpu = cpu.saturating_sub(EVENT_CPU) / (messages * connections) as u32;
        let simulated = simulated(shape, post_cpu);
        table.row(&[
            format!("{messages} messages × {connections} connections"),
            pace.map_or_else(|| "unpaced".to_owned(), |pace| count(u64::from(pace))),
            format!("{simulated} ms"),
            format!("{:.1} ms", measured.as_secs_f64() * 1e3),
            format!("{:.2}", simulated as f64 / (measured.as_secs_f64() * 1e3)),
            format!("{:.1}", post_cpu.as_secs_f64() * 1e6),
        ])?;
    }
    Ok(table.end()?)
}

/// Returns the bodies of a batch.
fn bodies(Shape(messages, connections, _): &Shape) -> Vec<String> {
    (0..*messages).map(|message| named(message as u64, *connections)).collect()
}

/// Returns the time of an invocation in the simulation, in milliseconds, on an environment that has run one. A post
/// takes as much CPU as in the process.
fn simulated(shape: &Shape, post_cpu: Duration) -> u64 {
    let setup = Setup {
        memory_mb: MEMORY_OF_A_CPU as u32,
        batch: shape.0,
        window: Duration::from_secs(1),
        concurrency: 1,
        pace: shape.2,
        account: NO_QUOTA,
        faults: NO_FAULTS,
        stub: Some((Duration::from_millis(LATENCY), post_cpu)),
        ..Setup::DEFAULT
    };
    let report = world::run(&setup, 1, SEED, async |producers| {
        for _ in 0..2 {
            bodies(shape).into_iter().for_each(|body| producers.send(body));
            // Longer than the slowest invocation.
            sleep(Duration::from_secs(40)).await;
        }
    });
    report.last_invocation
}

/// Returns the median time and CPU time of an invocation in the process.
async fn measured(worker: &Path, shape: &Shape) -> anyhow::Result<(Duration, Duration)> {
    let latency = Duration::from_millis(LATENCY);
    let gateway = WireGateway::start(move |_| Reply::Late(latency, 200)).await?;
    let mut api = RuntimeApi::listen().await?;
    let process = Process(start(worker, shape, &gateway, &api)?);
    api.poll().await?;
    let event = event::batch_json(bodies(shape)).to_string();
    let mut times = Vec::new();
    for invocation in 0..=INVOCATIONS {
        let (began, cpu) = (Instant::now(), process.cpu()?);
        let answer = api.invoke(&event).await?;
        let time = began.elapsed();
        ensure!(matches!(answer, Answer::Response(_)), "the invocation failed: {answer:?}");
        api.poll().await?;
        if invocation > 0 {
            times.push((time, process.cpu()? - cpu));
        }
        sleep(PAUSE).await;
    }
    let posts = shape.0 * shape.1 * (INVOCATIONS + 1);
    ensure!(gateway.requests().len() == posts, "{} posts instead of {posts}", gateway.requests().len());
    times.sort_unstable();
    times.get(INVOCATIONS / 2).copied().context("no invocation")
}

fn start(worker: &Path, shape: &Shape, gateway: &WireGateway, api: &RuntimeApi) -> anyhow::Result<Child> {
    let (endpoint, queue) = (gateway.endpoint(), format!("{}/queue", gateway.origin()));
    let mut command = Command::new("taskset");
    command.args(["-c", "1"]).arg(worker).envs(api.variables()?);
    command.envs([
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_ENDPOINT_URL", &gateway.origin()),
        ("WEBSOCKET_ENDPOINT", &endpoint),
        ("QUEUE_URL", &queue),
        ("DEAD_LETTER_QUEUE_URL", &queue),
    ]);
    if let Some(pace) = shape.2 {
        command.env("MAX_POSTS_PER_SECOND", pace.to_string());
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().context("cannot start the worker with taskset")
}

/// The worker's process, which ends when this is dropped.
struct Process(Child);

impl Process {
    /// Returns the CPU time of all its threads.
    fn cpu(&self) -> anyhow::Result<Duration> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(PathBuf::from(format!("/proc/{}/task", self.0.id())))? {
            let statistics = fs::read_to_string(task?.path().join("schedstat"))?;
            nanoseconds += statistics.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanoseconds))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}
