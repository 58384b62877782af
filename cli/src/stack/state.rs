//! The state of the stack that `streamer up` or a kept demo runs, for other commands.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::{Stack, deploy::Deployed, issuer::Issuer, log::Log, owner};
use crate::paths;

/// A stack that is up: the content of `stack.json`, and the output of `up --json`. The file is in the emulator's
/// folder, which the supervisor removes.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// Its names and URLs.
    #[serde(flatten)]
    pub deployed: Deployed,
    /// The process id of its owner. Ending that process ends the stack.
    pub pid: u32,
}

impl State {
    /// Describes a stack of this process.
    #[must_use]
    pub fn of(stack: &Stack) -> Self {
        Self { deployed: stack.deployed.clone(), pid: std::process::id() }
    }
}

/// Returns the emulator's folder of the stack.
#[must_use]
pub fn folder() -> PathBuf {
    paths::state("up")
}

fn file() -> PathBuf {
    folder().join("stack.json")
}

/// The private key of the tokens' issuer, as PKCS #8 in base64.
fn key_file() -> PathBuf {
    folder().join("issuer.key")
}

/// Returns the path of the emulator's log of the stack.
#[must_use]
pub fn log_path() -> PathBuf {
    paths::state("logs/up.log")
}

/// Opens and locks the log of the stack. Returns `None` while a stack is up, starting or ending.
pub(super) fn lock_log() -> anyhow::Result<Option<Log>> {
    paths::require_state()?;
    Log::try_lock(log_path())
}

/// Writes the state of a stack of this process to files that only its user can read.
pub(super) fn write(stack: &Stack) -> anyhow::Result<()> {
    fs::create_dir_all(folder())?;
    write_private(&key_file(), stack.issuer.to_base64().as_bytes())?;
    // The rename is atomic, so that no command reads a partial file.
    let partial = folder().join("stack.json.partial");
    write_private(&partial, &serde_json::to_vec(&State::of(stack))?)?;
    Ok(fs::rename(partial, file())?)
}

fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?.write_all(content)
}

/// Removes the state.
pub(super) fn hide() -> std::io::Result<()> {
    match fs::remove_file(file()) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads the state. `None` if there is none.
pub(super) fn read() -> anyhow::Result<Option<State>> {
    let Ok(state) = fs::read(file()) else { return Ok(None) };
    serde_json::from_slice(&state).map(Some).with_context(|| format!("cannot parse {}", file().display()))
}

/// Returns the process id of the stack's owner, which may have been killed. `None` if no stack is up, starting or
/// ending. Cheap: checks the lock and reads one line.
///
/// # Errors
/// When the lock cannot be read, or names no owner for the moment.
pub fn owner_pid() -> anyhow::Result<Option<u32>> {
    if !Log::is_locked(&log_path())? {
        return Ok(None);
    }
    let owner = owner::named_in(&log_path());
    Ok(Some(owner.context("the stack's log names no owner: try again in a few seconds")?.pid))
}

/// A stack that another process runs.
#[derive(Debug)]
pub struct Running {
    /// The stack.
    pub stack: Stack,
    /// The process id of its owner.
    pub pid: u32,
}

/// Returns the stack that is up.
///
/// # Errors
/// When a stack is starting or ending, or its owner was killed.
pub async fn running() -> anyhow::Result<Option<Running>> {
    paths::require_state()?;
    if !Log::is_locked(&log_path())? {
        return Ok(None);
    }
    let (Some(State { deployed, pid }), Ok(issuer)) = (read()?, fs::read_to_string(key_file())) else {
        bail!("a stack is starting or ending right now: try again in a few seconds")
    };
    match owner::named_in(&log_path()) {
        Some(owner) if owner.is_running()? => {}
        _ => bail!("the stack's process {pid} was killed: end the rest of the stack with `streamer down`"),
    }
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
