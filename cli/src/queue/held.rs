//! Receives messages to inspect them, and hides them from other consumers meanwhile.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use aws_sdk_sqs::{
    Client,
    types::{
        ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message,
        MessageSystemAttributeName,
    },
};
use futures::{StreamExt as _, stream};
use streamer_environment::failure::FailureKind;
use streamer_message::limits;
use tokio::time::Instant;

use super::MessageCounts;
use crate::{aws::Call, recent::Recent};

/// Maximum number of messages held. SQS itself allows 120 000 messages of a standard queue in flight.
///
/// Source: "In flight" in
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html>.
const MAX_HELD: usize = 100_000;

/// Maximum number of deleted messages that are remembered. SQS rarely delivers one more copy, soon after.
const MAX_DELETED: usize = 100_000;

/// Concurrent calls that release messages.
const CONCURRENT_RELEASES: usize = 10;

/// Receives without a new message after which the queue counts as empty. One is not enough, because SQS may answer
/// before it has queried all of its servers.
const MAX_EMPTY_RECEIVES: usize = 2;

/// Longest wait of a receive for a message, in seconds.
const WAIT_SECONDS: i32 = 1;

/// A queue, with the messages that were received and neither deleted nor released.
///
/// SQS can list messages only by receiving them. A received message is hidden from other consumers until it is released
/// or, if this process crashes, until its visibility timeout has passed.
#[derive(Debug)]
pub struct HeldQueue {
    client: Client,
    name: &'static str,
    url: String,
    visibility_timeout: Duration,
    /// By SQS's message id.
    held: HashMap<String, Held>,
    deleted: Recent,
    empty_receives: usize,
    overdue: bool,
}

/// A message that other consumers do not see.
#[derive(Debug)]
struct Held {
    receipt_handle: String,
    /// When it was last asked for.
    since: Instant,
}

/// A message that was received for the first time.
#[derive(Debug, Clone)]
pub struct Received {
    /// SQS's id.
    pub id: String,
    /// The body.
    pub body: String,
    /// The message, for its attributes.
    pub message: Message,
}

/// The result of deleting messages.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// The positions of those that are deleted.
    pub deleted: BTreeSet<usize>,
    /// Why others are not.
    pub causes: BTreeSet<String>,
    /// Whether the call failed in a way that would repeat.
    pub is_final: bool,
}

impl Received {
    /// Reads a message. Returns `None` if it has no id or no body.
    pub(crate) fn read(message: Message) -> Option<Self> {
        Some(Self { id: message.message_id.clone()?, body: message.body.clone()?, message })
    }
}

impl HeldQueue {
    /// Creates a view of the queue at `url`, which errors call `name`. Received messages are hidden for at most
    /// `visibility_timeout`.
    #[must_use]
    pub fn new(client: Client, name: &'static str, url: String, visibility_timeout: Duration) -> Self {
        let (held, deleted) = (HashMap::new(), Recent::new(MAX_DELETED));
        Self { client, name, url, visibility_timeout, held, deleted, empty_receives: 0, overdue: false }
    }

    /// Returns the queue's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Reads the queue's message counts.
    ///
    /// # Errors
    /// When SQS does not answer.
    pub async fn counts(&self) -> anyhow::Result<MessageCounts> {
        MessageCounts::read(&self.client, &self.url).await
    }

    /// Returns the number of messages that were received and neither deleted nor released.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Returns whether as many messages are held as allowed.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.held.len() >= MAX_HELD
    }

    /// Returns whether the visibility timeout of a held message passed, so that SQS delivered it again. Some messages may
    /// then never have been received.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        self.overdue
    }

    /// Receives some messages, each once. Returns none when the queue is empty, when as many are held as allowed, or
    /// when one [is overdue](Self::is_overdue).
    ///
    /// # Errors
    /// When SQS does not answer.
    pub async fn receive(&mut self) -> anyhow::Result<Vec<Received>> {
        while self.empty_receives < MAX_EMPTY_RECEIVES && !self.is_full() && !self.overdue {
            let messages = self.poll().await?;
            if messages.is_empty() {
                self.empty_receives += 1;
            } else {
                self.empty_receives = 0;
                return Ok(messages);
            }
        }
        Ok(Vec::new())
    }

    /// Receives once, waits up to 1 s for a message, and returns the up to ten messages that are neither held nor
    /// deleted. A call that is dropped leaves messages hidden, so it should complete.
    ///
    /// # Errors
    /// When SQS does not answer.
    pub async fn poll(&mut self) -> anyhow::Result<Vec<Received>> {
        let since = Instant::now();
        let receive = self.client.receive_message().queue_url(&self.url).max_number_of_messages(10);
        let receive =
            receive.wait_time_seconds(WAIT_SECONDS).visibility_timeout(seconds(self.visibility_timeout));
        let receive = receive.message_attribute_names("All");
        let receive = receive.message_system_attribute_names(MessageSystemAttributeName::All);
        let resource = self.resource();
        let call = Call { action: "sqs:ReceiveMessage", resource: &resource };
        let response = receive.send().await.map_err(|error| call.failed(&error))?;
        Ok(self.hold(response.messages.unwrap_or_default(), since).await)
    }

    /// Holds received messages, and returns those that were not received before. SQS may deliver a message twice although
    /// it is hidden, and once more after it was deleted.
    async fn hold(&mut self, messages: Vec<Message>, since: Instant) -> Vec<Received> {
        let (mut new, mut deleted) = (Vec::new(), Vec::new());
        for message in messages {
            let receipt_handle = message.receipt_handle.clone();
            let (Some(receipt_handle), Some(received)) = (receipt_handle, Received::read(message)) else {
                continue;
            };
            if self.deleted.contains(&received.id) {
                deleted.push((received.id, receipt_handle));
                continue;
            }
            match self.held.insert(received.id.clone(), Held { receipt_handle, since }) {
                Some(earlier) => self.overdue |= earlier.since.elapsed() >= self.visibility_timeout,
                None => new.push(received),
            }
        }
        self.delete_handles(&deleted).await;
        new
    }

    /// Deletes up to ten held messages, by SQS's ids.
    pub async fn delete(&mut self, ids: &[&str]) -> Deletion {
        let handle = |id: &&str| self.held.get(*id).map(|held| held.receipt_handle.clone());
        let handles = ids.iter().map(|id| ((*id).to_owned(), handle(id).unwrap_or_default()));
        let handles: Vec<_> = handles.collect();
        let deletion = self.delete_handles(&handles).await;
        for position in &deletion.deleted {
            self.held.remove(ids[*position]);
            self.deleted.insert(ids[*position]);
        }
        deletion
    }

    async fn delete_handles(&self, messages: &[(String, String)]) -> Deletion {
        let entries = messages.iter().enumerate().filter_map(|(position, (_, receipt_handle))| {
            let entry = DeleteMessageBatchRequestEntry::builder().id(position.to_string());
            entry.receipt_handle(receipt_handle).build().ok()
        });
        let entries: Vec<_> = entries.collect();
        if entries.is_empty() {
            return Deletion::default();
        }
        let delete = self.client.delete_message_batch().queue_url(&self.url).set_entries(Some(entries));
        match delete.send().await {
            Ok(output) => {
                let deleted = output.successful().iter().filter_map(|entry| entry.id().parse().ok());
                let causes = output.failed().iter().map(|failed| failed.code().to_owned());
                let deleted = deleted.filter(|position| *position < messages.len()).collect();
                Deletion { deleted, causes: causes.collect(), is_final: false }
            }
            Err(error) => {
                let resource = self.resource();
                let call = Call { action: "sqs:DeleteMessage", resource: &resource };
                let causes = BTreeSet::from([call.failed(&error).to_string()]);
                let is_final = !FailureKind::of(&error).is_transient();
                Deletion { deleted: BTreeSet::new(), causes, is_final }
            }
        }
    }

    /// Makes every held message visible to other consumers. Returns the number that could not be released: these stay
    /// hidden until their visibility timeout has passed.
    pub async fn release(&mut self) -> usize {
        let held: Vec<_> = self.held.drain().map(|(_, held)| held.receipt_handle).collect();
        let batches: Vec<_> =
            held.chunks(limits::QUEUE_BATCH_MESSAGES).map(|batch| self.release_batch(batch)).collect();
        let results = stream::iter(batches).buffer_unordered(CONCURRENT_RELEASES);
        results.fold(0, async |total, failed| total + failed).await
    }

    async fn release_batch(&self, batch: &[String]) -> usize {
        let entries = batch.iter().enumerate().filter_map(|(id, receipt_handle)| {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(id.to_string());
            entry.receipt_handle(receipt_handle).visibility_timeout(0).build().ok()
        });
        let change = self.client.change_message_visibility_batch().queue_url(&self.url);
        let changed = change.set_entries(Some(entries.collect())).send().await;
        changed.map_or(batch.len(), |output| output.failed().len())
    }

    fn resource(&self) -> String {
        format!("{} {}", self.name, self.url)
    }
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}
