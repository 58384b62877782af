//! `streamer` without a command: the demo. Builds, starts and deploys a stack, runs checks on it, and ends it.

mod faults;
mod steps;
mod tally;

use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};

use self::{steps::Demo, tally::Tally};
use super::set_up::set_up;
use crate::{
    screen::{Screen, elapsed},
    shutdown,
    stack::{
        Endpoint, Stack,
        build::Router,
        deploy::{Deployed, Overrides},
        fault_proxy::FaultProxy,
        logs,
    },
};

/// The outbound queue's visibility timeout. With the default, the message of a killed worker would return after
/// minutes.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(3);

/// Lifetime of the token that `--keep` prints.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

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
    let start = async |installed: &_| Endpoint::start_own(installed, "demo").await;
    let (stack, proxy) = tokio::select! {
        () = shutdown::requested() => bail!("interrupted while starting"),
        stack = set_up(screen, &Router::Example, start, prepare) => stack?,
    };
    screen.line(format!("             {}\n", stack.deployed.websocket_url));

    let mut demo = Demo::new(&stack, &proxy, screen);
    let result = tokio::select! {
        () = shutdown::requested() => Err(StepError { passed: 0, error: anyhow!("interrupted") }),
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
    if result.is_ok() && keep {
        print_usage(screen, &stack)?;
        shutdown::requested().await;
    } else if result.is_ok() {
        screen.line(" next: cargo run -- --keep  |  producer/examples/router.rs");
    }
    let ended = stack.end().await;
    // An error of a step matters more than a later error.
    result.map_err(|failed| failed.error).and(ended)
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

/// Prints how to use a stack that stays up.
fn print_usage(screen: Screen, stack: &Stack) -> anyhow::Result<()> {
    let Deployed { endpoint_url, region, websocket_url, management_endpoint, .. } = &stack.deployed;
    let Deployed { queue_url, dead_letter_queue_url, connections_table, .. } = &stack.deployed;
    let token = stack.issuer.token("acme", "anna", TOKEN_LIFETIME)?;
    let message = r#"{"version":1,"id":"hello-1","to":{"connection":"CONNECTION"},"payload":"hello"}"#;
    // Commands stay on one line, so that they can be copied.
    screen.verbatim(format!(
        "\n The stack is up until Ctrl-C.\n
 websocket     {websocket_url}
 management    {management_endpoint}
 queue         {queue_url}
 dead letters  {dead_letter_queue_url}
 token         for user anna of tenant acme, valid for one hour:
 {token}

 # Connect, then request a report: {{\"type\":\"report\",\"request_id\":\"req_1\"}}
 npx wscat -c {websocket_url} -H 'Authorization: Bearer {token}'

 # Find the connection's id, then send a message to it
 export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION={region}
 aws --endpoint-url {endpoint_url} dynamodb scan --table-name {connections_table} --query 'Items[].connection_id.S'
 aws --endpoint-url {endpoint_url} sqs send-message --queue-url {queue_url} --message-body '{message}'"
    ));
    Ok(())
}
