//! The end of a timeout.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::SendError;

/// Used where the clock cannot represent the end of the timeout: 30 years.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// The time by which messages must be on the queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    pub at: Instant,
    timeout: Duration,
}

impl Deadline {
    /// Returns the deadline of a timeout that begins now.
    pub(crate) fn after(timeout: Duration) -> Self {
        let now = Instant::now();
        Self { at: now.checked_add(timeout).unwrap_or(now + NEVER), timeout }
    }

    /// Returns the error for a message that is not on the queue at the deadline.
    pub(crate) fn timed_out(self, cause: &str) -> SendError {
        SendError::TimedOut { timeout: self.timeout, cause: cause.to_owned() }
    }
}
