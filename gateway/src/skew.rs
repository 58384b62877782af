//! The difference between the service's clock and this machine's.
//!
//! A signature contains the time. If that is off by more than 5 min, API Gateway answers 403, and its header `Date`
//! shows the service's time.
//!
//! Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/signature-v4-troubleshooting.html>.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime},
};

use aws_smithy_types::date_time::{DateTime, Format};

/// A signature whose time differs from `Date` by less was refused for another reason.
const TOLERATED: Duration = Duration::from_secs(4 * 60);

/// Seconds by which the service's clock is ahead of this machine's.
#[derive(Debug, Default)]
pub(crate) struct Skew(AtomicI64);

impl Skew {
    /// Returns the service's time when this machine's clock shows `wall`.
    #[must_use]
    pub(crate) fn correct(&self, wall: SystemTime) -> SystemTime {
        let seconds = self.0.load(Ordering::Relaxed);
        let by = Duration::from_secs(seconds.unsigned_abs());
        let corrected = if seconds < 0 { wall.checked_sub(by) } else { wall.checked_add(by) };
        corrected.unwrap_or(wall)
    }

    /// Learns the skew from the `date` of a 403 that arrived at `wall` for a post signed at `signed_at`, and returns
    /// whether a new signature may be accepted. If a `Date` was wrong, the next 403 corrects the skew.
    pub(crate) fn learn(&self, date: SystemTime, wall: SystemTime, signed_at: SystemTime) -> bool {
        if difference(date, signed_at).unsigned_abs() < TOLERATED.as_secs() {
            return false;
        }
        self.0.store(difference(date, wall), Ordering::Relaxed);
        true
    }
}

/// Returns the seconds from `since` to `date`.
fn difference(date: SystemTime, since: SystemTime) -> i64 {
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match date.duration_since(since) {
        Ok(ahead) => seconds(ahead),
        Err(behind) => -seconds(behind.duration()),
    }
}

/// Reads the header `Date`, or returns `None` if it is malformed.
pub(crate) fn read_date(value: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(value).ok()?.trim();
    DateTime::from_str(text, Format::HttpDate).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_service_clock_in_both_directions() {
        let (skew, wall) = (Skew::default(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        assert!(!skew.learn(wall + Duration::from_secs(239), wall, skew.correct(wall)));
        assert_eq!(skew.correct(wall), wall);
        for date in [wall + minutes(10), wall - minutes(10), wall + minutes(100_000), wall] {
            assert!(skew.learn(date, wall, skew.correct(wall)));
            assert_eq!(skew.correct(wall + minutes(1)), date + minutes(1));
            assert!(!skew.learn(date, wall, skew.correct(wall)), "the skew is known");
        }
    }

    #[test]
    fn reads_http_dates() {
        let date = read_date(b" Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)));
        assert_eq!((read_date(b"yesterday"), read_date(b"\xff")), (None, None));
    }
}
