//! The dead-letter queue's operations.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use aws_sdk_sqs::{
    Client,
    types::{
        ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, MessageSystemAttributeName,
        QueueAttributeName, SendMessageBatchRequestEntry,
    },
};
use futures::{StreamExt as _, stream};
use serde::Deserialize;
use streamer_environment::aws::cause;
use streamer_message::{Limit, MessageId, limits, pack, sqs};

use super::dead_letter::DeadLetter;
use crate::queue::MessageCounts;

/// Maximum number of dead letters held. SQS itself allows 120 000 messages of a standard queue in flight.
///
/// Source: "In flight" in
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html>.
const MAX_HELD: usize = 100_000;

/// Concurrent calls that release dead letters.
const CONCURRENT_RELEASES: usize = 10;

/// Empty receives after which the queue counts as empty. One is not enough, because SQS may answer before it has
/// queried all of its servers.
const MAX_EMPTY_RECEIVES: usize = 2;

/// The dead-letter queue of an outbound queue.
#[derive(Debug)]
pub struct DeadLetterQueue {
    client: Client,
    outbound: String,
    url: String,
    visibility_timeout: Duration,
    /// Receipt handles of dead letters that were received and neither deleted nor released, by SQS's message id.
    held: HashMap<String, String>,
    /// Hashes of the bodies that were sent back.
    sent: HashSet<u64>,
    empty_receives: usize,
    overdue: bool,
}

/// The field of a redrive policy that names the dead-letter queue.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RedrivePolicy {
    dead_letter_target_arn: String,
}

/// Result of sending dead letters back.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Redriven {
    /// Dead letters that were sent to the outbound queue and deleted here.
    pub sent: usize,
    /// Dead letters that were sent to the outbound queue but could not be deleted here. Sent back again, they have the
    /// same id.
    pub not_deleted: usize,
    /// Dead letters that the outbound queue did not accept. They are still here.
    pub refused: usize,
    /// Causes of failures.
    pub causes: HashSet<String>,
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
        let response =
            get.send().await.with_context(|| format!("cannot read attributes of queue {outbound}"))?;
        let policy = response.attributes.and_then(|mut attributes| attributes.remove(&name));
        let policy = policy.with_context(|| format!("queue {outbound} has no dead-letter queue"))?;
        let policy: RedrivePolicy = serde_json::from_str(&policy)
            .with_context(|| format!("cannot parse the redrive policy of queue {outbound}"))?;
        let arn = &policy.dead_letter_target_arn;
        let mut parts = arn.rsplit(':');
        let (name, owner) = (parts.next().unwrap_or_default(), parts.next());
        let get = client.get_queue_url().queue_name(name);
        let get = get.set_queue_owner_aws_account_id(owner.map(str::to_owned)).send().await;
        let url = get.with_context(|| format!("cannot find the dead-letter queue {arn}"))?.queue_url;
        let url = url.with_context(|| format!("the dead-letter queue {arn} has no URL"))?;
        let (held, sent) = (HashMap::new(), HashSet::new());
        Ok(Self { client, outbound, url, visibility_timeout, held, sent, empty_receives: 0, overdue: false })
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

    /// Returns whether the same message was sent back already: it failed again at once, or the queue has two copies.
    #[must_use]
    pub fn was_sent(&self, letter: &DeadLetter) -> bool {
        self.sent.contains(&hash(letter))
    }

    /// Receives some dead letters, each once. Returns none when the queue is empty, when as many are held as allowed,
    /// or when one [is overdue](Self::is_overdue).
    ///
    /// # Errors
    /// When SQS does not answer.
    pub async fn receive(&mut self) -> anyhow::Result<Vec<DeadLetter>> {
        while self.empty_receives < MAX_EMPTY_RECEIVES && self.held.len() < MAX_HELD && !self.overdue {
            let receive = self.client.receive_message().queue_url(&self.url).max_number_of_messages(10);
            let receive = receive.wait_time_seconds(1).visibility_timeout(seconds(self.visibility_timeout));
            let receive = receive.message_attribute_names("All");
            let receive = receive.message_system_attribute_names(MessageSystemAttributeName::All);
            let response = receive
                .send()
                .await
                .with_context(|| format!("cannot receive from the dead-letter queue {}", self.url))?;
            let messages = response.messages.unwrap_or_default();
            let letters: Vec<_> = messages.into_iter().filter_map(DeadLetter::from_message).collect();
            if letters.is_empty() {
                self.empty_receives += 1;
                continue;
            }
            self.empty_receives = 0;
            let mut received = Vec::new();
            for letter in letters {
                match self.held.insert(letter.message_id.clone(), letter.receipt_handle.clone()) {
                    None => received.push(letter),
                    Some(_) => self.overdue = true,
                }
            }
            return Ok(received);
        }
        Ok(Vec::new())
    }

    /// Sends dead letters to the outbound queue, and then deletes those that it confirmed, so that each is on at least
    /// one queue at any time. On a FIFO queue, a refusal also holds back the later messages of its group.
    pub async fn send_back(&mut self, letters: Vec<DeadLetter>) -> Redriven {
        let mut result = Redriven::default();
        let mut waiting = letters;
        while !waiting.is_empty() {
            let (now, later) =
                if self.is_fifo() { split_first_of_groups(waiting) } else { (waiting, Vec::new()) };
            let mut refused = HashSet::new();
            for batch in pack(now, Limit::QUEUE_BATCH, |letter| letter.body.len()) {
                let confirmed = self.send(&batch, &mut result.causes).await;
                for letter in &batch {
                    if !confirmed.iter().any(|sent| sent.receipt_handle == letter.receipt_handle) {
                        result.refused += 1;
                        refused.insert(letter.group.clone());
                    }
                }
                self.sent.extend(confirmed.iter().map(|letter| hash(letter)));
                let deleted = self.delete(&confirmed, &mut result.causes).await;
                result.sent += deleted;
                result.not_deleted += confirmed.len() - deleted;
            }
            let (held_back, next): (Vec<_>, _) =
                later.into_iter().partition(|letter| refused.contains(&letter.group));
            result.refused += held_back.len();
            waiting = next;
        }
        result
    }

    fn is_fifo(&self) -> bool {
        sqs::is_fifo(&self.outbound)
    }

    /// Sends a batch and returns the dead letters that the outbound queue confirmed.
    async fn send<'a>(&self, batch: &'a [DeadLetter], causes: &mut HashSet<String>) -> Vec<&'a DeadLetter> {
        let now = SystemTime::now();
        let entries = batch.iter().enumerate();
        let entries = entries.filter_map(|(id, letter)| entry(id, letter, self.is_fifo(), now)).collect();
        let send = self.client.send_message_batch().queue_url(&self.outbound).set_entries(Some(entries));
        let confirmed: HashSet<usize> = match send.send().await {
            Ok(output) => {
                causes.extend(output.failed().iter().map(|failed| failed.code().to_owned()));
                output.successful().iter().filter_map(|entry| entry.id().parse().ok()).collect()
            }
            Err(error) => {
                causes.insert(cause(&error));
                HashSet::new()
            }
        };
        let letters = batch.iter().enumerate().filter(|(id, _)| confirmed.contains(id));
        letters.map(|(_, letter)| letter).collect()
    }

    /// Deletes dead letters and returns the number deleted.
    async fn delete(&mut self, letters: &[&DeadLetter], causes: &mut HashSet<String>) -> usize {
        let entries = letters.iter().enumerate().filter_map(|(id, letter)| {
            let entry = DeleteMessageBatchRequestEntry::builder().id(id.to_string());
            entry.receipt_handle(&letter.receipt_handle).build().ok()
        });
        let entries: Vec<_> = entries.collect();
        if entries.is_empty() {
            return 0;
        }
        let delete = self.client.delete_message_batch().queue_url(&self.url).set_entries(Some(entries));
        match delete.send().await {
            Ok(output) => {
                causes.extend(output.failed().iter().map(|failed| failed.code().to_owned()));
                for deleted in output.successful().iter().filter_map(|entry| entry.id().parse::<usize>().ok())
                {
                    self.held.remove(&letters[deleted].message_id);
                }
                output.successful().len()
            }
            Err(error) => {
                causes.insert(cause(&error));
                0
            }
        }
    }

    /// Makes every held dead letter visible to other consumers. Returns the number that could not be released: these
    /// stay hidden until their visibility timeout has passed.
    pub async fn release(&mut self) -> usize {
        let held: Vec<_> = self.held.drain().map(|(_, receipt_handle)| receipt_handle).collect();
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

/// Splits dead letters into the first of each message group, and the others.
fn split_first_of_groups(letters: Vec<DeadLetter>) -> (Vec<DeadLetter>, Vec<DeadLetter>) {
    let mut groups = HashSet::new();
    letters.into_iter().partition(|letter| groups.insert(letter.group.clone()))
}

/// Returns a hash that copies of one message share, whatever their retry state.
fn hash(letter: &DeadLetter) -> u64 {
    let mut hasher = DefaultHasher::new();
    letter.body_without_retry().hash(&mut hasher);
    hasher.finish()
}

fn entry(
    id: usize,
    letter: &DeadLetter,
    fifo: bool,
    now: SystemTime,
) -> Option<SendMessageBatchRequestEntry> {
    let body = letter.redrive_body(now);
    let mut entry = sqs::batch_entry(id, body, letter.group.as_deref(), letter.trace.as_deref()).ok()?;
    if fifo {
        // SQS would drop the message if it still remembered its old deduplication id.
        entry = entry.message_deduplication_id(MessageId::generate().as_str());
    }
    entry.build().ok()
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}
