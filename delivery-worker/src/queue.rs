//! The queues that the worker writes to.

use std::{collections::BTreeSet, time::Duration};

use aws_sdk_sqs::{
    Client,
    config::retry::RetryConfig,
    error::{BuildError, ProvideErrorMetadata, SdkError},
    types::{
        BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, MessageAttributeValue,
        MessageSystemAttributeNameForSends, MessageSystemAttributeValue, SendMessageBatchRequestEntry,
    },
};
use futures::future::join_all;
use streamer_environment::aws::cause;
use streamer_message::{
    Limit, MessageId, limits, pack,
    sqs::{is_final, is_refusal},
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{backoff, letter::Letter, plan::Order};

/// Time limit of one call to SQS, which usually answers within 20 ms: a connection that hangs leaves time for others.
const ATTEMPT: Duration = Duration::from_secs(2);

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

/// An entry of a batch, under the id that it keeps over all attempts.
struct Entry<T, R> {
    id: usize,
    of: T,
    request: R,
}

/// SQS's answer to a batch.
struct Answer {
    confirmed: BTreeSet<usize>,
    failed: Vec<BatchResultErrorEntry>,
}

/// Why SQS answered for none of a batch.
struct Fault {
    cause: String,
    is_final: bool,
}

impl Queue {
    /// The queue at `url`. The client's own retries are off: [`send`](Self::send) and [`delay`](Self::delay) retry.
    #[must_use]
    pub fn new(client: Client, url: impl Into<String>) -> Self {
        let url = url.into();
        let config = client.config().to_builder().retry_config(RetryConfig::disabled());
        Self { client: Client::from_conf(config.build()), order: Order::of_queue(&url), url }
    }

    /// Sends letters, and returns the places of those that the queue did not confirm by `until`, refused, or cannot
    /// take since they are too large with their attributes.
    ///
    /// One attempt takes up to 2 s. Unconfirmed entries are sent again, without the others of their call, until the
    /// time is over. An entry that SQS took without an answer is then on a standard queue twice, with the same message
    /// id. On a FIFO queue it keeps its deduplication id over all attempts, so SQS takes it once.
    pub async fn send(&self, letters: &[Letter], until: Instant) -> BTreeSet<usize> {
        let (fitting, unfit): (Vec<_>, Vec<_>) =
            letters.iter().partition(|letter| letter.bytes() <= limits::QUEUE_MESSAGE_BYTES);
        let batches = pack(fitting, Limit::QUEUE_BATCH, |letter| letter.bytes());
        let batches = batches.map(|batch| self.send_batch(batch, until));
        let unsent = join_all(batches).await.into_iter().flatten();
        unfit.into_iter().chain(unsent).map(|letter| letter.place).collect()
    }

    /// Sends one batch, and returns the unconfirmed letters.
    async fn send_batch<'a>(&self, batch: Vec<&'a Letter>, until: Instant) -> Vec<&'a Letter> {
        let (mut entries, mut unsent) = (Vec::new(), Vec::new());
        for (id, letter) in batch.into_iter().enumerate() {
            // Built once, so that a FIFO queue sees the same deduplication id in each attempt.
            match entry(id, letter, self.order) {
                Some(request) => entries.push(Entry { id, of: letter, request }),
                None => unsent.push(letter),
            }
        }
        let attempt = async |requests| {
            let send = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(requests));
            let output = send.send().await.map_err(|error| Fault::of(&error))?;
            let confirmed = output.successful.iter().map(|entry| entry.id());
            Ok(Answer { confirmed: ids(confirmed), failed: output.failed })
        };
        unsent.extend(self.repeat(entries, until, attempt).await.into_iter().map(|entry| entry.of));
        if !unsent.is_empty() {
            tracing::error!(queue = self.url, messages = unsent.len(), "failed to send messages");
        }
        unsent
    }

    /// Hides records for their seconds, with the time limits and retries of [`send`](Self::send). The queue delivers
    /// the others again after its visibility timeout.
    pub async fn delay(&self, waits: &[Wait], until: Instant) {
        let batches = waits.chunks(limits::QUEUE_BATCH_MESSAGES);
        join_all(batches.map(|batch| self.delay_batch(batch, until))).await;
    }

    async fn delay_batch(&self, batch: &[Wait], until: Instant) {
        let entries = batch
            .iter()
            .enumerate()
            .filter_map(|(id, wait)| Some(Entry { id, of: wait, request: visibility(id, wait).ok()? }));
        let attempt = async |requests| {
            let change = self.client.change_message_visibility_batch().queue_url(&self.url);
            let output =
                change.set_entries(Some(requests)).send().await.map_err(|error| Fault::of(&error))?;
            let confirmed = output.successful.iter().map(|entry| entry.id());
            Ok(Answer { confirmed: ids(confirmed), failed: output.failed })
        };
        let failed = self.repeat(entries.collect(), until, attempt).await;
        if !failed.is_empty() {
            tracing::warn!(queue = self.url, messages = failed.len(), "failed to change message visibility");
        }
    }

    /// Makes attempts until SQS has confirmed or refused every entry, or the time is over, and returns the entries that
    /// are not confirmed.
    async fn repeat<T, R: Clone>(
        &self,
        mut entries: Vec<Entry<T, R>>,
        until: Instant,
        attempt: impl AsyncFn(Vec<R>) -> Result<Answer, Fault>,
    ) -> Vec<Entry<T, R>> {
        let mut refused = Vec::new();
        for attempts in 1.. {
            let requests = entries.iter().map(|entry| entry.request.clone()).collect();
            match timeout_at(until.min(Instant::now() + ATTEMPT), attempt(requests)).await {
                Ok(Ok(answer)) => {
                    entries.retain(|entry| !answer.confirmed.contains(&entry.id));
                    let final_ids = self.refusals(&answer.failed);
                    refused.extend(entries.extract_if(.., |entry| final_ids.contains(&entry.id)));
                }
                Ok(Err(Fault { cause, is_final })) => {
                    tracing::warn!(queue = self.url, attempts, cause, "a call to the queue failed");
                    if is_final {
                        break;
                    }
                }
                Err(_) => tracing::warn!(queue = self.url, attempts, "the queue did not answer in time"),
            }
            let pause = backoff::on_a_call(attempts, fastrand::f64());
            if entries.is_empty() || Instant::now() + pause >= until {
                break;
            }
            sleep(pause).await;
        }
        refused.extend(entries);
        refused
    }

    /// The ids of the entries that SQS would refuse again.
    fn refusals(&self, failed: &[BatchResultErrorEntry]) -> BTreeSet<usize> {
        for failed in failed {
            tracing::warn!(queue = self.url, cause = failed.code(), "the queue refused an entry");
        }
        let refused = failed.iter().filter(|failed| is_refusal(failed.code(), failed.sender_fault()));
        ids(refused.map(BatchResultErrorEntry::id))
    }
}

impl Fault {
    fn of<E, R>(error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
        let is_final = matches!(error, SdkError::ConstructionFailure(_)) || code.is_some_and(is_final);
        Self { cause: cause(error), is_final }
    }
}

fn ids<'a>(ids: impl Iterator<Item = &'a str>) -> BTreeSet<usize> {
    ids.filter_map(|id| id.parse().ok()).collect()
}

fn visibility(id: usize, wait: &Wait) -> Result<ChangeMessageVisibilityBatchRequestEntry, BuildError> {
    ChangeMessageVisibilityBatchRequestEntry::builder()
        .id(id.to_string())
        .receipt_handle(&wait.receipt_handle)
        .set_visibility_timeout(i32::try_from(wait.seconds).ok())
        .build()
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
        // Fresh for each send, or SQS would drop it as a duplicate of the message's earlier copy.
        Order::Group => entry.message_deduplication_id(MessageId::generate()),
    };
    entry.build().ok()
}
