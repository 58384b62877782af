//! The whole stack, started once for each test binary and ended with its process.

use std::{
    collections::BTreeMap,
    sync::OnceLock,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::anyhow;
use aws_config::SdkConfig;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use streamer_cli::stack::{Stack, deploy::Overrides, socket::Socket};
use streamer_connections::IndexedConnection;
use streamer_message::{ConnectionId, TenantId, UserId};
use streamer_producer::Producer;
use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, sleep},
};

use crate::{DEADLINE, eventually};

/// The visibility timeout of the stack's outbound queue: short, because a killed worker's messages stay hidden for as
/// long. A slow run may exceed it, and then receives messages again.
pub const VISIBILITY: Duration = Duration::from_secs(10);

/// Returns the stack that all tests of this binary share, with clients of the caller's own: a client belongs to the
/// runtime that uses it, and each test has one.
///
/// # Errors
/// When something is missing or could not be deployed. The error names it.
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

/// Connects a socket. It tries again until [`DEADLINE`]: while hundreds connect on a busy machine, some handshakes
/// time out, and every client has to try again.
///
/// # Errors
/// When no handshake succeeds in time. The error is that of the last one.
pub async fn connect(stack: &Stack, tenant: &str, user: &str) -> anyhow::Result<Socket> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match stack.connect(tenant, user).await {
            Ok(socket) => return Ok(socket),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Returns the live connections of a user.
///
/// # Errors
/// When a call to the connection table fails.
pub async fn rows(stack: &Stack, tenant: &str, user: &str) -> anyhow::Result<Vec<IndexedConnection>> {
    let (tenant, user) = (TenantId::new(tenant)?, UserId::new(user)?);
    let (table, mut rows, mut after) = (stack.table(), Vec::new(), None);
    loop {
        let page = table.by_user(&tenant, &user, after.as_ref(), SystemTime::now()).await?;
        rows.extend(page.connections);
        after = page.next;
        if after.is_none() {
            return Ok(rows);
        }
    }
}

/// Connects many sockets of a user, and returns their connections once each has its row. A connection whose handshake
/// timed out has a row, too, until `disconnect-handler` removes it.
///
/// # Errors
/// When a socket can't connect, or the rows differ from the sockets after [`DEADLINE`].
pub async fn crowd(
    stack: &Stack,
    tenant: &str,
    user: &str,
    sockets: usize,
) -> anyhow::Result<(Vec<Socket>, Vec<ConnectionId>)> {
    let connecting = stream::iter(0..sockets).map(|_| connect(stack, tenant, user));
    let connected: Vec<_> = connecting.buffer_unordered(20).try_collect().await?;
    let mut ids = Vec::new();
    eventually("each socket has a row", async || {
        ids = rows(stack, tenant, user).await?.into_iter().map(|row| row.connection_id).collect();
        Ok(ids.len() == sockets)
    })
    .await?;
    Ok((connected, ids))
}

/// Returns a producer that has [`DEADLINE`] for each send. The default is for production, where 10 s are plenty.
#[must_use]
pub fn producer(config: &SdkConfig, queue_url: &str) -> Producer {
    Producer::new(&aws_sdk_sqs::Client::new(config), queue_url).timeout(DEADLINE)
}

/// The test binary's name, without the hash that cargo appends.
fn name() -> String {
    let binary = std::env::current_exe().ok();
    let name = binary.as_deref().and_then(|path| path.file_stem()).map(|name| name.to_string_lossy());
    let name = name.as_deref().and_then(|name| name.rsplit_once('-')).map(|(name, _)| name.to_owned());
    name.unwrap_or_else(|| "tests".to_owned())
}

/// As on AWS, except for timeouts that would make tests wait for minutes.
fn overrides() -> Overrides {
    let worker = BTreeMap::from([("CONNECT_GRACE_SECONDS", "1".to_owned())]);
    let connect = BTreeMap::from([("SUBPROTOCOLS", "graphql-transport-ws, mqtt".to_owned())]);
    Overrides {
        visibility_timeout: Some(VISIBILITY),
        environment: BTreeMap::from([("connect", connect), ("delivery", worker)]),
        ..Overrides::default()
    }
}
