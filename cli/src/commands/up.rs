//! `streamer up`: the stack on this machine.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::set_up::set_up;
use crate::{
    interrupt::interrupted,
    screen::Screen,
    stack::{
        Endpoint, Stack,
        build::Router,
        deploy::{Deployed, Overrides},
        log::Log,
        logs::Logs,
        state,
    },
};

/// How often the functions' logs are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Starts the stack on this machine, and shows the functions' logs until Ctrl-C.
///
/// It is the whole AWS path on an emulator: the WebSocket API, our real Lambda binaries, the queues, the
/// connection table, and a router on `$default`. One stack can be up at a time.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer up                            the logs follow, Ctrl-C ends it
  streamer up --detach                   returns when it is ready; `streamer down` ends it
  streamer up --detach --json | jq -r .websocket_url
  streamer up --router target/debug/my-router")]
pub struct Up {
    /// Returns when the stack is ready, and leaves it up.
    #[arg(long)]
    detach: bool,
    /// Prints one JSON object when the stack is ready, and no logs.
    #[arg(long)]
    json: bool,
    /// The emulator's port; a free one by default.
    #[arg(long)]
    port: Option<u16>,
    /// The binary of your own router, deployed in place of the example. It gets QUEUE_URL.
    #[arg(long, value_name = "BINARY")]
    router: Option<PathBuf>,
}

/// What `--json` prints.
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
    /// When a stack is up already, or this one does not start.
    pub async fn run(self) -> anyhow::Result<()> {
        // Before anything is deployed anywhere.
        ensure!(
            Endpoint::of_environment().is_none(),
            "AWS_ENDPOINT_URL names an endpoint already, and `up` starts one of its own: unset the variable"
        );
        let log = claim().await?;
        let screen = if self.json { Screen::silent() } else { Screen::new() };
        let starting = self.start(screen, &log);
        let stack = tokio::select! {
            // Dropping what was started ends it.
            () = interrupted() => bail!("interrupted while starting"),
            stack = starting => stack?,
        };
        let pid =
            stack.pid().context("AWS_ENDPOINT_URL names an endpoint already: unset it to start another")?;
        state::write(&stack, pid)?;
        if self.json {
            println!("{}", serde_json::to_string(&Ready { deployed: &stack.deployed, pid })?);
        } else {
            welcome(screen, &stack.deployed, self.detach);
        }
        if self.detach {
            return stack.detach().await;
        }
        // The lock is the emulator's from here on.
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

/// The stack's log, unless a stack is up.
async fn claim() -> anyhow::Result<Log> {
    loop {
        if let Some(log) = state::claim()? {
            return Ok(log);
        }
        if let Some(running) = state::running().await? {
            bail!(
                "a stack is up already, process {}, at {}: use it, or end it with `streamer down`",
                running.pid,
                running.stack.deployed.websocket_url
            );
        }
        // Another command only looked whether one is up.
        sleep(Duration::from_millis(20)).await;
    }
}

fn welcome(screen: Screen, deployed: &Deployed, detached: bool) {
    let Deployed { endpoint_url, websocket_url, management_endpoint, .. } = deployed;
    let Deployed { queue_url, dead_letter_queue_url, connections_table, .. } = deployed;
    let end =
        if detached { "`streamer down` ends it." } else { "The functions' logs follow; Ctrl-C ends it." };
    screen.line(format!(
        "
 endpoint      {endpoint_url}
 websocket     {websocket_url}
 management    {management_endpoint}
 queue         {queue_url}
 dead letters  {dead_letter_queue_url}
 table         {connections_table}

 The stack is up. {end}
 next: streamer token --user anna --tenant acme  |  streamer send --help
"
    ));
}

/// Shows the logs until somebody ends the stack.
async fn follow(mut stack: Stack, silent: bool) -> anyhow::Result<()> {
    let mut logs = Logs::of(&stack, None)?;
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let interrupted = interrupted();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            () = &mut interrupted => return stack.end().await,
            ended = stack.ended() => {
                ended?;
                bail!("the stack has ended: by `streamer down`, or see {}", state::log_path().display());
            }
            _ = look.tick(), if !silent => {
                // A log that cannot be read now is read at the next look.
                for line in logs.next().await.unwrap_or_default() {
                    println!("{:<10} | {}", line.function, line.text);
                }
            }
        }
    }
}
