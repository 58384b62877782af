//! `streamer up`: starts the local stack.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::set_up::set_up;
use crate::{
    log_line::LogFormat,
    paint::Paint,
    screen::Screen,
    shutdown,
    stack::{
        Endpoint, Stack,
        build::Router,
        deploy::{Deployed, Overrides},
        log::Log,
        logs::Logs,
        state,
    },
};

/// How often the functions' logs are read.
const LOG_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Start the local stack and print its logs
///
/// Starts an emulator of AWS, and deploys the WebSocket API, the Lambda functions, the queues, the connection table
/// and a router on `$default`. Prints the functions' logs until Ctrl-C, which ends the stack. One stack can be up at
/// a time.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer up                            print logs until Ctrl-C
  streamer up --detach                   return when the stack is ready; `streamer down` ends it
  streamer up --detach --json | jq -r .websocket_url
  streamer up --router target/debug/my-router")]
pub struct Up {
    /// Return when the stack is ready, and leave it up
    #[arg(long)]
    detach: bool,
    /// Print one JSON object when the stack is ready, and no logs
    #[arg(long)]
    json: bool,
    /// Port of the emulator [default: a free port]
    #[arg(long)]
    port: Option<u16>,
    /// Deploy this router instead of the example; its environment has QUEUE_URL
    #[arg(long, value_name = "BINARY")]
    router: Option<PathBuf>,
}

/// The output of `--json`.
#[derive(Serialize)]
struct Ready<'a> {
    #[serde(flatten)]
    deployed: &'a Deployed,
    pid: u32,
}

impl Up {
    /// Runs the command.
    ///
    /// # Errors
    /// When a stack is already up, or this one does not start.
    pub async fn run(self) -> anyhow::Result<()> {
        ensure!(
            Endpoint::from_env().is_none(),
            "AWS_ENDPOINT_URL is set, but `up` starts its own endpoint: unset the variable"
        );
        let log = lock_log().await?;
        let screen = if self.json { Screen::silent() } else { Screen::new() };
        let starting = self.start(screen, &log);
        let stack = tokio::select! {
            // Dropping the future ends the emulator.
            () = shutdown::requested() => bail!("interrupted while starting"),
            stack = starting => stack?,
        };
        let pid = stack.pid().context("the stack has no emulator of its own")?;
        state::write(&stack, pid)?;
        if self.json {
            println!("{}", serde_json::to_string(&Ready { deployed: &stack.deployed, pid })?);
        } else {
            print_summary(screen, &stack.deployed, self.detach);
        }
        if self.detach {
            return stack.detach().await;
        }
        // The emulator's processes keep the lock.
        drop(log);
        follow(stack, self.json).await
    }

    async fn start(&self, screen: Screen, log: &Log) -> anyhow::Result<Stack> {
        let start = async |installed: &_| Endpoint::start(installed, self.port, &state::folder(), log).await;
        let router = self.router.clone().map_or(Router::Example, Router::Binary);
        set_up(screen, &router, start, async |_| Ok((Overrides::default(), ())))
            .await
            .map(|(stack, ())| stack)
    }
}

/// Opens and locks the stack's log.
async fn lock_log() -> anyhow::Result<Log> {
    loop {
        if let Some(log) = state::lock_log()? {
            return Ok(log);
        }
        if let Some(running) = state::running().await? {
            bail!(
                "a stack is already up, process {}, at {}: use it, or end it with `streamer down`",
                running.pid,
                running.stack.deployed.websocket_url
            );
        }
        // Another command held the lock for a moment, to check whether a stack is up.
        sleep(Duration::from_millis(20)).await;
    }
}

fn print_summary(screen: Screen, deployed: &Deployed, detached: bool) {
    let Deployed { endpoint_url, websocket_url, management_endpoint, .. } = deployed;
    let Deployed { queue_url, dead_letter_queue_url, connections_table, .. } = deployed;
    let end = if detached {
        "End it with `streamer down`."
    } else {
        "The functions' logs follow. End it with Ctrl-C."
    };
    screen.line(format!(
        "
 endpoint      {endpoint_url}
 websocket     {websocket_url}
 management    {management_endpoint}
 queue         {queue_url}
 dead letters  {dead_letter_queue_url}
 table         {connections_table}

 The stack is up. {end}
 next: streamer listen --user anna --tenant acme  |  streamer send --help
"
    ));
}

/// Prints the logs until the stack ends.
async fn follow(mut stack: Stack, silent: bool) -> anyhow::Result<()> {
    let mut logs = Logs::of(&stack, None)?;
    let (screen, format) = (Screen::new(), LogFormat { paint: Paint::stdout(), functions: true, raw: false });
    let mut poll = interval(LOG_POLL_INTERVAL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let shutdown = shutdown::requested();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => return stack.end().await,
            ended = stack.ended() => {
                ended?;
                bail!("the stack ended, by `streamer down` or a crash: see {}", state::log_path().display());
            }
            _ = poll.tick(), if !silent => {
                // After an error, the next poll reads the same lines.
                for line in format.lines(logs.next().await.unwrap_or_default(), SystemTime::now()) {
                    screen.line(line);
                }
            }
        }
    }
}
