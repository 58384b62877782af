//! Errors of building and sending messages. [`EndError`](crate::EndError) is beside the handle that it returns.

use std::time::Duration;

use streamer_message::{
    DecodeError, InvalidId, InvalidKeep, MessageId, PayloadError, Percent, PercentOutOfRange,
    limits::KEPT_PAYLOAD_BYTES,
    sqs::{is_final, is_message_fault},
};

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
    /// The message is to expire before 3 March 1973.
    #[error(
        "the expiry is {millis} ms after the epoch, which looks like a number of seconds: multiply it by 1000"
    )]
    Expiry {
        /// The expiry in milliseconds since the epoch.
        millis: u64,
    },
    /// The time for which the message is to be kept is too short or too long.
    #[error(transparent)]
    Keep(#[from] InvalidKeep),
    /// The message is to be kept, and is not for a user.
    #[error("only a message to one user can be kept: address the user, or leave `keep` out")]
    KeepAudience,
    /// The message is to be kept, and its payload is too large.
    #[error(
        "the payload has {bytes} bytes, at most {KEPT_PAYLOAD_BYTES} can be kept: keep a reference to it instead"
    )]
    KeptPayload {
        /// The size of the payload in bytes.
        bytes: usize,
    },
    /// Progress without a request.
    #[error("progress belongs to a request: name it with `request`")]
    NoRequest,
    /// Progress over 100 percent.
    #[error(transparent)]
    Percent(#[from] PercentOutOfRange),
    /// The payload is not JSON, or is too large.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The text is not the body of a message.
    #[error(transparent)]
    Body(#[from] DecodeError),
    /// The body has something that only a worker writes, or a later version of this library.
    #[error("{0} does not come from a producer of this version: remove it")]
    NotOfProducer(&'static str),
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
    /// The client cannot call the queue: it has no credentials, no Region or no valid endpoint.
    #[error("the queue cannot be called: {cause}; set the client's credentials, Region and endpoint")]
    NotConfigured {
        /// The error of the client.
        cause: String,
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

impl SendError {
    /// Returns whether the queue or the client is at fault instead of the message, and permanently: every other message
    /// would fail, too, because the queue does not exist, the caller may not use it, or the client lacks its
    /// configuration. A program that sends many messages ends at such an error.
    ///
    /// ```
    /// use streamer_producer::SendError;
    ///
    /// let refused = |code: &str| SendError::Refused { code: code.to_owned(), message: String::new() };
    /// assert!(refused("AWS.SimpleQueueService.NonExistentQueue").is_queue_fault());
    /// assert!(!refused("InvalidMessageContents").is_queue_fault());
    /// ```
    #[must_use]
    pub fn is_queue_fault(&self) -> bool {
        match self {
            Self::Refused { code, message } => is_final(code, message) && !is_message_fault(code),
            Self::NotConfigured { .. } | Self::Closed => true,
            Self::TenantOnFifo | Self::TimedOut { .. } => false,
        }
    }

    /// Returns the error of a message of which two entries have failed: that of the queue, if there is one.
    pub(crate) fn of_two(first: Option<Self>, second: Self) -> Self {
        first.filter(Self::is_queue_fault).unwrap_or(second)
    }
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
