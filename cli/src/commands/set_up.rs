//! What `up` and the demo begin with: the emulator, the build and the deployment, each with the time it took.

use std::time::Duration;

use crate::{
    screen::{Screen, human},
    stack::{
        Endpoint, Stack,
        build::{self, Router},
        deploy::Overrides,
        emulator::{self, Installed, MINISTACK},
    },
};

/// Installs the emulator, starts an endpoint with `start`, builds the Lambdas and deploys them as `prepare` says,
/// which may put something between the endpoint and the functions.
///
/// # Errors
/// Says what is missing, or what could not be made.
pub async fn set_up<T>(
    screen: Screen,
    router: &Router,
    start: impl AsyncFnOnce(&Installed) -> anyhow::Result<Endpoint>,
    prepare: impl AsyncFnOnce(&Endpoint) -> anyhow::Result<(Overrides, T)>,
) -> anyhow::Result<(Stack, T)> {
    let endpoint = match Endpoint::of_environment() {
        Some(endpoint) => {
            screen.line(format!(" emulator    {}, as AWS_ENDPOINT_URL says", endpoint.url()));
            endpoint
        }
        None => {
            let starting = async {
                let installed = emulator::install(&MINISTACK).await?;
                Ok((start(&installed).await?, installed.fresh))
            };
            let ((endpoint, fresh), took) = screen.step("emulator", "installing, starting", starting).await?;
            let first = if fresh { ", first run only" } else { "" };
            done(screen, "emulator", &format!("{}{first}", MINISTACK.packages.version()), took);
            endpoint
        }
    };
    let (binaries, took) = screen.step("build", "compiling", build::build()).await?;
    done(screen, "build", &format!("3 Lambdas, {router}"), took);
    let (overrides, prepared) = prepare(&endpoint).await?;
    let deploying = endpoint.deploy(&binaries, router, &overrides);
    let (stack, took) = screen.step("deploy", "deploying", deploying).await?;
    done(screen, "deploy", "1 table, 2 queues, 4 functions, 1 API", took);
    Ok((stack, prepared))
}

fn done(screen: Screen, name: &str, what: &str, took: Duration) {
    screen.line(format!(" {name:<11} {what:<40} {}", human(took)));
}
