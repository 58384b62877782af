//! The scenes of the demo: what a client sees of Streamer.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use streamer_connections::{Connection, ConnectionTable};
use streamer_message::{
    ConnectionId, TenantId, UserId,
    dead_letter::{self, Reason},
};
use streamer_producer::Message;
use tokio::time::sleep;

use super::tally::Tally;
use crate::{
    screen::{Screen, human},
    stack::{
        Stack,
        logs::{Line, Logs},
        outage::Outage,
        socket::Socket,
    },
};

pub(super) const TENANT: &str = "acme";

/// How long to wait for a frame before looking into the worker's log.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long anything may take, unless told otherwise.
const LIMIT: Duration = Duration::from_secs(60);

/// A play: one client, and what has arrived so far.
pub struct Play<'a> {
    pub(super) stack: &'a Stack,
    pub(super) outage: &'a Outage,
    screen: Screen,
    table: ConnectionTable,
    anna: Option<(Socket, ConnectionId)>,
    /// What has arrived.
    pub tally: Tally,
    /// How long anything may take: longer than the visibility timeout, which a message of a killed worker waits.
    pub limit: Duration,
}

impl<'a> Play<'a> {
    /// The stage is set.
    pub fn new(stack: &'a Stack, outage: &'a Outage, screen: Screen) -> Self {
        Self {
            stack,
            outage,
            screen,
            table: stack.table(),
            anna: None,
            tally: Tally::default(),
            limit: LIMIT,
        }
    }

    /// A client connects with a fresh token.
    pub async fn connect(&mut self) -> anyhow::Result<String> {
        let socket = self.stack.connect(TENANT, "anna").await?;
        let id = self.connections(TENANT, "anna", 1).await?.pop().context("no row was written")?;
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
        let deadline = Instant::now() + self.limit;
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

    /// A message for a user reaches all connections of the user.
    pub async fn devices(&mut self) -> anyhow::Result<String> {
        let mut tablet = self.stack.connect(TENANT, "anna").await?;
        let mut ids = self.connections(TENANT, "anna", 2).await?;
        let message = Message::user(TENANT, "anna").response(&json!({ "news": "on all devices" }))?;
        self.stack.producer().send(message).await?;
        let (frame, latency) = self.frame().await?;
        let same = tablet.next(self.limit).await?;
        self.tally.arrived("anna's tablet", &same)?;
        ensure!(same.json()?["id"] == frame["id"], "another message: {}", same.text);
        tablet.close().await?;
        ids.retain(|id| self.anna.as_ref().is_none_or(|(_, phone)| phone != id));
        for id in ids {
            self.until_removed(&id).await?;
        }
        Ok(format!("{:<40} {}", "user anna on 2 sockets: both have it", human(latency)))
    }

    /// What is no message ends in the dead-letter queue, as it was, with the reason.
    pub async fn poison(&mut self) -> anyhow::Result<String> {
        const BODY: &str = "{ no message";
        let (sqs, deployed) = (aws_sdk_sqs::Client::new(&self.stack.config), &self.stack.deployed);
        sqs.send_message().queue_url(&deployed.queue_url).message_body(BODY).send().await?;
        let deadline = Instant::now() + self.limit;
        let letter = loop {
            let receive = sqs.receive_message().queue_url(&deployed.dead_letter_queue_url);
            let received = receive.message_attribute_names("All").wait_time_seconds(1).send().await?;
            if let Some(letter) = received.messages.unwrap_or_default().pop() {
                break letter;
            }
            ensure!(Instant::now() < deadline, "no dead letter came");
        };
        let delete = sqs.delete_message().queue_url(&deployed.dead_letter_queue_url);
        delete.receipt_handle(letter.receipt_handle.as_deref().unwrap_or_default()).send().await?;
        let reason =
            letter.message_attributes.as_ref().and_then(|all| all.get(dead_letter::REASON)?.string_value());
        ensure!(
            letter.body.as_deref() == Some(BODY) && reason == Some(Reason::Poison.as_str()),
            "not the dead letter that was expected: {letter:?}"
        );
        Ok("no JSON: dead letter, reason poison".to_owned())
    }

    /// A row whose `$disconnect` never came: the first post finds no socket and removes it.
    pub async fn stale(&mut self) -> anyhow::Result<String> {
        let socket = self.stack.connect(TENANT, "berta").await?;
        let id = self.connections(TENANT, "berta", 1).await?.pop().context("no row was written")?;
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

    async fn request(&mut self, request: &Value) -> anyhow::Result<()> {
        let (socket, _) = self.anna.as_mut().context("nobody is connected")?;
        socket.send(request).await
    }

    /// The next frame that is new: delivery is at least once.
    async fn frame(&mut self) -> anyhow::Result<(Value, Duration)> {
        let (socket, _) = self.anna.as_mut().context("nobody is connected")?;
        loop {
            let frame = socket.next(self.limit).await?;
            if let Some(new) = self.tally.arrived("anna", &frame)? {
                return Ok(new);
            }
        }
    }

    async fn row(&self, id: &ConnectionId) -> anyhow::Result<Option<Connection>> {
        Ok(self.table.get(id, SystemTime::now()).await?)
    }

    async fn until_removed(&self, id: &ConnectionId) -> anyhow::Result<()> {
        let deadline = Instant::now() + self.limit;
        while self.row(id).await?.is_some() {
            ensure!(Instant::now() < deadline, "the row is still there");
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// The connections of a user, once there are so many: at most a page's worth.
    pub(super) async fn connections(
        &self,
        tenant: &str,
        user: &str,
        number: usize,
    ) -> anyhow::Result<Vec<ConnectionId>> {
        let (tenant, user) = (TenantId::new(tenant)?, UserId::new(user)?);
        let deadline = Instant::now() + self.limit;
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
