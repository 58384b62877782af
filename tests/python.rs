//! Runs the tests that are written in Python: those of the producer for Python.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use streamer_cli::paths;
use streamer_tests::{localstack, python::PRODUCER, skip};
use tokio::{process::Command, time::timeout};

/// How long the tests may take. It only limits a run that hangs.
const LIMIT: Duration = Duration::from_secs(900);

/// The tests include those of the package: its types (`mypy --strict`), and the files that `python -m build` packs.
#[tokio::test]
async fn producer_for_python_passes_its_tests() -> anyhow::Result<()> {
    let python = match PRODUCER.install().await {
        Ok((python, _)) => python,
        Err(error) => return skip(error),
    };
    let mut pytest = Command::new(python);
    pytest.args(["-m", "pytest", "--quiet"]).current_dir(paths::workspace().join("producer/python"));
    pytest.envs(localstack::endpoint()?.map(|endpoint| ("SQS_ENDPOINT", endpoint)));
    pytest.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let pytest = pytest.spawn()?;
    let group = pytest.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let Ok(output) = timeout(LIMIT, pytest.wait_with_output()).await else {
        group.map(|group| kill_process_group(group, Signal::KILL)).transpose()?;
        anyhow::bail!("pytest did not end within {} s", LIMIT.as_secs());
    };
    let output = output.context("cannot read the output of pytest")?;
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}");
    ensure!(output.status.success(), "pytest: {error}\n{out}");
    Ok(())
}
