//! Shared parts of the tests.
//!
//! - [`emulator`]: the whole stack, started once for each test binary. [`client`]: a WebSocket client.
//! - [`localstack`]: another implementation of SQS.
//! - [`worker`]: a worker on test doubles: [`gateway`] in memory for virtual time, queue and table inside the SDK's
//!   HTTP client ([`doubles`]).
//! - [`mailbox`]: the mailbox's table in memory.
//! - [`proxy`]: a proxy before API Gateway that injects faults.
//! - [`sqs`]: SQS and Lambda's event source mapping around a worker, over many invocations.
//! - [`wire`]: a scripted gateway on HTTP/1.1. [`h2`]: one on HTTP/2. [`frames`]: one that writes HTTP/2's frames
//!   itself. [`tls`]: one that holds TLS handshakes back.
//! - [`event`]: builders of events.
//! - [`signer`]: issuers' keys and tokens. [`key_server`]: a server of JWK sets.
//! - [`iam`]: IAM on an emulator that checks every call.
//! - [`terraform`]: Terraform, run on a copy of `infra/`.
//! - [`boto3`]: AWS's SDK for Python. [`node`]: Node with its packages.
//! - [`command`]: the command `streamer`, run as a process.

pub mod boto3;
pub mod client;
pub mod command;
pub mod doubles;
pub mod emulator;
pub mod event;
pub mod frames;
pub mod gateway;
pub mod h2;
pub mod iam;
pub mod key_server;
pub mod localstack;
pub mod mailbox;
pub mod node;
pub mod proxy;
pub mod python;
pub mod signer;
pub mod sqs;
pub mod terraform;
pub mod tls;
pub mod wire;
pub mod worker;

use std::time::Duration;

use anyhow::ensure;
use tokio::time::{Instant, sleep};

/// How long a test waits for a condition. It only limits a failing run, so it leaves room for a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Number of cases of a property test: `PROPTEST_CASES` where that is set, else 2000.
#[must_use]
pub fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2000)
}

/// Whether tests run at full size.
#[must_use]
pub fn full() -> bool {
    cases() >= 50_000
}

/// Says that a test is skipped because a tool is missing.
///
/// # Errors
/// `missing` itself with `CI=true`, where every tool has to be there.
pub fn skip(missing: anyhow::Error) -> anyhow::Result<()> {
    if std::env::var("CI").is_ok_and(|ci| ci == "true") {
        return Err(missing);
    }
    println!("skipped: {missing:#}");
    Ok(())
}

/// Waits until `condition` holds. `description` states the condition, such as "the queue is empty".
///
/// # Errors
/// When it does not hold within [`DEADLINE`], or fails.
pub async fn eventually(
    description: &str,
    mut condition: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await? {
        ensure!(Instant::now() < deadline, "not within {} s: {description}", DEADLINE.as_secs());
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// Compiles the guide's router.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/router.md")]
struct RouterGuide;

/// Compiles the examples of the guide to receipts.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/receipts.md")]
struct ReceiptsGuide;

/// Compiles the example of the guide to cells.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/cells.md")]
struct CellsGuide;
