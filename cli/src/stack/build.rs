//! Builds and zips the debug binaries of the Lambda functions.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use tokio::process::Command;

use crate::{
    cargo,
    package::archive::{Compression, archive},
    paths,
};

/// Short name of the router, and name of the example router in the package `streamer-producer`.
pub const ROUTER: &str = "router";

/// The workspace's binaries by name.
#[derive(Debug, Clone)]
pub struct Binaries(BTreeMap<String, PathBuf>);

/// Builds all binaries of the workspace and the example router.
///
/// # Errors
/// When there is no workspace, cargo or a C compiler is not installed, or compilation fails.
pub async fn build() -> anyhow::Result<Binaries> {
    build_with(|_| {}).await
}

/// Like [`build`], and passes cargo's progress to `show`.
///
/// # Errors
/// When there is no workspace, cargo or a C compiler is not installed, or compilation fails.
pub async fn build_with(show: impl FnMut(&str)) -> anyhow::Result<Binaries> {
    paths::require_workspace()?;
    // `cargo run` and `cargo test` select the same packages. With the same features, no crate is built twice.
    let mut command = Command::new(cargo::program());
    command.current_dir(paths::workspace()).args([
        "build",
        "--workspace",
        "--bins",
        "--example",
        ROUTER,
        "--message-format",
        "json-render-diagnostics",
    ]);
    let output = cargo::run(&mut command, show).await?;
    if !output.status.success() {
        let messages = output.messages;
        if messages.contains("linker `cc` not found") || messages.contains("failed to find tool") {
            bail!(
                "Rust needs a C compiler, and none is installed: install one (on Debian: apt-get install gcc; on \
                 macOS: xcode-select --install)"
            );
        }
        bail!("cannot build the Lambda functions:\n{}", messages.trim());
    }
    Ok(Binaries(cargo::executables(&output.stdout).collect()))
}

impl Binaries {
    /// Returns a binary's path.
    ///
    /// # Errors
    /// When the workspace has no binary of that name.
    pub fn path(&self, name: &str) -> anyhow::Result<&Path> {
        self.0.get(name).map(PathBuf::as_path).with_context(|| format!("cargo built no binary `{name}`"))
    }

    /// Builds a binary's zip for Lambda's `provided` runtimes.
    ///
    /// # Errors
    /// When the binary cannot be read.
    pub fn zip(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let path = self.path(name)?;
        let binary = fs::read(path).with_context(|| format!("cannot read the binary {}", path.display()))?;
        Self::zip_program(&binary)
    }

    /// Builds the zip of a program or a script.
    ///
    /// # Errors
    /// When it is too large for a zip.
    pub fn zip_program(program: &[u8]) -> anyhow::Result<Vec<u8>> {
        archive(program, Compression::Fast)
    }
}
