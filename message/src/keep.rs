//! How long a message is kept for a user who is away.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{limits::KEEP_SECONDS, number::Whole};

/// The time for which the mailbox keeps a message for its user: whole seconds from 60 to 2 592 000, which is 30 days.
///
/// ```
/// use std::time::Duration;
/// use streamer_message::Keep;
///
/// assert!(Keep::new(Duration::from_secs(7 * 24 * 3600)).is_ok());
/// assert!(Keep::new(Duration::from_secs(59)).is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Keep(#[cfg_attr(test, schemars(range(min = 60, max = 2_592_000)))] u32);

/// A time that is not valid for [`Keep`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a message can be kept for {} to {} seconds (30 days), got {seconds}",
    KEEP_SECONDS.start(),
    KEEP_SECONDS.end()
)]
pub struct InvalidKeep {
    seconds: u64,
}

impl Keep {
    /// Checks a time; a fraction of a second is dropped.
    ///
    /// # Errors
    /// [`InvalidKeep`] if it is shorter than 60 s or longer than 30 days: correct it.
    pub fn new(time: Duration) -> Result<Self, InvalidKeep> {
        let seconds = time.as_secs();
        let valid = u32::try_from(seconds).ok().filter(|seconds| KEEP_SECONDS.contains(seconds));
        valid.map(Self).ok_or(InvalidKeep { seconds })
    }

    /// Returns the time.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Whole(seconds) = Whole::<u64>::deserialize(deserializer)?;
        Self::new(Duration::from_secs(seconds)).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_has_60_seconds_to_30_days() {
        let seconds =
            |seconds| Keep::new(Duration::from_secs(seconds)).map(|keep| keep.duration().as_secs()).ok();
        assert_eq!([seconds(60), seconds(2_592_000)], [Some(60), Some(2_592_000)]);
        assert_eq!([seconds(0), seconds(59), seconds(2_592_001), seconds(u64::MAX)], [None; 4]);
        let error = Keep::new(Duration::from_secs(59)).unwrap_err().to_string();
        assert_eq!(error, "a message can be kept for 60 to 2592000 seconds (30 days), got 59");
    }

    #[test]
    fn keep_reads_whole_numbers_in_any_notation() {
        for (json, seconds) in [("60", Some(60)), ("6e1", Some(60)), ("60.0", Some(60))] {
            let keep = serde_json::from_str::<Keep>(json).ok().map(|keep| keep.duration().as_secs());
            assert_eq!(keep, seconds, "{json}");
        }
        for json in ["59", "60.5", "\"60\"", "null", "-60"] {
            assert!(serde_json::from_str::<Keep>(json).is_err(), "{json}");
        }
    }
}
