//! The steps of the demo, as a client sees them.

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
    screen::{Screen, elapsed},
    stack::{
        Stack,
        fault_proxy::FaultProxy,
        logs::{Line, Logs},
        socket::Socket,
    },
};

pub(super) const TENANT: &str = "acme";

/// Progress updates that the example router sends for a report.
const UPDATES: usize = 10;

/// Time to wait for a frame before reading the worker's log.
const FRAME_WAIT: Duration = Duration::from_millis(250);

/// Default of [`Demo::limit`].
const LIMIT: Duration = Duration::from_secs(60);

/// A run of the demo, with its main client and its results so far.
pub(super) struct Demo<'a> {
    pub(super) stack: &'a Stack,
    pub(super) proxy: &'a FaultProxy,
    pub(super) screen: Screen,
    table: ConnectionTable,
    pub(super) anna: Option<(Socket, ConnectionId)>,
    /// Number of steps that have passed.
    pub passed: usize,
    /// Name of the step that runs or ran last. Empty before the first.
    pub step: &'static str,
    /// The received frames.
    pub tally: Tally,
    /// Time that anything may take. It exceeds the visibility timeout, after which a crashed worker's message returns.
    pub limit: Duration,
}

/// The frames of a report's request.
#[derive(Default)]
struct Report {
    /// `seq` and latency of the acknowledgment.
    acknowledgment: Option<(u64, Duration)>,
    /// `seq` and percentage of each update.
    progress: Vec<(u64, u64)>,
    /// `seq` and result of the completion.
    complete: Option<(u64, Value)>,
    /// Updates that the worker superseded.
    superseded: usize,
}

impl<'a> Demo<'a> {
    /// Creates a run without any client.
    pub(super) fn new(stack: &'a Stack, proxy: &'a FaultProxy, screen: Screen) -> Self {
        Self {
            stack,
            proxy,
            screen,
            table: stack.table(),
            anna: None,
            passed: 0,
            step: "",
            tally: Tally::default(),
            limit: LIMIT,
        }
    }

    /// Connects a client with a fresh token.
    pub(super) async fn connect(&mut self) -> anyhow::Result<String> {
        let socket = self.stack.connect(TENANT, "anna").await?;
        let id = self.connections(TENANT, "anna", 1).await?.pop().context("the table has no row")?;
        self.anna = Some((socket, id));
        Ok(format!("user anna, tenant {TENANT}: row written"))
    }

    /// Sends a request and receives its response.
    pub(super) async fn echo(&mut self) -> anyhow::Result<String> {
        self.response(json!({ "type": "echo", "request_id": "req_1", "text": "hello" }), "hello").await
    }

    /// Sends a ping and receives a pong.
    pub(super) async fn ping(&mut self) -> anyhow::Result<String> {
        self.response(json!({ "type": "ping", "request_id": "req_2" }), "pong").await
    }

    async fn response(&mut self, request: Value, expected: &str) -> anyhow::Result<String> {
        self.request(&request).await?;
        let (frame, latency) = self.frame().await?;
        let right = frame["type"] == "response"
            && frame["data"] == expected
            && frame["request_id"] == request["request_id"];
        ensure!(right, "unexpected response: {frame}");
        Ok(format!("{:<37} {}", format!("response {}", frame["data"]), elapsed(latency)))
    }

    /// Requests a report, and receives its acknowledgment, progress updates and completion.
    pub(super) async fn report(&mut self) -> anyhow::Result<String> {
        self.request(&json!({ "type": "report", "request_id": "req_3" })).await?;
        let mut report = self.receive_report().await?;
        // A standard queue keeps no order. Clients sort by `seq`.
        report.progress.sort_unstable();
        let (Some((first, latency)), Some((last, result))) = (report.acknowledgment, report.complete) else {
            bail!("the report did not complete")
        };
        let percent: Vec<_> = report.progress.iter().map(|(_, percent)| *percent).collect();
        let rising = percent.windows(2).all(|pair| pair[0] < pair[1]);
        ensure!(percent.len() <= UPDATES && rising, "updates out of order: {percent:?}");
        let between = report.progress.iter().all(|(seq, _)| (first..last).contains(seq));
        ensure!(between, "the `seq` of an update is not between acknowledgment and completion");
        Ok(format!(
            "{:<37} {}\n   {} 100 %  {} updates, {} superseded\n               in order of seq, complete {result}",
            "acknowledgment",
            elapsed(latency),
            "█".repeat(20),
            percent.len(),
            report.superseded
        ))
    }

    /// Receives the frames of a report until every update was received or superseded.
    async fn receive_report(&mut self) -> anyhow::Result<Report> {
        let bar = self.screen.bar();
        let mut report = Report::default();
        let mut logs = Logs::of(self.stack, Some("delivery"))?;
        let is_superseded =
            |line: &&Line| line.text.contains("\"superseded\"") && line.text.contains("\"req_3\"");
        let deadline = Instant::now() + self.limit;
        loop {
            let missing = UPDATES.saturating_sub(report.progress.len() + report.superseded);
            if report.acknowledgment.is_some() && report.complete.is_some() && missing == 0 {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "the acknowledgment, the completion or {missing} updates did not arrive"
            );
            let Ok(frame) = tokio::time::timeout(FRAME_WAIT, self.frame()).await else {
                report.superseded += logs.next().await?.iter().filter(is_superseded).count();
                continue;
            };
            let (frame, latency) = frame?;
            let seq = frame["seq"].as_u64().context("the frame has no seq")?;
            match frame["type"].as_str() {
                Some("acknowledgment") => report.acknowledgment = Some((seq, latency)),
                Some("complete") => report.complete = Some((seq, frame["result"].clone())),
                Some("progress") => {
                    let percent = frame["progress"].as_u64().unwrap_or_default();
                    report.progress.push((seq, percent));
                    bar.iter().for_each(|bar| bar.set_position(percent));
                }
                _ => bail!("unexpected frame: {frame}"),
            }
        }
        bar.iter().for_each(|bar| bar.finish_and_clear());
        Ok(report)
    }

    /// Sends a message to a user, who receives it on every connection.
    pub(super) async fn devices(&mut self) -> anyhow::Result<String> {
        let mut tablet = self.stack.connect(TENANT, "anna").await?;
        let mut ids = self.connections(TENANT, "anna", 2).await?;
        let message = Message::user(TENANT, "anna").response(&json!({ "news": "on all devices" }))?;
        self.stack.producer().send(message).await?;
        let (frame, latency) = self.frame().await?;
        let same = tablet.next(self.limit).await?;
        self.tally.count("anna's tablet", &same)?;
        ensure!(
            same.json()?["id"] == frame["id"],
            "the connections received different messages: {}",
            same.text
        );
        tablet.close().await?;
        ids.retain(|id| self.anna.as_ref().is_none_or(|(_, phone)| phone != id));
        for id in ids {
            self.wait_until_removed(&id).await?;
        }
        Ok(format!("{:<37} {}", "anna: received on both connections", elapsed(latency)))
    }

    /// Sends a body that is not a message. The worker dead-letters it unchanged, with a reason.
    pub(super) async fn poison(&mut self) -> anyhow::Result<String> {
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
            ensure!(Instant::now() < deadline, "the dead letter did not arrive");
        };
        let delete = sqs.delete_message().queue_url(&deployed.dead_letter_queue_url);
        delete.receipt_handle(letter.receipt_handle.as_deref().unwrap_or_default()).send().await?;
        let reason =
            letter.message_attributes.as_ref().and_then(|all| all.get(dead_letter::REASON)?.string_value());
        ensure!(
            letter.body.as_deref() == Some(BODY) && reason == Some(Reason::Poison.as_str()),
            "unexpected dead letter: {letter:?}"
        );
        Ok("invalid JSON: dead letter, reason poison".to_owned())
    }

    /// Posts to a closed connection that still has a row, as after a lost `$disconnect`. The 410 removes the row.
    pub(super) async fn stale(&mut self) -> anyhow::Result<String> {
        let socket = self.stack.connect(TENANT, "berta").await?;
        let id = self.connections(TENANT, "berta", 1).await?.pop().context("the table has no row")?;
        let row = self.row(&id).await?.context("the connection has no row")?;
        socket.close().await?;
        self.wait_until_removed(&id).await.context("$disconnect did not remove the row")?;
        // `$disconnect` is best-effort on AWS, but the emulator always sends it, so this step restores the row.
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        self.table.put(&Connection { connected_at: hour_ago, ..row }).await?;

        self.stack.producer().send(Message::connection(&id).response("anybody there?")?).await?;
        self.wait_until_removed(&id).await.context("the 410 did not remove the row")?;
        Ok("closed connection: 410, row removed".to_owned())
    }

    /// Closes the main client's connection.
    pub(super) async fn disconnect(&mut self) -> anyhow::Result<String> {
        let (socket, id) = self.anna.take().context("the client is not connected")?;
        socket.close().await?;
        self.wait_until_removed(&id).await?;
        Ok("row removed".to_owned())
    }

    async fn request(&mut self, request: &Value) -> anyhow::Result<()> {
        let (socket, _) = self.anna.as_mut().context("the client is not connected")?;
        socket.send(request).await
    }

    /// Returns the next frame that is not a duplicate: delivery is at least once.
    async fn frame(&mut self) -> anyhow::Result<(Value, Duration)> {
        let (socket, _) = self.anna.as_mut().context("the client is not connected")?;
        loop {
            let frame = socket.next(self.limit).await?;
            if let Some(new) = self.tally.count("anna", &frame)? {
                return Ok(new);
            }
        }
    }

    async fn row(&self, id: &ConnectionId) -> anyhow::Result<Option<Connection>> {
        Ok(self.table.get(id, SystemTime::now()).await?)
    }

    pub(super) async fn wait_until_removed(&self, id: &ConnectionId) -> anyhow::Result<()> {
        let deadline = Instant::now() + self.limit;
        while self.row(id).await?.is_some() {
            ensure!(Instant::now() < deadline, "the row was not removed");
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Waits until a user has `number` connections, at most a page, and returns their ids.
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
            ensure!(Instant::now() < deadline, "the index has {} of {number} rows", page.connections.len());
            sleep(Duration::from_millis(50)).await;
        }
    }
}
