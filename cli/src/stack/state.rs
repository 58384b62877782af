//! The stack that `streamer up` runs: where other commands find it.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::{Stack, deploy::Deployed, issuer::Issuer, log::Log, places};

/// What is written of a stack that is up. It lies in the emulator's folder, which the supervisor removes.
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
    /// The process to end for the stack to end.
    pub pid: u32,
}

/// The emulator's folder of the stack that `up` runs.
#[must_use]
pub fn folder() -> PathBuf {
    places::state("up")
}

fn file() -> PathBuf {
    folder().join("stack.json")
}

/// Where the emulator of the stack that `up` runs logs.
#[must_use]
pub fn log_path() -> PathBuf {
    places::state("logs/up.log")
}

/// The log of the stack that `up` runs, or `None` while one is up.
///
/// # Errors
/// When the log cannot be opened or locked.
pub fn claim() -> anyhow::Result<Option<Log>> {
    Log::claim(log_path())
}

/// Whether a stack is up, or starting, or ending.
///
/// # Errors
/// When the log cannot be opened or locked.
pub fn is_up() -> anyhow::Result<bool> {
    Log::is_claimed(&log_path())
}

/// Writes down where a stack is, for its user's eyes only.
///
/// # Errors
/// When the file cannot be written.
pub fn write(stack: &Stack, pid: u32) -> anyhow::Result<()> {
    let state = State { deployed: stack.deployed.clone(), pid, issuer: stack.issuer.to_base64() };
    // Whole or not at all: a command may look for it at any time.
    let partial = folder().join("stack.json.partial");
    let mut writer = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&partial)?;
    writer.write_all(&serde_json::to_vec(&state)?)?;
    Ok(fs::rename(partial, file())?)
}

/// The stack that is up, if any.
///
/// # Errors
/// When one is just starting or ending.
pub async fn running() -> anyhow::Result<Option<Running>> {
    if !is_up()? {
        return Ok(None);
    }
    let Ok(state) = fs::read(file()) else {
        bail!("a stack is starting or ending right now: try again in a few seconds")
    };
    let State { deployed, pid, issuer } =
        serde_json::from_slice(&state).with_context(|| format!("{} is not readable", file().display()))?;
    let stack = Stack::elsewhere(deployed, Issuer::from_base64(&issuer)?).await;
    Ok(Some(Running { stack, pid }))
}

/// The stack that is up.
///
/// # Errors
/// When none is.
pub async fn expect() -> anyhow::Result<Running> {
    running().await?.context("no stack is up on this machine: start one with `streamer up`")
}
