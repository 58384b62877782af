//! Counts what arrives.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use serde_json::Value;
use streamer_message::MessageId;

use crate::stack::socket::Frame;

/// Every frame that arrived, and how long each message took until all its recipients had it.
#[derive(Debug, Default)]
pub struct Tally {
    arrivals: HashMap<(String, String), usize>,
    latencies: HashMap<String, Duration>,
    /// Messages that did not arrive.
    pub lost: usize,
}

impl Tally {
    /// Counts a frame for `recipient`, and returns its JSON and how old its message is; `None` where the
    /// recipient has the message already, since a client drops an id that it has seen.
    ///
    /// # Errors
    /// When the frame is no message of the library's.
    pub fn arrived(&mut self, recipient: &str, frame: &Frame) -> anyhow::Result<Option<(Value, Duration)>> {
        let json = frame.json()?;
        let id = json["id"].as_str().with_context(|| format!("no id: {}", frame.text))?;
        let made = MessageId::new(id)?.created_at().context("the id is no UUIDv7")?;
        let made = SystemTime::UNIX_EPOCH + Duration::from_millis(made);
        let latency = frame.at.duration_since(made).unwrap_or_default();
        let arrivals = self.arrivals.entry((recipient.to_owned(), id.to_owned())).or_default();
        *arrivals += 1;
        if *arrivals > 1 {
            return Ok(None);
        }
        let slowest = self.latencies.entry(id.to_owned()).or_default();
        *slowest = latency.max(*slowest);
        Ok(Some((json, latency)))
    }

    /// Frames that arrived.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.arrivals.values().sum()
    }

    /// Messages that arrived, each once for each recipient.
    #[must_use]
    pub fn unique(&self) -> usize {
        self.arrivals.len()
    }

    /// Messages that arrived more than once.
    #[must_use]
    pub fn twice(&self) -> usize {
        self.arrivals.values().filter(|arrivals| **arrivals > 1).count()
    }

    /// The latency that `percent` of the messages do not exceed. A message's latency is that of its last
    /// recipient.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut latencies: Vec<_> = self.latencies.values().copied().collect();
        latencies.sort_unstable();
        let place = (latencies.len() * percent).div_ceil(100).saturating_sub(1);
        latencies.get(place).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(id: &MessageId, after: u64) -> Frame {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(id.created_at().unwrap() + after);
        Frame { text: format!("{{\"id\":\"{id}\"}}"), at }
    }

    #[test]
    fn the_second_frame_of_a_message_is_a_duplicate_for_its_recipient_alone() {
        let (mut tally, id) = (Tally::default(), MessageId::generate());
        for (recipient, after) in [("a", 10), ("b", 20), ("a", 5000)] {
            tally.arrived(recipient, &frame(&id, after)).unwrap();
        }
        assert_eq!((tally.frames(), tally.unique(), tally.twice()), (3, 2, 1));
        assert_eq!(tally.percentile(99), Duration::from_millis(20), "a duplicate has no latency");
    }

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let mut tally = Tally::default();
        for after in 1..=100 {
            tally.arrived("a", &frame(&MessageId::generate(), after)).unwrap();
        }
        assert_eq!([50, 99, 100].map(|percent| tally.percentile(percent).as_millis()), [50, 99, 100]);
    }
}
