//! How a pair of a message and a connection ends.

use std::fmt;

use streamer_message::ConnectionId;

/// How a pair of a message and a connection ends. Each ends in exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// API Gateway has accepted the message; the client need not have read it yet.
    Delivered,
    /// The connection no longer exists, and neither does its row.
    Gone,
    /// The message was past its `expires_at` when its turn came.
    Expired,
    /// The message goes back to the queue, and is tried again.
    HandedBack(Cause),
}

/// Why a message goes back to the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// API Gateway's answer was this status, which says nothing about the connection.
    Status(u16),
    /// No answer in time.
    Timeout,
    /// No answer: no connection to API Gateway, or one that broke.
    Connection(String),
    /// The invocation's time is up.
    Deadline,
    /// API Gateway does not know the connection, which is so young that it may not know it yet.
    ConnectGrace,
    /// The connection is gone, but its row could not be removed.
    Table(String),
    /// An earlier message for the same connection was handed back, and this one must not overtake it.
    Behind,
    /// The message is for an audience that this worker does not serve.
    Audience,
}

/// A pair's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The message's place in the batch.
    pub message: usize,
    /// The connection; none where the audience was not expanded.
    pub connection: Option<ConnectionId>,
    /// How it ended.
    pub outcome: Outcome,
    /// How long API Gateway took to answer, and how old the message was then.
    pub latency: Option<Latency>,
}

/// How long a delivery took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// From the post to API Gateway's answer.
    pub post: std::time::Duration,
    /// From the message's making to API Gateway's answer.
    pub delivery: Option<std::time::Duration>,
}

impl Outcome {
    /// Whether the pair needs nothing more.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Delivered | Self::Gone | Self::Expired => true,
            Self::HandedBack(_) => false,
        }
    }

    /// Its name in logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Gone => "gone",
            Self::Expired => "expired",
            Self::HandedBack(_) => "handed_back",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(formatter, "{status}"),
            Self::Timeout => formatter.write_str("timeout"),
            Self::Connection(error) => write!(formatter, "connection: {error}"),
            Self::Deadline => formatter.write_str("deadline"),
            Self::ConnectGrace => formatter.write_str("410 within the connect grace"),
            Self::Table(error) => write!(formatter, "row not removed: {error}"),
            Self::Behind => formatter.write_str("behind a message that was handed back"),
            Self::Audience => formatter.write_str("audience not served"),
        }
    }
}
