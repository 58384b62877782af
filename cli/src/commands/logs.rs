//! `streamer logs`: prints the functions' logs.

use std::{
    io::{Write as _, stdout},
    time::Duration,
};

use clap::Args;
use tokio::time::sleep;

use crate::{
    shutdown,
    stack::{logs, state},
};

/// How often `--follow` reads the logs.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Print the functions' logs of the local stack
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer logs
  streamer logs delivery --follow")]
pub struct Logs {
    /// Print only the log of `connect`, `disconnect`, `delivery` or `router`
    function: Option<String>,
    /// Keep printing new lines until Ctrl-C
    #[arg(long, short)]
    follow: bool,
}

impl Logs {
    /// Runs the command.
    ///
    /// # Errors
    /// When no stack is up, or it has no such function.
    pub async fn run(self) -> anyhow::Result<()> {
        let running = state::require_running().await?;
        let mut logs = logs::Logs::of(&running.stack, self.function.as_deref())?;
        let shutdown = shutdown::requested();
        tokio::pin!(shutdown);
        loop {
            for line in logs.next().await? {
                match self.function {
                    Some(_) => writeln!(stdout(), "{}", line.text)?,
                    None => writeln!(stdout(), "{:<10} | {}", line.function, line.text)?,
                }
            }
            if !self.follow {
                return Ok(());
            }
            tokio::select! {
                signal = &mut shutdown => return Err(signal.interrupted("")),
                () = sleep(POLL_INTERVAL) => {}
            }
        }
    }
}
