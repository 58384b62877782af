//! `streamer logs`: what the functions say.

use std::{
    io::{Write as _, stdout},
    time::Duration,
};

use clap::Args;
use tokio::time::sleep;

use crate::stack::{logs::Logs, state};

/// Prints the functions' logs, as CloudWatch Logs has them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer logs
  streamer logs delivery --follow")]
pub struct LogsOf {
    /// `connect`, `disconnect`, `delivery` or `router`; all of them by default.
    function: Option<String>,
    /// Goes on until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
}

impl LogsOf {
    /// Runs the command.
    ///
    /// # Errors
    /// When no stack is up, or it has no such function.
    pub async fn run(self) -> anyhow::Result<()> {
        let running = state::expect().await?;
        let mut logs = Logs::of(&running.stack, self.function.as_deref())?;
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
            sleep(Duration::from_millis(500)).await;
        }
    }
}
