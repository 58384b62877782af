//! The queues that the worker writes to.

use std::collections::BTreeSet;

use aws_sdk_sqs::{
    Client,
    types::{
        ChangeMessageVisibilityBatchRequestEntry, MessageAttributeValue, MessageSystemAttributeNameForSends,
        MessageSystemAttributeValue, SendMessageBatchRequestEntry,
    },
};
use futures::future::join_all;
use streamer_environment::aws::cause;
use streamer_message::{Limit, MessageId, limits, pack};
use tokio::time::{Instant, timeout_at};

use crate::{letter::Letter, plan::Order};

/// A queue.
#[derive(Debug, Clone)]
pub struct Queue {
    client: Client,
    url: String,
    order: Order,
}

/// A record of a FIFO queue that waits before it is delivered again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// What SQS hides it by.
    pub receipt_handle: String,
    /// How many seconds.
    pub seconds: u32,
}

impl Queue {
    /// The queue at `url`.
    #[must_use]
    pub fn new(client: Client, url: impl Into<String>) -> Self {
        let url = url.into();
        Self { client, order: Order::of_queue(&url), url }
    }

    /// Sends letters, and returns the places of those that the queue did not confirm until then, or cannot
    /// take since they are too large with their attributes.
    pub async fn send(&self, letters: &[Letter], until: Instant) -> BTreeSet<usize> {
        let (fitting, mut unsent): (Vec<_>, Vec<_>) =
            letters.iter().partition(|letter| letter.bytes() <= limits::QUEUE_MESSAGE_BYTES);
        let batches = pack(fitting, Limit::QUEUE_BATCH, |letter| letter.bytes());
        let batches = batches.map(|batch| self.send_batch(batch, until));
        unsent.extend(join_all(batches).await.into_iter().flatten());
        unsent.into_iter().map(|letter| letter.place).collect()
    }

    /// Sends one batch, and returns what the queue did not confirm.
    async fn send_batch<'a>(&self, batch: Vec<&'a Letter>, until: Instant) -> Vec<&'a Letter> {
        let entries = batch.iter().enumerate();
        let entries = entries.filter_map(|(id, letter)| entry(id, letter, self.order)).collect();
        let send = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(entries));
        let confirmed: BTreeSet<usize> = match timeout_at(until, send.send()).await {
            Ok(Ok(output)) => {
                for failed in output.failed() {
                    tracing::error!(queue = self.url, cause = failed.code(), "the queue refused a message");
                }
                output.successful().iter().filter_map(|entry| entry.id().parse().ok()).collect()
            }
            Ok(Err(error)) => {
                tracing::error!(queue = self.url, cause = cause(&error), "the queue took nothing");
                BTreeSet::new()
            }
            Err(_) => {
                tracing::error!(queue = self.url, "the queue did not answer in time");
                BTreeSet::new()
            }
        };
        let unsent = batch.into_iter().enumerate().filter(|(id, _)| !confirmed.contains(id));
        unsent.map(|(_, letter)| letter).collect()
    }

    /// Makes records wait. Those that the queue does not make wait return after its visibility timeout.
    pub async fn delay(&self, waits: &[Wait], until: Instant) {
        let batches = waits.chunks(limits::QUEUE_BATCH_MESSAGES);
        join_all(batches.map(|batch| self.delay_batch(batch, until))).await;
    }

    async fn delay_batch(&self, batch: &[Wait], until: Instant) {
        let entries = batch.iter().enumerate().map(|(id, wait)| {
            ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(id.to_string())
                .receipt_handle(&wait.receipt_handle)
                .set_visibility_timeout(i32::try_from(wait.seconds).ok())
                .build()
        });
        let entries = entries.collect::<Result<Vec<_>, _>>().unwrap_or_default();
        let change = self.client.change_message_visibility_batch().queue_url(&self.url);
        match timeout_at(until, change.set_entries(Some(entries)).send()).await {
            Ok(Ok(output)) => {
                for failed in output.failed() {
                    tracing::warn!(queue = self.url, cause = failed.code(), "a message waits for longer");
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(queue = self.url, cause = cause(&error), "messages wait for longer");
            }
            Err(_) => tracing::warn!(queue = self.url, "messages wait for longer: no answer in time"),
        }
    }
}

fn entry(id: usize, letter: &Letter, order: Order) -> Option<SendMessageBatchRequestEntry> {
    let entry = SendMessageBatchRequestEntry::builder().id(id.to_string()).message_body(&letter.body);
    let entry = letter.attributes.iter().try_fold(entry, |entry, (name, value)| {
        let value = MessageAttributeValue::builder().data_type("String").string_value(value);
        Some(entry.message_attributes(*name, value.build().ok()?))
    })?;
    let entry = match &letter.trace {
        None => entry,
        Some(trace) => {
            let value = MessageSystemAttributeValue::builder().data_type("String").string_value(trace);
            let name = MessageSystemAttributeNameForSends::AwsTraceHeader;
            entry.message_system_attributes(name, value.build().ok()?)
        }
    };
    let entry = entry.set_message_group_id(letter.group.clone());
    let entry = match order {
        Order::Connection => entry.set_delay_seconds(i32::try_from(letter.delay).ok()),
        // Fresh, or the queue would take it for the one that it had before.
        Order::Group => entry.message_deduplication_id(MessageId::generate()),
    };
    entry.build().ok()
}
