//! The step with a client that is away: kept messages wait in the mailbox until the client reads them.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use streamer_mailbox::Stream;
use streamer_message::{
    Epoch, Position, TenantId, UserId,
    frame::{ClientFrame, Start, StreamRequest, SyncFrame},
};
use streamer_producer::Message;
use tokio::time::sleep;

use super::steps::{Demo, TENANT};
use crate::screen::elapsed;

/// Messages that are sent while the client is away.
const MESSAGES: u64 = 3;

/// Time for which they are kept.
const KEEP: Duration = Duration::from_secs(3600);

impl Demo<'_> {
    /// Closes the main client's connection, sends messages that are kept, and connects the client again, which reads
    /// them once and in order.
    pub(super) async fn mailbox(&mut self) -> anyhow::Result<String> {
        let page = self.sync(1, true, Start::Oldest).await?;
        let position = end_of(&page)?;
        let (socket, id) = self.anna.take().context("the client is not connected")?;
        socket.close().await?;
        self.wait_until_removed(&id).await?;

        let ids = self.send_kept().await?;
        self.wait_until_kept(&ids).await?;

        self.connect().await?;
        let started = Instant::now();
        let page = self.sync(1, true, Start::After(position.clone())).await?;
        let latency = started.elapsed();
        ensure!(
            page["after"] == position.seq && page["through"] == page["top"],
            "an incomplete page: {page}"
        );
        let messages = page["messages"].as_array().context("the page has no messages")?;
        let numbers: Vec<_> = messages.iter().filter_map(|message| message["seq"].as_u64()).collect();
        let expected: Vec<_> = (position.seq + 1..=position.seq + MESSAGES).collect();
        ensure!(numbers == expected, "the numbers are {numbers:?} instead of {expected:?}");
        let read: BTreeSet<_> = messages.iter().filter_map(|message| message["id"].as_str()).collect();
        ensure!(read == ids.iter().map(String::as_str).collect(), "the page has other messages: {page}");

        let rest = self.sync(2, false, Start::After(end_of(&page)?)).await?;
        ensure!(rest["messages"].as_array().is_some_and(Vec::is_empty), "a message came twice: {rest}");
        let result = format!("{MESSAGES} kept while away, read once in order");
        Ok(format!("{result:<37} {}", elapsed(latency)))
    }

    /// Asks for the kept messages after a position, and returns the page.
    async fn sync(&mut self, n: u64, hello: bool, start: Start) -> anyhow::Result<Value> {
        let (socket, _) = self.anna.as_mut().context("the client is not connected")?;
        let sync = ClientFrame::Sync(SyncFrame::new(n, hello, StreamRequest::user(start)));
        socket.send_text(&serde_json::to_string(&sync)?).await?;
        let page = socket.next(self.limit).await.context("the sync was not answered")?.json()?;
        ensure!(page["type"] == "streamer.page" && page["n"] == n, "unexpected answer: {page}");
        Ok(page)
    }

    async fn send_kept(&self) -> anyhow::Result<Vec<String>> {
        let mut ids = Vec::new();
        for news in 1..=MESSAGES {
            let message = Message::user(TENANT, "anna").keep(KEEP).payload(&news)?;
            ids.push(message.id().to_string());
            self.stack.producer().send(message).await?;
        }
        Ok(ids)
    }

    /// Waits until the mailbox has these messages and the worker has acknowledged them, so that none is posted later.
    async fn wait_until_kept(&self, ids: &[String]) -> anyhow::Result<()> {
        let stream = Stream { tenant: TenantId::new(TENANT)?, user: UserId::new("anna")? };
        let (mailbox, deadline) = (self.stack.mailbox(), Instant::now() + self.limit);
        loop {
            let listing = mailbox.list(&stream, SystemTime::now()).await?;
            let messages = listing.map(|listing| listing.messages).unwrap_or_default();
            let kept =
                messages.iter().filter(|message| ids.iter().any(|id| id == message.id.as_str())).count();
            if kept == ids.len() && self.stack.is_empty(&self.stack.deployed.queue_url).await? {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the mailbox has {kept} of {} messages", ids.len());
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Returns the position at the end of a page.
fn end_of(page: &Value) -> anyhow::Result<Position> {
    let epoch = page["epoch"].as_str().context("the page has no epoch")?;
    let seq = page["through"].as_u64().context("the page has no end")?;
    Ok(Position { epoch: Epoch::new(epoch)?, seq })
}
