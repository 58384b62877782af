//! `streamer` without a command: the demo. Builds, starts and deploys a stack, runs checks on it, and ends it.
//!
//! No line of its report is wider than 60 columns, so that a narrow terminal does not break words.

mod faults;
mod mailbox;
mod steps;
mod tally;

use std::{
    path::PathBuf,
    pin::{Pin, pin},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tokio::time::{sleep, timeout};

use self::steps::Demo;
use super::set_up::{print_summary, set_up};
use crate::{
    paths,
    screen::{Screen, elapsed},
    shutdown::{self, Signal},
    stack::{
        Endpoint, Stack,
        deploy::Overrides,
        fault_proxy::FaultProxy,
        logs,
        owner::{self, Owner},
        router::Router,
        state,
    },
};

/// Name of the demo's stack, in the names of its files.
const NAME: &str = "demo";

/// Number of steps.
const STEPS: usize = 11;

/// Time in which an interrupted start has to end. Its processes get 2 s before they are killed.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// The state after a second signal.
const NOT_CLEANED_UP: &str = "the stack was not waited for: its own emulator ends by itself, and resources at \
                              AWS_ENDPOINT_URL may be left";

/// The outbound queue's visibility timeout. With the default, the message of a killed worker would return after
/// minutes.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(3);

/// Starts the proxy that makes the management endpoint fail, and returns the overrides that route posts through it.
async fn prepare(endpoint: &Endpoint) -> anyhow::Result<(Overrides, FaultProxy)> {
    let proxy = FaultProxy::start(endpoint.url())?;
    let overrides = Overrides {
        visibility_timeout: Some(VISIBILITY_TIMEOUT),
        management_origin: Some(proxy.origin()),
        ..Overrides::default()
    };
    Ok((overrides, proxy))
}

/// Runs the demo, with a router of the user's if there is one: it must answer requests as the example does. With `keep`,
/// the stack then stays up until Ctrl-C.
///
/// # Errors
/// When the stack does not start, a step fails, or a signal ends the demo. The error names the step.
pub async fn run(keep: bool, router: Option<PathBuf>) -> anyhow::Result<()> {
    let (started, screen) = (Instant::now(), Screen::new());
    screen.line("Streamer: the full AWS path on this machine,\nwithout Docker or an AWS account.\n");
    // One future until the first signal, so that none is lost in between.
    let mut shutdown = pin!(shutdown::requested());
    let ((stack, proxy), owner) = tokio::select! {
        signal = &mut shutdown => return Err(signal.interrupted(end_of_start(keep).await?)),
        started = start(screen, keep, router.map_or(Router::Example, Router::Own)) => started?,
    };
    screen.line(format!(" {}\n", stack.deployed.websocket_url));

    let mut demo = Demo::new(&stack, &proxy, screen);
    let (signal, result) = tokio::select! {
        signal = &mut shutdown => (Some(signal), Ok(())),
        result = run_steps(&mut demo) => (None, result),
    };
    let (passed, step) = (demo.passed, demo.step);
    if signal.is_none() {
        print_tally(&demo);
    }
    screen.line(format!(
        "\n {} {passed}/{STEPS} in {:.0} s",
        verdict(signal, &result),
        started.elapsed().as_secs_f64()
    ));
    let passes = signal.is_none() && result.is_ok();
    let ending = async {
        save_logs(screen, &stack).await;
        match owner {
            Some(owner) if passes => hold(screen, owner, stack, shutdown).await,
            // Its lock is held until the stack has ended.
            _owner => {
                if passes {
                    screen.line(" next: cargo run -- --keep  |  producer/examples/router.rs");
                }
                stack.end().await
            }
        }
    };
    let ended = tokio::select! {
        second = shutdown::requested(), if signal.is_some() => return Err(second.interrupted(NOT_CLEANED_UP)),
        ended = ending => ended,
    };
    // An error of a step matters more than a later error.
    result.and(ended)?;
    match signal {
        Some(signal) => Err(signal.interrupted(format!(
            "{passed} of {STEPS} steps passed, `{step}` was running; the stack is down"
        ))),
        None => Ok(()),
    }
}

/// Starts the demo's stack: with `keep` as the stack that other commands see, else as one of this process alone.
async fn start(
    screen: Screen,
    keep: bool,
    router: Router,
) -> anyhow::Result<((Stack, FaultProxy), Option<Owner>)> {
    let owner = if keep { Some(Owner::claim().await?) } else { None };
    let start = async |installed: &_| match &owner {
        Some(owner) => Endpoint::start(installed, None, &state::folder(), owner.log()).await,
        None => Endpoint::start_own(installed, NAME).await,
    };
    Ok((set_up(screen, &router, start, prepare).await?, owner))
}

/// Keeps a stack up until a signal, which is also how `streamer down` ends it.
async fn hold(
    screen: Screen,
    owner: Owner,
    mut stack: Stack,
    shutdown: Pin<&mut impl Future<Output = Signal>>,
) -> anyhow::Result<()> {
    owner.publish(&stack)?;
    print_summary(screen, &stack.deployed, "End it with Ctrl-C or `streamer down`.");
    tokio::select! {
        signal = shutdown => {
            owner.end(stack).await?;
            Err(signal.interrupted("the stack is down"))
        }
        ended = stack.ended() => {
            ended?;
            bail!("the emulator ended, and with it the stack: see {}", state::log_path().display())
        }
    }
}

fn verdict(signal: Option<Signal>, result: &anyhow::Result<()>) -> &'static str {
    match (signal, result) {
        (Some(_), _) => "INTERRUPTED",
        (None, Ok(())) => "PASS",
        (None, Err(_)) => "FAIL",
    }
}

/// Waits until the processes that a start began have ended, and describes what is left of it.
async fn end_of_start(keep: bool) -> anyhow::Result<String> {
    if let Some(endpoint) = Endpoint::from_env() {
        let suffix = std::process::id();
        return Ok(format!("no step ran; resources named …-{suffix} may be left at {}", endpoint.url()));
    }
    if keep {
        return Ok(format!("no step ran; {}", owner::start_ended().await?));
    }
    // The emulator's supervisor removes its folder at the end.
    let folder = Endpoint::folder(NAME);
    let ended = async {
        while folder.exists() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    Ok(match timeout(END_TIMEOUT, ended).await {
        Ok(()) => "no step ran; the stack is down".to_owned(),
        Err(_) => format!("no step ran; {} is still in use", folder.display()),
    })
}

/// Saves the functions' logs, and prints their folder.
async fn save_logs(screen: Screen, stack: &Stack) {
    let folder = paths::state("logs/");
    let here = std::env::current_dir().unwrap_or_default();
    screen.line(match logs::save(stack).await {
        Ok(()) => format!(" logs: {}", folder.strip_prefix(here).unwrap_or(&folder).display()),
        Err(error) => format!(" cannot save the functions' logs: {error:#}"),
    });
}

/// Runs every step of the demo on a stack, and prints the results.
///
/// # Errors
/// When a step fails. The error names the step.
pub async fn check(stack: &Stack, proxy: &FaultProxy, screen: Screen) -> anyhow::Result<()> {
    let mut demo = Demo::new(stack, proxy, screen);
    let result = run_steps(&mut demo).await;
    print_tally(&demo);
    result
}

/// Runs the steps in order. The error of a step names it.
async fn run_steps(demo: &mut Demo<'_>) -> anyhow::Result<()> {
    macro_rules! steps {
        ($($name:ident)*) => {$(
            demo.step = stringify!($name);
            let number = demo.passed + 1;
            let result = demo.$name().await.with_context(|| format!("step {number}, {}", demo.step))?;
            demo.screen.line(format!(" {number:>2} {:<11}{result}", demo.step));
            demo.passed = number;
        )*};
    }
    steps!(connect echo ping report devices mailbox broadcast poison stale disconnect outage);
    Ok(())
}

fn print_tally(demo: &Demo<'_>) {
    let (screen, tally) = (demo.screen, &demo.tally);
    let outage = if demo.step == "outage" { " (outage)" } else { "" };
    screen.line("\n frames  unique  duplicate  lost  p50     p99");
    screen.line(format!(
        " {:<7} {:<7} {:<10} {:<5} {:<7} {}{outage}",
        tally.frames(),
        tally.unique(),
        tally.frames() - tally.unique(),
        tally.lost,
        elapsed(tally.percentile(50)),
        elapsed(tally.percentile(99)),
    ));
    screen.line(" The emulator adds 50 to 200 ms per message. Streamer's own\n latency: docs/explanation/performance.md");
}
