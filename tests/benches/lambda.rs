//! The Lambdas as processes, behind a stub of the Runtime API.

use std::{
    collections::BTreeMap,
    env,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
pub(crate) use streamer_cli::package::runtime_api::RuntimeApi;
use streamer_cli::{package::runtime_api::Answer, paths};

use crate::process::{CLIENT, clean, cpu, pinned, resident};

/// Rounds of invocations with each process.
const ROUNDS: u32 = 20;

/// Cost of an invocation.
pub(crate) struct Cost {
    /// CPU time.
    pub cpu: Duration,
    /// Time from the event to the response.
    pub wall: Duration,
}

/// Cost of a start.
pub(crate) struct Start {
    /// Time from exec to the first poll.
    pub time: Duration,
    /// Resident memory at the first poll, in KiB.
    pub resident: u64,
}

/// Starts a Lambda that polls this Runtime API.
fn spawn(api: &RuntimeApi, mut command: Command, variables: &[(&str, &str)]) -> anyhow::Result<Child> {
    command.envs(api.variables()?).envs(variables.iter().copied()).stdout(Stdio::null());
    Ok(command.spawn()?)
}

/// Starts a Lambda, and waits until it requests its first invocation.
pub(crate) async fn started(
    command: Command,
    variables: &[(&str, &str)],
) -> anyhow::Result<(RuntimeApi, Child)> {
    let mut api = RuntimeApi::listen().await?;
    let child = spawn(&api, command, variables)?;
    api.poll().await?;
    Ok((api, child))
}

/// Makes an invocation, and waits until the Lambda requests the next one.
pub(crate) async fn invoke(api: &mut RuntimeApi, event: &str) -> anyhow::Result<()> {
    let answer = api.invoke(event).await?;
    ensure!(matches!(answer, Answer::Response(_)), "the invocation failed: {answer:?}");
    api.poll().await
}

/// Measures the cost of an invocation with the same event, after a warm-up: the median of rounds with `number`
/// invocations together. Several binaries are measured in turn, so that the machine's speed affects all alike.
pub(crate) async fn costs(
    binaries: &[&Path],
    variables: &[(&str, &str)],
    event: &str,
    number: u32,
) -> anyhow::Result<Vec<Cost>> {
    let mut processes = Vec::new();
    for binary in binaries {
        let (api, child) = started(pinned(CLIENT, binary), variables).await?;
        processes.push(Measured { api, child, costs: Vec::new() });
    }
    for process in &mut processes {
        process.round(event, number / 10 + 5).await?;
        process.costs.clear();
    }
    for _ in 0..ROUNDS {
        for process in &mut processes {
            process.round(event, number / ROUNDS).await?;
        }
    }
    Ok(processes.iter().map(Measured::median).collect())
}

/// A process that runs until it is dropped, with the costs of its rounds.
struct Measured {
    api: RuntimeApi,
    child: Child,
    costs: Vec<Cost>,
}

impl Measured {
    /// Measures the mean cost of `number` invocations.
    async fn round(&mut self, event: &str, number: u32) -> anyhow::Result<()> {
        let (before, started) = (cpu(self.child.id())?, Instant::now());
        for _ in 0..number {
            invoke(&mut self.api, event).await?;
        }
        let (cpu, wall) = (cpu(self.child.id())? - before, started.elapsed());
        self.costs.push(Cost { cpu: cpu / number, wall: wall / number });
        Ok(())
    }

    /// Returns the median of the CPU times, and that of the wall times.
    fn median(&self) -> Cost {
        let median = |time: fn(&Cost) -> Duration| {
            let mut times: Vec<_> = self.costs.iter().map(time).collect();
            times.sort_unstable();
            times.get(times.len() / 2).copied().unwrap_or_default()
        };
        Cost { cpu: median(|cost| cost.cpu), wall: median(|cost| cost.wall) }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Measures 15 starts, and returns the one with the median time.
pub(crate) async fn start(binary: &Path, variables: &[(&str, &str)]) -> anyhow::Result<Start> {
    let mut starts = Vec::new();
    for _ in 0..15 {
        let mut api = RuntimeApi::listen().await?;
        let started = Instant::now();
        // Not pinned: starting `taskset` would count.
        let mut child = spawn(&api, clean(binary), variables)?;
        let polled = api.poll().await;
        let start = Start { time: started.elapsed(), resident: resident(child.id())? };
        child.kill()?;
        child.wait()?;
        polled?;
        starts.push(start);
    }
    starts.sort_unstable_by_key(|start| start.time);
    starts.into_iter().nth(7).context("no starts")
}

/// Builds the Lambdas with the packages' profile, and returns their paths by name.
pub(crate) fn build() -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let lambdas = ["connect-handler", "delivery-worker", "disconnect-handler"];
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::workspace()).args([
        "build",
        "--release",
        "--message-format",
        "json-render-diagnostics",
    ]);
    command.args(lambdas.iter().flat_map(|lambda| ["-p", lambda]));
    let mut cargo = command.stdout(Stdio::piped()).spawn()?;
    let mut output = String::new();
    cargo.stdout.take().context("no output")?.read_to_string(&mut output)?;
    ensure!(cargo.wait()?.success(), "cannot build the Lambdas");
    let artifacts = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let binaries = artifacts.filter_map(|artifact| {
        let name = artifact["target"]["name"].as_str()?.to_owned();
        Some((name, PathBuf::from(artifact["executable"].as_str()?)))
    });
    let binaries: BTreeMap<_, _> = binaries.filter(|(name, _)| lambdas.contains(&name.as_str())).collect();
    ensure!(binaries.len() == lambdas.len(), "cargo built {binaries:?}");
    Ok(binaries)
}
