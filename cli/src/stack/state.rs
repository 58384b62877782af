//! The state of the stack that `streamer up` runs, for other commands.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::{Stack, deploy::Deployed, issuer::Issuer, log::Log};
use crate::paths;

/// The content of `stack.json`. The file is in the emulator's folder, which the supervisor removes.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    deployed: Deployed,
    /// The supervisor's process id.
    pid: u32,
    /// The private key of the tokens' issuer, as PKCS #8 in base64.
    issuer: String,
}

/// A stack that another process runs.
#[derive(Debug)]
pub struct Running {
    /// The stack.
    pub stack: Stack,
    /// The supervisor's process id. Ending that process ends the stack.
    pub pid: u32,
}

/// Returns the emulator's folder of the stack that `up` runs.
#[must_use]
pub fn folder() -> PathBuf {
    paths::state("up")
}

fn file() -> PathBuf {
    folder().join("stack.json")
}

/// Returns the path of the emulator's log of the stack that `up` runs.
#[must_use]
pub fn log_path() -> PathBuf {
    paths::state("logs/up.log")
}

/// Opens and locks the log of the stack that `up` runs. Returns `None` while a stack is up.
///
/// # Errors
/// When the log cannot be opened or locked.
pub fn lock_log() -> anyhow::Result<Option<Log>> {
    Log::try_lock(log_path())
}

/// Returns whether a stack is up, starting or ending.
///
/// # Errors
/// When the log cannot be opened or locked.
pub fn is_up() -> anyhow::Result<bool> {
    Log::is_locked(&log_path())
}

/// Writes the state to a file that only its user can read.
///
/// # Errors
/// When the file cannot be written.
pub fn write(stack: &Stack, pid: u32) -> anyhow::Result<()> {
    let state = State { deployed: stack.deployed.clone(), pid, issuer: stack.issuer.to_base64() };
    // The rename is atomic, so that no command reads a partial file.
    let partial = folder().join("stack.json.partial");
    let mut writer = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&partial)?;
    writer.write_all(&serde_json::to_vec(&state)?)?;
    Ok(fs::rename(partial, file())?)
}

/// Returns the stack that is up.
///
/// # Errors
/// When a stack is starting or ending.
pub async fn running() -> anyhow::Result<Option<Running>> {
    if !is_up()? {
        return Ok(None);
    }
    let Ok(state) = fs::read(file()) else {
        bail!("a stack is starting or ending right now: try again in a few seconds")
    };
    let State { deployed, pid, issuer } =
        serde_json::from_slice(&state).with_context(|| format!("cannot parse {}", file().display()))?;
    let stack = Stack::attach(deployed, Issuer::from_base64(&issuer)?).await;
    Ok(Some(Running { stack, pid }))
}

/// Returns the stack that is up.
///
/// # Errors
/// When no stack is up.
pub async fn require_running() -> anyhow::Result<Running> {
    running().await?.context("no stack is up on this machine: start one with `streamer up`")
}
