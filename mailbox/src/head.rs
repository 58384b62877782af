//! The head of a stream.

use std::time::{Duration, SystemTime};

use streamer_message::{Epoch, InvalidId};

/// Time for which a head stays after the last append: 60 days, which is 30 days longer than any message is kept.
const LIFE: Duration = Duration::from_secs(60 * 24 * 3600);

/// A sync renews a head that has less than this left, 45 days.
const RENEWAL: Duration = Duration::from_secs(45 * 24 * 3600);

/// Characters of an epoch: 62 to this power are more than 2 to the power of 64.
const EPOCH_LENGTH: usize = 11;

/// The head of a stream. Its numbers only rise within an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The epoch: another one after the stream was erased, or its head has expired.
    pub epoch: Epoch,
    /// Every number up to this one has been stored; 0 for an empty stream.
    pub top: u64,
    /// The messages up to this number were removed because the stream had too many.
    pub floor: u64,
    /// When DynamoDB may remove the head.
    pub expires_at: SystemTime,
}

impl Head {
    /// Returns the head of a stream that begins at `now`, with a random epoch.
    pub(crate) fn begin(now: SystemTime) -> Result<Self, InvalidId> {
        let epoch = std::iter::repeat_with(fastrand::alphanumeric).take(EPOCH_LENGTH).collect::<String>();
        Ok(Self { epoch: epoch.try_into()?, top: 0, floor: 0, expires_at: now + LIFE })
    }

    /// Returns the end of the life of a head to which a message is appended at `now`.
    pub(crate) fn end_of_life(now: SystemTime) -> SystemTime {
        now + LIFE
    }

    /// Returns whether a sync at `now` should renew the head.
    pub(crate) fn is_old(&self, now: SystemTime) -> bool {
        self.expires_at < now + RENEWAL
    }
}
