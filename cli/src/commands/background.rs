//! Runs the owner of a stack in the background, for `streamer up --detach`.
//!
//! The starting process and the owner share a pair of sockets, the owner's as its standard input. Until the stack is
//! ready, each of them sees there how the other ends.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream as StdStream,
    },
    path::PathBuf,
    process,
};

use anyhow::{Context as _, bail};
use rustix::{process::setsid, stdio};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    process::Command,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{paths, shutdown};

/// Starts this program in the background with `arguments`, and returns when it is [`Background::ready`]. Until then, it
/// writes to the output of this process. If it fails, this process ends with its exit code.
///
/// # Errors
/// When it cannot be started.
pub async fn start(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<()> {
    let (here, there) = StdStream::pair()?;
    here.set_nonblocking(true)?;
    let program = env::current_exe().context("cannot find the path of this program")?;
    let mut command = Command::new(program);
    let mut owner = command.args(arguments).stdin(OwnedFd::from(there)).spawn()?;
    // The command has the other socket, too.
    drop(command);
    let mut socket = UnixStream::from_std(here)?;
    let signal = tokio::select! {
        signal = shutdown::requested() => Some(signal),
        ready = socket.read_u8() => if ready.is_ok() { return Ok(()) } else { None },
    };
    if let Some(signal) = signal {
        socket.shutdown().await?;
        if socket.read_u8().await.is_ok() {
            return Ok(());
        }
        owner.wait().await?;
        return Err(signal.interrupted("the stack did not start"));
    }
    let status = owner.wait().await?;
    match status.code() {
        // It has printed its error.
        Some(code) => process::exit(code),
        None => bail!("the process that starts the stack was killed: {status}"),
    }
}

/// The side of the owner.
#[derive(Debug)]
pub struct Background {
    starter: UnixStream,
    /// Keeps the process from ending at a hangup.
    _hangups: Signal,
}

impl Background {
    /// Leaves the terminal.
    ///
    /// # Errors
    /// When [`start`] did not start this process.
    pub fn begin() -> anyhow::Result<Self> {
        // A process in a session of its own gets no signal of a terminal. It may lead one already.
        _ = setsid();
        let socket = StdStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        socket.set_nonblocking(true)?;
        let starter = UnixStream::from_std(socket).context("standard input is no socket")?;
        Ok(Self { starter, _hangups: signal(SignalKind::hangup())? })
    }

    /// Waits until the starting process has ended, or wants the start to end.
    pub async fn starter_ended(&mut self) {
        _ = self.starter.read_u8().await;
    }

    /// Ends the starting process: the stack is ready. From here on, output goes to a log.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        io::stdout().flush()?;
        let (path, null) = (log_path(), File::open("/dev/null")?);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let log = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        stdio::dup2_stdin(&null)?;
        stdio::dup2_stdout(&log)?;
        stdio::dup2_stderr(&log)?;
        // A starting process that was killed just now leaves the stack up, as one that was killed a moment later would.
        _ = self.starter.write_u8(0).await;
        _ = self.starter.shutdown().await;
        Ok(())
    }
}

fn log_path() -> PathBuf {
    paths::state("logs/owner.log")
}
