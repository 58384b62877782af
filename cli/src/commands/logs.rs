//! `streamer logs`: prints the functions' logs.

use std::{
    io::{Write as _, stdout},
    time::{Duration, SystemTime},
};

use clap::Args;
use tokio::time::sleep;

use crate::{
    log_line::{LogFormat, cutoff},
    paint::Paint,
    shutdown,
    stack::{logs, state},
};

/// How often `--follow` reads the logs.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Print the functions' logs of the local stack
///
/// Prints one line for each event, with its time in UTC. Metrics and the lines that Lambda writes around each
/// invocation are left out.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer logs
  streamer logs delivery --follow
  streamer logs --since 10m
  streamer logs delivery --json | jq -R 'fromjson? | select(.outcome)'")]
pub struct Logs {
    /// Print only the log of `connect`, `disconnect`, `delivery` or `router`
    function: Option<String>,
    /// Keep printing new lines until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Print only lines of this last time, such as 30s, 15m or 1h
    #[arg(long, value_name = "TIME")]
    since: Option<humantime::Duration>,
    /// Print every line as the functions wrote it
    #[arg(long)]
    json: bool,
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
        let format = LogFormat { paint: Paint::stdout(), functions: self.function.is_none(), raw: self.json };
        let since = cutoff(SystemTime::now(), self.since.map(Into::into));
        loop {
            let mut lines = logs.next().await?;
            lines.retain(|line| line.at >= since);
            for line in format.lines(lines, SystemTime::now()) {
                writeln!(stdout(), "{line}")?;
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
