//! Errors of building and sending messages. [`EndError`](crate::EndError) is beside the handle that it returns.

use std::time::Duration;

use streamer_message::{InvalidId, MessageId, PayloadError, Percent, PercentOutOfRange};

/// Why a message cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// An id is empty or too long.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// The message has no recipient.
    #[error("the message has no recipient: name at least one connection")]
    NoRecipient,
    /// Progress without a request.
    #[error("progress belongs to a request: name it with `request`")]
    NoRequest,
    /// Progress over 100 percent.
    #[error(transparent)]
    Percent(#[from] PercentOutOfRange),
    /// The payload is not JSON, or is too large.
    #[error(transparent)]
    Payload(#[from] PayloadError),
}

/// Why a message is not on the queue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The message is for a tenant, and the queue is a FIFO queue.
    #[error(
        "a FIFO queue takes no message for a tenant, because such a message has no order: \
         send it to a standard queue"
    )]
    TenantOnFifo,
    /// The queue refused the message or the call, and would refuse it again.
    #[error("the queue refused the message: {code}: {message}")]
    Refused {
        /// SQS's error code, such as `InvalidMessageContents` or `AccessDenied`.
        code: String,
        /// SQS's error message.
        message: String,
    },
    /// The queue did not confirm the message in time. The message may be on the queue.
    #[error(
        "the queue did not confirm the message within {timeout:?}: {cause}; send it again with the same id"
    )]
    TimedOut {
        /// The producer's timeout.
        timeout: Duration,
        /// The last failure, or the reason why the message has not left.
        cause: String,
    },
    /// The producer was closed before.
    #[error("the producer is closed: send through another one")]
    Closed,
}

/// Some of many messages are not on the queue; the others are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} of {total} messages are not on the queue; the first: {}", unsent.len(), first(unsent))]
#[non_exhaustive]
pub struct SendAllError {
    /// Number of messages passed to [`send_all`](crate::Producer::send_all).
    pub total: usize,
    /// The messages that are not on the queue for all their recipients, in the order in which they were passed.
    pub unsent: Vec<Unsent>,
}

/// A message that is not on the queue for all its recipients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("message {id} is not on the queue")]
#[non_exhaustive]
pub struct Unsent {
    /// The message's id.
    pub id: MessageId,
    /// Why it is not on the queue.
    #[source]
    pub error: SendError,
}

/// Why an update or an end of [`Progress`](crate::Progress) is not on the queue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgressError {
    /// Over 100 percent.
    #[error(transparent)]
    Percent(#[from] PercentOutOfRange),
    /// Less than before.
    #[error("progress cannot go backwards: it was at {} percent, got {}", from.get(), to.get())]
    Backwards {
        /// The highest percentage so far.
        from: Percent,
        /// The percentage of this update.
        to: Percent,
    },
    /// The message cannot be built.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The queue does not have the message.
    #[error(transparent)]
    Send(#[from] SendError),
}

fn first(unsent: &[Unsent]) -> String {
    unsent.first().map(|unsent| format!("{}: {}", unsent.id, unsent.error)).unwrap_or_default()
}
