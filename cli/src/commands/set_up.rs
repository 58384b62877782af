//! The start of `up` and of the demo: installs and starts an emulator, builds the functions and deploys them.

use std::time::Duration;

use crate::{
    screen::{Screen, elapsed},
    stack::{
        Endpoint, Stack, build,
        deploy::{Deployed, Overrides},
        emulator::{self, Installed, MINISTACK},
        router::Router,
    },
};

/// Installs the emulator, starts it with `start`, builds the functions, and deploys them with the overrides that
/// `prepare` returns. `prepare` may also start servers between the endpoint and the functions, which this function
/// returns. Prints the time of each step.
///
/// # Errors
/// When a tool is missing, or a resource cannot be created. The error names it.
pub async fn set_up<T>(
    screen: Screen,
    router: &Router,
    start: impl AsyncFnOnce(&Installed) -> anyhow::Result<Endpoint>,
    prepare: impl AsyncFnOnce(&Endpoint) -> anyhow::Result<(Overrides, T)>,
) -> anyhow::Result<(Stack, T)> {
    let endpoint = match Endpoint::from_env() {
        Some(endpoint) => {
            screen.line(format!(" emulator    {} (AWS_ENDPOINT_URL)", endpoint.url()));
            endpoint
        }
        None => {
            let starting = async {
                let installed = emulator::install(&MINISTACK).await?;
                Ok((start(&installed).await?, installed.fresh))
            };
            let ((endpoint, fresh), took) = screen.step("emulator", "installing, starting", starting).await?;
            let first = if fresh { ", first run only" } else { "" };
            print_result(screen, "emulator", &format!("{}{first}", MINISTACK.packages.version()), took);
            endpoint
        }
    };
    let (binaries, took) = screen
        .step_with("build", "compiling", async |progress| build::build_with(|part| progress.show(part)).await)
        .await?;
    print_result(screen, "build", &format!("4 functions, {router}"), took);
    let (overrides, prepared) = prepare(&endpoint).await?;
    let overrides = overrides.with_deliveries_logged();
    let deploying = endpoint.deploy(&binaries, router, &overrides);
    let (stack, took) = screen.step("deploy", "deploying", deploying).await?;
    print_result(screen, "deploy", "2 tables, 4 queues, 5 functions, 1 API", took);
    Ok((stack, prepared))
}

fn print_result(screen: Screen, step: &str, result: &str, took: Duration) {
    screen.line(format!(" {step:<11} {result:<39} {}", elapsed(took)));
}

/// Prints a stack's names and URLs, and how it ends.
pub fn print_summary(screen: Screen, deployed: &Deployed, end: &str) {
    let Deployed { endpoint_url, websocket_url, management_endpoint, .. } = deployed;
    let Deployed { queue_url, parts_queue_url, dead_letter_queue_url, receipts_queue_url, .. } = deployed;
    let Deployed { connections_table, mailbox_table, .. } = deployed;
    screen.line(format!(
        "
 endpoint      {endpoint_url}
 websocket     {websocket_url}
 management    {management_endpoint}
 queue         {queue_url}
 parts         {parts_queue_url}
 dead letters  {dead_letter_queue_url}
 receipts      {receipts_queue_url}
 table         {connections_table}
 mailbox       {mailbox_table}

 The stack is up. {end}
 next: streamer web  |  streamer listen --user anna --tenant acme  |  streamer send --help  |  eval \"$(streamer env)\"
"
    ));
}
