//! Receipts: the outcome of a message, for its producer.

mod event;
mod request;
mod tally;

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    audience::Audience,
    id::{ConnectionId, MessageId},
    number,
    outbound::{Request, Version},
    position::Position,
};

#[doc(hidden)]
pub use event::encode;
pub use event::{ReceiptError, ReceiptEvent};
pub use request::ReceiptRequest;
#[doc(hidden)]
pub use request::is_part_name;
pub use tally::ReceiptTally;

/// The end of the year 9999, in milliseconds since the epoch.
const LATEST: u64 = 253_402_300_799_999;

/// The end of the name of the part for the rest of an audience.
const REST: &str = "rest";

/// The number of connections for each outcome.
pub type OutcomeCounts = BTreeMap<ReceiptOutcome, u64>;

/// The outcome of a message whose producer asked for a receipt.
///
/// A message for a large audience becomes several messages, its *parts*. Each part has a receipt of its own, and a
/// receipt with [`parts`](Self::parts) names them. [`ReceiptTally`] adds them up.
///
/// Receipts arrive at least once, and in any order. Two receipts of one deployment are about the same thing if `id`,
/// `part` and `connection` are equal; the [better](Self::is_better_than) one counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(clippy::exhaustive_structs, reason = "the worker, the handler of the mailbox and the tests build it")]
pub struct Receipt {
    /// The version of the receipt: 1.
    pub version: Version,
    /// The id of the message.
    pub id: MessageId,
    /// The time of the outcome, in milliseconds since the epoch.
    #[serde(deserialize_with = "number::whole")]
    pub at: u64,
    /// The outcome. If connections differ, the best one: a message that one of a user's connections got is delivered.
    pub outcome: ReceiptOutcome,
    /// The recipients. After a retry of a message for several connections, those that were unfinished before it. Absent
    /// if they could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Audience>,
    /// The number of connections for each outcome, over all attempts. Empty if the message met no connection.
    #[serde(default)]
    pub connections: OutcomeCounts,
    /// The connection whose client has handled the message. Only for `acknowledged`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionId>,
    /// The position of a kept message in its user's stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Position>,
    /// The number of times that workers received the message. Absent for `acknowledged`.
    #[serde(default, deserialize_with = "number::optional_whole", skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Why the message, or a part of its connections, was rejected, exhausted or poison.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The request that the message belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    /// The name of the part that the receipt is about: `1/3` for the first of three bodies that the producer sent, or a
    /// name from [`parts`](Self::parts). Absent for the whole message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// The parts that the message became, each with a receipt of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Parts>,
}

/// The parts of a message: `count` parts with the names `{prefix}.0`, `{prefix}.1` and so on, and with `rest` one more,
/// `{prefix}.rest`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(clippy::exhaustive_structs, reason = "the worker builds it")]
pub struct Parts {
    /// The beginning of each name. Different for each attempt to split a message.
    pub prefix: String,
    /// The number of numbered parts.
    #[serde(deserialize_with = "number::whole")]
    pub count: u64,
    /// Whether there is a part for the rest of the audience, which could not be read to its end at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rest: bool,
}

impl Receipt {
    /// Returns whether the receipt replaces another one about the same message, part and connection: it has the better
    /// outcome, or the same with better counts, or it is later. Of receipts that are equal in these, it is always the
    /// same one, so the order in which they are read does not matter.
    #[must_use]
    pub fn is_better_than(&self, other: &Self) -> bool {
        let counts = |receipt: &Self| {
            ReceiptOutcome::ALL.map(|outcome| receipt.connections.get(&outcome).copied().unwrap_or_default())
        };
        let rank = |receipt: &Self| (Reverse(receipt.outcome), counts(receipt), receipt.at, receipt.attempts);
        let text = |receipt: &Self| serde_json::to_string(receipt).unwrap_or_default();
        rank(self).cmp(&rank(other)).then_with(|| text(self).cmp(&text(other))).is_gt()
    }

    /// Returns the time of the outcome, at most the end of the year 9999, the latest that a date can show.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.at.min(LATEST))
    }
}

impl Parts {
    /// Returns the name of the part with this number, from 0.
    #[must_use]
    pub fn name(&self, number: u64) -> String {
        format!("{}.{number}", self.prefix)
    }

    /// Returns the name of the part for the rest of the audience.
    #[must_use]
    pub fn rest_name(&self) -> String {
        format!("{}.{REST}", self.prefix)
    }
}

/// The outcome in a receipt, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub enum ReceiptOutcome {
    /// A client has handled a kept message, and said so. The receipt names its connection.
    Acknowledged,
    /// API Gateway accepted the message for a connection.
    Delivered,
    /// The mailbox has the message, and no device got it live.
    Kept,
    /// The audience is large: the message became parts.
    Expanded,
    /// The message was retried for too long and is a dead letter.
    Exhausted,
    /// No attempt can succeed, and the message is a dead letter.
    Rejected,
    /// The body was not a valid message and is a dead letter.
    Poison,
    /// The message was past its `expires_at` before it was posted.
    Expired,
    /// A later message of the same request replaced it.
    Superseded,
    /// The connection does not exist any more.
    Gone,
    /// The audience has no live connection.
    NoRecipient,
}

impl ReceiptOutcome {
    /// Every outcome.
    pub const ALL: [Self; 11] = [
        Self::Acknowledged,
        Self::Delivered,
        Self::Kept,
        Self::Expanded,
        Self::Exhausted,
        Self::Rejected,
        Self::Poison,
        Self::Expired,
        Self::Superseded,
        Self::Gone,
        Self::NoRecipient,
    ];

    /// Returns the outcome as receipts hold it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::Delivered => "delivered",
            Self::Kept => "kept",
            Self::Expanded => "expanded",
            Self::Exhausted => "exhausted",
            Self::Rejected => "rejected",
            Self::Poison => "poison",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
            Self::Gone => "gone",
            Self::NoRecipient => "no_recipient",
        }
    }

    /// Returns whether the message has reached a client or the mailbox.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Acknowledged | Self::Delivered | Self::Kept)
    }

    /// Returns whether a receipt with this outcome replaces an earlier one about the same message, part and connection.
    /// A message that SQS delivers twice, or that is redriven, may end in two ways, and what a client has got counts.
    #[must_use]
    pub fn is_better_than(self, other: Self) -> bool {
        self < other
    }
}

impl fmt::Display for ReceiptOutcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn names_on_the_wire_are_fixed() {
        for outcome in ReceiptOutcome::ALL {
            assert_eq!(serde_json::to_value(outcome).unwrap(), Value::from(outcome.as_str()));
            assert_eq!(serde_json::from_value::<ReceiptOutcome>(outcome.as_str().into()).unwrap(), outcome);
        }
        assert!(ReceiptOutcome::ALL.is_sorted(), "from the best to the worst");
    }

    #[test]
    fn success_is_better_than_failure() {
        let (successes, failures): (Vec<_>, Vec<_>) =
            ReceiptOutcome::ALL.into_iter().partition(|outcome| outcome.is_success());
        for success in successes {
            assert!(failures.iter().all(|failure| success.is_better_than(*failure)));
            assert!(!success.is_better_than(success));
        }
    }

    #[test]
    fn receipts_round_trip() {
        let receipt = json!({
            "version": 1, "id": "order-7", "at": 1_764_000_000_000_u64, "outcome": "delivered",
            "to": {"user": {"tenant": "acme", "user": "anna"}}, "connections": {"delivered": 2, "gone": 1},
            "kept": {"epoch": "e.0", "seq": 42}, "attempts": 1, "cause": "503",
            "request": {"id": "req_1", "seq": 9}, "part": "9f3c.0", "parts": {"prefix": "ab", "count": 2, "rest": true},
            "connection": "L0SM9cOFvHcCIhw=",
        });
        let read: Receipt = serde_json::from_value(receipt.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), receipt);
        let parts = read.parts.unwrap();
        assert_eq!((parts.name(1), parts.rest_name()), ("ab.1".to_owned(), "ab.rest".to_owned()));
        let small = json!({"version": 1, "id": "m", "at": 1, "outcome": "gone", "connections": {}});
        let read: Receipt = serde_json::from_value(small.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), small);
    }
}
