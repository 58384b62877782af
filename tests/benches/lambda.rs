//! Our Lambdas as real processes, behind a stub of the Runtime API.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use streamer_cli::package::runtime_api::{Answer, RuntimeApi};

use crate::process::{CLIENT, clean, cpu, pinned, resident};

/// What a Lambda cost.
pub struct Cost {
    /// CPU time for an invocation.
    pub cpu: Duration,
    /// Time for an invocation, from the event to the response.
    pub wall: Duration,
}

/// How a Lambda starts.
pub struct Start {
    /// From its start to its first poll.
    pub time: Duration,
    /// KiB at its first poll.
    pub resident: u64,
}

/// Starts a Lambda with this Runtime API.
fn spawn(api: &RuntimeApi, mut command: Command, variables: &[(&str, &str)]) -> anyhow::Result<Child> {
    command.envs(api.variables()?).envs(variables.iter().copied()).stdout(Stdio::null());
    Ok(command.spawn()?)
}

async fn invoke(api: &mut RuntimeApi, event: &str) -> anyhow::Result<()> {
    let answer = api.invoke(event).await?;
    ensure!(matches!(answer, Answer::Response(_)), "the invocation failed: {answer:?}");
    api.poll().await
}

/// A Lambda's cost, over `number` invocations with the same event after some that do not count.
pub async fn cost(
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

/// How a Lambda starts: the median of 15.
pub async fn start(binary: &Path, variables: &[(&str, &str)]) -> anyhow::Result<Start> {
    let mut starts = Vec::new();
    for _ in 0..15 {
        let mut api = RuntimeApi::listen().await?;
        let started = Instant::now();
        // Not pinned: to start `taskset` takes time too.
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
