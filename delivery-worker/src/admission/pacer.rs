//! Pacer: how many posts may begin per second (`MAX_POSTS_PER_SECOND`), since an account shares its request quota
//! among all APIs of a Region.
//!
//! The pacer is a token bucket that holds the posts of half a second, at least one, and starts full. It stores the time
//! at which the bucket will be full again (generic cell rate algorithm), so it needs no timer and no refill.
//!
//! API Gateway's bucket for the account holds half a second's requests, too: 5 000 at 10 000 a second
//! (<https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html>). So the buckets of all environments
//! together are the same share of it as their rates are of the account's. An environment that replaces another begins
//! with a full bucket, so in a deployment the share may be used twice; API Gateway then answers 429, and the messages
//! are handed back.

use std::time::Duration;

use tokio::time::Instant;

/// A limit on the posts that begin per second.
#[derive(Debug)]
pub struct Pacer {
    /// The time between two posts.
    interval: Duration,
    /// How far ahead of their schedule posts may begin.
    burst: Duration,
    full_at: Option<Instant>,
}

impl Pacer {
    /// Builds a pacer for `posts_per_second`, which is at least 1.
    #[must_use]
    pub fn new(posts_per_second: u32) -> Self {
        let interval = Duration::from_secs(1) / posts_per_second.max(1);
        let bucket = interval * burst(posts_per_second);
        Self { interval, burst: bucket - interval, full_at: None }
    }

    /// Takes a token for a post that begins at `now`.
    ///
    /// # Errors
    /// The time at which the next token is available, if the bucket is empty.
    pub fn try_acquire(&mut self, now: Instant) -> Result<(), Instant> {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
        if full_at > now + self.burst {
            return Err(full_at - self.burst);
        }
        self.full_at = Some(full_at + self.interval);
        Ok(())
    }
}

/// Returns how many posts may begin at once after a pause: those of half a second.
pub(super) fn burst(posts_per_second: u32) -> u32 {
    (posts_per_second / 2).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Half a second's posts begin at once, and the others at the configured rate.
    #[test]
    fn allows_a_burst_then_paces() {
        let (mut pacer, now) = (Pacer::new(100), Instant::now());
        assert!((0..50).all(|_| pacer.try_acquire(now).is_ok()));
        assert_eq!(pacer.try_acquire(now), Err(now + Duration::from_millis(10)));
        assert!(pacer.try_acquire(now + Duration::from_millis(10)).is_ok());
        assert!(pacer.try_acquire(now + Duration::from_millis(10)).is_err());
    }

    #[test]
    fn one_per_second_allows_no_burst() {
        let (mut pacer, now) = (Pacer::new(1), Instant::now());
        let second = now + Duration::from_secs(1);
        assert_eq!((pacer.try_acquire(now), pacer.try_acquire(now)), (Ok(()), Err(second)));
    }

    /// The module's environments divide the rate, and rounding never gives them more of the bucket than of the rate.
    #[test]
    fn all_environments_burst_their_share() {
        for (environments, rate) in [(2, 1000), (3, 1250), (10, 5000), (20, 10_000), (1000, 1999)] {
            let bursts = environments * burst(rate / environments);
            let share = (rate / 2).max(environments);
            assert!(bursts <= share, "{bursts} at once in {environments} environments, of {rate} a second");
        }
    }

    proptest! {
        /// A post that waits until the returned time gets its token then.
        #[test]
        fn keeps_the_rate_with_minimal_waits(
            posts_per_second in 1_u32..2000,
            pauses in prop::collection::vec(0_u64..30_000, 1..300),
        ) {
            let (mut pacer, mut now) = (Pacer::new(posts_per_second), Instant::now());
            let mut posts = Vec::new();
            for micros in pauses {
                now += Duration::from_micros(micros);
                if let Err(next) = pacer.try_acquire(now) {
                    prop_assert!(next > now && next <= now + pacer.interval);
                    now = next;
                    prop_assert_eq!(pacer.try_acquire(now), Ok(()));
                }
                posts.push(now);
            }
            let burst = burst(posts_per_second) as usize;
            for (index, first) in posts.iter().enumerate() {
                let within = |span: Duration| posts[index..].iter().filter(|at| **at - *first <= span).count();
                for span in [0, 1, 10, 100, 1000].map(Duration::from_millis) {
                    let paced = (span.as_secs_f64() * f64::from(posts_per_second)).floor() as usize;
                    let (posts, most) = (within(span), paced + burst + 1);
                    prop_assert!(posts <= most, "{} in {:?} at {} a second", posts, span, posts_per_second);
                }
            }
        }
    }
}
