//! The dead-letter queue's operations.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use anyhow::Context as _;
use aws_sdk_sqs::{
    Client,
    types::{
        ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message,
        MessageSystemAttributeName, QueueAttributeName,
    },
};
use futures::{StreamExt as _, stream};
use serde::Deserialize;
use streamer_message::limits;
use tokio::time::Instant;

use super::{
    dead_letter::DeadLetter,
    outcome::{Handled, Outcome},
};
use crate::{aws::Call, queue::MessageCounts};

/// Maximum number of dead letters held. SQS itself allows 120 000 messages of a standard queue in flight.
///
/// Source: "In flight" in
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html>.
const MAX_HELD: usize = 100_000;

/// Concurrent calls that release dead letters.
const CONCURRENT_RELEASES: usize = 10;

/// Receives without a new dead letter after which the queue counts as empty. One is not enough, because SQS may answer
/// before it has queried all of its servers.
const MAX_EMPTY_RECEIVES: usize = 2;

/// The dead-letter queue of an outbound queue.
#[derive(Debug)]
pub struct DeadLetterQueue {
    pub(super) client: Client,
    pub(super) outbound: String,
    url: String,
    visibility_timeout: Duration,
    /// Dead letters that were received and neither deleted nor released, by SQS's message id.
    held: HashMap<String, Held>,
    /// SQS's ids of all dead letters that were received.
    seen: HashSet<String>,
    /// Hashes of the bodies that were sent back.
    pub(super) sent: HashSet<u64>,
    empty_receives: usize,
    overdue: bool,
}

/// A dead letter that other consumers do not see.
#[derive(Debug)]
struct Held {
    receipt_handle: String,
    /// When it was first asked for.
    since: Instant,
}

/// The field of a redrive policy that names the dead-letter queue.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RedrivePolicy {
    dead_letter_target_arn: String,
}

impl DeadLetterQueue {
    /// Finds the queue that the redrive policy of `outbound` names. Received dead letters are hidden for at most
    /// `visibility_timeout`.
    ///
    /// # Errors
    /// When SQS does not answer, or the outbound queue has no dead-letter queue.
    pub async fn of(client: Client, outbound: String, visibility_timeout: Duration) -> anyhow::Result<Self> {
        let name = QueueAttributeName::RedrivePolicy;
        let get = client.get_queue_attributes().queue_url(&outbound).attribute_names(name.clone());
        let resource = format!("queue {outbound}");
        let call = Call { action: "sqs:GetQueueAttributes", resource: &resource };
        let response = get.send().await.map_err(|error| call.failed(&error))?;
        let policy = response.attributes.and_then(|mut attributes| attributes.remove(&name));
        let policy = policy.with_context(|| format!("queue {outbound} has no dead-letter queue"))?;
        let policy: RedrivePolicy = serde_json::from_str(&policy)
            .with_context(|| format!("cannot parse the redrive policy of queue {outbound}"))?;
        let arn = &policy.dead_letter_target_arn;
        let mut parts = arn.rsplit(':');
        let (name, owner) = (parts.next().unwrap_or_default(), parts.next());
        let get = client.get_queue_url().queue_name(name);
        let get = get.set_queue_owner_aws_account_id(owner.map(str::to_owned)).send().await;
        let resource = format!("dead-letter queue {arn}");
        let call = Call { action: "sqs:GetQueueUrl", resource: &resource };
        let url = get.map_err(|error| call.failed(&error))?.queue_url;
        let url = url.with_context(|| format!("the dead-letter queue {arn} has no URL"))?;
        Ok(Self {
            client,
            outbound,
            url,
            visibility_timeout,
            held: HashMap::new(),
            seen: HashSet::new(),
            sent: HashSet::new(),
            empty_receives: 0,
            overdue: false,
        })
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

    /// Returns the number of dead letters that were received and neither deleted nor released.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Returns whether the visibility timeout of a held dead letter passed, so that SQS delivered it again. Some dead
    /// letters may then never have been received.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        self.overdue
    }

    /// Receives some dead letters, each once. Returns none when the queue is empty, when as many are held as allowed,
    /// or when one [is overdue](Self::is_overdue).
    ///
    /// # Errors
    /// When SQS does not answer.
    pub async fn receive(&mut self) -> anyhow::Result<Vec<DeadLetter>> {
        while self.empty_receives < MAX_EMPTY_RECEIVES && self.held.len() < MAX_HELD && !self.overdue {
            let since = Instant::now();
            let received = self.receive_batch().await?;
            let letters = self.hold(received.into_iter().filter_map(DeadLetter::from_message), since).await;
            if letters.is_empty() {
                self.empty_receives += 1;
            } else {
                self.empty_receives = 0;
                return Ok(letters);
            }
        }
        Ok(Vec::new())
    }

    async fn receive_batch(&self) -> anyhow::Result<Vec<Message>> {
        let receive = self.client.receive_message().queue_url(&self.url).max_number_of_messages(10);
        let receive = receive.wait_time_seconds(1).visibility_timeout(seconds(self.visibility_timeout));
        let receive = receive.message_attribute_names("All");
        let receive = receive.message_system_attribute_names(MessageSystemAttributeName::All);
        let resource = format!("dead-letter queue {}", self.url);
        let call = Call { action: "sqs:ReceiveMessage", resource: &resource };
        let response = receive.send().await.map_err(|error| call.failed(&error))?;
        Ok(response.messages.unwrap_or_default())
    }

    /// Holds received dead letters, and returns those that were not received before. SQS may deliver a message twice
    /// although it is hidden, and once more after it was deleted.
    async fn hold(&mut self, letters: impl Iterator<Item = DeadLetter>, since: Instant) -> Vec<DeadLetter> {
        let (mut new, mut deleted) = (Vec::new(), Vec::new());
        for letter in letters {
            if let Some(held) = self.held.get_mut(&letter.message_id) {
                self.overdue |= held.since.elapsed() >= self.visibility_timeout;
                held.receipt_handle = letter.receipt_handle;
            } else if self.seen.insert(letter.message_id.clone()) {
                let held = Held { receipt_handle: letter.receipt_handle.clone(), since };
                self.held.insert(letter.message_id.clone(), held);
                new.push(letter);
            } else {
                deleted.push(letter);
            }
        }
        self.delete(&deleted.iter().collect::<Vec<_>>(), &mut Handled::default()).await;
        new
    }

    /// Deletes dead letters for good.
    pub async fn drop_letters(&mut self, letters: Vec<DeadLetter>) -> Handled {
        let mut handled = Handled::default();
        let deleted = self.delete(&letters.iter().collect::<Vec<_>>(), &mut handled).await;
        let outcome = |id| if deleted.contains(&id) { Outcome::Dropped } else { Outcome::NotDropped };
        let letters = letters.into_iter().enumerate().map(|(id, letter)| (letter, outcome(id)));
        handled.letters.extend(letters);
        handled
    }

    /// Deletes up to ten dead letters, and returns the positions of those that are deleted.
    pub(super) async fn delete(&mut self, letters: &[&DeadLetter], handled: &mut Handled) -> BTreeSet<usize> {
        let entries = letters.iter().enumerate().filter_map(|(id, letter)| {
            let entry = DeleteMessageBatchRequestEntry::builder().id(id.to_string());
            entry.receipt_handle(&letter.receipt_handle).build().ok()
        });
        let entries: Vec<_> = entries.collect();
        if entries.is_empty() {
            return BTreeSet::new();
        }
        let delete = self.client.delete_message_batch().queue_url(&self.url).set_entries(Some(entries));
        match delete.send().await {
            Ok(output) => {
                handled.causes.extend(output.failed().iter().map(|failed| failed.code().to_owned()));
                let deleted = output.successful().iter().filter_map(|entry| entry.id().parse().ok());
                let deleted: BTreeSet<usize> = deleted.filter(|id| *id < letters.len()).collect();
                for id in &deleted {
                    self.held.remove(&letters[*id].message_id);
                }
                deleted
            }
            Err(error) => {
                let resource = format!("dead-letter queue {}", self.url);
                handled.failed(&Call { action: "sqs:DeleteMessage", resource: &resource }, &error);
                BTreeSet::new()
            }
        }
    }

    /// Makes every held dead letter visible to other consumers. Returns the number that could not be released: these
    /// stay hidden until their visibility timeout has passed.
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
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}
