//! Goes through the receipts queue.

use std::{collections::BTreeSet, io, pin::pin};

use futures::FutureExt as _;
use streamer_message::{MessageId, ReceiptEvent};

use crate::{
    queue::{HeldQueue, Received},
    recent::Recent,
};

/// Minimum number of messages to inspect, if there are so many. The maximum is the queue's count at the start, so that
/// receipts that arrive meanwhile cannot keep a run going.
const MIN_INSPECTED: usize = 100;

/// Maximum number of events that are remembered, to show one that arrives twice only once.
const MAX_EVENTS: usize = 100_000;

/// Maximum number of SQS's ids that are named of messages that are no receipts.
const MAX_NAMED: usize = 3;

/// Options of a listing. The default lists every receipt once, and deletes none.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only receipts of the message with this id.
    pub id: Option<MessageId>,
    /// Maximum number of receipts to show.
    pub limit: Option<usize>,
    /// Whether to continue with receipts that arrive later.
    pub follow: bool,
    /// Whether to delete each receipt after it was shown.
    pub consume: bool,
}

/// Numbers of messages.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Receipts that were inspected, duplicates included.
    pub receipts: usize,
    /// Receipts that were shown.
    pub shown: usize,
    /// Receipts that were shown before, and arrived once more.
    pub duplicates: usize,
}

/// Messages of the queue that are no receipts. They are never deleted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Others {
    /// Their number.
    pub number: usize,
    /// SQS's ids of the first three.
    pub ids: Vec<String>,
    /// Why the first one is no receipt.
    pub cause: Option<String>,
}

/// A run through the queue, with its results so far.
#[derive(Debug)]
pub struct Listing {
    options: Options,
    events: Recent,
    /// Numbers of messages.
    pub totals: Totals,
    /// Messages that are no receipts.
    pub others: Others,
    /// Why receipts could not be deleted.
    pub causes: BTreeSet<String>,
}

/// Why a listing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End<S> {
    /// At the end of the queue.
    OfQueue,
    /// At the limit of receipts to show.
    Limit,
    /// As many messages are hidden from other consumers as allowed.
    Full,
    /// The result of the future that stops it.
    Stopped(S),
}

impl Listing {
    /// Creates a listing.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let (events, totals) = (Recent::new(MAX_EVENTS), Totals::default());
        Self { options, events, totals, others: Others::default(), causes: BTreeSet::new() }
    }

    /// Goes through the queue, and calls `show` with the body and the event of each receipt, once. Checks `stop` about
    /// once a second. The messages that are left have to be [released](HeldQueue::release).
    ///
    /// # Errors
    /// When SQS does not answer, or `show` fails.
    pub async fn run<S>(
        &mut self,
        queue: &mut HeldQueue,
        stop: impl Future<Output = S>,
        mut show: impl FnMut(&str, &ReceiptEvent) -> io::Result<()>,
    ) -> anyhow::Result<End<S>> {
        let mut stop = pin!(stop);
        let follow = self.options.follow;
        let max_inspected =
            if follow { usize::MAX } else { queue.counts().await?.waiting.max(MIN_INSPECTED) };
        while self.totals.receipts + self.others.number < max_inspected {
            // A receive that is interrupted would leave messages hidden.
            if let Some(stopped) = stop.as_mut().now_or_never() {
                return Ok(End::Stopped(stopped));
            }
            let received = if follow { queue.poll().await? } else { queue.receive().await? };
            if received.is_empty() && !follow {
                break;
            }
            let matching = self.show(received, &mut show)?;
            if self.options.consume && !matching.is_empty() {
                let ids: Vec<_> = matching.iter().map(String::as_str).collect();
                self.causes.extend(queue.delete(&ids).await.causes);
            }
            if self.options.limit.is_some_and(|limit| self.totals.shown >= limit) {
                return Ok(End::Limit);
            }
            if queue.is_full() {
                return Ok(End::Full);
            }
        }
        Ok(End::OfQueue)
    }

    /// Shows receipts up to the limit. Returns SQS's ids of those that were shown now or before.
    fn show(
        &mut self,
        received: Vec<Received>,
        mut show: impl FnMut(&str, &ReceiptEvent) -> io::Result<()>,
    ) -> io::Result<Vec<String>> {
        let mut matching = Vec::new();
        for Received { id, body, .. } in received {
            let event = match ReceiptEvent::decode(&body) {
                Ok(event) => event,
                Err(error) => {
                    self.others.add(id, &error.to_string());
                    continue;
                }
            };
            self.totals.receipts += 1;
            let is_selected = self.options.id.as_ref().is_none_or(|id| *id == event.receipt.id);
            let has_room = self.options.limit.is_none_or(|limit| self.totals.shown < limit);
            if !is_selected || !has_room {
                continue;
            }
            if self.events.insert(&event.event_id) {
                show(&body, &event)?;
                self.totals.shown += 1;
            } else {
                self.totals.duplicates += 1;
            }
            matching.push(id);
        }
        Ok(matching)
    }
}

impl Others {
    fn add(&mut self, id: String, cause: &str) {
        self.number += 1;
        if self.ids.len() < MAX_NAMED {
            self.ids.push(id);
        }
        self.cause.get_or_insert_with(|| cause.to_owned());
    }
}
