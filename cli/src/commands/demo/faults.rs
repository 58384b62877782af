//! The steps with many clients: a worker crash and an outage of the management endpoint.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use streamer_message::ConnectionId;
use streamer_producer::Message;
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use super::steps::{Demo, TENANT};
use crate::stack::{
    logs::{Line, Logs},
    socket::{Frame, Socket},
};

const BROADCAST_CLIENTS: usize = 100;

/// The tenant of the broadcast.
const BROADCAST_TENANT: &str = "globex";

/// Clients of the outage: enough posts to open the circuit breaker.
const OUTAGE_CLIENTS: usize = 30;

/// Maximum number of attempts to kill the worker before it has finished its batch.
const MAX_KILL_ATTEMPTS: usize = 3;

/// Time after the queue is empty in which the frames of the last posts arrive.
const LAST_FRAMES: Duration = Duration::from_millis(250);

impl Demo<'_> {
    /// Sends a message to a tenant with 100 clients, and kills the worker while it delivers the message.
    pub(super) async fn broadcast(&mut self) -> anyhow::Result<String> {
        let Clients { mut frames, _readers, .. } =
            self.connect_clients(BROADCAST_TENANT, "crowd", BROADCAST_CLIENTS).await?;
        for _ in 0..MAX_KILL_ATTEMPTS {
            let (unique, repeated) = (self.tally.unique(), self.tally.repeated());
            self.broadcast_and_kill(&mut frames).await?;
            let (unique, repeated) = (self.tally.unique() - unique, self.tally.repeated() - repeated);
            self.tally.lost += BROADCAST_CLIENTS - unique;
            ensure!(
                unique == BROADCAST_CLIENTS,
                "{} of {BROADCAST_CLIENTS} clients did not receive the message",
                BROADCAST_CLIENTS - unique
            );
            // Duplicates prove that the worker was killed before it had finished: SQS then delivers the message again.
            if repeated > 0 {
                return Ok(format!(
                    "{BROADCAST_CLIENTS} connections, worker killed mid-batch\n               \
                     {unique}/{BROADCAST_CLIENTS} received, {repeated} twice (same id), 0 lost"
                ));
            }
        }
        bail!("the worker finished its batch before it could be killed, {MAX_KILL_ATTEMPTS} times")
    }

    async fn broadcast_and_kill(
        &mut self,
        frames: &mut mpsc::Receiver<(usize, Frame)>,
    ) -> anyhow::Result<()> {
        let before = self.tally.unique();
        let workers = self.stack.processes("delivery")?;
        let message =
            Message::tenant(BROADCAST_TENANT).response(&json!({ "news": "the whole path runs" }))?;
        self.stack.producer().send(message).await?;

        // After the first frame, the worker is in the middle of its batch.
        let first =
            tokio::time::timeout(self.limit, frames.recv()).await?.context("all connections are closed")?;
        let killed = workers.kill() + self.stack.processes("delivery")?.kill();
        ensure!(killed > 0, "no worker process to kill");
        self.count("crowd", &first)?;

        let deadline = Instant::now() + self.limit;
        while Instant::now() < deadline
            && !(self.tally.unique() - before == BROADCAST_CLIENTS && self.stack.is_drained().await?)
        {
            while let Ok(frame) = frames.try_recv() {
                self.count("crowd", &frame)?;
            }
            sleep(Duration::from_millis(50)).await;
        }
        while let Ok(Some(frame)) = tokio::time::timeout(LAST_FRAMES, frames.recv()).await {
            self.count("crowd", &frame)?;
        }
        Ok(())
    }

    /// Connects `number` clients of one user.
    async fn connect_clients(&self, tenant: &str, user: &str, number: usize) -> anyhow::Result<Clients> {
        let connect = |_| async { self.stack.connect(tenant, user).await };
        let sockets: Vec<_> = stream::iter(0..number).map(connect).buffer_unordered(20).try_collect().await?;
        let ids = self.connections(tenant, user, number).await?;
        let (sender, frames) = mpsc::channel(number);
        let mut readers = JoinSet::new();
        for (index, socket) in sockets.into_iter().enumerate() {
            readers.spawn(read_frames(index, socket, sender.clone(), self.limit * 2));
        }
        Ok(Clients { ids, frames, _readers: readers })
    }

    fn count(&mut self, user: &str, (index, frame): &(usize, Frame)) -> anyhow::Result<()> {
        self.tally.count(&format!("{user} {index}"), frame).map(|_| ())
    }

    /// Makes the management endpoint fail until the circuit breaker opens. Every message arrives after the recovery.
    pub(super) async fn outage(&mut self) -> anyhow::Result<String> {
        let Clients { ids, mut frames, _readers } =
            self.connect_clients(TENANT, "dora", OUTAGE_CLIENTS).await?;
        let (before, mut logs) = (self.tally.unique(), Logs::of(self.stack, Some("delivery"))?);
        self.proxy.set_failing(true);
        let message = Message::connections(&ids).response(&json!({ "news": "the endpoint is back" }))?;
        self.stack.producer().send(message).await?;
        let deadline = Instant::now() + self.limit;
        let opened = |line: &Line| line.text.contains("circuit") && line.text.contains("opened");
        while !logs.next().await?.iter().any(opened) {
            ensure!(Instant::now() < deadline, "the circuit breaker did not open");
            sleep(Duration::from_millis(100)).await;
        }
        self.proxy.set_failing(false);
        let refused = self.proxy.refused();
        while self.tally.unique() - before < OUTAGE_CLIENTS {
            let left = deadline.saturating_duration_since(Instant::now());
            let frame = tokio::time::timeout(left, frames.recv()).await;
            self.tally.lost = before + OUTAGE_CLIENTS - self.tally.unique();
            let frame = frame.with_context(|| format!("{} messages did not arrive", self.tally.lost))?;
            self.count("dora", &frame.context("all connections are closed")?)?;
        }
        self.tally.lost = 0;
        Ok(format!(
            "endpoint down, circuit opened, {refused} refused\n               \
             {OUTAGE_CLIENTS}/{OUTAGE_CLIENTS} received after recovery, 0 lost"
        ))
    }
}

/// Connected clients of one user.
struct Clients {
    ids: Vec<ConnectionId>,
    /// Received frames with the index of their client.
    frames: mpsc::Receiver<(usize, Frame)>,
    _readers: JoinSet<()>,
}

async fn read_frames(
    index: usize,
    mut socket: Socket,
    frames: mpsc::Sender<(usize, Frame)>,
    limit: Duration,
) {
    while let Ok(frame) = socket.next(limit).await {
        if frames.send((index, frame)).await.is_err() {
            break;
        }
    }
}
