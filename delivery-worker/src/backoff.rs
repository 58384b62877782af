//! Delays before retries: pure functions that take a random number from 0 (inclusive) to 1 (exclusive).
//!
//! Delays after failures have full jitter, from zero to the whole window, so that posts which failed together are not
//! retried together: <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>. Those of a long fault differ
//! by up to 40 s: the many tries before have spread the messages.

use std::{
    ops::RangeInclusive,
    time::{Duration, SystemTime},
};

use crate::{admission::OpenCircuit, decode::Record};

/// Maximum number of posts of one pair in one invocation.
pub const MAX_POSTS: u32 = 3;

/// Window before the first retry within an invocation.
const INITIAL_RETRY_WINDOW: Duration = Duration::from_millis(50);

/// Largest window of a hand-back while a fault is young, in seconds.
const MAX_YOUNG_WINDOW: u32 = 60;

/// Age at which a message for an absent user is tried for the second time: the index has caught up, and most clients
/// that lost their connection are back.
const SECOND_TRY: Duration = Duration::from_secs(5);

/// Time between later tries of a message for an absent user.
const AWAY_GAPS: RangeInclusive<Duration> = Duration::from_secs(30)..=Duration::from_secs(300);

/// The time after which a fault is long. Then no client waits for one message, and each try costs without a chance.
const LONG_FAULT: Duration = Duration::from_secs(300);

/// Delays of a hand-back in a long fault, in seconds. They span two of the longest times for which a circuit is open, so
/// that the messages which an open circuit hands back return evenly.
const LONG_DELAYS: RangeInclusive<u32> = 50..=90;

/// Maximum delay of a hand-back, in seconds. A delayed SQS message can't be woken, so this is how late after the end of
/// a fault a message returns.
///
/// The delays of a long fault and the longest time for which a circuit is [open](crate::admission::breaker::Settings)
/// add up to 110 s: a message that comes just before the circuit closes is also back 120 s after the endpoint works.
const MAX_DELAY_SECONDS: u32 = 120;

/// The tries of a message so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tries {
    /// How often it was handed back before.
    pub count: u32,
    /// The time since any copy of it was first received.
    pub age: Duration,
}

impl Tries {
    /// Returns the tries of a record that was handed back `count` times before.
    #[must_use]
    pub fn of(count: u32, record: &Record, now: SystemTime) -> Self {
        let age = record.since().and_then(|since| now.duration_since(since).ok()).unwrap_or_default();
        Self { count, age }
    }

    /// Returns whether the message has failed for so long that the fault isn't over in a moment. A count alone doesn't
    /// show that, since a message may be tried quickly; nor does an age, since it may have waited for other reasons.
    fn show_long_fault(self) -> bool {
        self.age >= LONG_FAULT && window(self.count) == MAX_YOUNG_WINDOW
    }
}

/// Returns the delay before the in-place retry that follows `posts` posts: up to 50 ms after the first post, and up
/// to twice as long after each further one.
#[must_use]
pub fn in_place_retry(posts: u32, random: f64) -> Duration {
    INITIAL_RETRY_WINDOW.saturating_mul(2_u32.saturating_pow(posts.saturating_sub(1))).mul_f64(random)
}

/// Returns the delay of a message that is handed back, in seconds, at most 120: the time for which the circuit is open,
/// and up to `min(2^count, 60)` s more. Once the message has failed or the circuit has been open for 5 min, 50 to 90 s
/// more.
#[must_use]
pub fn hand_back(tries: Tries, open: OpenCircuit, random: f64) -> u32 {
    let wait = u32::try_from(open.wait.as_millis().div_ceil(1000)).unwrap_or(MAX_DELAY_SECONDS);
    let delays = match tries.show_long_fault() || open.age >= LONG_FAULT {
        true => LONG_DELAYS,
        false => 0..=window(tries.count),
    };
    wait.saturating_add(seconds(delays, random)).min(MAX_DELAY_SECONDS)
}

/// Returns the longest delay of a message that was handed back `count` times before, in seconds.
fn window(count: u32) -> u32 {
    2_u32.saturating_pow(count).min(MAX_YOUNG_WINDOW)
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
    gap + seconds(0..=gap.div_ceil(10), random)
}

/// Returns the `DelaySeconds` of a message that is handed back only because the invocation's time was up: up to 1 s.
#[must_use]
pub fn deadline_hand_back(random: f64) -> u32 {
    seconds(0..=1, random)
}

/// Returns a whole number of seconds, all equally likely.
fn seconds(delays: RangeInclusive<u32>, random: f64) -> u32 {
    let (least, most) = delays.into_inner();
    least.saturating_add((f64::from(most - least + 1) * random) as u32).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::breaker;

    const JUST_UNDER_1: f64 = 1.0 - f64::EPSILON;
    const CLOSED: OpenCircuit = OpenCircuit { wait: Duration::ZERO, age: Duration::ZERO };

    fn tried(count: u32, seconds: u64) -> Tries {
        Tries { count, age: Duration::from_secs(seconds) }
    }

    fn open(wait: Duration, age: u64) -> OpenCircuit {
        OpenCircuit { wait, age: Duration::from_secs(age) }
    }

    #[test]
    fn in_place_window_doubles_from_50_ms() {
        assert_eq!(in_place_retry(1, 0.0), Duration::ZERO);
        assert_eq!(in_place_retry(1, 0.5), Duration::from_millis(25));
        assert!(in_place_retry(2, JUST_UNDER_1) > Duration::from_millis(99));
        assert!(in_place_retry(2, JUST_UNDER_1) <= Duration::from_millis(100));
    }

    #[test]
    fn hand_back_window_doubles_up_to_60_s() {
        let windows =
            [0, 1, 2, 5, 6, 40, u32::MAX].map(|count| hand_back(tried(count, 299), CLOSED, JUST_UNDER_1));
        assert_eq!(windows, [1, 2, 4, 32, 60, 60, 60]);
        assert_eq!(hand_back(tried(6, 299), CLOSED, 0.0), 0);
    }

    #[test]
    fn long_fault_delays_by_50_to_90_s() {
        let delays = |tried, open| [0.0, JUST_UNDER_1].map(|random| hand_back(tried, open, random));
        assert_eq!(delays(tried(6, 300), CLOSED), [50, 90]);
        assert_eq!(delays(tried(3, 300), CLOSED), [0, 8], "few tries");
        let wait = Duration::from_millis(4001);
        assert_eq!(delays(tried(0, 0), open(wait, 300)), [55, 95]);
        assert_eq!(delays(tried(0, 0), open(wait, 299)), [5, 6]);
    }

    /// Also a message that comes just before its circuit admits posts again, a whole open time after the recovery.
    #[test]
    fn messages_return_within_120_s() {
        let longest = breaker::Settings::DEFAULT.max_open;
        for tenth in 0..=longest.as_secs() * 10 {
            let wait = Duration::from_millis(100 * tenth);
            let delay = hand_back(tried(9, 3600), open(wait, 3600), JUST_UNDER_1);
            let since_recovery = (longest.as_secs() - wait.as_secs()) + u64::from(delay);
            assert!(since_recovery <= 111, "{since_recovery} s with {wait:?} left");
        }
        assert_eq!(hand_back(tried(6, 3600), open(Duration::MAX, 3600), JUST_UNDER_1), 120);
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
        let delays = |seconds: RangeInclusive<u32>| -> Vec<_> {
            (0..10).map(|tenth| super::seconds(seconds.clone(), f64::from(tenth) / 10.0 + 0.05)).collect()
        };
        assert_eq!(delays(0..=4), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
        assert_eq!(delays(60..=69), (60..=69).collect::<Vec<_>>());
        assert_eq!((deadline_hand_back(0.4), deadline_hand_back(0.6)), (0, 1));
    }
}
