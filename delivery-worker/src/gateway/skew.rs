//! How far this machine's clock is from the service's.
//!
//! A signature holds its time, and API Gateway answers 403 where that is off by more than 5 min. Then `Date` says what
//! time it is.
//!
//! Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/signature-v4-troubleshooting.html>.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime},
};

use aws_smithy_types::date_time::{DateTime, Format};

/// Signatures that differ from `Date` by less were not refused for their time.
const TOLERATED: Duration = Duration::from_secs(4 * 60);

/// Seconds that the service's clock is ahead of this machine's.
#[derive(Debug, Default)]
pub struct Skew(AtomicI64);

impl Skew {
    /// Returns the service's time when this machine's clock shows `wall`.
    #[must_use]
    pub fn correct(&self, wall: SystemTime) -> SystemTime {
        let seconds = self.0.load(Ordering::Relaxed);
        let by = Duration::from_secs(seconds.unsigned_abs());
        let corrected = if seconds < 0 { wall.checked_sub(by) } else { wall.checked_add(by) };
        corrected.unwrap_or(wall)
    }

    /// Learns from the `date` of a refusal, at `wall`, of a post that was signed at `signed_at`, and returns whether a
    /// new signature may do better. What a wrong `Date` has taught, the next refusal corrects.
    pub fn learn(&self, date: SystemTime, wall: SystemTime, signed_at: SystemTime) -> bool {
        if difference(date, signed_at).unsigned_abs() < TOLERATED.as_secs() {
            return false;
        }
        self.0.store(difference(date, wall), Ordering::Relaxed);
        true
    }
}

/// Seconds from `since` to `date`.
fn difference(date: SystemTime, since: SystemTime) -> i64 {
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match date.duration_since(since) {
        Ok(ahead) => seconds(ahead),
        Err(behind) => -seconds(behind.duration()),
    }
}

/// Reads the header `Date`; `None` where it is malformed.
pub(super) fn read_date(value: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(value).ok()?.trim();
    DateTime::from_str(text, Format::HttpDate).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_service_in_both_directions() {
        let (skew, wall) = (Skew::default(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        assert!(!skew.learn(wall + Duration::from_secs(239), wall, skew.correct(wall)));
        assert_eq!(skew.correct(wall), wall);
        for date in [wall + minutes(10), wall - minutes(10), wall + minutes(100_000), wall] {
            assert!(skew.learn(date, wall, skew.correct(wall)));
            assert_eq!(skew.correct(wall + minutes(1)), date + minutes(1));
            assert!(!skew.learn(date, wall, skew.correct(wall)), "it is known");
        }
    }

    #[test]
    fn dates_are_those_of_http() {
        let date = read_date(b" Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)));
        assert_eq!((read_date(b"yesterday"), read_date(b"\xff")), (None, None));
    }
}
