//! Positions in a user's stream of kept messages.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{id::Epoch, number};

/// A message's place in a stream: the stream's epoch and the message's number in it.
///
/// Numbers begin at 1 and have no holes. A stream that is made again, after it was erased or lost, has another epoch,
/// and positions of different epochs cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Position {
    /// The epoch of the stream.
    pub epoch: Epoch,
    /// The number of the message, or of the last message that a client has; 0 before the first.
    #[serde(deserialize_with = "number::whole")]
    pub seq: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.epoch, self.seq)
    }
}

/// The streams that a client may read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub enum StreamName {
    /// The messages that are kept for the connection's own user.
    #[default]
    User,
}
