//! How long to wait before another try: pure functions, to which randomness from 0 up to 1 is given.
//!
//! All are full jitter, anything from nothing to the whole window, since what failed together must not come
//! back together: <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>.

use std::time::Duration;

/// Posts of one pair in one invocation, at most.
pub const MAX_POSTS: u32 = 3;

/// The first window in place.
const INITIAL_RETRY_WINDOW: Duration = Duration::from_millis(50);

/// The largest window between two attempts of a call.
const MAX_CALL_WINDOW: Duration = Duration::from_secs(1);

/// The largest window on the queue, in seconds.
const MAX_HAND_BACK_WINDOW: u32 = 60;

/// What SQS takes as `DelaySeconds`, at most.
///
/// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>.
const MAX_DELAY_SECONDS: u32 = 900;

/// How long to wait in place after so many posts: up to 50 ms after the first, up to twice that after each
/// further one.
#[must_use]
pub fn in_place_retry(posts: u32, random: f64) -> Duration {
    INITIAL_RETRY_WINDOW.saturating_mul(2_u32.saturating_pow(posts.saturating_sub(1))).mul_f64(random)
}

/// How many seconds a message waits on the queue that was handed back `count` times before: the time for which
/// the circuit is open, and up to `2^count` s more, up to 60 s at most.
#[must_use]
pub fn hand_back(count: u32, open: Duration, random: f64) -> u32 {
    let open = u32::try_from(open.as_millis().div_ceil(1000)).unwrap_or(MAX_DELAY_SECONDS);
    open.saturating_add(seconds(2_u32.saturating_pow(count).min(MAX_HAND_BACK_WINDOW), random))
        .min(MAX_DELAY_SECONDS)
}

/// How many seconds a message waits on the queue that was only short of time: up to 1 s.
#[must_use]
pub fn deadline_hand_back(random: f64) -> u32 {
    seconds(1, random)
}

/// Pause after so many attempts of a call to a queue: up to 50 ms after the first, doubling up to 1 s.
#[must_use]
pub fn queue_call(attempts: u32, random: f64) -> Duration {
    in_place_retry(attempts, 1.0).min(MAX_CALL_WINDOW).mul_f64(random)
}

/// A whole number of seconds up to `window`, each as likely as the others.
fn seconds(window: u32, random: f64) -> u32 {
    ((f64::from(window + 1) * random) as u32).min(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUST_UNDER_1: f64 = 1.0 - f64::EPSILON;
    const CLOSED: Duration = Duration::ZERO;

    #[test]
    fn the_window_in_place_begins_at_50_ms_and_doubles() {
        assert_eq!(in_place_retry(1, 0.0), Duration::ZERO);
        assert_eq!(in_place_retry(1, 0.5), Duration::from_millis(25));
        assert!(in_place_retry(2, JUST_UNDER_1) > Duration::from_millis(99));
        assert!(in_place_retry(2, JUST_UNDER_1) <= Duration::from_millis(100));
    }

    #[test]
    fn the_pause_between_calls_doubles_up_to_1_s() {
        let pauses = [1, 2, 5, 6, 40, u32::MAX].map(|attempts| queue_call(attempts, 1.0).as_millis());
        assert_eq!(pauses, [50, 100, 800, 1000, 1000, 1000]);
        assert_eq!(queue_call(6, 0.5), Duration::from_millis(500));
    }

    #[test]
    fn the_window_on_the_queue_doubles_from_1_s_up_to_60_s() {
        let windows = [0, 1, 2, 5, 6, 40, u32::MAX].map(|count| hand_back(count, CLOSED, JUST_UNDER_1));
        assert_eq!(windows, [1, 2, 4, 32, 60, 60, 60]);
        assert_eq!(hand_back(6, CLOSED, 0.0), 0);
    }

    #[test]
    fn an_open_circuit_is_waited_for_and_900_s_are_the_most() {
        let open = Duration::from_millis(4001);
        assert_eq!((hand_back(0, open, 0.0), hand_back(6, open, JUST_UNDER_1)), (5, 65));
        assert_eq!(hand_back(6, Duration::from_secs(10_000), JUST_UNDER_1), 900);
        assert_eq!(hand_back(6, Duration::MAX, JUST_UNDER_1), 900);
    }

    #[test]
    fn every_second_of_the_window_is_as_likely_as_the_others() {
        let seconds: Vec<_> =
            (0..10).map(|tenth| hand_back(2, CLOSED, f64::from(tenth) / 10.0 + 0.05)).collect();
        assert_eq!(seconds, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
        assert_eq!((deadline_hand_back(0.4), deadline_hand_back(0.6)), (0, 1));
    }
}
