//! The posts in flight, and how many of them have been for long.
//!
//! A post whose client hangs takes up to 5 s. If it held one of the limit's slots for so long, as many hanging clients as
//! the limit would stop everybody else. So a post counts towards the limit for its first second only.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::concurrency;

/// A post counts towards the limit for so long.
pub const SLOW_AFTER: Duration = Duration::from_secs(1);

/// Posts in flight, at most, slow ones included: it bounds memory and sockets.
pub const MAX_POSTS: usize = 2 * concurrency::MAX;

/// Posts that begin within this time are counted together.
const SLICE: Duration = Duration::from_millis(50);

/// Counts posts in flight.
#[derive(Debug, Default)]
pub struct InFlight {
    /// When each slice began, and how many of its posts are in flight; the latest slice is at the end.
    slices: VecDeque<(Instant, usize)>,
    /// Posts of slices that ended more than a second ago.
    slow: usize,
    fresh: usize,
}

impl InFlight {
    /// Counts a post that begins.
    pub fn begin(&mut self, now: Instant) {
        let is_open = |(began, _): &&mut (Instant, usize)| now.saturating_duration_since(*began) < SLICE;
        match self.slices.back_mut().filter(is_open) {
            Some((_, posts)) => *posts += 1,
            None => self.slices.push_back((now, 1)),
        }
        self.fresh += 1;
    }

    /// Counts a post that ends, which began at `began`.
    pub fn end(&mut self, began: Instant) {
        match self.slices.iter_mut().rev().find(|(slice, _)| *slice <= began) {
            Some((_, posts)) => {
                *posts -= 1;
                self.fresh -= 1;
            }
            None => self.slow -= 1,
        }
    }

    /// Takes posts that have become slow out of those that count.
    pub fn advance(&mut self, now: Instant) {
        while let Some((_, posts)) = self.slices.pop_front_if(|(began, _)| now >= *began + SLICE + SLOW_AFTER)
        {
            self.fresh -= posts;
            self.slow += posts;
        }
    }

    /// Returns how many posts count towards the limit.
    #[must_use]
    pub fn fresh(&self) -> usize {
        self.fresh
    }

    /// Returns how many posts are in flight.
    #[must_use]
    pub fn all(&self) -> usize {
        self.fresh + self.slow
    }

    /// Returns when the next posts become slow; `None` while there are no others.
    #[must_use]
    pub fn next_slow(&self) -> Option<Instant> {
        let (began, _) = self.slices.iter().find(|(_, posts)| *posts > 0)?;
        Some(*began + SLICE + SLOW_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A post counts for at least 1 s and at most a slice longer.
        #[test]
        fn posts_count_for_their_first_second(
            events in prop::collection::vec((0..300_u64, any::<bool>(), any::<prop::sample::Index>()), 1..300),
        ) {
            let (mut counted, mut now, mut posts) = (InFlight::default(), Instant::now(), Vec::new());
            for (millis, begins, which) in events {
                now += Duration::from_millis(millis);
                counted.advance(now);
                if begins {
                    counted.begin(now);
                    posts.push(now);
                } else if !posts.is_empty() {
                    counted.end(posts.swap_remove(which.index(posts.len())));
                }
                let younger = |age: Duration| posts.iter().filter(|began| now < **began + age).count();
                prop_assert!((younger(SLOW_AFTER)..=younger(SLOW_AFTER + SLICE)).contains(&counted.fresh()));
                prop_assert_eq!(counted.all(), posts.len());
                let next = counted.next_slow();
                prop_assert!(next.is_none_or(|at| at > now) && next.is_some() == (counted.fresh() > 0));
            }
        }
    }
}
