//! Node, with the packages that tests use.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, ensure};
use streamer_cli::paths;
use tokio::{process::Command, sync::OnceCell};

/// Installs the Node packages once, and returns the folder in which Node finds them.
///
/// # Errors
/// When Node is not installed, or npm's registry cannot be reached.
pub async fn folder() -> anyhow::Result<PathBuf> {
    static INSTALLED: OnceCell<PathBuf> = OnceCell::const_new();
    INSTALLED.get_or_try_init(install).await.cloned()
}

async fn install() -> anyhow::Result<PathBuf> {
    let (from, to) = (paths::workspace().join("tests/languages/node"), paths::shared("node"));
    fs::create_dir_all(&to)?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(from.join(file), to.join(file))?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund"]).current_dir(&to).stdin(Stdio::null());
    let output =
        npm.output().await.context("Node is not installed: install it (on Debian: apt-get install npm)")?;
    ensure!(output.status.success(), "npm ci: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(to)
}

/// Writes the router for Node into a new folder, with the packages that it needs.
///
/// # Errors
/// When the packages cannot be installed, or the folder cannot be written.
pub async fn write_router(router: &Path) -> anyhow::Result<()> {
    let installed = folder().await?.join("node_modules");
    let (producer, packages) = (paths::workspace().join("producer/node"), router.join("node_modules"));
    fs::create_dir_all(packages.join("streamer-producer"))?;
    fs::copy(producer.join("examples/router/index.mjs"), router.join("index.mjs"))?;
    for entry in fs::read_dir(&producer)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if path.extension().is_some_and(|extension| extension == "js") || name == "package.json" {
            fs::copy(path, packages.join("streamer-producer").join(name))?;
        }
    }
    for entry in fs::read_dir(installed)? {
        let entry = entry?;
        symlink(entry.path(), packages.join(entry.file_name()))?;
    }
    Ok(())
}
