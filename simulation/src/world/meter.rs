//! Counts of everything that happens in the world.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use streamer_message::ConnectionId;

use super::note::{Kind, Note};
use crate::histogram::Histogram;

/// Counts of posts and deliveries.
#[derive(Debug, Default, Clone)]
pub struct Meter(Arc<Mutex<Figures>>);

/// The figures of a meter.
#[derive(Debug, Default)]
pub struct Figures {
    /// Latencies of first deliveries, from the producer's send to the answer to the post.
    pub latencies: BTreeMap<Kind, Histogram>,
    /// When the last first delivery was answered, in milliseconds.
    pub last: BTreeMap<Kind, u64>,
    /// Posts that API Gateway has taken for delivery again.
    pub duplicates: u64,
    /// Recipients whose connection was gone.
    pub gone: u64,
    /// Posts.
    pub posts: u64,
    /// Posts that were answered with 429 because the account's quota was used up.
    pub throttled: u64,
    /// Posts that were answered with 429 because the client is slow.
    pub slow: u64,
    /// Posts that were answered with 5xx.
    pub failed: u64,
    /// Posts that API Gateway admitted in each second.
    pub admitted: Vec<u64>,
    /// Deliveries in each second.
    pub delivered: Vec<u64>,
    /// Messages on the queues at the end of each second.
    pub depth: Vec<usize>,
    /// CPU time of the workers, in milliseconds.
    pub cpu: f64,
    reached: HashMap<String, Bits>,
}

/// A set of small numbers.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    /// Inserts a number, and returns whether it is new.
    fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }
}

impl Meter {
    /// Locks the figures.
    pub fn figures(&self) -> MutexGuard<'_, Figures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Figures {
    /// Counts one in a second's bucket.
    pub(super) fn count(series: &mut Vec<u64>, now: u64) {
        let second = (now / 1000) as usize;
        if second >= series.len() {
            series.resize(second + 1, 0);
        }
        series[second] += 1;
    }

    /// Counts a delivered post, or one to a connection that is gone.
    pub(super) fn reach(&mut self, connection: &ConnectionId, note: Note, is_gone: bool, now: u64) {
        if !self.is_new(connection.as_str(), note) {
            self.duplicates += 1;
            return;
        }
        if is_gone {
            self.gone += 1;
            return;
        }
        Self::count(&mut self.delivered, now);
        self.latencies.entry(note.kind).or_default().add(now.saturating_sub(note.at));
        self.last.insert(note.kind, now);
    }

    /// A broadcast is known by its recipient, any other message by its number.
    fn is_new(&mut self, connection: &str, note: Note) -> bool {
        let (prefix, number) = match note.kind {
            Kind::Single => ("s", note.number),
            Kind::Update => ("u", note.number),
            Kind::Kept => ("k", note.number),
            Kind::Broadcast => {
                let (prefix, row) = connection.rsplit_once('-').unwrap_or((connection, "0"));
                (prefix, row.parse().unwrap_or(0))
            }
        };
        match self.reached.get_mut(prefix) {
            Some(bits) => bits.insert(number),
            None => self.reached.entry(prefix.to_owned()).or_default().insert(number),
        }
    }

    /// Returns the first deliveries of all kinds.
    #[must_use]
    pub fn first_deliveries(&self) -> u64 {
        self.latencies.values().map(Histogram::total).sum()
    }
}
