//! The message attributes of a dead letter, and the reasons that they give.
//!
//! The worker sends a dead letter with these SQS message attributes, all of type `String`. A message that SQS itself
//! moved to the dead-letter queue has none of them: its reason is [`Reason::CrashedOrThrottled`].

use std::fmt;

/// Attribute with the [`Reason`].
pub const REASON: &str = "streamer.reason";

/// Attribute with the cause: an HTTP status with API Gateway's answer, or an error text. Absent if it would be empty.
pub const DETAIL: &str = "streamer.detail";

/// Attribute with the number of attempts.
pub const ATTEMPTS: &str = "streamer.attempts";

/// Attribute with the time at which a worker first received the message, in milliseconds since the epoch.
pub const SINCE: &str = "streamer.since";

/// Why a message is on the dead-letter queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// Every attempt failed until the message was too old or had been attempted too often.
    Exhausted,
    /// No later attempt would be accepted.
    Rejected,
    /// The body is not a message.
    Poison,
    /// SQS moved the message after too many receives, without an attribute: each worker that received it crashed or
    /// was throttled.
    CrashedOrThrottled,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Exhausted, Self::Rejected, Self::Poison, Self::CrashedOrThrottled];

    /// Returns the reason as the attribute [`REASON`] holds it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Rejected => "rejected",
            Self::Poison => "poison",
            Self::CrashedOrThrottled => "crashed_or_throttled",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_wire_are_fixed() {
        assert_eq!(
            [REASON, DETAIL, ATTEMPTS, SINCE],
            ["streamer.reason", "streamer.detail", "streamer.attempts", "streamer.since"]
        );
        assert_eq!(
            Reason::ALL.map(Reason::as_str),
            ["exhausted", "rejected", "poison", "crashed_or_throttled"]
        );
    }
}
