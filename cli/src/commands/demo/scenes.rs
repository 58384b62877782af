//! The scenes of the demo: what a client sees of Streamer.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use streamer_connections::{Connection, ConnectionTable};
use streamer_message::{ConnectionId, TenantId, UserId};
use streamer_producer::Message;
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use super::tally::Tally;
use crate::{
    screen::{Screen, human},
    stack::{
        Stack,
        logs::{Line, Logs},
        outage::Outage,
        socket::{Frame, Socket},
    },
};

const TENANT: &str = "acme";
const CROWD: usize = 100;

/// Clients of the outage: enough posts to open the circuit.
const PATIENT: usize = 30;

/// How often a worker is to be killed in the middle of its batch before it is said to be too fast.
const TRIES: usize = 3;

/// How long to wait for a frame before looking into the worker's log.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long anything may take: longer than the visibility timeout, which a message of a killed worker waits.
const LIMIT: Duration = Duration::from_secs(60);

/// A play: one client, and what has arrived so far.
pub struct Play<'a> {
    stack: &'a Stack,
    outage: &'a Outage,
    screen: Screen,
    table: ConnectionTable,
    anna: Option<(Socket, ConnectionId)>,
    /// What has arrived.
    pub tally: Tally,
}

impl<'a> Play<'a> {
    /// The stage is set.
    pub fn new(stack: &'a Stack, outage: &'a Outage, screen: Screen) -> Self {
        Self { stack, outage, screen, table: stack.table(), anna: None, tally: Tally::default() }
    }

    /// A client connects with a fresh token.
    pub async fn connect(&mut self) -> anyhow::Result<String> {
        let socket = self.stack.connect(TENANT, "anna").await?;
        let id = self.connections("anna", 1).await?.pop().context("no row was written")?;
        self.anna = Some((socket, id));
        Ok(format!("user anna, tenant {TENANT}: row written"))
    }

    /// A request is answered with a response.
    pub async fn echo(&mut self) -> anyhow::Result<String> {
        self.response(json!({ "type": "echo", "request_id": "req_1", "text": "hello" }), "hello").await
    }

    /// A ping is answered with a pong.
    pub async fn ping(&mut self) -> anyhow::Result<String> {
        self.response(json!({ "type": "ping", "request_id": "req_2" }), "pong").await
    }

    async fn response(&mut self, request: Value, expected: &str) -> anyhow::Result<String> {
        self.request(&request).await?;
        let (frame, latency) = self.frame().await?;
        let right = frame["type"] == "response"
            && frame["data"] == expected
            && frame["request_id"] == request["request_id"];
        ensure!(right, "not the response that was expected: {frame}");
        Ok(format!("{:<40} {}", format!("response {}", frame["data"]), human(latency)))
    }

    /// A request that takes its time is acknowledged, reports its progress and completes.
    pub async fn report(&mut self) -> anyhow::Result<String> {
        self.request(&json!({ "type": "report", "request_id": "req_3" })).await?;
        let bar = self.screen.bar();
        let mut acknowledged = None;
        let mut progress = Vec::new();
        let mut complete = None;
        // A standard queue keeps no order: `seq` tells it. An update that a later message of the request overtakes
        // in the same batch is superseded, which the worker's log tells.
        let (mut logs, mut superseded) = (Logs::of(self.stack, Some("delivery"))?, 0);
        let deadline = Instant::now() + LIMIT;
        while acknowledged.is_none() || complete.is_none() || progress.len() + superseded < 10 {
            let missing = 10 - progress.len() - superseded;
            ensure!(
                Instant::now() < deadline,
                "acknowledgment, completion or {missing} updates did not come"
            );
            let Ok(frame) = tokio::time::timeout(PATIENCE, self.frame()).await else {
                let says =
                    |line: &Line| line.text.contains("\"superseded\"") && line.text.contains("\"req_3\"");
                superseded += logs.next().await?.iter().filter(|line| says(line)).count();
                continue;
            };
            let (frame, latency) = frame?;
            let seq = frame["seq"].as_u64().context("no seq")?;
            match frame["type"].as_str() {
                Some("acknowledgment") => acknowledged = Some((seq, latency)),
                Some("complete") => complete = Some((seq, frame["result"].clone())),
                Some("progress") => {
                    let percent = frame["progress"].as_u64().unwrap_or_default();
                    progress.push((seq, percent));
                    bar.iter().for_each(|bar| bar.set_position(percent));
                }
                _ => bail!("not expected: {frame}"),
            }
        }
        bar.iter().for_each(|bar| bar.finish_and_clear());
        progress.sort_unstable();
        let (Some((first, latency)), Some((last, result))) = (acknowledged, complete) else {
            bail!("no end")
        };
        let percent: Vec<_> = progress.iter().map(|(_, percent)| *percent).collect();
        let rising = percent.windows(2).all(|pair| pair[0] < pair[1]);
        ensure!(percent.len() <= 10 && rising, "updates out of order: {percent:?}");
        let between = progress.iter().all(|(seq, _)| (first..last).contains(seq));
        ensure!(between, "an update has no place between acknowledgment and completion");
        Ok(format!(
            "{:<40} {}\n   {} 100 %  {} updates in order of seq, {} superseded\n               complete {result}",
            "acknowledgment",
            human(latency),
            "█".repeat(20),
            percent.len(),
            superseded
        ))
    }

    /// A message for 100 clients, and the worker is killed while it is delivered.
    pub async fn broadcast(&mut self) -> anyhow::Result<String> {
        let Crowd { ids, mut frames, _listening } = self.crowd("crowd", CROWD).await?;
        for _ in 0..TRIES {
            let (before, twice) = (self.tally.unique(), self.tally.twice());
            self.broadcast_and_kill(&ids, &mut frames).await?;
            let (arrived, twice) = (self.tally.unique() - before, self.tally.twice() - twice);
            self.tally.lost += CROWD - arrived;
            ensure!(arrived == CROWD, "{} of {CROWD} did not arrive", CROWD - arrived);
            // The worker that was killed before it was done has its whole message delivered again.
            if twice > 0 {
                return Ok(format!(
                    "{CROWD} sockets, worker killed mid-batch\n               {arrived}/{CROWD} arrived, \
                     {twice} twice (same id), 0 lost"
                ));
            }
        }
        bail!("{TRIES} times the worker was done before it could be killed")
    }

    async fn broadcast_and_kill(
        &mut self,
        ids: &[ConnectionId],
        frames: &mut mpsc::Receiver<(usize, Frame)>,
    ) -> anyhow::Result<()> {
        let before = self.tally.unique();
        let workers = self.stack.processes("delivery")?;
        let message = Message::connections(ids).response(&json!({ "news": "the whole path runs" }))?;
        self.stack.producer().broadcast(message).await?;

        // The first frame tells that a worker is in the middle of it.
        let first = tokio::time::timeout(LIMIT, frames.recv()).await?.context("all sockets closed")?;
        let killed = workers.kill() + self.stack.processes("delivery")?.kill();
        ensure!(killed > 0, "there was no worker to kill");
        self.count("crowd", &first)?;

        let deadline = Instant::now() + LIMIT;
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
    async fn crowd(&self, user: &str, number: usize) -> anyhow::Result<Crowd> {
        let connect = |_| async { self.stack.connect(TENANT, user).await };
        let sockets: Vec<_> = stream::iter(0..number).map(connect).buffer_unordered(20).try_collect().await?;
        let ids = self.connections(user, number).await?;
        let (sender, frames) = mpsc::channel(number);
        let mut listening = JoinSet::new();
        for (index, socket) in sockets.into_iter().enumerate() {
            listening.spawn(listen(index, socket, sender.clone()));
        }
        Ok(Crowd { ids, frames, _listening: listening })
    }

    fn count(&mut self, user: &str, (index, frame): &(usize, Frame)) -> anyhow::Result<()> {
        self.tally.arrived(&format!("{user} {index}"), frame).map(|_| ())
    }

    /// A row whose `$disconnect` never came: the first post finds no socket and removes it.
    pub async fn stale(&mut self) -> anyhow::Result<String> {
        let socket = self.stack.connect(TENANT, "berta").await?;
        let id = self.connections("berta", 1).await?.pop().context("no row was written")?;
        let row = self.row(&id).await?.context("no row")?;
        socket.close().await?;
        self.until_removed(&id).await.context("$disconnect did not remove the row")?;
        // `$disconnect` is best-effort on AWS; the emulator always sends it.
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        self.table.put(&Connection { connected_at: hour_ago, ..row }).await?;

        self.stack.producer().send(Message::connection(&id).response("anybody there?")?).await?;
        self.until_removed(&id).await.context("the 410 did not remove the row")?;
        Ok("closed connection: 410, row removed".to_owned())
    }

    /// The client closes its connection.
    pub async fn disconnect(&mut self) -> anyhow::Result<String> {
        let (socket, id) = self.anna.take().context("nobody is connected")?;
        socket.close().await?;
        self.until_removed(&id).await?;
        Ok("row removed".to_owned())
    }

    /// The management endpoint fails for a while: the circuit opens, and everything arrives afterwards.
    pub async fn outage(&mut self) -> anyhow::Result<String> {
        let Crowd { ids, mut frames, _listening } = self.crowd("dora", PATIENT).await?;
        let (before, mut logs) = (self.tally.unique(), Logs::of(self.stack, Some("delivery"))?);
        self.outage.fail(true);
        let message = Message::connections(&ids).response(&json!({ "news": "the endpoint is back" }))?;
        self.stack.producer().broadcast(message).await?;
        let deadline = Instant::now() + LIMIT;
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

    async fn request(&mut self, request: &Value) -> anyhow::Result<()> {
        let (socket, _) = self.anna.as_mut().context("nobody is connected")?;
        socket.send(request).await
    }

    /// The next frame that is new: delivery is at least once.
    async fn frame(&mut self) -> anyhow::Result<(Value, Duration)> {
        let (socket, _) = self.anna.as_mut().context("nobody is connected")?;
        loop {
            let frame = socket.next(LIMIT).await?;
            if let Some(new) = self.tally.arrived("anna", &frame)? {
                return Ok(new);
            }
        }
    }

    async fn row(&self, id: &ConnectionId) -> anyhow::Result<Option<Connection>> {
        Ok(self.table.get(id, SystemTime::now()).await?)
    }

    async fn until_removed(&self, id: &ConnectionId) -> anyhow::Result<()> {
        let deadline = Instant::now() + LIMIT;
        while self.row(id).await?.is_some() {
            ensure!(Instant::now() < deadline, "the row is still there");
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// The connections of a user, once there are so many.
    async fn connections(&self, user: &str, number: usize) -> anyhow::Result<Vec<ConnectionId>> {
        let (tenant, user) = (TenantId::new(TENANT)?, UserId::new(user)?);
        let deadline = Instant::now() + LIMIT;
        loop {
            let page = self.table.by_user(&tenant, &user, None, SystemTime::now()).await?;
            if page.connections.len() >= number {
                return Ok(page.connections.into_iter().map(|connection| connection.connection_id).collect());
            }
            ensure!(Instant::now() < deadline, "{} of {number} rows are there", page.connections.len());
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Clients of one user, who listen.
struct Crowd {
    ids: Vec<ConnectionId>,
    frames: mpsc::Receiver<(usize, Frame)>,
    _listening: JoinSet<()>,
}

async fn listen(index: usize, mut socket: Socket, frames: mpsc::Sender<(usize, Frame)>) {
    while let Ok(frame) = socket.next(LIMIT * 2).await {
        if frames.send((index, frame)).await.is_err() {
            break;
        }
    }
}
