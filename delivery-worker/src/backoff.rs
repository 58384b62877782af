//! Delays before retries: pure functions that take a random number from 0 (inclusive) to 1 (exclusive).
//!
//! Delays after failures have full jitter, from zero to the whole window, so that posts which failed together are not retried
//! together: <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>.

use std::{ops::RangeInclusive, time::Duration};

/// Maximum number of posts of one pair in one invocation.
pub const MAX_POSTS: u32 = 3;

/// Window before the first retry within an invocation.
const INITIAL_RETRY_WINDOW: Duration = Duration::from_millis(50);

/// Largest window of a hand-back, in seconds.
const MAX_HAND_BACK_WINDOW: u32 = 60;

/// Age at which a message for an absent user is tried for the second time: the index has caught up, and most clients
/// that lost their connection are back.
const SECOND_TRY: Duration = Duration::from_secs(5);

/// Time between later tries of a message for an absent user.
const AWAY_GAPS: RangeInclusive<Duration> = Duration::from_secs(30)..=Duration::from_secs(300);

/// Maximum of SQS's `DelaySeconds`.
///
/// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>.
const MAX_DELAY_SECONDS: u32 = 900;

/// Returns the delay before the in-place retry that follows `posts` posts: up to 50 ms after the first post, and up
/// to twice as long after each further one.
#[must_use]
pub fn in_place_retry(posts: u32, random: f64) -> Duration {
    INITIAL_RETRY_WINDOW.saturating_mul(2_u32.saturating_pow(posts.saturating_sub(1))).mul_f64(random)
}

/// Returns the `DelaySeconds` of a message that was handed back `count` times before: the time for which the
/// circuit is open, and up to `min(2^count, 60)` s more; at most 900 s.
#[must_use]
pub fn hand_back(count: u32, open: Duration, random: f64) -> u32 {
    let open = u32::try_from(open.as_millis().div_ceil(1000)).unwrap_or(MAX_DELAY_SECONDS);
    let window = 2_u32.saturating_pow(count).min(MAX_HAND_BACK_WINDOW);
    open.saturating_add(seconds(window, random)).min(MAX_DELAY_SECONDS)
}

/// Returns the `DelaySeconds` of a message that only waits for its user, has `waited` since its first receive and may wait
/// for the time `left`. Each try costs a receive and a query, so there are few: at 5 s, then after as long again as the
/// message has waited, from 30 s to 5 min, and at the end. Up to a tenth, at least 1 s, is added, so that no try comes
/// before its time, and messages that wait together are not tried together.
#[must_use]
pub fn away(waited: Duration, left: Duration, random: f64) -> u32 {
    let gap = match SECOND_TRY.saturating_sub(waited) {
        Duration::ZERO => waited.clamp(*AWAY_GAPS.start(), *AWAY_GAPS.end()),
        until_second => until_second,
    };
    let gap = u32::try_from(gap.min(left).as_millis().div_ceil(1000)).unwrap_or(MAX_DELAY_SECONDS);
    gap + seconds(gap.div_ceil(10), random)
}

/// Returns the `DelaySeconds` of a message that is handed back only because the invocation's time was up: up to 1 s.
#[must_use]
pub fn deadline_hand_back(random: f64) -> u32 {
    seconds(1, random)
}

/// Returns a whole number of seconds from 0 to `window`, all equally likely.
fn seconds(window: u32, random: f64) -> u32 {
    ((f64::from(window + 1) * random) as u32).min(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUST_UNDER_1: f64 = 1.0 - f64::EPSILON;
    const CLOSED: Duration = Duration::ZERO;

    #[test]
    fn in_place_window_doubles_from_50_ms() {
        assert_eq!(in_place_retry(1, 0.0), Duration::ZERO);
        assert_eq!(in_place_retry(1, 0.5), Duration::from_millis(25));
        assert!(in_place_retry(2, JUST_UNDER_1) > Duration::from_millis(99));
        assert!(in_place_retry(2, JUST_UNDER_1) <= Duration::from_millis(100));
    }

    #[test]
    fn hand_back_window_doubles_up_to_60_s() {
        let windows = [0, 1, 2, 5, 6, 40, u32::MAX].map(|count| hand_back(count, CLOSED, JUST_UNDER_1));
        assert_eq!(windows, [1, 2, 4, 32, 60, 60, 60]);
        assert_eq!(hand_back(6, CLOSED, 0.0), 0);
    }

    #[test]
    fn open_circuit_delays_up_to_900_s() {
        let open = Duration::from_millis(4001);
        assert_eq!((hand_back(0, open, 0.0), hand_back(6, open, JUST_UNDER_1)), (5, 65));
        assert_eq!(hand_back(6, Duration::from_secs(10_000), JUST_UNDER_1), 900);
        assert_eq!(hand_back(6, Duration::MAX, JUST_UNDER_1), 900);
    }

    /// Returns the ages, in seconds, at which a message for an absent user is tried in a grace of so many seconds.
    fn tries(grace: u64, random: f64) -> Vec<u64> {
        let (grace, mut tries) = (Duration::from_secs(grace), vec![0]);
        // An invocation takes a while.
        let mut waited = Duration::from_millis(20);
        while let Some(left) = grace.checked_sub(waited) {
            waited += Duration::from_secs(away(waited, left, random).into());
            tries.push(waited.as_secs());
        }
        tries
    }

    #[test]
    fn absent_user_is_tried_few_times() {
        assert_eq!((tries(30, 0.0), tries(30, JUST_UNDER_1)), (vec![0, 5, 30], vec![0, 6, 33]));
        assert_eq!(
            (tries(1, 0.0), tries(5, 0.0), tries(60, 0.0)),
            (vec![0, 1], vec![0, 5], vec![0, 5, 35, 60])
        );
        let long = tries(3600, 0.0);
        assert_eq!(long[..8], [0, 5, 35, 71, 143, 287, 575, 875]);
        assert_eq!((long.len(), long.last()), (18, Some(&3600)));
        assert!(long.windows(2).all(|pair| pair[1] - pair[0] <= 300));
    }

    /// A message that was handed back for another cause before may be of any age.
    #[test]
    fn absent_user_is_never_tried_at_once() {
        for waited in [0, 4_999, 5_000, 29_999] {
            let waited = Duration::from_millis(waited);
            assert!(away(waited, Duration::from_secs(30).saturating_sub(waited), 0.0) >= 1, "{waited:?}");
        }
        assert_eq!(away(Duration::MAX, Duration::MAX, JUST_UNDER_1), 330);
    }

    #[test]
    fn every_second_is_equally_likely() {
        let seconds: Vec<_> =
            (0..10).map(|tenth| hand_back(2, CLOSED, f64::from(tenth) / 10.0 + 0.05)).collect();
        assert_eq!(seconds, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
        assert_eq!((deadline_hand_back(0.4), deadline_hand_back(0.6)), (0, 1));
    }
}
