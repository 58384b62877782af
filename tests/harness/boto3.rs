//! AWS's SDK for Python, for programs in Python.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use streamer_cli::stack::python::Packages;
use tokio::process::Command;

/// The SDK and its dependencies.
pub const BOTO3: Packages = Packages {
    name: "boto3",
    folder: "boto3",
    package: "boto3",
    requirements: include_str!("../languages/requirements.txt"),
    pythons: &["python3"],
    versions: ("3.9 or newer", (3, 9), (3, u8::MAX)),
};

/// Installs the SDK, and returns its interpreter and the folder of the packages.
///
/// # Errors
/// When Python is missing, or PyPI cannot be reached.
pub async fn install() -> anyhow::Result<(PathBuf, String)> {
    let (python, _) = BOTO3.install().await?;
    let script = "import boto3, os; print(os.path.dirname(os.path.dirname(boto3.__file__)))";
    let output = Command::new(&python).args(["-c", script]).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let packages = String::from_utf8(output.stdout).context("the packages' folder is not UTF-8")?;
    Ok((python, packages.trim().to_owned()))
}
