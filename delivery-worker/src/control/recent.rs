//! The latest answer of each connection that was posted to lately.
//!
//! Two generations of at most 5 s and 1 024 connections each: an answer counts for 5 to 10 s, or until 1 024 further
//! connections have answered. So memory is bounded, and no answer costs more than two look-ups.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher as _,
    mem,
    time::Duration,
};

use streamer_message::ConnectionId;
use tokio::time::Instant;

/// A generation lasts at most this long.
pub const GENERATION: Duration = Duration::from_secs(5);

/// Connections of a generation, at most.
const CONNECTIONS: usize = 1024;

/// The verdict of a connection's latest post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The endpoint took or refused the message, as it should.
    Worked,
    /// The endpoint refused the request for a reason that is not the message's.
    Refused,
    /// The endpoint failed.
    Failed,
}

/// Counts connections by their latest answer.
#[derive(Debug, Default)]
pub struct Recent {
    /// Hashes of connection ids differ for each process, so no client can choose ids that share one.
    hasher: RandomState,
    began: Option<Instant>,
    current: Generation,
    previous: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    answers: HashMap<u64, Answer>,
    worked: usize,
    refused: usize,
    failed: usize,
}

impl Recent {
    /// Counts a connection's answer in place of its earlier ones.
    pub fn count(&mut self, connection: &ConnectionId, answer: Answer, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let age = now.saturating_duration_since(began);
        if age >= 2 * GENERATION {
            self.previous.clear();
            self.current.clear();
            self.began = Some(now);
        } else if age >= GENERATION {
            self.rotate(began + GENERATION);
        } else if self.current.answers.len() >= CONNECTIONS {
            self.rotate(now);
        }
        let hash = self.hasher.hash_one(connection.as_str());
        self.previous.remove(hash);
        self.current.insert(hash, answer);
    }

    fn rotate(&mut self, began: Instant) {
        // Both keep their memory: a generation lasts no longer than a broadcast to 1 024 connections.
        mem::swap(&mut self.previous, &mut self.current);
        self.current.clear();
        self.began = Some(began);
    }

    /// Returns how many connections answered so at last.
    #[must_use]
    pub fn with(&self, answer: Answer) -> usize {
        self.current.with(answer) + self.previous.with(answer)
    }

    /// Returns how many connections have answered.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.current.answers.len() + self.previous.answers.len()
    }
}

impl Generation {
    fn clear(&mut self) {
        self.answers.clear();
        (self.worked, self.refused, self.failed) = (0, 0, 0);
    }

    fn insert(&mut self, hash: u64, answer: Answer) {
        let before = self.answers.insert(hash, answer);
        if let Some(before) = before {
            *self.counter(before) -= 1;
        }
        *self.counter(answer) += 1;
    }

    fn remove(&mut self, hash: u64) {
        if let Some(answer) = self.answers.remove(&hash) {
            *self.counter(answer) -= 1;
        }
    }

    fn with(&self, answer: Answer) -> usize {
        match answer {
            Answer::Worked => self.worked,
            Answer::Refused => self.refused,
            Answer::Failed => self.failed,
        }
    }

    fn counter(&mut self, answer: Answer) -> &mut usize {
        match answer {
            Answer::Worked => &mut self.worked,
            Answer::Refused => &mut self.refused,
            Answer::Failed => &mut self.failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANSWERS: [Answer; 3] = [Answer::Worked, Answer::Refused, Answer::Failed];

    fn connection(number: usize) -> ConnectionId {
        format!("c{number}").try_into().unwrap()
    }

    #[test]
    fn holds_at_most_two_generations() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        (0..10_000).for_each(|number| recent.count(&connection(number), Answer::Failed, now));
        assert!((CONNECTIONS..=2 * CONNECTIONS).contains(&recent.connections()), "{}", recent.connections());
    }

    proptest! {
        /// A connection counts once, by its latest answer, for at least 5 and at most 10 s.
        #[test]
        fn counts_latest_answer_of_each_connection(
            events in prop::collection::vec((0..3000_u64, 0..12_usize, 0..3_usize), 1..200),
        ) {
            let (mut recent, mut now) = (Recent::default(), Instant::now());
            let mut latest: HashMap<usize, (Instant, Answer)> = HashMap::new();
            for (millis, number, answer) in events {
                now += Duration::from_millis(millis);
                recent.count(&connection(number), ANSWERS[answer], now);
                latest.insert(number, (now, ANSWERS[answer]));
                for answer in ANSWERS {
                    let within = |time: Duration| {
                        latest.values().filter(|(at, of)| *of == answer && now - *at < time).count()
                    };
                    let counted = recent.with(answer);
                    prop_assert!((within(GENERATION)..=within(2 * GENERATION)).contains(&counted));
                }
                let sum: usize = ANSWERS.map(|answer| recent.with(answer)).iter().sum();
                prop_assert_eq!(sum, recent.connections());
            }
        }
    }
}
