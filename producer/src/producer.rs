//! The way to the queue.

use std::{fmt, sync::Arc, time::Duration};

use aws_sdk_sqs::Client;
use streamer_environment::aws;
use streamer_message::MessageId;

use crate::{
    Message, MessageBuilder, MessageError, Progress,
    entry::{check, entries},
    outbox::Outbox,
};

/// How long a message may take to the queue, where nothing else is said.
const TIME: Duration = Duration::from_secs(10);

/// Puts messages on the queue. Cheap to clone and safe to share: clones send together.
///
/// Calls made at the same time travel together. What comes while nothing is under way leaves at once; what comes
/// while a `SendMessageBatch` is under way fills the next, of up to 10 messages and 1 MiB, which leaves when it is
/// full, when nothing is under way any more, or after 20 ms. Up to 8 calls are under way at the same time.
///
/// What the queue fails to take is tried again, that alone, until the [time](Self::time) is over. It may have it all
/// the same, when only the answer was lost: a message is on the queue at least once. A FIFO queue drops what comes
/// again within 5 minutes.
///
/// Messages of one request for one audience stay in order, on a FIFO queue those of one recipient: the next leaves
/// when the one before has ended, one in each call. A standard queue keeps no order itself; on one, messages that
/// were sent side by side, without waiting for the first, may share a call, of which SQS may take the second and
/// fail the first.
///
/// At most 16 MiB are being sent; beyond, [`send`](Self::send) waits for room. Nothing goes on in the background:
/// the futures that [`send`](Self::send) returns do all the work. One that is dropped gives its message up, which may
/// be on the queue or not. One that is neither polled nor dropped keeps its message's room, and what is behind the
/// message in its order waits; everything else goes on.
///
/// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/using-messagededuplicationid-property.html>.
#[derive(Clone)]
pub struct Producer {
    outbox: Arc<Outbox>,
    pub(crate) time: Duration,
}

/// Why the queue does not have the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// A message for a tenant, and a FIFO queue.
    #[error("a FIFO queue takes no message for a tenant, which has no order: send it to a standard queue")]
    TenantOnFifo,
    /// The queue refused the message or the call, and would refuse it again.
    #[error("the queue refused the message: {code}: {message}")]
    Refused {
        /// SQS's code for why, such as `InvalidMessageContents` or `AccessDenied`.
        code: String,
        /// What it said.
        message: String,
    },
    /// The queue did not take the message in time; whether it has it may be unknown.
    #[error("the queue did not take the message within {time:?}: {cause}; send it again with the same id")]
    OutOfTime {
        /// The time that it had.
        time: Duration,
        /// What kept it.
        cause: String,
    },
    /// The producer was closed before.
    #[error("the producer is closed: send through another one")]
    Closed,
}

/// Some messages of many are not on the queue; the others are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} of {total} messages are not on the queue; the first: {}", unsent.len(), first(unsent))]
pub struct SendAllError {
    /// Messages that there were.
    pub total: usize,
    /// Those that are not, or not for all their recipients, on the queue, in the order in which they came.
    pub unsent: Vec<Unsent>,
}

/// A message that is not on the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsent {
    /// Which.
    pub id: MessageId,
    /// Why.
    pub error: SendError,
}

/// Without what it is sending, which may be confidential.
impl fmt::Debug for Producer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Producer").field("time", &self.time).finish_non_exhaustive()
    }
}

fn first(unsent: &[Unsent]) -> String {
    unsent.first().map(|unsent| format!("{}: {}", unsent.id, unsent.error)).unwrap_or_default()
}

impl Producer {
    /// A producer for the queue at `queue_url`, on a client that the program has. Its region, credentials and HTTP
    /// client are the client's; retries are the producer's own.
    #[must_use]
    pub fn new(client: &Client, queue_url: impl Into<String>) -> Self {
        Self { outbox: Outbox::new(client, queue_url.into()), time: TIME }
    }

    /// A producer for the queue at `queue_url`, on a client of its own: region and credentials are those of
    /// the environment.
    pub async fn connect(queue_url: impl Into<String>) -> Self {
        Self::new(&Client::new(&aws::load().await), queue_url)
    }

    /// The same producer with another time that a call of [`send`](Self::send) or [`send_all`](Self::send_all) may
    /// take, with all its tries; 10 s by default. In Lambda, give a clone what is left of the invocation.
    #[must_use]
    pub fn time(self, time: Duration) -> Self {
        Self { time, ..self }
    }

    /// Puts a message on the queue. `Ok` means that the queue has it, for all its recipients.
    ///
    /// # Errors
    /// [`SendError`]. Where only some recipients' messages are on the queue it is an error, too: who sends the
    /// message again with the same id reaches nobody twice, where the payload holds the id.
    pub async fn send(&self, message: Message) -> Result<(), SendError> {
        let is_fifo = self.outbox.is_fifo();
        check(&message, is_fifo)?;
        let mut outcome = Ok(());
        let failed = |(), error| outcome = Err(error);
        self.outbox.send(entries(message, is_fifo).map(|entry| ((), entry)), self.time, failed).await;
        outcome
    }

    /// Puts messages on the queue, all within the producer's [time](Self::time): of many thousands, give it more.
    /// `Ok` means that the queue has them all.
    ///
    /// # Errors
    /// [`SendAllError`] names those that are not on the queue.
    pub async fn send_all(&self, messages: impl IntoIterator<Item = Message>) -> Result<(), SendAllError> {
        let messages: Vec<_> = messages.into_iter().collect();
        let is_fifo = self.outbox.is_fifo();
        let mut unsent: Vec<_> = messages.iter().map(|message| check(message, is_fifo).err()).collect();
        let ids: Vec<_> = messages.iter().map(|message| message.id().clone()).collect();
        let good = messages.into_iter().enumerate().filter(|(_, message)| check(message, is_fifo).is_ok());
        let of_each =
            good.flat_map(|(place, message)| entries(message, is_fifo).map(move |entry| (place, entry)));
        self.outbox.send(of_each, self.time, |place, error| unsent[place] = Some(error)).await;
        let total = ids.len();
        let unsent = ids.into_iter().zip(unsent).filter_map(|(id, error)| Some(Unsent { id, error: error? }));
        let unsent: Vec<_> = unsent.collect();
        if unsent.is_empty() { Ok(()) } else { Err(SendAllError { total, unsent }) }
    }

    /// A handle for the progress of one request: see [`Progress`].
    ///
    /// # Errors
    /// [`MessageError`] for a builder that names no request, or anything that is not valid.
    pub fn progress(&self, to: MessageBuilder) -> Result<Progress, MessageError> {
        Progress::new(self.clone(), to)
    }

    /// Refuses every later message, and waits until those that are being sent have ended, each within its time, or
    /// have been dropped. It closes all clones.
    pub async fn close(&self) {
        self.outbox.close().await;
    }
}
