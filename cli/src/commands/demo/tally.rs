//! Counts the received frames.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use serde_json::Value;
use streamer_message::MessageId;

use crate::stack::socket::Frame;

/// The received frames, and each message's latency to its last recipient.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Number of frames by recipient and message id.
    frames: HashMap<(String, String), usize>,
    latencies: HashMap<String, Duration>,
    /// Number of frames that did not arrive.
    pub lost: usize,
}

impl Tally {
    /// Counts a frame of `recipient`, and returns its JSON and its message's age. Returns `None` for a duplicate.
    ///
    /// # Errors
    /// When the frame is not a message of the producer library.
    pub(super) fn count(
        &mut self,
        recipient: &str,
        frame: &Frame,
    ) -> anyhow::Result<Option<(Value, Duration)>> {
        let json = frame.json()?;
        let id = json["id"].as_str().with_context(|| format!("the frame has no id: {}", frame.text))?;
        let created = MessageId::new(id)?.created_at().context("the id is not a UUIDv7")?;
        let created = SystemTime::UNIX_EPOCH + Duration::from_millis(created);
        let latency = frame.at.duration_since(created).unwrap_or_default();
        let frames = self.frames.entry((recipient.to_owned(), id.to_owned())).or_default();
        *frames += 1;
        if *frames > 1 {
            return Ok(None);
        }
        let slowest = self.latencies.entry(id.to_owned()).or_default();
        *slowest = latency.max(*slowest);
        Ok(Some((json, latency)))
    }

    /// Returns the number of frames.
    #[must_use]
    pub(super) fn frames(&self) -> usize {
        self.frames.values().sum()
    }

    /// Returns the number of distinct messages, counted per recipient.
    #[must_use]
    pub(super) fn unique(&self) -> usize {
        self.frames.len()
    }

    /// Returns the number of messages that a recipient got more than once.
    #[must_use]
    pub(super) fn repeated(&self) -> usize {
        self.frames.values().filter(|frames| **frames > 1).count()
    }

    /// Returns the latency that `percent` of the messages do not exceed (nearest rank).
    #[must_use]
    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let mut latencies: Vec<_> = self.latencies.values().copied().collect();
        latencies.sort_unstable();
        let index = (latencies.len() * percent).div_ceil(100).saturating_sub(1);
        latencies.get(index).copied().unwrap_or_default()
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
    fn duplicates_count_per_recipient() {
        let (mut tally, id) = (Tally::default(), MessageId::generate());
        for (recipient, after) in [("a", 10), ("b", 20), ("a", 5000)] {
            tally.count(recipient, &frame(&id, after)).unwrap();
        }
        assert_eq!((tally.frames(), tally.unique(), tally.repeated()), (3, 2, 1));
        assert_eq!(tally.percentile(99), Duration::from_millis(20), "a duplicate has no latency");
    }

    #[test]
    fn percentiles_use_the_nearest_rank() {
        let mut tally = Tally::default();
        for after in 1..=100 {
            tally.count("a", &frame(&MessageId::generate(), after)).unwrap();
        }
        assert_eq!([50, 99, 100].map(|percent| tally.percentile(percent).as_millis()), [50, 99, 100]);
    }
}
