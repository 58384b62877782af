//! `streamer` without a command: the demo. Builds, starts and deploys a stack, runs checks on it, and ends it.

mod faults;
mod steps;
mod tally;

use std::{
    pin::{Pin, pin},
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail};

use self::{steps::Demo, tally::Tally};
use super::set_up::{print_summary, set_up};
use crate::{
    screen::{Screen, elapsed},
    shutdown,
    stack::{
        Endpoint, Stack, build::Router, deploy::Overrides, fault_proxy::FaultProxy, logs, owner::Owner, state,
    },
};

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

/// Runs the demo. With `keep`, the stack then stays up until Ctrl-C.
///
/// # Errors
/// When the stack does not start, or a step fails. The error names the step.
pub async fn run(keep: bool) -> anyhow::Result<()> {
    let (started, screen) = (Instant::now(), Screen::new());
    screen.line("Streamer: the full AWS path on this machine, without Docker or an AWS account.\n");
    // One future for the whole time, so that no signal is lost in between.
    let mut shutdown = pin!(shutdown::requested());
    let ((stack, proxy), owner) = tokio::select! {
        () = &mut shutdown => bail!("interrupted while starting"),
        started = start(screen, keep) => started?,
    };
    screen.line(format!("             {}\n", stack.deployed.websocket_url));

    let mut demo = Demo::new(&stack, &proxy, screen);
    let result = tokio::select! {
        () = &mut shutdown => Err(StepError { passed: 0, error: anyhow!("interrupted") }),
        result = run_steps(&mut demo, screen) => result,
    };
    print_tally(screen, &demo.tally);
    let (verdict, passed) = match &result {
        Ok(()) => ("PASS", STEPS),
        Err(failed) => ("FAIL", failed.passed),
    };
    let seconds = started.elapsed().as_secs_f64();
    screen.line(format!("\n {verdict} {passed}/{STEPS} in {seconds:.0} s   logs: target/streamer/logs/"));
    if let Err(error) = logs::save(&stack).await {
        screen.line(format!(" cannot save the functions' logs: {error:#}"));
    }
    let ended = match owner {
        Some(owner) if result.is_ok() => hold(screen, owner, stack, shutdown).await,
        _ => {
            if result.is_ok() {
                screen.line(" next: cargo run -- --keep  |  producer/examples/router.rs");
            }
            stack.end().await
        }
    };
    // An error of a step matters more than a later error.
    result.map_err(|failed| failed.error).and(ended)
}

/// Starts the demo's stack: with `keep` as the stack that other commands see, else as one of this process alone.
async fn start(screen: Screen, keep: bool) -> anyhow::Result<((Stack, FaultProxy), Option<Owner>)> {
    let owner = if keep { Some(Owner::claim().await?) } else { None };
    let start = async |installed: &_| match &owner {
        Some(owner) => Endpoint::start(installed, None, &state::folder(), owner.log()).await,
        None => Endpoint::start_own(installed, "demo").await,
    };
    Ok((set_up(screen, &Router::Example, start, prepare).await?, owner))
}

/// Keeps a stack up until Ctrl-C or `streamer down`.
async fn hold(
    screen: Screen,
    owner: Owner,
    mut stack: Stack,
    shutdown: Pin<&mut impl Future<Output = ()>>,
) -> anyhow::Result<()> {
    owner.publish(&stack)?;
    print_summary(screen, &stack.deployed, "End it with Ctrl-C or `streamer down`.");
    tokio::select! {
        () = shutdown => owner.end(stack).await,
        ended = stack.ended() => {
            ended?;
            bail!("the emulator ended, and with it the stack: see {}", state::log_path().display())
        }
    }
}

const STEPS: usize = 10;

/// Runs every step of the demo on a stack, and prints the results.
///
/// # Errors
/// When a step fails. The error names the step.
pub async fn check(stack: &Stack, proxy: &FaultProxy, screen: Screen) -> anyhow::Result<()> {
    let mut demo = Demo::new(stack, proxy, screen);
    let result = run_steps(&mut demo, screen).await;
    print_tally(screen, &demo.tally);
    result.map_err(|failed| failed.error)
}

/// A failed step.
struct StepError {
    /// Number of steps that passed before it.
    passed: usize,
    error: anyhow::Error,
}

async fn run_steps(demo: &mut Demo<'_>, screen: Screen) -> Result<(), StepError> {
    macro_rules! step {
        ($number:literal, $name:ident) => {
            match demo.$name().await {
                Ok(result) => screen.line(format!(" {:>2} {:<11}{result}", $number, stringify!($name))),
                Err(error) => {
                    let error = error.context(concat!("step ", $number, ", ", stringify!($name)));
                    return Err(StepError { passed: $number - 1, error });
                }
            }
        };
    }
    step!(1, connect);
    step!(2, echo);
    step!(3, ping);
    step!(4, report);
    step!(5, devices);
    step!(6, broadcast);
    step!(7, poison);
    step!(8, stale);
    step!(9, disconnect);
    step!(10, outage);
    Ok(())
}

fn print_tally(screen: Screen, tally: &Tally) {
    screen.line("\n frames  unique  duplicate  lost  p50     p99");
    screen.line(format!(
        " {:<7} {:<7} {:<10} {:<5} {:<7} {} (outage)",
        tally.frames(),
        tally.unique(),
        tally.frames() - tally.unique(),
        tally.lost,
        elapsed(tally.percentile(50)),
        elapsed(tally.percentile(99)),
    ));
    screen.line(" The emulator adds 50 to 200 ms per message; Streamer's own latency: docs/explanation/performance.md");
}
