//! Delays before retries: pure functions that take a random number from 0 (inclusive) to 1 (exclusive).
//!
//! Delays after failures have full jitter, from zero to the whole window, so that posts which failed together are not
//! retried together: <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>. The
//! delays of a long fault span only 40 s: earlier tries have already spread the messages.

use std::{ops::RangeInclusive, time::Duration};

use crate::admission::OpenCircuit;

/// Maximum number of posts of one pair in one invocation.
pub const MAX_POSTS: u32 = 3;

/// Window before the first retry within an invocation.
const INITIAL_RETRY_WINDOW: Duration = Duration::from_millis(50);

/// Maximum window of a hand-back before a fault counts as long, in seconds.
const MAX_WINDOW: u32 = 60;

/// Age at which a message for an absent user is tried for the second time: the index has caught up, and most clients
/// that lost their connection are back.
const SECOND_TRY: Duration = Duration::from_secs(5);

/// Delay of a later try of a message for an absent user.
const AWAY_DELAYS: RangeInclusive<Duration> = Duration::from_secs(30)..=Duration::from_secs(300);

/// Time before a message's expiry at which it is tried once more for an absent user: enough to receive and post it.
const BEFORE_EXPIRY: Duration = Duration::from_secs(2);

/// Age from which a fault counts as long: a further try is unlikely to succeed, and another minute matters little to the
/// client.
const LONG_FAULT: Duration = Duration::from_secs(300);

/// Delays of a hand-back in a long fault, in seconds. They span twice the maximum open time of a circuit, so that messages
/// handed back by an open circuit return evenly.
const LONG_DELAYS: RangeInclusive<u32> = 50..=90;

/// Maximum delay of a hand-back, in seconds. Nothing wakes a delayed SQS message, so this bounds how long after the end
/// of a fault a message returns.
///
/// The delays of a long fault and the longest time for which a circuit is [open](crate::admission::breaker::Settings)
/// add up to 110 s: even a message that arrives just before an open circuit
/// admits probes returns within 120 s of the recovery.
const MAX_DELAY_SECONDS: u32 = 120;

/// The tries of a message so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tries {
    /// Number of earlier hand-backs; on a FIFO queue, of earlier receives.
    pub count: u32,
    /// The time for which a fault may have delayed it: since any copy was first received, without the time in which it
    /// may only have waited for its user.
    pub age: Duration,
}

/// The wait of a message for its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitForUser {
    /// The time since its first receive.
    pub waited: Duration,
    /// The rest of the away grace.
    pub grace: Duration,
    /// The time until the message expires.
    pub expiry: Option<Duration>,
}

impl Tries {
    /// Returns whether the tries indicate a long fault. The count alone doesn't, since tries may follow each other
    /// quickly; the age alone doesn't, since the message may have waited for another reason.
    fn indicate_long_fault(self) -> bool {
        self.age >= LONG_FAULT && window(self.count) == MAX_WINDOW
    }
}

/// Returns the delay before the in-place retry that follows `posts` posts: up to 50 ms after the first post, and up
/// to twice as long after each further one.
#[must_use]
pub fn in_place_retry(posts: u32, random: f64) -> Duration {
    INITIAL_RETRY_WINDOW.saturating_mul(2_u32.saturating_pow(posts.saturating_sub(1))).mul_f64(random)
}

/// Returns the delay of a message that is handed back, in seconds, at most 120: the time for which the circuit is open,
/// and up to `min(2^count, 60)` s more. In a long fault, 50 to 90 s more instead:
/// the circuit has been open for 5 min, or the message is 5 min old and was handed back at least six times.
#[must_use]
pub fn hand_back(tries: Tries, open: OpenCircuit, random: f64) -> u32 {
    let wait = whole_seconds(open.wait);
    let delays = match tries.indicate_long_fault() || open.age >= LONG_FAULT {
        true => LONG_DELAYS,
        false => 0..=window(tries.count),
    };
    wait.saturating_add(seconds(delays, random)).min(MAX_DELAY_SECONDS)
}

/// Returns the window of a message that was handed back `count` times before, in seconds. A long fault has none.
fn window(count: u32) -> u32 {
    2_u32.saturating_pow(count).min(MAX_WINDOW)
}

/// Returns the `DelaySeconds` of a message that only waits for its user.
///
/// Each try costs a receive and a query, so there are few: at the age of 5 s, then after delays that double the age,
/// within 30 s to 5 min, and at the end of the grace. Jitter of up to a tenth, at least 1 s, is only added, so that no try
/// comes early. A message that expires first is tried 2 s before, up to a tenth earlier, and ends after its expiry.
#[must_use]
pub fn away(wait: WaitForUser, random: f64) -> u32 {
    let delay = match SECOND_TRY.saturating_sub(wait.waited) {
        Duration::ZERO => wait.waited.clamp(*AWAY_DELAYS.start(), *AWAY_DELAYS.end()),
        until_second => until_second,
    };
    let delay = with_jitter(whole_seconds(delay.min(wait.grace)), random);
    let Some(expiry) = wait.expiry else { return delay };
    match u32::try_from(expiry.saturating_sub(BEFORE_EXPIRY).as_secs()).unwrap_or(u32::MAX) {
        last if delay <= last => delay,
        0 | 1 => with_jitter(whole_seconds(expiry), random),
        last => last - seconds(0..=last / 10, random),
    }
}

/// Returns whole seconds that are not less than a time.
fn whole_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

/// Adds up to a tenth, at least 1 s.
fn with_jitter(delay: u32, random: f64) -> u32 {
    delay.saturating_add(seconds(0..=delay.div_ceil(10), random))
}

/// Returns the `DelaySeconds` of a message that is handed back only because the invocation's time was up: up to 1 s.
#[must_use]
pub fn deadline_hand_back(random: f64) -> u32 {
    seconds(0..=1, random)
}

/// Returns one of `delays`, in seconds, all equally likely.
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

    /// This holds even for a message that arrives just before the circuit admits probes, a whole open time after the
    /// recovery.
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

    /// Returns the ages, in seconds, at which a message for an absent user is tried in a grace of `grace` seconds.
    fn tries(grace: u64, random: f64) -> Vec<u64> {
        let (grace, mut tries) = (Duration::from_secs(grace), vec![0]);
        // An invocation takes a while.
        let mut waited = Duration::from_millis(20);
        while let Some(left) = grace.checked_sub(waited) {
            let wait = WaitForUser { waited, grace: left, expiry: None };
            waited += Duration::from_secs(away(wait, random).into());
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
            let grace = Duration::from_secs(30).saturating_sub(waited);
            for expiry in [None, Some(Duration::ZERO), Some(Duration::from_millis(1)), Some(BEFORE_EXPIRY)] {
                let wait = WaitForUser { waited, grace, expiry };
                assert!(expiry == Some(Duration::ZERO) || away(wait, 0.0) >= 1, "{wait:?}");
            }
        }
        let endless = WaitForUser { waited: Duration::MAX, grace: Duration::MAX, expiry: None };
        assert_eq!(away(endless, JUST_UNDER_1), 330);
        assert_eq!(away(WaitForUser { expiry: Some(Duration::MAX), ..endless }, 0.0), 300);
    }

    /// Returns the delays of a message that has waited 6 s and expires before the grace ends.
    fn delays_before_expiry(expiry: u64) -> [u32; 2] {
        let (waited, grace) = (Duration::from_secs(6), Duration::from_secs(600));
        [0.0, JUST_UNDER_1].map(|random| {
            away(WaitForUser { waited, grace, expiry: Some(Duration::from_secs(expiry)) }, random)
        })
    }

    #[test]
    fn absent_user_is_tried_before_expiry() {
        assert_eq!([33, 14, 4].map(delays_before_expiry), [[30, 28], [12, 11], [2, 2]]);
        assert_eq!([3, 2].map(delays_before_expiry), [[3, 4], [2, 3]], "only the end is left");
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
