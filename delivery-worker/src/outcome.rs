//! Outcomes of pairs, and their causes.

use std::{fmt, time::Duration};

use streamer_message::{ConnectionId, Parts, dead_letter::Reason};

use crate::{admission::OpenCircuit, decode::Poison};

/// The outcome of a pair of a message and a connection. Each pair has exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// API Gateway has accepted the message; the client need not have read it yet.
    Delivered,
    /// The connection does not exist any more. Its row was removed.
    Gone,
    /// The message was past its `expires_at` before it was posted.
    Expired,
    /// The batch holds a later message of the same request for the same connection.
    Superseded,
    /// The audience has no live connection.
    NoRecipient,
    /// The mailbox has the message, and no device of the user got it live.
    Kept,
    /// The audience is large. Further messages on the queue replace this one.
    Expanded,
    /// No attempt can succeed. The message becomes a dead letter.
    Rejected(Rejection),
    /// The record has no valid message. Its body becomes a dead letter, unchanged.
    Poison(Poison),
    /// The message was retried for too long. It becomes a dead letter.
    Exhausted(Cause),
    /// The message is not finished and is handed back to the queue.
    HandedBack(Cause),
}

/// Why no attempt to deliver a message can succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The payload is larger than the worker posts. It was not posted.
    Payload {
        /// Its size.
        bytes: usize,
        /// The maximum size.
        limit: usize,
    },
    /// API Gateway answered with this status and this body.
    Status(u16, String),
    /// The audience is a tenant, which a FIFO queue does not support.
    Audience,
    /// The audience is a user or a tenant, and the worker has no connection table.
    NoTable,
    /// The payload is larger than can be kept. It was neither stored nor posted.
    KeptPayload {
        /// Its size.
        bytes: usize,
        /// The maximum size.
        limit: usize,
    },
    /// The message is to be kept, and the worker has no mailbox.
    NoMailbox,
}

/// Why a message is handed back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// API Gateway answered with this status, which does not concern the connection.
    Status(u16),
    /// API Gateway did not answer in time.
    Timeout,
    /// The connection to API Gateway could not be opened, or broke.
    Connection(String),
    /// The shared connection to API Gateway was lost. Another post on it counts as the failure.
    ConnectionLost(String),
    /// The circuit is open: the management endpoint fails.
    CircuitOpen(OpenCircuit),
    /// The invocation's time is over.
    Deadline,
    /// API Gateway does not know the connection, which may not be established yet.
    ConnectGrace,
    /// The user has no live connection, but may be reconnecting.
    Away,
    /// The audience is connected only at this endpoint, which is not the worker's.
    Elsewhere(String),
    /// A call to the connection table failed.
    Table(String),
    /// A call to the mailbox failed.
    Mailbox(String),
    /// SQS did not confirm all messages of a fan-out.
    Unconfirmed,
    /// An earlier message was handed back. This one must not overtake it.
    Behind,
    /// The worker panicked. The record is reported unchanged.
    Panic,
    /// Unknown: messages that stay on a FIFO queue carry no note of the cause.
    UnknownOnFifo,
}

/// A pair with its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completed {
    /// The record's index in the batch.
    pub index: usize,
    /// The connection. `None` if the message completed before its audience was resolved.
    pub connection: Option<ConnectionId>,
    /// The outcome.
    pub outcome: Outcome,
    /// How many times it was posted.
    pub posts: u32,
    /// The message's age when API Gateway accepted it.
    pub age: Option<Duration>,
    /// The last connection of a large audience up to which all have their messages.
    pub after: Option<ConnectionId>,
    /// The messages for parts of a large audience that are on the queue.
    pub parts: Option<Parts>,
}

impl Completed {
    /// Returns a pair that completed without a post.
    #[must_use]
    pub fn unposted(index: usize, connection: Option<ConnectionId>, outcome: Outcome) -> Self {
        Self { index, connection, outcome, posts: 0, age: None, after: None, parts: None }
    }
}

impl Outcome {
    /// Returns whether the pair needs neither a dead letter nor a retry.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Delivered
            | Self::Gone
            | Self::Expired
            | Self::Superseded
            | Self::NoRecipient
            | Self::Kept
            | Self::Expanded => true,
            Self::Rejected(_) | Self::Poison(_) | Self::Exhausted(_) | Self::HandedBack(_) => false,
        }
    }

    /// Returns the detail of its dead letter, if it needs one.
    #[must_use]
    pub fn dead_letter_detail(&self) -> Option<String> {
        match self {
            Self::Rejected(Rejection::Status(status, body)) => Some(format!("{status}: {body}")),
            Self::Rejected(rejection) => Some(rejection.to_string()),
            Self::Poison(error) => Some(error.to_string()),
            Self::Exhausted(cause) => Some(cause.to_string()),
            Self::Delivered
            | Self::Gone
            | Self::Expired
            | Self::Superseded
            | Self::NoRecipient
            | Self::Kept
            | Self::Expanded
            | Self::HandedBack(_) => None,
        }
    }

    /// Returns its name in logs, which is also the reason of its dead letter.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Gone => "gone",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
            Self::NoRecipient => "no_recipient",
            Self::Kept => "kept",
            Self::Expanded => "expanded",
            Self::Rejected(_) => Reason::Rejected.as_str(),
            Self::Poison(_) => Reason::Poison.as_str(),
            Self::Exhausted(_) => Reason::Exhausted.as_str(),
            Self::HandedBack(_) => "handed_back",
        }
    }
}

/// The text of [`Cause::Elsewhere`] before and after the endpoint.
const ELSEWHERE: (&str, &str) =
    ("connected at ", " only: if that is the worker's own API, add it to WEBSOCKET_ENDPOINT_ALIASES");

impl Cause {
    /// Parses the text of [`Self::Elsewhere`], which is at the end of a cause that was handed back for it before.
    #[must_use]
    pub fn elsewhere(text: &str) -> Option<Self> {
        let (_, endpoint) = text.strip_suffix(ELSEWHERE.1)?.rsplit_once(ELSEWHERE.0)?;
        Some(Self::Elsewhere(endpoint.to_owned()))
    }

    /// Returns whether a hand-back for this cause shows a fault. It is normal to wait for a client that is connecting or
    /// may come back. For [`Self::Elsewhere`] there is a metric of its own.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        match self {
            Self::ConnectGrace | Self::Away | Self::Elsewhere(_) => false,
            Self::Status(_)
            | Self::Timeout
            | Self::Connection(_)
            | Self::ConnectionLost(_)
            | Self::CircuitOpen(_)
            | Self::Deadline
            | Self::Table(_)
            | Self::Mailbox(_)
            | Self::Unconfirmed
            | Self::Behind
            | Self::Panic
            | Self::UnknownOnFifo => true,
        }
    }

    /// Returns whether an immediate retry may succeed. A throttled client or account needs more time, and waiting on
    /// the queue is free, while waiting in a Lambda function is billed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Status(status) => (500..600).contains(status),
            Self::Timeout | Self::Connection(_) | Self::ConnectionLost(_) => true,
            Self::CircuitOpen(_)
            | Self::Deadline
            | Self::ConnectGrace
            | Self::Away
            | Self::Elsewhere(_)
            | Self::Table(_)
            | Self::Mailbox(_)
            | Self::Unconfirmed
            | Self::Behind
            | Self::Panic
            | Self::UnknownOnFifo => false,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(formatter, "{status}"),
            Self::Timeout => formatter.write_str("timeout"),
            Self::Connection(error) | Self::ConnectionLost(error) => write!(formatter, "connection: {error}"),
            Self::CircuitOpen(_) => formatter.write_str("circuit open"),
            Self::Deadline => formatter.write_str("deadline"),
            Self::ConnectGrace => formatter.write_str("410 within the connect grace"),
            Self::Away => formatter.write_str("user away"),
            Self::Elsewhere(endpoint) => write!(formatter, "{}{endpoint}{}", ELSEWHERE.0, ELSEWHERE.1),
            Self::Table(error) | Self::Mailbox(error) => formatter.write_str(error),
            Self::Unconfirmed => formatter.write_str("a part of the audience is not on the queue"),
            Self::Behind => formatter.write_str("behind a message that was handed back"),
            Self::Panic => formatter.write_str("the worker panicked"),
            Self::UnknownOnFifo => formatter.write_str("unknown, a FIFO queue keeps none"),
        }
    }
}

/// Omits the body of the answer, which only the dead letter holds.
impl fmt::Display for Rejection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload { bytes, limit } => {
                write!(formatter, "the payload has {bytes} bytes, at most {limit} are posted")
            }
            Self::Status(status, _) => write!(formatter, "{status}"),
            Self::NoTable => formatter.write_str(
                "no connection table is configured, so only messages for connections are delivered: set CONNECTIONS_TABLE",
            ),
            Self::KeptPayload { bytes, limit } => {
                write!(formatter, "the payload has {bytes} bytes, at most {limit} can be kept: send it without `keep`, or a reference to it")
            }
            Self::NoMailbox => {
                formatter.write_str("no mailbox is configured, so no message can be kept: set MAILBOX_TABLE")
            }
            Self::Audience => formatter.write_str(
                "a FIFO queue takes no message for a tenant, which has no order: send it to a standard queue",
            ),
        }
    }
}
