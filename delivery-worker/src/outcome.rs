//! How a pair of a message and a connection ends.

use std::{fmt, time::Duration};

use streamer_message::{ConnectionId, DecodeError, dead_letter::Reason, limits::PAYLOAD_BYTES};

/// How a pair of a message and a connection ends. Each ends in exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// API Gateway has accepted the message; the client need not have read it yet.
    Delivered,
    /// The connection no longer exists, and neither does its row.
    Gone,
    /// The message was past its `expires_at` when its turn came.
    Expired,
    /// A later message of the same request for the same connection makes it worthless, and is in the batch.
    Superseded,
    /// Nobody of the audience is there.
    NoRecipient,
    /// The audience is large: messages for its parts are on the queue in the message's place.
    Expanded,
    /// No later try will be accepted: the message goes to the dead-letter queue.
    Rejected(Rejection),
    /// The body is no message: it goes to the dead-letter queue as it is.
    Poison(DecodeError),
    /// The message was tried for too long: it goes to the dead-letter queue.
    Exhausted(Cause),
    /// The message goes back to the queue, and is tried again.
    HandedBack(Cause),
}

/// Why no later try will be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The payload has more bytes than API Gateway delivers. It was not posted.
    Payload(usize),
    /// API Gateway's answer was this status, with this body.
    Status(u16, String),
    /// The message is for a tenant, and the queue is a FIFO queue.
    Audience,
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
    /// The same, and another post on the same connection counts as the failure.
    ConnectionLost(String),
    /// The circuit is open for so long: the management endpoint fails.
    CircuitOpen(Duration),
    /// The invocation's time is up.
    Deadline,
    /// API Gateway does not know the connection, which is so young that it may not know it yet.
    ConnectGrace,
    /// The user has no live connection, but may be reconnecting.
    Away,
    /// The audience is connected at this endpoint only, which is not the worker's.
    Elsewhere(String),
    /// The connection table did not do what it was asked.
    Table(String),
    /// The queue did not confirm the messages for a part of the audience.
    Unconfirmed,
    /// An earlier message was handed back, and this one must not overtake it.
    Behind,
    /// The worker's own fault: the message is reported as it is.
    Panic,
    /// Whatever it was: nothing is noted on the messages of a FIFO queue.
    Unnoted,
}

/// A pair's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The record's place in the batch.
    pub place: usize,
    /// The connection; none where the message ended before it came to one.
    pub connection: Option<ConnectionId>,
    /// How it ended.
    pub outcome: Outcome,
    /// How often it was posted.
    pub posts: u32,
    /// How old the message was when API Gateway accepted it.
    pub age: Option<Duration>,
    /// Up to which connection a large audience has its messages.
    pub after: Option<ConnectionId>,
}

impl Ended {
    /// A pair that ended without a post.
    #[must_use]
    pub fn unposted(place: usize, connection: Option<ConnectionId>, outcome: Outcome) -> Self {
        Self { place, connection, outcome, posts: 0, age: None, after: None }
    }
}

impl Outcome {
    /// Whether the pair needs nothing more: no dead letter, and no other try.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Delivered
            | Self::Gone
            | Self::Expired
            | Self::Superseded
            | Self::NoRecipient
            | Self::Expanded => true,
            Self::Rejected(_) | Self::Poison(_) | Self::Exhausted(_) | Self::HandedBack(_) => false,
        }
    }

    /// What its dead letter says, if it needs one.
    #[must_use]
    pub fn dead_letter(&self) -> Option<String> {
        match self {
            Self::Rejected(Rejection::Status(status, said)) => Some(format!("{status}: {said}")),
            Self::Rejected(rejection) => Some(rejection.to_string()),
            Self::Poison(error) => Some(error.to_string()),
            Self::Exhausted(cause) => Some(cause.to_string()),
            Self::Delivered
            | Self::Gone
            | Self::Expired
            | Self::Superseded
            | Self::NoRecipient
            | Self::Expanded
            | Self::HandedBack(_) => None,
        }
    }

    /// Its name, in logs and as a dead letter's reason.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Gone => "gone",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
            Self::NoRecipient => "no_recipient",
            Self::Expanded => "expanded",
            Self::Rejected(_) => Reason::Rejected.as_str(),
            Self::Poison(_) => Reason::Poison.as_str(),
            Self::Exhausted(_) => Reason::Exhausted.as_str(),
            Self::HandedBack(_) => "handed_back",
        }
    }
}

/// Around the endpoint in the text of [`Cause::Elsewhere`].
const ELSEWHERE: (&str, &str) =
    ("connected at ", " only: if that is the worker's own API, add it to WEBSOCKET_ENDPOINT_ALIASES");

impl Cause {
    /// Reads back the text of [`Self::Elsewhere`], with which the cause of a message ends that was handed back for it once.
    #[must_use]
    pub fn elsewhere(text: &str) -> Option<Self> {
        let (_, endpoint) = text.strip_suffix(ELSEWHERE.1)?.rsplit_once(ELSEWHERE.0)?;
        Some(Self::Elsewhere(endpoint.to_owned()))
    }

    /// Whether another try at once may do better. A client or an account that is throttled needs more time,
    /// and waiting on the queue is free, while waiting in a Lambda is billed.
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
            | Self::Unconfirmed
            | Self::Behind
            | Self::Panic
            | Self::Unnoted => false,
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
            Self::Table(error) => formatter.write_str(error),
            Self::Unconfirmed => formatter.write_str("a part of the audience is not on the queue"),
            Self::Behind => formatter.write_str("behind a message that was handed back"),
            Self::Panic => formatter.write_str("the worker panicked"),
            Self::Unnoted => formatter.write_str("unknown, a FIFO queue keeps none"),
        }
    }
}

/// Without the answer's body: that stands in the dead letter.
impl fmt::Display for Rejection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload(bytes) => {
                write!(formatter, "the payload has {bytes} bytes, API Gateway delivers {PAYLOAD_BYTES}")
            }
            Self::Status(status, _) => write!(formatter, "{status}"),
            Self::Audience => formatter.write_str(
                "a FIFO queue takes no message for a tenant, which has no order: send it to a standard queue",
            ),
        }
    }
}
