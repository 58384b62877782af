//! `streamer up`: starts the local stack.

use std::{
    ffi::OsString,
    io::{Write as _, stdout},
    path::PathBuf,
    pin::{Pin, pin},
    time::{Duration, SystemTime},
};

use anyhow::{bail, ensure};
use clap::{
    Args,
    builder::{PathBufValueParser, TypedValueParser as _},
};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    background::{self, Background},
    set_up::{print_summary, set_up},
};
use crate::{
    log_line::LogFormat,
    paint::Paint,
    screen::Screen,
    shutdown::{self, Signal},
    stack::{
        Endpoint, Stack,
        deploy::Overrides,
        front_door::Limits,
        logs::Logs,
        owner::{self, Owner},
        router::Router,
        state::{self, State},
    },
};

/// How often the functions' logs are read.
const LOG_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Start the local stack and print its logs
///
/// Starts an emulator of AWS, and deploys the WebSocket API, the Lambda functions, the queues, the tables and a
/// router on `$default`. Prints the functions' logs until Ctrl-C, which ends the stack. One stack can be up at
/// a time.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer up                            print logs until Ctrl-C
  streamer up --detach                   return when the stack is ready; `streamer down` ends it
  streamer up --detach --json | jq -r .websocket_url
  streamer up --connection-lifetime 15s  watch clients reconnect
  streamer up --router target/debug/my-router
  streamer up --router my-router-in-node")]
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
    /// Own a stack in the background
    #[arg(long, hide = true)]
    background: bool,
    /// Deploy this router instead of the example: a program, or a folder or zip with index.mjs or lambda_function.py;
    /// its environment has QUEUE_URL and CONNECTIONS_TABLE
    #[arg(long, value_name = "PATH", value_parser = PathBufValueParser::new().try_map(Router::check))]
    router: Option<PathBuf>,
    /// Close each connection after this time, from 1s to the 2h of API Gateway
    #[arg(long, value_name = "TIME", default_value = "2h", value_parser = connection_lifetime)]
    connection_lifetime: humantime::Duration,
}

impl Up {
    /// Runs the command.
    ///
    /// # Errors
    /// When a stack is already up, this one does not start, or a signal ends it.
    pub async fn run(self) -> anyhow::Result<()> {
        ensure!(
            Endpoint::from_env().is_none(),
            "AWS_ENDPOINT_URL is set, but `up` starts its own endpoint: unset the variable"
        );
        if self.detach {
            return background::start(self.in_background()).await;
        }
        let mut background = if self.background { Some(Background::begin()?) } else { None };
        let screen = if self.json { Screen::silent() } else { Screen::new() };
        // One future for the whole time, so that no signal is lost in between.
        let mut shutdown = pin!(shutdown::requested());
        let (owner, stack) = tokio::select! {
            // Dropping the future ends the emulator.
            signal = &mut shutdown => return Err(signal.interrupted(owner::start_ended().await?)),
            () = starter_ended(background.as_mut()) => {
                // The starting process, if it still runs, waits for this one and says how it ended.
                owner::start_ended().await?;
                return Ok(());
            }
            started = self.start(screen) => started?,
        };
        owner.publish(&stack)?;
        if self.json {
            // As with `Screen`, a reader may have closed the pipe.
            _ = writeln!(stdout(), "{}", serde_json::to_string(&State::of(&stack))?);
        } else if self.background {
            print_summary(screen, &stack.deployed, "End it with `streamer down`.");
        } else {
            print_summary(screen, &stack.deployed, "The functions' logs follow. End it with Ctrl-C.");
        }
        if let Some(background) = &mut background {
            background.ready().await?;
        }
        follow(owner, stack, self.json || self.background, shutdown).await
    }

    /// Returns the arguments of the process in the background.
    fn in_background(self) -> Vec<OsString> {
        let mut arguments = vec!["up".into(), "--background".into()];
        arguments.extend(self.json.then(|| "--json".into()));
        arguments.extend(self.port.map(|port| format!("--port={port}").into()));
        arguments.push(format!("--connection-lifetime={}", self.connection_lifetime).into());
        arguments.extend(self.router.into_iter().flat_map(|router| ["--router".into(), router.into()]));
        arguments
    }

    async fn start(&self, screen: Screen) -> anyhow::Result<(Owner, Stack)> {
        let owner = Owner::claim().await?;
        let start =
            async |installed: &_| Endpoint::start(installed, self.port, &state::folder(), owner.log()).await;
        let router = self.router.clone().map_or(Router::Example, Router::Own);
        let limits = Limits { lifetime: self.connection_lifetime.into(), ..Limits::default() };
        let overrides = Overrides { limits, ..Overrides::default() };
        let (stack, ()) = set_up(screen, &router, start, async |_| Ok((overrides, ()))).await?;
        Ok((owner, stack))
    }
}

/// Parses the time after which connections are closed.
fn connection_lifetime(text: &str) -> Result<humantime::Duration, String> {
    let time: humantime::Duration =
        text.parse().map_err(|error| format!("{error}: write a time such as 10s"))?;
    let (shortest, longest) = (Duration::from_secs(1), Limits::default().lifetime);
    if !(shortest..=longest).contains(&Duration::from(time)) {
        return Err("it must be from 1s to 2h, the lifetime on AWS".to_owned());
    }
    Ok(time)
}

/// Waits until the process that started this one in the background has ended. Never returns in the foreground.
async fn starter_ended(background: Option<&mut Background>) {
    match background {
        Some(background) => background.starter_ended().await,
        None => std::future::pending().await,
    }
}

/// Prints the logs until the stack ends.
async fn follow(
    owner: Owner,
    mut stack: Stack,
    silent: bool,
    mut shutdown: Pin<&mut impl Future<Output = Signal>>,
) -> anyhow::Result<()> {
    let mut logs = Logs::of(&stack, None)?;
    let (screen, format) = (Screen::new(), LogFormat { paint: Paint::stdout(), functions: true, raw: false });
    let mut poll = interval(LOG_POLL_INTERVAL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            signal = &mut shutdown => {
                owner.end(stack).await?;
                return Err(signal.interrupted("the stack is down"));
            }
            ended = stack.ended() => {
                ended?;
                bail!("the emulator ended, and with it the stack: see {}", state::log_path().display());
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        up: Up,
    }

    fn parse(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Up, clap::Error> {
        Command::try_parse_from(arguments).map(|command| command.up)
    }

    #[test]
    fn connection_lifetime_has_bounds() {
        for (text, seconds) in [("1s", 1), ("10s", 10), ("1h 30m", 5400), ("2h", 7200)] {
            let up = parse(["up", "--connection-lifetime", text]).unwrap();
            assert_eq!(up.connection_lifetime.as_secs(), seconds);
        }
        for text in ["0s", "999ms", "2h 1ns", "1d", "10", "soon"] {
            let error = parse(["up", "--connection-lifetime", text]).unwrap_err().to_string();
            assert!(error.contains("1s to 2h") || error.contains("such as 10s"), "{error}");
        }
    }

    #[test]
    fn background_process_gets_every_setting() {
        let router = std::env::current_exe().unwrap();
        let mut arguments: Vec<OsString> = vec!["up".into(), "--detach".into(), "--json".into()];
        arguments.extend(["--port=4567".into(), "--connection-lifetime=1h 30m".into()]);
        arguments.extend(["--router".into(), router.clone().into()]);
        let up = parse(parse(arguments).unwrap().in_background()).unwrap();
        assert!(up.background && up.json && !up.detach);
        assert_eq!((up.port, up.router), (Some(4567), Some(router)));
        assert_eq!(up.connection_lifetime.as_secs(), 5400);
    }
}
