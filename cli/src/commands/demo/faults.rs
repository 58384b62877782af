//! The scenes with many clients: a worker is killed, and the endpoint fails.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use streamer_message::ConnectionId;
use streamer_producer::Message;
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use super::scenes::{Play, TENANT};
use crate::stack::{
    logs::Logs,
    socket::{Frame, Socket},
};

const CROWD: usize = 100;

/// The tenant of the crowd.
const CROWDED: &str = "globex";

/// Clients of the outage: enough posts to open the circuit.
const PATIENT: usize = 30;

/// How often a worker is to be killed in the middle of its batch before it is said to be too fast.
const TRIES: usize = 3;

impl Play<'_> {
    /// A message for a tenant of 100 clients, and the worker is killed while it is delivered.
    pub async fn broadcast(&mut self) -> anyhow::Result<String> {
        let Crowd { mut frames, _listening, .. } = self.crowd(CROWDED, "crowd", CROWD).await?;
        for _ in 0..TRIES {
            let (before, twice) = (self.tally.unique(), self.tally.twice());
            self.broadcast_and_kill(&mut frames).await?;
            let (arrived, twice) = (self.tally.unique() - before, self.tally.twice() - twice);
            self.tally.lost += CROWD - arrived;
            ensure!(arrived == CROWD, "{} of {CROWD} did not arrive", CROWD - arrived);
            // The worker that was killed before it was done has its whole message delivered again.
            if twice > 0 {
                return Ok(format!(
                    "a tenant of {CROWD} sockets, worker killed mid-batch\n               {arrived}/{CROWD} arrived, \
                     {twice} twice (same id), 0 lost"
                ));
            }
        }
        bail!("{TRIES} times the worker was done before it could be killed")
    }

    async fn broadcast_and_kill(
        &mut self,
        frames: &mut mpsc::Receiver<(usize, Frame)>,
    ) -> anyhow::Result<()> {
        let before = self.tally.unique();
        let workers = self.stack.processes("delivery")?;
        let message = Message::tenant(CROWDED).response(&json!({ "news": "the whole path runs" }))?;
        self.stack.producer().send(message).await?;

        // The first frame tells that a worker is in the middle of it.
        let first = tokio::time::timeout(self.limit, frames.recv()).await?.context("all sockets closed")?;
        let killed = workers.kill() + self.stack.processes("delivery")?.kill();
        ensure!(killed > 0, "there was no worker to kill");
        self.count("crowd", &first)?;

        let deadline = Instant::now() + self.limit;
        while Instant::now() < deadline
            && !(self.tally.unique() - before == CROWD
                && self.stack.is_empty(&self.stack.deployed.queue_url).await?)
        {
            while let Ok(frame) = frames.try_recv() {
                self.count("crowd", &frame)?;
            }
            sleep(Duration::from_millis(50)).await;
        }
        // What the last worker posted is still on its way.
        while let Ok(Some(frame)) = tokio::time::timeout(Duration::from_millis(250), frames.recv()).await {
            self.count("crowd", &frame)?;
        }
        Ok(())
    }

    /// Connects clients of one user.
    async fn crowd(&self, tenant: &str, user: &str, number: usize) -> anyhow::Result<Crowd> {
        let connect = |_| async { self.stack.connect(tenant, user).await };
        let sockets: Vec<_> = stream::iter(0..number).map(connect).buffer_unordered(20).try_collect().await?;
        let ids = self.connections(tenant, user, number).await?;
        let (sender, frames) = mpsc::channel(number);
        let mut listening = JoinSet::new();
        for (index, socket) in sockets.into_iter().enumerate() {
            listening.spawn(listen(index, socket, sender.clone(), self.limit * 2));
        }
        Ok(Crowd { ids, frames, _listening: listening })
    }

    fn count(&mut self, user: &str, (index, frame): &(usize, Frame)) -> anyhow::Result<()> {
        self.tally.arrived(&format!("{user} {index}"), frame).map(|_| ())
    }

    /// The management endpoint fails for a while: the circuit opens, and everything arrives afterwards.
    pub async fn outage(&mut self) -> anyhow::Result<String> {
        let Crowd { ids, mut frames, _listening } = self.crowd(TENANT, "dora", PATIENT).await?;
        let (before, mut logs) = (self.tally.unique(), Logs::of(self.stack, Some("delivery"))?);
        self.outage.fail(true);
        let message = Message::connections(&ids).response(&json!({ "news": "the endpoint is back" }))?;
        self.stack.producer().send(message).await?;
        let deadline = Instant::now() + self.limit;
        while !logs.next().await?.iter().any(|line| line.text.contains("the circuit has opened")) {
            ensure!(Instant::now() < deadline, "the circuit did not open");
            sleep(Duration::from_millis(100)).await;
        }
        self.outage.fail(false);
        let down = self.outage.refused();
        while self.tally.unique() - before < PATIENT {
            let left = deadline.saturating_duration_since(Instant::now());
            let frame = tokio::time::timeout(left, frames.recv()).await;
            self.tally.lost = before + PATIENT - self.tally.unique();
            let frame = frame.with_context(|| format!("{} did not arrive", self.tally.lost))?;
            self.count("dora", &frame.context("all sockets closed")?)?;
        }
        self.tally.lost = 0;
        Ok(format!(
            "endpoint down: circuit opened, {down} posts refused\n               {PATIENT}/{PATIENT} arrived once it \
             was back, 0 lost"
        ))
    }
}

/// Clients of one user, who listen.
struct Crowd {
    ids: Vec<ConnectionId>,
    frames: mpsc::Receiver<(usize, Frame)>,
    _listening: JoinSet<()>,
}

async fn listen(index: usize, mut socket: Socket, frames: mpsc::Sender<(usize, Frame)>, limit: Duration) {
    while let Ok(frame) = socket.next(limit).await {
        if frames.send((index, frame)).await.is_err() {
            break;
        }
    }
}
