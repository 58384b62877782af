//! The process that owns the stack which commands see: `streamer up`, or the demo with `--keep`.
//!
//! The stack ends with its owner. [`Owner::claim`] and [`end`] also get over an owner, supervisor, emulator or function
//! that was killed.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use sysinfo::Signal;
use tokio::time::sleep;

use super::{Stack, identity::Identity, log::Log, processes::Processes, state};

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Time after which a claim says what it waits for. Other commands hold the lock for a moment, too.
const NOTICE_AFTER: Duration = Duration::from_millis(500);

/// Time that the processes of a killed owner have to end by themselves. Its supervisor takes up to 4 s.
const ORPHAN_GRACE: Duration = Duration::from_secs(6);

/// Time that an owner has to end its stack after SIGTERM.
const OWNER_GRACE: Duration = Duration::from_secs(10);

/// Time that killed processes have to disappear.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// The process that may start the stack which commands see. The stack's folder is removed when this is dropped.
#[derive(Debug)]
pub struct Owner {
    log: Log,
}

/// The holder of the lock.
enum Holder {
    /// No other process: the caller holds the lock now.
    Caller(Log),
    /// A running owner.
    Owner(Identity),
    /// Processes of an owner that has ended, or an owner that has not yet written its identity.
    Orphans,
}

/// Ends the processes that an owner left: asks them first, and kills them after a time.
#[derive(Default)]
struct Cleanup {
    since: Option<Instant>,
    asked: bool,
}

/// Returns the owner that the log at `path` names. It may have ended.
pub(super) fn named_in(path: &Path) -> Option<Identity> {
    Identity::parse(&Log::first_line(path)?)
}

impl Owner {
    /// Becomes the owner. Waits for a stack that starts or ends, and cleans up after an owner that was killed.
    ///
    /// # Errors
    /// When a stack is up.
    pub async fn claim() -> anyhow::Result<Self> {
        let (started, mut told, mut cleanup) = (Instant::now(), false, Cleanup::default());
        loop {
            let waits_for = match holder()? {
                Holder::Caller(mut log) => {
                    log.set_header(Identity::current()?.to_string())?;
                    clear(&state::folder()).await?;
                    return Ok(Self { log });
                }
                Holder::Owner(owner) => {
                    cleanup = Cleanup::default();
                    if let Some(ready) = state::read()? {
                        bail!(
                            "a stack is already up, process {}, at {}: use it, or end it with `streamer down`",
                            ready.pid,
                            ready.deployed.websocket_url
                        );
                    }
                    format!("the stack of process {}, which is starting or ending", owner.pid)
                }
                Holder::Orphans => {
                    cleanup.advance()?;
                    "the end of a stack".to_owned()
                }
            };
            if !told && started.elapsed() > NOTICE_AFTER {
                eprintln!("streamer: waiting for {waits_for}");
                told = true;
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Returns the log of the stack's emulator.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Shows the stack to other commands.
    ///
    /// # Errors
    /// When its state cannot be written.
    pub fn publish(&self, stack: &Stack) -> anyhow::Result<()> {
        state::write(stack)
    }

    /// Hides the stack from other commands, and ends it.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub async fn end(self, stack: Stack) -> anyhow::Result<()> {
        state::hide()?;
        stack.end().await
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // The supervisor removes the folder, too. It may be gone, or there may be none.
        _ = fs::remove_dir_all(state::folder());
    }
}

impl Cleanup {
    /// Asks the processes to end, or kills them, once it is time for that.
    fn advance(&mut self) -> anyhow::Result<()> {
        let waited = self.since.get_or_insert_with(Instant::now).elapsed();
        if waited > ORPHAN_GRACE + KILL_GRACE {
            bail!(
                "{} is still locked, though every process of the stack was killed: find the process that has it open \
                 (`fuser`), and end it",
                state::log_path().display()
            );
        }
        if waited > ORPHAN_GRACE {
            _ = Processes::in_folder(&state::folder())?.kill();
        } else if waited > NOTICE_AFTER && !self.asked {
            Processes::in_folder(&state::folder())?.terminate();
            self.asked = true;
        }
        Ok(())
    }
}

fn holder() -> anyhow::Result<Holder> {
    if let Some(log) = state::lock_log()? {
        return Ok(Holder::Caller(log));
    }
    match named_in(&state::log_path()) {
        Some(owner) if owner.is_running()? => Ok(Holder::Owner(owner)),
        _ => Ok(Holder::Orphans),
    }
}

/// Kills every process whose files are in the emulator's `folder`, and removes the folder.
pub(super) async fn clear(folder: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + KILL_GRACE;
    // A process may start another one before it is killed.
    loop {
        let left = Processes::in_folder(folder)?;
        if left.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            bail!("cannot kill the processes {left}");
        }
        _ = left.kill();
        sleep(POLL_INTERVAL).await;
    }
    match fs::remove_dir_all(folder) {
        Err(error) if folder.exists() => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Ends the stack that commands see, in whatever state it and its processes are. Returns whether there was one.
///
/// # Errors
/// When a process does not end, even by SIGKILL.
pub async fn end() -> anyhow::Result<bool> {
    let (mut owner, mut asked, mut cleanup) = (None, Instant::now(), Cleanup::default());
    let mut found = false;
    loop {
        match holder()? {
            Holder::Caller(_lock) => {
                let left = state::folder().exists() || !Processes::in_folder(&state::folder())?.is_empty();
                clear(&state::folder()).await?;
                return Ok(found || left);
            }
            Holder::Owner(running) => {
                // Another command has started a new stack meanwhile.
                if owner.is_some_and(|owner| owner != running) {
                    return Ok(true);
                }
                if owner.is_none() {
                    (owner, asked, found) = (Some(running), Instant::now(), true);
                    running.signal(Signal::Term)?;
                }
                if asked.elapsed() > OWNER_GRACE + KILL_GRACE {
                    bail!("the stack's process {} does not end, even by SIGKILL", running.pid);
                }
                if asked.elapsed() > OWNER_GRACE {
                    running.signal(Signal::Kill)?;
                }
            }
            Holder::Orphans => {
                cleanup.advance()?;
                found |= cleanup.asked;
            }
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Waits until the processes of a stack that this process began to start have ended, and describes the result.
///
/// # Errors
/// When the log cannot be locked.
pub async fn start_ended() -> anyhow::Result<&'static str> {
    let current = Identity::current()?;
    let deadline = Instant::now() + OWNER_GRACE;
    while Log::is_locked(&state::log_path())? && named_in(&state::log_path()) == Some(current) {
        if Instant::now() > deadline {
            return Ok("the stack did not start, and is still ending");
        }
        sleep(POLL_INTERVAL).await;
    }
    Ok("the stack did not start, and is down")
}
