//! Runs the tests that are written in JavaScript: those of the client in Node, and those of `streamer web` in Chromium.

use std::{env, path::Path, process::Stdio};

use anyhow::{Context as _, ensure};
use streamer_cli::{paths, stack::build::build};
use streamer_tests::skip;
use tokio::process::Command;

/// Runs a script of a package, after its dependencies are installed.
async fn npm(folder: &Path, arguments: &[&str], streamer: Option<&Path>) -> anyhow::Result<()> {
    let mut npm = Command::new("npm");
    npm.args(arguments).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    npm.envs(streamer.map(|binary| ("STREAMER", binary)));
    let output =
        npm.output().await.context("npm is not installed: install it (on Debian: apt-get install npm)")?;
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}");
    ensure!(output.status.success(), "npm {}: {error}\n{out}", arguments.join(" "));
    Ok(())
}

/// Installs the dependencies of a package. On a machine without npm, says that its tests are skipped, and returns
/// `false`; with `CI=true` that is an error.
async fn is_installed(folder: &Path) -> anyhow::Result<bool> {
    match npm(folder, &["ci", "--no-audit", "--no-fund"], None).await {
        Ok(()) => Ok(true),
        Err(error) => skip(error).map(|()| false),
    }
}

#[tokio::test]
async fn client_passes_its_tests() -> anyhow::Result<()> {
    let folder = paths::workspace().join("client");
    if is_installed(&folder).await? {
        npm(&folder, &["test"], None).await?;
    }
    Ok(())
}

#[tokio::test]
async fn page_passes_its_tests() -> anyhow::Result<()> {
    let folder = paths::workspace().join("tests/browser");
    let browser = env::var_os("BROWSER").unwrap_or_else(|| "chromium".into());
    let mut version = Command::new(&browser);
    version.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Err(error) = version.status().await {
        let name = browser.to_string_lossy();
        let remedy = format!("{name} is not installed: on Debian, run apt-get install chromium");
        return skip(anyhow::Error::new(error).context(remedy));
    }
    if is_installed(&folder).await? {
        let build = build().await?;
        npm(&folder, &["test"], Some(build.path("streamer")?)).await?;
    }
    Ok(())
}
