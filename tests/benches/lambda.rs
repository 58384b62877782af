//! The Lambdas as processes, behind a stub of the Runtime API.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use streamer_cli::package::runtime_api::Answer;
pub(crate) use streamer_cli::package::runtime_api::RuntimeApi;

use crate::process::{CLIENT, clean, cpu, pinned, resident};

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

/// Measures the mean cost of `number` invocations with the same event, after a warm-up.
pub(crate) async fn cost(
    binary: &Path,
    variables: &[(&str, &str)],
    event: &str,
    number: u32,
) -> anyhow::Result<Cost> {
    let mut api = RuntimeApi::listen().await?;
    let mut child = spawn(&api, pinned(CLIENT, binary), variables)?;
    let measured = async {
        api.poll().await?;
        for _ in 0..number / 10 + 5 {
            invoke(&mut api, event).await?;
        }
        let (before, started) = (cpu(child.id())?, Instant::now());
        for _ in 0..number {
            invoke(&mut api, event).await?;
        }
        Ok(Cost { cpu: (cpu(child.id())? - before) / number, wall: started.elapsed() / number })
    }
    .await;
    child.kill()?;
    child.wait()?;
    measured
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
