//! What the tests share.
//!
//! - [`emulator`]: the whole stack, started once for each test binary.
//! - [`localstack`]: another SQS.
//! - [`worker`]: a worker on doubles: [`gateway`] in memory for virtual time, queue and table inside the SDK's
//!   HTTP client ([`doubles`]).
//! - [`proxy`]: a way to API Gateway that injects faults.
//! - [`sqs`]: what SQS and Lambda do with messages around a worker, over many invocations.
//! - [`wire`]: a gateway on the wire, which answers, stalls and breaks as it is told. [`h2`]: one that speaks
//!   HTTP/2.
//! - [`event`]: builders of events.
//! - [`signer`]: issuers' keys and tokens. [`key_server`]: where keys come from.
//! - [`iam`]: IAM on an emulator that checks every call.
//! - [`terraform`]: Terraform, on a copy of `infra/`.
//! - [`command`]: the command `streamer`, as people run it.

pub mod command;
pub mod doubles;
pub mod emulator;
pub mod event;
pub mod gateway;
pub mod h2;
pub mod iam;
pub mod key_server;
pub mod localstack;
pub mod proxy;
pub mod signer;
pub mod sqs;
pub mod terraform;
pub mod wire;
pub mod worker;

use std::time::Duration;

use anyhow::ensure;
use tokio::time::{Instant, sleep};

/// How many cases a property is tried on: `PROPTEST_CASES` where that is set, else 2000.
#[must_use]
pub fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2000)
}

/// Whether everything is tried at full size.
#[must_use]
pub fn full() -> bool {
    cases() >= 50_000
}

/// Waits until `condition` holds.
///
/// # Errors
/// When it does not within 30 s, or fails.
pub async fn eventually(
    what: &str,
    mut condition: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition().await? {
        ensure!(Instant::now() < deadline, "not within 30 s: {what}");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Compiles the router in the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
