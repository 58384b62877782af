//! Turns large audiences into messages of at most 100 connections each, page by page, so that memory does not grow
//! with the audience.
//!
//! A tenant becomes one message for each of its shards. A shard or a user with more than 100 connections becomes
//! messages that name them. These parts are on the parts queue, if there is one, so that no message for one user waits
//! behind them. Confirmed messages are final: when the time is over or a call fails, the worker hands the message back, to
//! the queue that it came from, with a cursor after the last confirmed page.

use std::{ops::ControlFlow, panic::AssertUnwindSafe, time::Duration};

use futures::{FutureExt as _, StreamExt as _, stream};
use streamer_connections::{ConnectionTable, TenantShards};
use streamer_message::{Audience, ConnectionId, Parts, limits::CONNECTIONS};
use tokio::time::Instant;

use crate::{
    Worker,
    decode::{Message, Record},
    outcome::{Cause, Completed, Outcome},
    outgoing::for_audiences,
    source::{Source, SourcePage},
    time::Time,
    worker::Origin,
};

/// Time after which an invocation reads no further page: the rest of its batch is settled only when fan-out ends.
const FAN_OUT_TIME: Duration = Duration::from_secs(5);

/// Audiences that are fanned out concurrently, which bounds memory.
const CONCURRENT: usize = 4;

/// Connections that are collected before their messages are sent: few enough to keep a large audience's memory near
/// that of a small one.
const COLLECTED: usize = 5 * CONNECTIONS;

/// Messages for shards that are sent at once, which bounds the memory of a tenant's copies of a large payload.
const SHARDS_AT_ONCE: usize = 20;

/// A record whose audience becomes several messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FanOut<'a> {
    /// The record's index in the batch.
    pub index: usize,
    /// The message.
    pub message: &'a Message,
    /// The source of its connections. `None` for a tenant, which is split into shards unread.
    pub source: Option<Source<'a>>,
}

/// Fans out audiences, a few at a time. A record whose fan-out panicked is reported.
pub async fn fan_out_all<G>(
    worker: &Worker<G>,
    records: &[Record],
    fan_outs: &[FanOut<'_>],
    time: &Time,
) -> Vec<Completed> {
    let running = stream::iter(fan_outs).map(|FanOut { index, message, source }| {
        let prefix = parts_prefix(message);
        let run = Run { worker, record: &records[*index], message, prefix, time };
        AssertUnwindSafe(run.complete(source.as_ref())).catch_unwind().map(|completed| {
            let panicked = |_| (None, None, Outcome::HandedBack(Cause::Panic));
            let (after, parts, outcome) = completed.unwrap_or_else(panicked);
            Completed { after, parts, ..Completed::unposted(*index, None, outcome) }
        })
    });
    running.buffer_unordered(CONCURRENT).collect().await
}

/// The fan-out of one record in one invocation.
struct Run<'a, G> {
    worker: &'a Worker<G>,
    record: &'a Record,
    message: &'a Message,
    /// The beginning of the names of its parts in receipts.
    prefix: String,
    time: &'a Time,
}

/// How far the fan-out of one source has come.
#[derive(Default)]
struct Progress {
    /// The last connection of the pages that were read.
    read: Option<ConnectionId>,
    /// Connections that were read, and whose messages are not on the queue yet.
    collected: Vec<ConnectionId>,
    /// The last connection of the pages whose messages SQS has confirmed.
    confirmed: Option<ConnectionId>,
    /// Number of messages that SQS has confirmed.
    sent: u64,
    /// Another endpoint at which the audience has connections.
    elsewhere: Option<String>,
}

impl<G> Run<'_, G> {
    /// Returns the connection after which a later invocation continues, the messages that were sent, and the outcome.
    async fn complete(self, source: Option<&Source<'_>>) -> (Option<ConnectionId>, Option<Parts>, Outcome) {
        let Some(source) = source else {
            return match self.split_tenant().await {
                Ok(sent) => (None, self.parts(sent), Outcome::Expanded),
                Err(cause) => (None, None, Outcome::HandedBack(cause)),
            };
        };
        let mut progress = Progress::default();
        loop {
            if let ControlFlow::Break(outcome) = self.step(source, &mut progress).await {
                let parts = self.parts(progress.sent);
                return (progress.confirmed, parts, outcome);
            }
        }
    }

    /// Returns the parts that were sent.
    fn parts(&self, count: u64) -> Option<Parts> {
        (count > 0).then(|| Parts { prefix: self.prefix.clone(), count, rest: false })
    }

    /// Sends a message for each of a tenant's shards, and returns their number. SQS must confirm all of them within the
    /// time of one call of [`send`](Self::send).
    async fn split_tenant(&self) -> Result<u64, Cause> {
        if self.time.remaining().is_zero() {
            return Err(Cause::Deadline);
        }
        let shards = self.worker.table.as_ref().map_or(TenantShards::DEFAULT, ConnectionTable::shards);
        let (mut sent, until) = (0, self.time.fan_out_deadline());
        for audiences in shard_audiences(&self.message.envelope.to, shards).chunks(SHARDS_AT_ONCE) {
            self.send(audiences, sent, until).await?;
            sent += audiences.len() as u64;
        }
        Ok(sent)
    }

    /// Reads one page, and sends messages for the collected connections when there are enough or no page follows.
    async fn step(&self, source: &Source<'_>, progress: &mut Progress) -> ControlFlow<Outcome> {
        if self.message.is_expired(self.time.now()) {
            return ControlFlow::Break(Outcome::Expired);
        }
        let stopped_by = match self.next_page(source, progress.read.as_ref()).await {
            Ok(page) => {
                progress.add(page, self.message.done());
                None
            }
            Err(cause) => Some(cause),
        };
        let reads_on = progress.read.is_some() && stopped_by.is_none();
        if !reads_on || progress.collected.len() >= COLLECTED {
            let audiences: Vec<_> = Audience::split(&progress.collected, CONNECTIONS).collect();
            let parts = audiences.len() as u64;
            if let Err(cause) = self.send(&audiences, progress.sent, self.time.fan_out_deadline()).await {
                return ControlFlow::Break(Outcome::HandedBack(cause));
            }
            progress.confirm(parts);
        }
        match stopped_by {
            _ if reads_on => ControlFlow::Continue(()),
            Some(cause) => ControlFlow::Break(Outcome::HandedBack(progress.cause(cause))),
            None if progress.sent > 0 => ControlFlow::Break(Outcome::Expanded),
            // The connections of the first look have gone.
            None => {
                let elsewhere = progress.elsewhere.take();
                let outcome = self.worker.policy.unreached(self.record, elsewhere, self.time.now());
                ControlFlow::Break(outcome)
            }
        }
    }

    /// Reads the page after a connection. The first page is read at any time, or the fan-out would never end.
    async fn next_page(
        &self,
        source: &Source<'_>,
        after: Option<&ConnectionId>,
    ) -> Result<SourcePage, Cause> {
        match after.is_some() && self.time.elapsed() >= FAN_OUT_TIME {
            true => Err(Cause::Deadline),
            false => source.page(self.worker, after, self.time).await,
        }
    }

    /// Sends a message for each audience, the parts from number `first` on. SQS must confirm all of them by `until`: 5 s
    /// after the first of them, and within half of the time that is reserved for settling.
    async fn send(&self, audiences: &[Audience], first: u64, until: Instant) -> Result<(), Cause> {
        let names = (first..).map(|number| format!("{}.{number}", self.prefix));
        let messages: Vec<_> = for_audiences(self.record, self.message, audiences, names).collect();
        let unsent = self.worker.queue(Origin::Parts).send(&messages, until).await;
        if unsent.is_empty() { Ok(()) } else { Err(Cause::Unconfirmed) }
    }
}

impl Progress {
    /// Collects a page's connections except those that already have the message.
    fn add(&mut self, page: SourcePage, done: &[ConnectionId]) {
        self.collected.extend(page.live.into_iter().filter(|connection| !done.contains(connection)));
        self.elsewhere = self.elsewhere.take().or(page.elsewhere);
        self.read = page.next;
    }

    /// Notes that SQS has confirmed the messages for all collected connections.
    fn confirm(&mut self, parts: u64) {
        self.sent += parts;
        self.collected.clear();
        self.confirmed.clone_from(&self.read);
    }

    /// Returns the cause for a fan-out that stopped. An endpoint elsewhere matters more, since the pages that show it
    /// are behind the cursor and are not read again.
    fn cause(&mut self, cause: Cause) -> Cause {
        let elsewhere = self.elsewhere.take().filter(|_| self.sent == 0);
        elsewhere.map_or(cause, Cause::Elsewhere)
    }
}

/// Returns the beginning of the names of a message's parts, which differs for each attempt. Only receipts name parts.
fn parts_prefix(message: &Message) -> String {
    match message.envelope.receipt {
        Some(_) => format!("{:016x}", fastrand::u64(..)),
        None => String::new(),
    }
}

/// Returns an audience for each shard of a tenant.
fn shard_audiences(to: &Audience, shards: TenantShards) -> Vec<Audience> {
    match to {
        Audience::Tenant(tenant) => {
            let shard = |shard| Audience::Shard { tenant: tenant.clone(), shard, after: None };
            shards.all().map(shard).collect()
        }
        _ => Vec::new(),
    }
}
