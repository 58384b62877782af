//! Our real Lambda binaries, built and zipped.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tokio::process::Command;

use super::places;
use crate::package::archive::{Compression, archive};

/// The short name of the router, and the name of the example router of the package `streamer-producer`.
pub const ROUTER: &str = "router";

/// The router behind `$default`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Router {
    /// The example router.
    Example,
    /// A binary of somebody else's.
    Binary(PathBuf),
}

impl std::fmt::Display for Router {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Example => formatter.write_str("example router"),
            Self::Binary(path) => write!(formatter, "router {}", path.display()),
        }
    }
}

/// The binaries of the workspace, by name.
#[derive(Debug, Clone)]
pub struct Binaries(BTreeMap<String, PathBuf>);

/// What cargo says of an artifact.
#[derive(Deserialize)]
struct Artifact {
    target: Target,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// The cargo that this was built with, or the one there is.
pub(crate) fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Builds all binaries of the workspace and the example router.
///
/// # Errors
/// What the compiler said.
pub async fn build() -> anyhow::Result<Binaries> {
    // The selection that `cargo run` and `cargo test` make too: features resolve alike, so that no crate is
    // built twice.
    let output = Command::new(cargo())
        .current_dir(places::workspace())
        .args([
            "build",
            "--workspace",
            "--bins",
            "--example",
            ROUTER,
            "--message-format",
            "json-render-diagnostics",
        ])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cargo, which builds the Lambdas, could not be run: install Rust with rustup")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("linker `cc` not found") || said.contains("failed to find tool") {
            bail!(
                "Rust needs a C compiler, and there is none: install one (on Debian: apt-get install gcc; on \
                   macOS: xcode-select --install)"
            );
        }
        bail!("the Lambdas could not be built:\n{}", said.trim());
    }
    let artifacts =
        output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let executables =
        artifacts.filter_map(|Artifact { target, executable }| Some((target.name, executable?)));
    Ok(Binaries(executables.collect()))
}

impl Binaries {
    /// A binary's place.
    ///
    /// # Errors
    /// When the workspace has none of that name.
    pub fn path(&self, name: &str) -> anyhow::Result<&Path> {
        self.0.get(name).map(PathBuf::as_path).with_context(|| format!("cargo built no binary `{name}`"))
    }

    /// A binary as Lambda's `provided` runtimes take it: the file `bootstrap` in a zip.
    ///
    /// # Errors
    /// When the binary cannot be read.
    pub fn zip(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        zip(self.path(name)?)
    }

    /// The router, likewise.
    ///
    /// # Errors
    /// When the binary cannot be read.
    pub fn zip_router(&self, router: &Router) -> anyhow::Result<Vec<u8>> {
        match router {
            Router::Example => self.zip(ROUTER),
            Router::Binary(path) => zip(path),
        }
    }
}

fn zip(binary: &Path) -> anyhow::Result<Vec<u8>> {
    let binary = fs::read(binary).with_context(|| format!("cannot read the binary {}", binary.display()))?;
    archive(&binary, Compression::Fast)
}
