//! `streamer`: the demo. Builds, starts, deploys, plays, checks and stops.

mod crowds;
mod scenes;
mod tally;

use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};

use self::{scenes::Play, tally::Tally};
use super::set_up::set_up;
use crate::{
    interrupt::interrupted,
    screen::{Screen, human},
    stack::{
        Endpoint, Stack,
        build::Router,
        deploy::{Deployed, Overrides},
        logs,
        outage::Outage,
    },
};

/// What the stack of the demo does differently: a message of a killed worker returns after 3 s, not minutes, and
/// the functions' way to the management endpoint can be made to fail.
async fn prepare(endpoint: &Endpoint) -> anyhow::Result<(Overrides, Outage)> {
    let outage = Outage::prepare(endpoint.url())?;
    let overrides = Overrides {
        visibility_timeout: Some(Duration::from_secs(3)),
        management_origin: Some(outage.origin()),
        ..Overrides::default()
    };
    Ok((overrides, outage))
}

/// Runs the demo; with `keep`, leaves the stack up until Ctrl-C.
///
/// # Errors
/// When anything of it did not happen.
pub async fn run(keep: bool) -> anyhow::Result<()> {
    let (started, screen) = (Instant::now(), Screen::new());
    screen.line("Streamer: the whole AWS path on this machine. No Docker, no account.\n");
    let start = async |installed: &_| Endpoint::start_own(installed, "demo").await;
    let (stack, outage) = tokio::select! {
        () = interrupted() => bail!("interrupted while starting"),
        stack = set_up(screen, &Router::Example, start, prepare) => stack?,
    };
    screen.line(format!("             {}\n", stack.deployed.websocket_url));

    let mut play = Play::new(&stack, &outage, screen);
    let played = tokio::select! {
        () = interrupted() => Err(Failed { scenes: 0, error: anyhow!("interrupted") }),
        played = perform(&mut play, screen) => played,
    };
    summary(screen, &play.tally);
    let (verdict, scenes) = match &played {
        Ok(()) => ("PASS", SCENES),
        Err(failed) => ("FAIL", failed.scenes),
    };
    screen.line(format!(
        "\n {verdict} {scenes}/{SCENES} in {:.0} s   logs: target/streamer/logs/",
        started.elapsed().as_secs_f64()
    ));
    if let Err(error) = logs::save(&stack).await {
        screen.line(format!(" the functions' logs are not there: {error:#}"));
    }
    if played.is_ok() && keep {
        invite(screen, &stack)?;
        interrupted().await;
    } else if played.is_ok() {
        screen.line(" next: cargo run -- --keep  |  producer/examples/router.rs");
    }
    let ended = stack.end().await;
    // What went wrong first is what counts.
    played.map_err(|failed| failed.error).and(ended)
}

const SCENES: usize = 10;

/// Plays all scenes on a stack, and says what came of them.
///
/// # Errors
/// When anything of it did not happen; the error names the scene.
pub async fn play(stack: &Stack, outage: &Outage, screen: Screen) -> anyhow::Result<()> {
    let mut play = Play::new(stack, outage, screen);
    let played = perform(&mut play, screen).await;
    summary(screen, &play.tally);
    played.map_err(|failed| failed.error)
}

/// A scene that did not end as it should.
struct Failed {
    scenes: usize,
    error: anyhow::Error,
}

/// Plays all scenes.
async fn perform(play: &mut Play<'_>, screen: Screen) -> Result<(), Failed> {
    macro_rules! scene {
        ($number:literal, $name:ident) => {
            match play.$name().await {
                Ok(what) => screen.line(format!(" {:>2} {:<11}{what}", $number, stringify!($name))),
                Err(error) => {
                    let error = error.context(concat!("scene ", $number, ", ", stringify!($name)));
                    return Err(Failed { scenes: $number - 1, error });
                }
            }
        };
    }
    scene!(1, connect);
    scene!(2, echo);
    scene!(3, ping);
    scene!(4, report);
    scene!(5, devices);
    scene!(6, broadcast);
    scene!(7, poison);
    scene!(8, stale);
    scene!(9, disconnect);
    scene!(10, outage);
    Ok(())
}

fn summary(screen: Screen, tally: &Tally) {
    screen.line("\n frames  unique  duplicate  lost  p50     p99");
    screen.line(format!(
        " {:<7} {:<7} {:<10} {:<5} {:<7} {} (the outage)",
        tally.frames(),
        tally.unique(),
        tally.frames() - tally.unique(),
        tally.lost,
        human(tally.percentile(50)),
        human(tally.percentile(99)),
    ));
    screen.line(" The emulator's own share is 50 to 200 ms a message; what Streamer itself costs: docs/explanation/performance.md");
}

/// What to do with a stack that stays up.
fn invite(screen: Screen, stack: &Stack) -> anyhow::Result<()> {
    let Deployed { endpoint_url, region, websocket_url, management_endpoint, .. } = &stack.deployed;
    let Deployed { queue_url, dead_letter_queue_url, connections_table, .. } = &stack.deployed;
    let token = stack.issuer.token("acme", "anna", Duration::from_secs(3600))?;
    let message = r#"{"version":1,"id":"hello-1","to":{"connection":"CONNECTION"},"payload":"hello"}"#;
    screen.line(format!(
        "\n The stack is up until Ctrl-C.\n
 websocket     {websocket_url}
 management    {management_endpoint}
 queue         {queue_url}
 dead letters  {dead_letter_queue_url}
 token         of user anna, tenant acme, for an hour:
 {token}

 # Connect, then ask for a report: {{\"type\":\"report\",\"request_id\":\"req_1\"}}
 npx wscat -c {websocket_url} -H 'Authorization: Bearer {token}'

 # Find the connection, then put a message for it on the queue
 export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION={region}
 aws --endpoint-url {endpoint_url} dynamodb scan --table-name {connections_table} --query 'Items[].connection_id.S'
 aws --endpoint-url {endpoint_url} sqs send-message --queue-url {queue_url} --message-body '{message}'"
    ));
    Ok(())
}
