//! `streamer down`: ends the stack on this machine.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use sysinfo::{Pid, ProcessesToUpdate, Signal, System};
use tokio::time::{Instant, sleep};

use crate::{screen::Screen, stack::state};

/// How long a stack may take to end: its processes get 2 s before they are killed.
const LIMIT: Duration = Duration::from_secs(10);

/// Ends the stack that `streamer up` started, with every process of it. Without one, it does nothing.
#[derive(Debug, Args)]
pub struct Down {}

impl Down {
    /// Runs the command.
    ///
    /// # Errors
    /// When the stack does not end.
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
        let deadline = Instant::now() + LIMIT;
        while state::is_up()? {
            if Instant::now() > deadline {
                bail!("the stack has not ended within {LIMIT:?}: kill the process group {}", running.pid);
            }
            sleep(Duration::from_millis(50)).await;
        }
        screen.line("the stack is down");
        Ok(())
    }
}
