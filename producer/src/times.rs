//! Times of messages: their expiry, and their sequence numbers.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use streamer_message::EARLIEST_TIME;

use crate::error::MessageError;

/// Latest expiry in milliseconds since the epoch: the end of the year 9999. Later times would look like a time in
/// microseconds.
const NEVER: u64 = 253_402_300_799_999;

/// When a message expires.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expiry {
    /// This long after the message was built.
    In(Duration),
    At(SystemTime),
}

impl Expiry {
    /// Returns the milliseconds since the epoch at which a message expires that is built `now`.
    pub(crate) fn millis(self, now: Duration) -> Result<u64, MessageError> {
        let time = match self {
            Self::In(duration) => now.saturating_add(duration),
            Self::At(time) => since_epoch(time),
        };
        match as_millis(time).min(NEVER) {
            millis @ 0..EARLIEST_TIME => Err(MessageError::Expiry { millis }),
            millis => Ok(millis),
        }
    }
}

/// Returns the time since the epoch, zero before it.
pub(crate) fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn as_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the clock in microseconds, or the previous result of this process plus 1 if that is later: the clock may
/// stand still between two calls, or be set back.
pub(crate) fn next_seq(now: Duration) -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
    let next = |last: u64| now.max(last.saturating_add(1));
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
    next(last.unwrap_or_else(|last| last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;

    #[test]
    fn seq_increases_even_if_clock_goes_back() {
        let clock = Duration::from_secs(4_000_000_000);
        let seqs = [clock, clock, clock / 2, clock + Duration::from_micros(1)].map(next_seq);
        assert!(seqs.is_sorted_by(|one, next| one < next), "{seqs:?}");
    }

    #[test]
    fn expiry_counts_from_now_in_milliseconds() {
        let message = Message::connection("c").expires_in(Duration::from_secs(60)).payload(&1).unwrap();
        let now = as_millis(since_epoch(SystemTime::now()));
        assert!((now + 59_000..=now + 60_000).contains(&message.expires_at.unwrap()));
        let forever = Message::connection("c").expires_in(Duration::MAX).payload(&1).unwrap();
        assert_eq!(forever.expires_at, Some(253_402_300_799_999));
    }
}
