//! The latest sample of each connection that was posted to lately.
//!
//! Two generations of at most 5 s and 1 024 connections each: an sample counts for 5 to 10 s, or until 1 024 further
//! connections have answered. So memory is bounded, and no sample costs more than two look-ups.

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
pub enum Sample {
    /// The endpoint took or refused the message, as it should.
    Worked,
    /// The endpoint refused the request for a reason that is not the message's.
    Refused,
    /// The endpoint failed.
    Failed,
}

/// Counts connections by their latest sample.
#[derive(Debug, Default)]
pub struct Samples {
    /// Hashes of connection ids differ for each process, so no client can choose ids that share one.
    hasher: RandomState,
    began: Option<Instant>,
    current: Generation,
    previous: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    samples: HashMap<u64, Sample>,
    worked: usize,
    refused: usize,
    failed: usize,
}

impl Samples {
    /// Counts a connection's sample in place of its earlier ones.
    pub fn count(&mut self, connection: &ConnectionId, sample: Sample, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let age = now.saturating_duration_since(began);
        if age >= 2 * GENERATION {
            self.previous.clear();
            self.current.clear();
            self.began = Some(now);
        } else if age >= GENERATION {
            self.rotate(began + GENERATION);
        } else if self.current.samples.len() >= CONNECTIONS {
            self.rotate(now);
        }
        let hash = self.hasher.hash_one(connection.as_str());
        self.previous.remove(hash);
        self.current.insert(hash, sample);
    }

    fn rotate(&mut self, began: Instant) {
        // Both keep their memory: a generation lasts no longer than a broadcast to 1 024 connections.
        mem::swap(&mut self.previous, &mut self.current);
        self.current.clear();
        self.began = Some(began);
    }

    /// Returns how many connections answered so at last.
    #[must_use]
    pub fn with(&self, sample: Sample) -> usize {
        self.current.with(sample) + self.previous.with(sample)
    }

    /// Returns how many connections have answered.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.current.samples.len() + self.previous.samples.len()
    }
}

impl Generation {
    fn clear(&mut self) {
        self.samples.clear();
        (self.worked, self.refused, self.failed) = (0, 0, 0);
    }

    fn insert(&mut self, hash: u64, sample: Sample) {
        let before = self.samples.insert(hash, sample);
        if let Some(before) = before {
            *self.counter(before) -= 1;
        }
        *self.counter(sample) += 1;
    }

    fn remove(&mut self, hash: u64) {
        if let Some(sample) = self.samples.remove(&hash) {
            *self.counter(sample) -= 1;
        }
    }

    fn with(&self, sample: Sample) -> usize {
        match sample {
            Sample::Worked => self.worked,
            Sample::Refused => self.refused,
            Sample::Failed => self.failed,
        }
    }

    fn counter(&mut self, sample: Sample) -> &mut usize {
        match sample {
            Sample::Worked => &mut self.worked,
            Sample::Refused => &mut self.refused,
            Sample::Failed => &mut self.failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLES: [Sample; 3] = [Sample::Worked, Sample::Refused, Sample::Failed];

    fn connection(number: usize) -> ConnectionId {
        format!("c{number}").try_into().unwrap()
    }

    #[test]
    fn holds_at_most_two_generations() {
        let (mut samples, now) = (Samples::default(), Instant::now());
        (0..10_000).for_each(|number| samples.count(&connection(number), Sample::Failed, now));
        assert!(
            (CONNECTIONS..=2 * CONNECTIONS).contains(&samples.connections()),
            "{}",
            samples.connections()
        );
    }

    proptest! {
        /// A connection counts once, by its latest sample, for at least 5 and at most 10 s.
        #[test]
        fn counts_latest_answer_of_each_connection(
            events in prop::collection::vec((0..3000_u64, 0..12_usize, 0..3_usize), 1..200),
        ) {
            let (mut samples, mut now) = (Samples::default(), Instant::now());
            let mut latest: HashMap<usize, (Instant, Sample)> = HashMap::new();
            for (millis, number, sample) in events {
                now += Duration::from_millis(millis);
                samples.count(&connection(number), SAMPLES[sample], now);
                latest.insert(number, (now, SAMPLES[sample]));
                for sample in SAMPLES {
                    let within = |time: Duration| {
                        latest.values().filter(|(at, of)| *of == sample && now - *at < time).count()
                    };
                    let counted = samples.with(sample);
                    prop_assert!((within(GENERATION)..=within(2 * GENERATION)).contains(&counted));
                }
                let sum: usize = SAMPLES.map(|sample| samples.with(sample)).iter().sum();
                prop_assert_eq!(sum, samples.connections());
            }
        }
    }
}
