//! `streamer down`: ends the local stack.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use sysinfo::{Pid, ProcessesToUpdate, Signal, System};
use tokio::time::{Instant, sleep};

use crate::{screen::Screen, stack::state};

/// Time that a stack may take to end. Its processes get 2 s before they are killed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Stop the local stack
///
/// Ends every process of the stack that `streamer up` started. Does nothing if no stack is up.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  streamer down")]
pub struct Down {}

impl Down {
    /// Runs the command.
    ///
    /// # Errors
    /// When the stack does not end in time.
    pub async fn run(self) -> anyhow::Result<()> {
        let screen = Screen::new();
        let Some(running) = state::running().await? else {
            screen.line("no stack is up");
            return Ok(());
        };
        let pid = Pid::from_u32(running.pid);
        let mut system = System::new()?;
        system.refresh_processes(ProcessesToUpdate::Some(&[pid]), true);
        if let Some(supervisor) = system.process(pid) {
            supervisor.kill_with(Signal::Term);
        }
        let deadline = Instant::now() + TIMEOUT;
        while state::is_up()? {
            if Instant::now() > deadline {
                bail!("the stack did not end within {TIMEOUT:?}: kill the process group {}", running.pid);
            }
            sleep(Duration::from_millis(50)).await;
        }
        screen.line("the stack is down");
        Ok(())
    }
}
