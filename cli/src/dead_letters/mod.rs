//! The dead letters of a deployment: what is in the dead-letter queue, why, and the way back.
//!
//! - [`Letter`]: one of them, and what it is sent back as. [`Meant`]: which ones somebody means.
//! - [`Tally`]: what there is, by reason and cause.
//! - [`DeadLetterQueue`]: takes letters, sends them back, and lets go of the others.
//!
//! SQS shows a message only to whoever takes it. So to look is to take: a letter that was looked at is hidden from
//! everybody else until it is let go of, or for [`HIDDEN`] where this process dies.

mod letter;
mod tally;

pub use letter::{Letter, Meant, Source};
pub use tally::{Kind, Tally};

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
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
use serde::Deserialize;
use streamer_environment::aws::cause;
use streamer_message::{Limit, MessageId, limits, pack};

/// How long a letter that was taken is hidden, where it is not let go of.
pub const HIDDEN: Duration = Duration::from_secs(600);

/// Letters that may be held, at most. SQS itself lets 120 000 of a standard queue be in flight.
///
/// Source: "In flight" in <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html>.
pub const HELD: usize = 100_000;

/// How often SQS has to say that there is nothing: a short answer does not ask all of its servers.
const EMPTY: usize = 2;

/// The dead-letter queue of an outbound queue.
#[derive(Debug)]
pub struct DeadLetterQueue {
    client: Client,
    outbound: String,
    url: String,
    /// Letters that were taken and are still there, by the queue's id of each.
    held: HashMap<String, String>,
    empty: usize,
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
    /// The queue that the redrive policy of `outbound` names.
    ///
    /// # Errors
    /// When the queue does not say, or has none.
    pub async fn of(client: Client, outbound: String) -> anyhow::Result<Self> {
        let wanted = QueueAttributeName::RedrivePolicy;
        let get = client.get_queue_attributes().queue_url(&outbound).attribute_names(wanted.clone());
        let attributes = get.send().await.with_context(|| format!("the queue {outbound} does not answer"))?;
        let policy = attributes.attributes.and_then(|mut all| all.remove(&wanted));
        let policy = policy.with_context(|| format!("the queue {outbound} has no dead-letter queue"))?;
        let policy: RedrivePolicy =
            serde_json::from_str(&policy).context("the redrive policy cannot be read")?;
        let arn = &policy.dead_letter_target_arn;
        let name = arn.rsplit(':').next().unwrap_or_default();
        let get = client.get_queue_url().queue_name(name).send().await;
        let url = get.with_context(|| format!("the dead-letter queue {arn} cannot be found"))?.queue_url;
        let url = url.with_context(|| format!("the dead-letter queue {arn} has no URL"))?;
        Ok(Self { client, outbound, url, held: HashMap::new(), empty: 0 })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Takes some letters, each once. Empty when there are no more, or [`HELD`] are held.
    ///
    /// # Errors
    /// When the queue does not answer.
    pub async fn take(&mut self) -> anyhow::Result<Vec<Letter>> {
        while self.empty < EMPTY && self.held.len() < HELD {
            let receive = self.client.receive_message().queue_url(&self.url).max_number_of_messages(10);
            let receive = receive.wait_time_seconds(1).visibility_timeout(seconds(HIDDEN));
            let receive = receive.message_attribute_names("All");
            let receive = receive.message_system_attribute_names(MessageSystemAttributeName::All);
            let received = receive.send().await.context("the dead-letter queue does not answer")?;
            let letters = received.messages.unwrap_or_default().into_iter().filter_map(Letter::read);
            // One that was hidden for too long, and came again, is held by its newest receipt.
            let mut new = |letter: &Letter| {
                let (id, receipt) = letter.receipt.clone();
                self.held.insert(id, receipt).is_none()
            };
            let taken: Vec<_> = letters.filter(&mut new).collect();
            self.empty = if taken.is_empty() { self.empty + 1 } else { 0 };
            if !taken.is_empty() {
                return Ok(taken);
            }
        }
        Ok(Vec::new())
    }

    /// Sends letters to the outbound queue, and removes those that it has confirmed: none is ever nowhere.
    pub async fn send_back(&mut self, letters: Vec<Letter>) -> SentBack {
        let mut done = SentBack::default();
        for batch in pack(letters, Limit::QUEUE_BATCH, |letter| letter.body.len()) {
            let (confirmed, refused) = self.send(&batch, &mut done.causes).await;
            done.refused += refused;
            let removed = self.remove(&confirmed, &mut done.causes).await;
            done.sent += removed;
            done.still_here += confirmed.len() - removed;
        }
        done
    }

    /// The letters that the outbound queue confirmed, and how many it did not.
    async fn send<'a>(&self, batch: &'a [Letter], causes: &mut HashSet<String>) -> (Vec<&'a Letter>, usize) {
        let fifo = self.outbound.ends_with(".fifo");
        let entries = batch.iter().enumerate().filter_map(|(id, letter)| entry(id, letter, fifo));
        let send =
            self.client.send_message_batch().queue_url(&self.outbound).set_entries(Some(entries.collect()));
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
        let letters: Vec<_> = letters.map(|(_, letter)| letter).collect();
        let refused = batch.len() - letters.len();
        (letters, refused)
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

    /// Lets go of what is held: whoever looks next sees it. What this fails for is hidden for a while longer.
    pub async fn let_go(&mut self) {
        let held: Vec<_> = self.held.drain().map(|(_, receipt)| receipt).collect();
        for batch in held.chunks(limits::QUEUE_BATCH_MESSAGES) {
            let entries = batch.iter().enumerate().filter_map(|(id, receipt)| {
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(id.to_string());
                entry.receipt_handle(receipt).visibility_timeout(0).build().ok()
            });
            let change = self.client.change_message_visibility_batch().queue_url(&self.url);
            _ = change.set_entries(Some(entries.collect())).send().await;
        }
    }
}

fn entry(id: usize, letter: &Letter, fifo: bool) -> Option<SendMessageBatchRequestEntry> {
    let mut entry = SendMessageBatchRequestEntry::builder()
        .id(id.to_string())
        .message_body(letter.revived())
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
