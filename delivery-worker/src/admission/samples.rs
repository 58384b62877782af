//! The latest sample of each connection that was posted to recently.
//!
//! Samples are kept in two generations of at most 5 s and 1 024 connections each. A sample is kept for 5 to 10 s, or
//! until at least 1 024 further connections have one. So memory is bounded, and to record a sample takes at most two
//! look-ups.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher as _,
    mem,
    time::Duration,
};

use streamer_message::ConnectionId;
use tokio::time::Instant;

/// Maximum age of a generation.
pub(super) const MAX_GENERATION_AGE: Duration = Duration::from_secs(5);

/// Maximum number of connections in a generation.
const MAX_CONNECTIONS: usize = 1024;

/// The result of a connection's latest post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sample {
    /// The endpoint accepted the message, or rejected it because of the message or the connection.
    Success,
    /// The endpoint refused the request for a reason other than the message.
    Refusal,
    /// The endpoint failed.
    Failure,
}

/// Counts connections by their latest sample.
#[derive(Debug, Default)]
pub(super) struct Samples {
    /// Each process hashes connection ids differently, so clients cannot choose ids that collide.
    hasher: RandomState,
    /// When the current generation began.
    began: Option<Instant>,
    current: Generation,
    previous: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    samples: HashMap<u64, Sample>,
    successes: usize,
    refusals: usize,
    failures: usize,
}

impl Samples {
    /// Records a connection's sample in place of its earlier one.
    pub(super) fn record(&mut self, connection: &ConnectionId, sample: Sample, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let age = now.saturating_duration_since(began);
        if age >= 2 * MAX_GENERATION_AGE {
            self.previous.clear();
            self.current.clear();
            self.began = Some(now);
        } else if age >= MAX_GENERATION_AGE {
            self.rotate(began + MAX_GENERATION_AGE);
        } else if self.current.samples.len() >= MAX_CONNECTIONS {
            self.rotate(now);
        }
        let hash = self.hasher.hash_one(connection.as_str());
        self.previous.remove(hash);
        self.current.insert(hash, sample);
    }

    fn rotate(&mut self, began: Instant) {
        // Both maps keep their memory: a broadcast to 1 024 connections fills a generation at once.
        mem::swap(&mut self.previous, &mut self.current);
        self.current.clear();
        self.began = Some(began);
    }

    /// Returns how many connections have this sample.
    #[must_use]
    pub(super) fn count(&self, sample: Sample) -> usize {
        self.current.count(sample) + self.previous.count(sample)
    }

    /// Returns how many connections have a sample.
    #[must_use]
    pub(super) fn connections(&self) -> usize {
        self.current.samples.len() + self.previous.samples.len()
    }
}

impl Generation {
    fn clear(&mut self) {
        self.samples.clear();
        (self.successes, self.refusals, self.failures) = (0, 0, 0);
    }

    fn insert(&mut self, hash: u64, sample: Sample) {
        if let Some(earlier) = self.samples.insert(hash, sample) {
            *self.counter(earlier) -= 1;
        }
        *self.counter(sample) += 1;
    }

    fn remove(&mut self, hash: u64) {
        if let Some(sample) = self.samples.remove(&hash) {
            *self.counter(sample) -= 1;
        }
    }

    fn count(&self, sample: Sample) -> usize {
        match sample {
            Sample::Success => self.successes,
            Sample::Refusal => self.refusals,
            Sample::Failure => self.failures,
        }
    }

    fn counter(&mut self, sample: Sample) -> &mut usize {
        match sample {
            Sample::Success => &mut self.successes,
            Sample::Refusal => &mut self.refusals,
            Sample::Failure => &mut self.failures,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLES: [Sample; 3] = [Sample::Success, Sample::Refusal, Sample::Failure];

    fn connection(number: usize) -> ConnectionId {
        format!("c{number}").try_into().unwrap()
    }

    #[test]
    fn keeps_at_most_two_generations() {
        let (mut samples, now) = (Samples::default(), Instant::now());
        (0..10_000).for_each(|number| samples.record(&connection(number), Sample::Failure, now));
        let connections = samples.connections();
        assert!((MAX_CONNECTIONS..=2 * MAX_CONNECTIONS).contains(&connections), "{connections}");
    }

    proptest! {
        /// A connection counts once, by its latest sample, for at least 5 s and at most 10 s.
        #[test]
        fn counts_latest_sample_of_each_connection(
            events in prop::collection::vec((0..3000_u64, 0..12_usize, 0..3_usize), 1..200),
        ) {
            let (mut samples, mut now) = (Samples::default(), Instant::now());
            let mut latest: HashMap<usize, (Instant, Sample)> = HashMap::new();
            for (millis, number, sample) in events {
                now += Duration::from_millis(millis);
                samples.record(&connection(number), SAMPLES[sample], now);
                latest.insert(number, (now, SAMPLES[sample]));
                for sample in SAMPLES {
                    let younger_than = |age: Duration| {
                        latest.values().filter(|(at, of)| *of == sample && now - *at < age).count()
                    };
                    let least = younger_than(MAX_GENERATION_AGE);
                    let most = younger_than(2 * MAX_GENERATION_AGE);
                    prop_assert!((least..=most).contains(&samples.count(sample)));
                }
                let sum: usize = SAMPLES.map(|sample| samples.count(sample)).iter().sum();
                prop_assert_eq!(sum, samples.connections());
            }
        }
    }
}
