//! Runs the tests that are written in JavaScript: those of the client and the producer in Node, and those of
//! `streamer web` in Chromium.

use std::{
    env,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use streamer_cli::{paths, stack::build::build};
use streamer_tests::{localstack, skip};
use tokio::{process::Command, time::timeout};

/// How long a script may take. It only limits a run that hangs.
const LIMIT: Duration = Duration::from_secs(900);

/// Runs a script of a package. If it does not end in time, it is killed with all its processes.
async fn npm<const N: usize>(
    folder: &Path,
    arguments: [&str; N],
    variables: &[(&str, OsString)],
) -> anyhow::Result<()> {
    let mut npm = Command::new("npm");
    npm.args(arguments).current_dir(folder).envs(variables.iter().cloned());
    npm.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let npm = npm.spawn()?;
    let group = npm.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let Ok(output) = timeout(LIMIT, npm.wait_with_output()).await else {
        group.map(|group| kill_process_group(group, Signal::KILL)).transpose()?;
        anyhow::bail!("npm {} did not end within {} s", arguments.join(" "), LIMIT.as_secs());
    };
    let output = output?;
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}");
    ensure!(output.status.success(), "npm {}: {error}\n{out}", arguments.join(" "));
    Ok(())
}

/// Installs the dependencies of a package. Returns `false` on a machine without npm.
async fn is_installed(folder: &Path) -> anyhow::Result<bool> {
    match npm(folder, ["ci", "--no-audit", "--no-fund"], &[]).await {
        Ok(()) => Ok(true),
        Err(error) if is_not_found(&error) => {
            skip(error.context("npm is not installed: install it (on Debian: apt-get install npm)"))?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Returns the path of Chromium, `BROWSER` or `chromium` in `PATH`.
fn browser() -> Option<PathBuf> {
    let name = env::var_os("BROWSER").unwrap_or_else(|| "chromium".into());
    let folders = env::var_os("PATH").unwrap_or_default();
    // An absolute path stays as it is.
    env::split_paths(&folders).map(|folder| folder.join(&name)).find(|path| path.is_file())
}

#[tokio::test]
async fn client_passes_its_tests() -> anyhow::Result<()> {
    let folder = paths::workspace().join("client");
    if is_installed(&folder).await? {
        npm(&folder, ["test"], &[]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn producer_for_node_passes_its_tests() -> anyhow::Result<()> {
    let folder = paths::workspace().join("producer/node");
    if is_installed(&folder).await? {
        let sqs = localstack::endpoint()?.map(|endpoint| ("SQS_ENDPOINT", endpoint.into()));
        npm(&folder, ["test"], sqs.as_slice()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn page_passes_its_tests() -> anyhow::Result<()> {
    let folder = paths::workspace().join("tests/browser");
    let browser = browser().context("Chromium is not installed: on Debian, run apt-get install chromium");
    let browser = match browser {
        Ok(browser) => browser,
        Err(error) => return skip(error),
    };
    if is_installed(&folder).await? {
        let streamer = build().await?.path("streamer")?.to_owned();
        npm(&folder, ["test"], &[("BROWSER", browser.into()), ("STREAMER", streamer.into())]).await?;
    }
    Ok(())
}
