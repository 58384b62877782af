//! Writes to the SQS queues.

use std::{collections::BTreeSet, time::Duration};

use aws_sdk_sqs::{
    Client,
    config::retry::RetryConfig,
    error::{BuildError, ProvideErrorMetadata, SdkError},
    types::{
        BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, MessageAttributeValue,
        SendMessageBatchRequestEntry,
    },
};
use futures::future::join_all;
use streamer_environment::aws::cause;
use streamer_message::{
    Limit, MessageId, limits, pack,
    sqs::{batch_entry, is_arn_of, is_final, is_refusal},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, timeout_at},
};

use crate::{Outgoing, QueueKind, backoff};

/// Time limit of one call to SQS, which usually answers within 20 ms. It leaves time for another attempt when a
/// connection hangs.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Calls to a queue at the same time. A batch of thousands of messages needs hundreds, and each has a connection and a
/// copy of its messages.
const CALLS: usize = 32;

/// An SQS queue.
#[derive(Debug, Clone)]
pub struct Queue {
    client: Client,
    url: String,
    kind: QueueKind,
}

/// A new visibility timeout for a record, after which SQS delivers it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisibilityChange {
    /// The record's receipt handle.
    pub receipt_handle: String,
    /// The visibility timeout in seconds, 0 to 43 200.
    pub seconds: u32,
}

/// An entry of a batch call. It keeps its id over all attempts.
struct Entry<T, R> {
    id: usize,
    of: T,
    request: R,
}

/// SQS's answer to a batch call.
struct BatchAnswer {
    confirmed: BTreeSet<usize>,
    failed: Vec<BatchResultErrorEntry>,
}

/// A batch call that failed as a whole.
struct Fault {
    cause: String,
    is_final: bool,
}

impl Queue {
    /// Returns the queue at `url`. The client's own retries are off, since [`send`](Self::send) and
    /// [`change_visibility`](Self::change_visibility) retry.
    #[must_use]
    pub fn new(client: Client, url: impl Into<String>) -> Self {
        let url = url.into();
        let config = client.config().to_builder().retry_config(RetryConfig::disabled());
        Self { client: Client::from_conf(config.build()), kind: QueueKind::of_url(&url), url }
    }

    /// Returns whether this is the queue with an ARN.
    #[must_use]
    pub fn has_arn(&self, arn: &str) -> bool {
        is_arn_of(arn, &self.url)
    }

    /// Sends messages, and returns the indexes of those that SQS did not confirm by `until` or refused, or that it would
    /// refuse: because they are empty, too large with their attributes, or have no group on a FIFO queue.
    ///
    /// One attempt takes up to 2 s. Unconfirmed entries alone are retried until the time is over. An entry that SQS
    /// accepted without an answer is then on a standard queue twice, with the same message id. On a FIFO queue it keeps
    /// its deduplication id over all attempts, so SQS accepts it once.
    pub async fn send(&self, messages: &[Outgoing], until: Instant) -> BTreeSet<usize> {
        let (fitting, unfit): (Vec<_>, Vec<_>) = messages.iter().partition(|message| self.accepts(message));
        let batches = pack(fitting, Limit::QUEUE_BATCH, |message| message.bytes());
        let calls = Semaphore::new(CALLS);
        let batches = batches.map(|batch| self.send_batch(batch, &calls, until));
        let unsent = join_all(batches).await.concat();
        if !unsent.is_empty() {
            tracing::error!(queue = self.url, messages = unsent.len(), "failed to send messages");
        }
        unfit.into_iter().chain(unsent).map(|message| message.index).collect()
    }

    /// Returns whether SQS accepts a message. It refuses the whole call for one that it does not accept.
    fn accepts(&self, message: &Outgoing) -> bool {
        let has_group = self.kind == QueueKind::Standard || message.group.is_some();
        has_group && !message.body.is_empty() && message.bytes() <= limits::QUEUE_MESSAGE_BYTES
    }

    /// Sends one batch, and returns the unconfirmed messages.
    async fn send_batch<'a>(
        &self,
        batch: Vec<&'a Outgoing>,
        calls: &Semaphore,
        until: Instant,
    ) -> Vec<&'a Outgoing> {
        // Only now, so that messages are not copied before their call.
        let Some(turn) = turn(calls, until).await else { return batch };
        let (mut entries, mut unsent) = (Vec::new(), Vec::new());
        for (id, message) in batch.into_iter().enumerate() {
            // Built once, so that every attempt has the same deduplication id.
            match entry(id, message, self.kind) {
                Ok(request) => entries.push(Entry { id, of: message, request }),
                Err(_) => unsent.push(message),
            }
        }
        let attempt = async |requests| {
            let send = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(requests));
            let output = send.send().await.map_err(|error| Fault::of(&error))?;
            let confirmed = output.successful.iter().map(|entry| entry.id());
            Ok(BatchAnswer { confirmed: ids(confirmed), failed: output.failed })
        };
        let failed = self.repeat(entries, turn, calls, until, attempt).await;
        unsent.extend(failed.into_iter().map(|entry| entry.of));
        unsent
    }

    /// Changes the visibility timeouts of records, with the time limits and retries of [`send`](Self::send). A record
    /// for which this fails is delivered again after the queue's own visibility timeout.
    pub async fn change_visibility(&self, changes: &[VisibilityChange], until: Instant) {
        let batches = changes.chunks(limits::QUEUE_BATCH_MESSAGES);
        let calls = Semaphore::new(CALLS);
        let batches = batches.map(|batch| self.change_visibility_batch(batch, &calls, until));
        let failed: usize = join_all(batches).await.into_iter().sum();
        if failed > 0 {
            tracing::warn!(queue = self.url, messages = failed, "failed to change message visibility");
        }
    }

    /// Changes the visibility timeouts of one batch, and returns the number of records for which that failed.
    async fn change_visibility_batch(
        &self,
        batch: &[VisibilityChange],
        calls: &Semaphore,
        until: Instant,
    ) -> usize {
        let Some(turn) = turn(calls, until).await else { return batch.len() };
        let entries = batch
            .iter()
            .enumerate()
            .filter_map(|(id, change)| Some(Entry { id, of: change, request: visibility(id, change).ok()? }));
        let attempt = async |requests| {
            let change = self.client.change_message_visibility_batch().queue_url(&self.url);
            let output =
                change.set_entries(Some(requests)).send().await.map_err(|error| Fault::of(&error))?;
            let confirmed = output.successful.iter().map(|entry| entry.id());
            Ok(BatchAnswer { confirmed: ids(confirmed), failed: output.failed })
        };
        self.repeat(entries.collect(), turn, calls, until, attempt).await.len()
    }

    /// Retries a batch call until SQS has confirmed or refused every entry, or the time is over. Returns the
    /// unconfirmed entries. Each attempt has a turn, and other batches have theirs during its pauses.
    async fn repeat<T, R: Clone>(
        &self,
        mut entries: Vec<Entry<T, R>>,
        first: SemaphorePermit<'_>,
        calls: &Semaphore,
        until: Instant,
        attempt: impl AsyncFn(Vec<R>) -> Result<BatchAnswer, Fault>,
    ) -> Vec<Entry<T, R>> {
        let (mut refused, mut own_turn) = (Vec::new(), first);
        for attempts in 1.. {
            let requests = entries.iter().map(|entry| entry.request.clone()).collect();
            match timeout_at(until.min(Instant::now() + ATTEMPT), attempt(requests)).await {
                Ok(Ok(answer)) => {
                    entries.retain(|entry| !answer.confirmed.contains(&entry.id));
                    let final_ids = self.refusals(&answer.failed);
                    refused.extend(entries.extract_if(.., |entry| final_ids.contains(&entry.id)));
                }
                Ok(Err(Fault { cause, is_final })) => {
                    tracing::warn!(queue = self.url, attempts, cause, "call to the queue failed");
                    if is_final {
                        break;
                    }
                }
                Err(_) => tracing::warn!(queue = self.url, attempts, "queue did not answer in time"),
            }
            drop(own_turn);
            let pause = backoff::delay(attempts, fastrand::f64());
            if entries.is_empty() || Instant::now() + pause >= until {
                break;
            }
            sleep(pause).await;
            let Some(next) = turn(calls, until).await else { break };
            own_turn = next;
        }
        refused.extend(entries);
        refused
    }

    /// Returns the ids of the entries that SQS would refuse again.
    fn refusals(&self, failed: &[BatchResultErrorEntry]) -> BTreeSet<usize> {
        for failed in failed {
            tracing::warn!(queue = self.url, cause = failed.code(), "queue refused an entry");
        }
        let refused = failed.iter().filter(|failed| {
            is_refusal(failed.code(), failed.message().unwrap_or_default(), failed.sender_fault())
        });
        ids(refused.map(BatchResultErrorEntry::id))
    }
}

impl Fault {
    fn of<E, R>(error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        let answer = error.as_service_error().and_then(|error| Some((error.code()?, error.message())));
        let is_final = matches!(error, SdkError::ConstructionFailure(_))
            || answer.is_some_and(|(code, message)| is_final(code, message.unwrap_or_default()));
        Self { cause: cause(error), is_final }
    }
}

/// Waits for a turn to call the queue. Returns `None` if the time is over before others leave one.
async fn turn(calls: &Semaphore, until: Instant) -> Option<SemaphorePermit<'_>> {
    if let Ok(permit) = calls.try_acquire() {
        return Some(permit);
    }
    let permit = timeout_at(until, calls.acquire()).await.ok()?.ok()?;
    (Instant::now() < until).then_some(permit)
}

fn ids<'a>(ids: impl Iterator<Item = &'a str>) -> BTreeSet<usize> {
    ids.filter_map(|id| id.parse().ok()).collect()
}

fn visibility(
    id: usize,
    change: &VisibilityChange,
) -> Result<ChangeMessageVisibilityBatchRequestEntry, BuildError> {
    ChangeMessageVisibilityBatchRequestEntry::builder()
        .id(id.to_string())
        .receipt_handle(&change.receipt_handle)
        .set_visibility_timeout(i32::try_from(change.seconds).ok())
        .build()
}

fn entry(id: usize, message: &Outgoing, kind: QueueKind) -> Result<SendMessageBatchRequestEntry, BuildError> {
    let entry = batch_entry(id, &message.body, message.group.as_deref(), message.trace.as_deref())?;
    let entry = message.attributes.iter().try_fold(entry, |entry, (name, value)| {
        let value = MessageAttributeValue::builder().data_type("String").string_value(value).build()?;
        Ok::<_, BuildError>(entry.message_attributes(*name, value))
    })?;
    let entry = match kind {
        QueueKind::Standard => entry.set_delay_seconds(i32::try_from(message.delay).ok()),
        // New for each send: SQS would drop the message as a duplicate of its earlier copy.
        QueueKind::Fifo => entry.message_deduplication_id(MessageId::generate()),
    };
    entry.build()
}
