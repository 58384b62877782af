//! How many posts may begin in a second: a token bucket, since an account's request quota is shared with every
//! other API of its Region.
//!
//! The bucket holds a tenth of a second's posts, at least one, and is full at first. It is kept as the time at
//! which it will be full again (the generic cell rate algorithm), so it needs no clock and no refilling.

use std::time::Duration;

use tokio::time::Instant;

/// A pace of posts.
#[derive(Debug)]
pub struct Pacer {
    /// Between two posts.
    interval: Duration,
    /// How far ahead of the pace posts may be.
    burst: Duration,
    full_at: Option<Instant>,
}

impl Pacer {
    /// A pace of `posts` in a second, which is at least 1.
    #[must_use]
    pub fn new(posts: u32) -> Self {
        let interval = Duration::from_secs(1) / posts.max(1);
        let burst = interval * (posts / 10).max(1);
        Self { interval, burst: burst - interval, full_at: None }
    }

    /// Takes a post's place at `now`, or says when there is one.
    ///
    /// # Errors
    /// The time at which to ask again.
    pub fn try_acquire(&mut self, now: Instant) -> Result<(), Instant> {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
        if full_at > now + self.burst {
            return Err(full_at - self.burst);
        }
        self.full_at = Some(full_at + self.interval);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_tenth_of_a_seconds_posts_begin_at_once_and_the_others_at_the_pace() {
        let (mut pacer, now) = (Pacer::new(100), Instant::now());
        assert!((0..10).all(|_| pacer.try_acquire(now).is_ok()));
        assert_eq!(pacer.try_acquire(now), Err(now + Duration::from_millis(10)));
        assert!(pacer.try_acquire(now + Duration::from_millis(10)).is_ok());
        assert!(pacer.try_acquire(now + Duration::from_millis(10)).is_err());
    }

    #[test]
    fn one_post_a_second_is_one_post_a_second() {
        let (mut pacer, now) = (Pacer::new(1), Instant::now());
        assert_eq!(
            (pacer.try_acquire(now), pacer.try_acquire(now)),
            (Ok(()), Err(now + Duration::from_secs(1)))
        );
    }

    proptest! {
        #[test]
        fn the_pace_is_kept_and_nobody_waits_longer_than_it_asks(
            posts in 1_u32..2000,
            asks in prop::collection::vec(0_u64..30_000, 1..300),
        ) {
            let (mut pacer, began) = (Pacer::new(posts), Instant::now());
            let (mut now, mut taken) = (began, Vec::new());
            for micros in asks {
                now += Duration::from_micros(micros);
                if let Err(then) = pacer.try_acquire(now) {
                    prop_assert!(then > now && then <= now + pacer.interval);
                    now = then;
                    prop_assert_eq!(pacer.try_acquire(now), Ok(()));
                }
                taken.push(now);
            }
            let burst = (posts / 10).max(1) as usize;
            for (place, first) in taken.iter().enumerate() {
                let within = |span: Duration| taken[place..].iter().filter(|at| **at - *first <= span).count();
                for span in [0, 1, 10, 100, 1000].map(Duration::from_millis) {
                    let most = (span.as_secs_f64() * f64::from(posts)).floor() as usize + burst + 1;
                    prop_assert!(within(span) <= most, "{} in {:?} at {} a second", within(span), span, posts);
                }
            }
        }
    }
}
