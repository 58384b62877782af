//! Events, effects and frames.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An event. Times are in milliseconds, of any clock that does not go back.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// A socket was opened. Frames are sent on it from now on. An older socket may still deliver.
    Opened,
    /// The socket was closed, and there is no other.
    Closed,
    /// A frame arrived.
    Frame {
        /// The frame, JSON text.
        text: String,
    },
    /// The handler of the message that was delivered last has resolved.
    Handled,
    /// The handler of the message that was delivered last has failed. The message counts as handled, and is not
    /// acknowledged.
    Failed,
    /// The connection was idle for a long time.
    Idle,
    /// The time of `Client::wake_at` has come.
    Woken,
}

/// An effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub(crate) enum Effect {
    /// Send this frame.
    Send {
        /// The frame, JSON text.
        text: String,
    },
    /// Hand a message to the handler. The next one follows after [`Event::Handled`].
    Deliver {
        /// The epoch of its position.
        epoch: String,
        /// The message's number.
        seq: u64,
        /// The message's id.
        id: String,
        /// The payload.
        payload: Value,
    },
    /// Tell the application that messages are missing.
    Gap {
        /// The epoch of the stream, the new one for a gap of unknown size.
        epoch: String,
        /// The first and the last number; `None` if the number of messages is unknown.
        range: Option<(u64, u64)>,
        /// Why: `expired`, `overflow`, `too_large`, `epoch` or `ahead`.
        reason: String,
    },
    /// Tell the application that it has everything.
    CaughtUp {
        /// The epoch of the stream.
        epoch: String,
        /// The number of the newest message.
        top: u64,
    },
    /// Store the position and the ids together.
    Store(Stored),
    /// The newest socket is registered: close the one before it.
    Registered,
    /// Close the socket and open another.
    Reconnect,
}

/// The part of a client's state that outlives it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// The epoch of the position.
    pub(crate) epoch: String,
    /// The number of the last message that was handled, or is missing.
    pub(crate) seq: u64,
    /// The ids of the last messages that were handled.
    pub(crate) ids: Vec<String>,
}

/// A frame from the server.
#[derive(Debug, Deserialize)]
#[serde(tag = "type")]
pub(super) enum Frame {
    #[serde(rename = "streamer.message")]
    Message {
        epoch: String,
        #[serde(flatten)]
        message: Message,
    },
    #[serde(rename = "streamer.page")]
    Page(Page),
    #[serde(other)]
    Other,
}

/// A message, live or on a page.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Message {
    pub(super) seq: u64,
    pub(super) id: String,
    pub(super) payload: Value,
    /// Whether the producer wants an acknowledgment.
    #[serde(default)]
    pub(super) ack: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Page {
    pub(super) n: u64,
    pub(super) epoch: String,
    pub(super) after: u64,
    pub(super) through: u64,
    pub(super) top: u64,
    pub(super) messages: Vec<Message>,
    pub(super) missing: Vec<Missing>,
    #[serde(default)]
    pub(super) reset: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Missing {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) reason: String,
}

impl Frame {
    /// Parses a frame. Other payloads than Streamer's frames are [`Frame::Other`].
    pub(super) fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or(Self::Other)
    }
}
