//! What the tests share.
//!
//! - [`emulator`]: the whole stack, started once for each test binary.
//! - [`worker`]: a worker on doubles: [`gateway`] in memory for virtual time, queue and table inside the SDK's
//!   HTTP client ([`doubles`]).
//! - [`wire`]: a gateway on the wire, which answers, stalls and breaks as it is told. [`h2`]: one that speaks
//!   HTTP/2.
//! - [`event`]: builders of events.
//! - [`command`]: the command `streamer`, as people run it.

pub mod command;
pub mod doubles;
pub mod emulator;
pub mod event;
pub mod gateway;
pub mod h2;
pub mod wire;
pub mod worker;

use std::time::Duration;

use anyhow::ensure;
use tokio::time::{Instant, sleep};

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
