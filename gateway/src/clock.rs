//! The clock for state that outlives an invocation.
//!
//! Between invocations Lambda freezes the execution environment. Whether the monotonic clock stops meanwhile is not
//! documented, and public reports contradict each other. The wall clock runs on in either case, but may be set back
//! or forward. So this clock moves by whichever of the two has moved further, and never backwards.
//!
//! Source: "Lambda execution environment lifecycle" in
//! <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html>.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Maximum time that one pause counts for. No state that outlives an invocation reaches back further.
const MAX_PAUSE: Duration = Duration::from_secs(3600);

/// A clock that runs on while the environment is frozen.
#[derive(Debug, Default)]
pub struct Clock {
    /// Wall clock and monotonic clock at the latest start of an invocation.
    resumed: Option<(SystemTime, Instant)>,
    /// How far this clock is ahead of the monotonic clock.
    offset: Duration,
}

impl Clock {
    /// Sets the clock at the start of an invocation, by the wall clock and the monotonic clock.
    pub fn resume(&mut self, wall: SystemTime, now: Instant) {
        if let Some((last_wall, last)) = self.resumed {
            let by_wall = wall.duration_since(last_wall).unwrap_or_default().min(MAX_PAUSE);
            self.offset += by_wall.saturating_sub(now.saturating_duration_since(last));
        }
        self.resumed = Some((wall, now));
    }

    /// Returns this clock's time at an instant of the monotonic clock.
    #[must_use]
    pub fn at(&self, now: Instant) -> Instant {
        now + self.offset
    }

    /// Returns the instant of the monotonic clock at which this clock shows `at`, if the environment keeps running.
    #[must_use]
    pub fn to_monotonic(&self, at: Instant) -> Instant {
        at - self.offset
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EPOCH: SystemTime = SystemTime::UNIX_EPOCH;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn runs_on_while_monotonic_clock_stops() {
        let (mut clock, now) = (Clock::default(), Instant::now());
        clock.resume(EPOCH, now);
        clock.resume(EPOCH + seconds(60), now + seconds(1));
        assert_eq!(clock.at(now + seconds(1)), now + seconds(60));
        assert_eq!(clock.to_monotonic(now + seconds(60)), now + seconds(1));
    }

    #[test]
    fn counts_no_pause_twice() {
        let (mut clock, now) = (Clock::default(), Instant::now());
        clock.resume(EPOCH, now);
        clock.resume(EPOCH + seconds(60), now + seconds(60));
        assert_eq!(clock.at(now + seconds(60)), now + seconds(60));
    }

    #[test]
    fn survives_a_wall_clock_set_back() {
        let (mut clock, now) = (Clock::default(), Instant::now());
        clock.resume(EPOCH + seconds(600), now);
        clock.resume(EPOCH, now + seconds(1));
        assert_eq!(clock.at(now + seconds(1)), now + seconds(1));
        clock.resume(EPOCH + seconds(60), now + seconds(1));
        assert_eq!(clock.at(now + seconds(1)), now + seconds(61), "the next freeze counts");
    }

    #[test]
    fn one_pause_counts_for_at_most_an_hour() {
        let (mut clock, now) = (Clock::default(), Instant::now());
        clock.resume(EPOCH, now);
        clock.resume(EPOCH + seconds(u64::from(u32::MAX)), now);
        assert_eq!(clock.at(now), now + MAX_PAUSE);
    }

    proptest! {
        #[test]
        fn moves_forward_by_the_faster_clock(
            steps in prop::collection::vec((-7200..7200_i64, 0..7200_u64), 0..50),
        ) {
            let (mut clock, mut now, mut wall) = (Clock::default(), Instant::now(), EPOCH + seconds(1_000_000));
            clock.resume(wall, now);
            for (by_wall, by_instant) in steps {
                let before = clock.at(now);
                now += seconds(by_instant);
                let moved = seconds(by_wall.unsigned_abs());
                wall = if by_wall < 0 { wall - moved } else { wall + moved };
                clock.resume(wall, now);
                let by_wall = by_wall.clamp(0, 3600).unsigned_abs();
                prop_assert_eq!(clock.at(now), before + seconds(by_wall.max(by_instant)));
            }
        }
    }
}
