//! The queue.

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
        MessageSystemAttributeNameForSends, MessageSystemAttributeValue, QueueAttributeName,
        SendMessageBatchRequestEntry,
    },
};
use futures::{StreamExt as _, stream};
use serde::Deserialize;
use streamer_environment::aws::cause;
use streamer_message::{Limit, MessageId, limits, pack, sqs};

use super::Letter;
use crate::queue::Counts;

/// Letters that may be held, at most. SQS itself lets 120 000 of a standard queue be in flight.
///
/// Source: "In flight" in <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html>.
const HELD: usize = 100_000;

/// Calls at the same time.
const AT_ONCE: usize = 10;

/// How often SQS has to say that there is nothing: a short answer does not ask all of its servers.
const EMPTY: usize = 2;

/// The dead-letter queue of an outbound queue.
#[derive(Debug)]
pub struct DeadLetterQueue {
    client: Client,
    outbound: String,
    url: String,
    hidden: Duration,
    /// Letters that were taken and are still there, by the queue's id of each.
    held: HashMap<String, String>,
    /// What was sent back, by its hash.
    sent: HashSet<u64>,
    empty: usize,
    overdue: bool,
}

/// The part of a redrive policy that says where dead letters are.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RedrivePolicy {
    dead_letter_target_arn: String,
}

/// What became of letters that were to be sent back.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct SentBack {
    /// They are on the outbound queue, and no longer here.
    pub sent: usize,
    /// They are on the outbound queue, and still here: sent back once more, they have the same id.
    pub still_here: usize,
    /// The outbound queue did not take them; they are still here.
    pub refused: usize,
    /// Why something was not done.
    pub causes: HashSet<String>,
}

impl DeadLetterQueue {
    /// The queue that the redrive policy of `outbound` names. What is taken is hidden for so long at the most.
    ///
    /// # Errors
    /// When the queue does not say, or has none.
    pub async fn of(client: Client, outbound: String, hidden: Duration) -> anyhow::Result<Self> {
        let wanted = QueueAttributeName::RedrivePolicy;
        let get = client.get_queue_attributes().queue_url(&outbound).attribute_names(wanted.clone());
        let attributes = get.send().await.with_context(|| format!("the queue {outbound} does not answer"))?;
        let policy = attributes.attributes.and_then(|mut all| all.remove(&wanted));
        let policy = policy.with_context(|| format!("the queue {outbound} has no dead-letter queue"))?;
        let policy: RedrivePolicy =
            serde_json::from_str(&policy).context("the redrive policy cannot be read")?;
        let arn = &policy.dead_letter_target_arn;
        let mut parts = arn.rsplit(':');
        let (name, owner) = (parts.next().unwrap_or_default(), parts.next());
        let get = client.get_queue_url().queue_name(name);
        let get = get.set_queue_owner_aws_account_id(owner.map(str::to_owned)).send().await;
        let url = get.with_context(|| format!("the dead-letter queue {arn} cannot be found"))?.queue_url;
        let url = url.with_context(|| format!("the dead-letter queue {arn} has no URL"))?;
        let (held, sent) = (HashMap::new(), HashSet::new());
        Ok(Self { client, outbound, url, hidden, held, sent, empty: 0, overdue: false })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How many letters there are.
    ///
    /// # Errors
    /// When the queue does not say.
    pub async fn counts(&self) -> anyhow::Result<Counts> {
        Counts::of(&self.client, &self.url).await
    }

    /// How many letters it holds.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether a letter that it holds has been hidden for too long, and come again: not all letters were seen.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        self.overdue
    }

    /// Whether what a letter says was sent back already: it failed again at once, or there are two of it.
    #[must_use]
    pub fn was_sent(&self, letter: &Letter) -> bool {
        self.sent.contains(&hash(letter))
    }

    /// Takes some letters, each once. Empty when there are no more, when as many are held as may be, or when one
    /// [is overdue](Self::is_overdue).
    ///
    /// # Errors
    /// When the queue does not answer.
    pub async fn take(&mut self) -> anyhow::Result<Vec<Letter>> {
        while self.empty < EMPTY && self.held.len() < HELD && !self.overdue {
            let receive = self.client.receive_message().queue_url(&self.url).max_number_of_messages(10);
            let receive = receive.wait_time_seconds(1).visibility_timeout(seconds(self.hidden));
            let receive = receive.message_attribute_names("All");
            let receive = receive.message_system_attribute_names(MessageSystemAttributeName::All);
            let received = receive.send().await.context("the dead-letter queue does not answer")?;
            let letters: Vec<_> =
                received.messages.unwrap_or_default().into_iter().filter_map(Letter::read).collect();
            if letters.is_empty() {
                self.empty += 1;
                continue;
            }
            self.empty = 0;
            let mut taken = Vec::new();
            for letter in letters {
                let (id, receipt) = letter.receipt.clone();
                match self.held.insert(id, receipt) {
                    None => taken.push(letter),
                    Some(_) => self.overdue = true,
                }
            }
            return Ok(taken);
        }
        Ok(Vec::new())
    }

    /// Sends letters to the outbound queue, and removes those that it has confirmed: none is ever nowhere. On a FIFO
    /// queue, where one of a group is refused, those behind it stay behind it.
    pub async fn send_back(&mut self, letters: Vec<Letter>) -> SentBack {
        let mut done = SentBack::default();
        let mut waiting = letters;
        while !waiting.is_empty() {
            let (now, later) = if self.is_fifo() { firsts(waiting) } else { (waiting, Vec::new()) };
            let mut refused = HashSet::new();
            for batch in pack(now, Limit::QUEUE_BATCH, |letter| letter.body.len()) {
                let confirmed = self.send(&batch, &mut done.causes).await;
                for letter in &batch {
                    if !confirmed.iter().any(|sent| sent.receipt == letter.receipt) {
                        done.refused += 1;
                        refused.insert(letter.group.clone());
                    }
                }
                self.sent.extend(confirmed.iter().map(|letter| hash(letter)));
                let removed = self.remove(&confirmed, &mut done.causes).await;
                done.sent += removed;
                done.still_here += confirmed.len() - removed;
            }
            let (behind, next): (Vec<_>, _) =
                later.into_iter().partition(|letter| refused.contains(&letter.group));
            done.refused += behind.len();
            waiting = next;
        }
        done
    }

    fn is_fifo(&self) -> bool {
        sqs::is_fifo(&self.outbound)
    }

    /// The letters that the outbound queue confirmed.
    async fn send<'a>(&self, batch: &'a [Letter], causes: &mut HashSet<String>) -> Vec<&'a Letter> {
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

    /// How many were removed.
    async fn remove(&mut self, letters: &[&Letter], causes: &mut HashSet<String>) -> usize {
        let entries = letters.iter().enumerate().filter_map(|(id, letter)| {
            let entry = DeleteMessageBatchRequestEntry::builder().id(id.to_string());
            entry.receipt_handle(&letter.receipt.1).build().ok()
        });
        let entries: Vec<_> = entries.collect();
        if entries.is_empty() {
            return 0;
        }
        let delete = self.client.delete_message_batch().queue_url(&self.url).set_entries(Some(entries));
        match delete.send().await {
            Ok(output) => {
                causes.extend(output.failed().iter().map(|failed| failed.code().to_owned()));
                for removed in output.successful().iter().filter_map(|entry| entry.id().parse::<usize>().ok())
                {
                    self.held.remove(&letters[removed].receipt.0);
                }
                output.successful().len()
            }
            Err(error) => {
                causes.insert(cause(&error));
                0
            }
        }
    }

    /// Lets go of what is held, so that whoever looks next sees it, and returns how many it failed for: these are
    /// hidden for a while longer.
    pub async fn let_go(&mut self) -> usize {
        let held: Vec<_> = self.held.drain().map(|(_, receipt)| receipt).collect();
        let batches: Vec<_> =
            held.chunks(limits::QUEUE_BATCH_MESSAGES).map(|batch| self.let_go_batch(batch)).collect();
        stream::iter(batches).buffer_unordered(AT_ONCE).fold(0, async |all, failed| all + failed).await
    }

    async fn let_go_batch(&self, batch: &[String]) -> usize {
        let entries = batch.iter().enumerate().filter_map(|(id, receipt)| {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(id.to_string());
            entry.receipt_handle(receipt).visibility_timeout(0).build().ok()
        });
        let change = self.client.change_message_visibility_batch().queue_url(&self.url);
        let changed = change.set_entries(Some(entries.collect())).send().await;
        changed.map_or(batch.len(), |output| output.failed().len())
    }
}

/// The first letter of each group, and the others.
fn firsts(letters: Vec<Letter>) -> (Vec<Letter>, Vec<Letter>) {
    let mut groups = HashSet::new();
    letters.into_iter().partition(|letter| groups.insert(letter.group.clone()))
}

/// The same for letters that say the same.
fn hash(letter: &Letter) -> u64 {
    let mut hasher = DefaultHasher::new();
    letter.says().hash(&mut hasher);
    hasher.finish()
}

fn entry(id: usize, letter: &Letter, fifo: bool, now: SystemTime) -> Option<SendMessageBatchRequestEntry> {
    let mut entry = SendMessageBatchRequestEntry::builder()
        .id(id.to_string())
        .message_body(letter.revived(now))
        .set_message_group_id(letter.group.clone());
    if fifo {
        // The queue may remember the old one, and drop what has it.
        entry = entry.message_deduplication_id(MessageId::generate().as_str());
    }
    if let Some(trace) = &letter.trace {
        let value =
            MessageSystemAttributeValue::builder().data_type("String").string_value(trace).build().ok()?;
        entry = entry.message_system_attributes(MessageSystemAttributeNameForSends::AwsTraceHeader, value);
    }
    entry.build().ok()
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}
