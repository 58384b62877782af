//! Counts the posts in flight, and separates the slow ones.
//!
//! A post to a client that hangs takes up to 5 s. If it used the concurrency limit for all that time, as many hanging
//! clients as the limit would block every other client. So a post counts towards the limit for its first second only.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::concurrency::Settings;

/// The time for which a post counts towards the concurrency limit.
pub const SLOW_AFTER: Duration = Duration::from_secs(1);

/// Maximum number of posts in flight, slow ones included. It bounds memory and sockets.
pub const MAX_POSTS: usize = 2 * Settings::DEFAULT.max;

/// Posts that begin within this time are counted together.
const BUCKET: Duration = Duration::from_millis(50);

/// Counts posts in flight.
#[derive(Debug, Default)]
pub struct InFlight {
    /// The start of each bucket, and the number of its posts that are in flight. The latest bucket is at the end.
    buckets: VecDeque<(Instant, usize)>,
    /// Posts of buckets that ended more than a second ago.
    slow: usize,
    /// Posts that count towards the limit.
    fresh: usize,
}

impl InFlight {
    /// Counts a post that begins.
    pub fn begin(&mut self, now: Instant) {
        let is_open = |(began, _): &&mut (Instant, usize)| now.saturating_duration_since(*began) < BUCKET;
        match self.buckets.back_mut().filter(is_open) {
            Some((_, posts)) => *posts += 1,
            None => self.buckets.push_back((now, 1)),
        }
        self.fresh += 1;
    }

    /// Removes a post that began at `began`.
    pub fn end(&mut self, began: Instant) {
        match self.buckets.iter_mut().rev().find(|(bucket, _)| *bucket <= began) {
            Some((_, posts)) => {
                *posts -= 1;
                self.fresh -= 1;
            }
            None => self.slow -= 1,
        }
    }

    /// Moves posts that have become slow from the fresh to the slow ones.
    pub fn advance(&mut self, now: Instant) {
        while let Some((_, posts)) =
            self.buckets.pop_front_if(|(began, _)| now >= *began + BUCKET + SLOW_AFTER)
        {
            self.fresh -= posts;
            self.slow += posts;
        }
    }

    /// Returns how many posts count towards the concurrency limit.
    #[must_use]
    pub fn fresh(&self) -> usize {
        self.fresh
    }

    /// Returns how many posts are in flight.
    #[must_use]
    pub fn total(&self) -> usize {
        self.fresh + self.slow
    }

    /// Returns when the next posts become slow, or `None` if no post is fresh.
    #[must_use]
    pub fn next_slow(&self) -> Option<Instant> {
        let (began, _) = self.buckets.iter().find(|(_, posts)| *posts > 0)?;
        Some(*began + BUCKET + SLOW_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A post counts for at least 1 s and at most 50 ms longer.
        #[test]
        fn posts_count_for_their_first_second(
            events in prop::collection::vec((0..300_u64, any::<bool>(), any::<prop::sample::Index>()), 1..300),
        ) {
            let (mut in_flight, mut now, mut posts) = (InFlight::default(), Instant::now(), Vec::new());
            for (millis, begins, index) in events {
                now += Duration::from_millis(millis);
                in_flight.advance(now);
                if begins {
                    in_flight.begin(now);
                    posts.push(now);
                } else if !posts.is_empty() {
                    in_flight.end(posts.swap_remove(index.index(posts.len())));
                }
                let younger_than = |age: Duration| posts.iter().filter(|began| now < **began + age).count();
                let (least, most) = (younger_than(SLOW_AFTER), younger_than(SLOW_AFTER + BUCKET));
                prop_assert!((least..=most).contains(&in_flight.fresh()));
                prop_assert_eq!(in_flight.total(), posts.len());
                let next = in_flight.next_slow();
                prop_assert!(next.is_none_or(|at| at > now) && next.is_some() == (in_flight.fresh() > 0));
            }
        }
    }
}
