//! The whole stack, started once for each test binary and ended with its process.

use std::{collections::BTreeMap, sync::OnceLock, thread, time::Duration};

use anyhow::anyhow;
use streamer_cli::stack::{Stack, deploy::Overrides};
use tokio::runtime::{Builder, Runtime};

/// The visibility timeout of its queues.
pub const VISIBILITY: Duration = Duration::from_secs(3);

/// The stack that all tests of this binary share, with clients of the caller's own: a client belongs to the
/// runtime that uses it, and each test has one.
///
/// # Errors
/// Says what is missing, or what could not be made.
pub async fn stack() -> anyhow::Result<Stack> {
    static STACK: OnceLock<anyhow::Result<(Runtime, Stack)>> = OnceLock::new();
    let started = STACK.get_or_init(|| {
        let start = thread::spawn(|| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let stack = runtime.block_on(Stack::start(&name(), &overrides()))?;
            Ok((runtime, stack))
        });
        start.join().map_err(|_| anyhow!("the stack's start panicked"))?
    });
    match started {
        Ok((_, stack)) => Ok(stack.share().await),
        Err(error) => Err(anyhow!("{error:#}")),
    }
}

/// The test binary's name, without the hash that cargo puts behind it.
fn name() -> String {
    let binary = std::env::current_exe().ok();
    let name = binary.as_deref().and_then(|path| path.file_stem()).map(|name| name.to_string_lossy());
    let name = name.as_deref().and_then(|name| name.rsplit_once('-')).map(|(name, _)| name.to_owned());
    name.unwrap_or_else(|| "tests".to_owned())
}

/// As on AWS, but a test need not wait for minutes.
fn overrides() -> Overrides {
    let worker = BTreeMap::from([("CONNECT_GRACE_SECONDS", "1".to_owned())]);
    Overrides {
        visibility_timeout: Some(VISIBILITY),
        environment: BTreeMap::from([("delivery", worker)]),
        ..Overrides::default()
    }
}
