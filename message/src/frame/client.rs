//! Frames that a client sends.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{
    id::{Epoch, MessageId},
    limits::{ACK_IDS, PAGE_BYTES, SYNC_STREAMS},
    number,
    position::{Position, StreamName},
};

/// A frame that a client sends. `type` names it; `action` may do so too, for an API that selects routes by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub enum ClientFrame {
    /// Asks for the messages after the client's position.
    #[serde(rename = "streamer.sync")]
    Sync(SyncFrame),
    /// Says that the client has handled messages whose producers want to know.
    #[serde(rename = "streamer.ack")]
    Ack(AckFrame),
    /// Asks for a [`ServerFrame::Pong`](super::ServerFrame::Pong).
    #[serde(rename = "streamer.ping")]
    Ping,
}

/// A request for the messages after the client's positions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct SyncFrame {
    /// A number that the answer repeats.
    #[serde(default, deserialize_with = "number::whole")]
    pub n: u64,
    /// Whether this is the first sync on this connection. It registers the connection for live messages.
    #[serde(default)]
    pub hello: bool,
    /// The streams to read, at most 10.
    #[cfg_attr(test, schemars(length(min = 1, max = SYNC_STREAMS)))]
    pub streams: Vec<StreamRequest>,
    /// Maximum size of the answer in bytes, 30720 by default and at most. A single message may be larger.
    #[serde(default, deserialize_with = "number::optional_whole", skip_serializing_if = "Option::is_none")]
    pub max: Option<usize>,
}

/// Messages that the client has handled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct AckFrame {
    /// The ids of the messages, at most 10.
    #[cfg_attr(test, schemars(length(min = 1, max = ACK_IDS)))]
    pub ids: Vec<MessageId>,
}

impl AckFrame {
    /// Returns the acknowledgment of these messages, 1 to 10.
    #[must_use]
    pub fn new(ids: Vec<MessageId>) -> Self {
        Self { ids }
    }
}

/// A stream, and the client's position in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct StreamRequest {
    /// The stream.
    pub stream: StreamName,
    /// The epoch of the client's position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The number of the last message that the client has. Without it, the client has no position.
    #[serde(default, deserialize_with = "number::optional_whole", skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The beginning for a client without a position, `oldest` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Beginning>,
}

/// The beginning for a client without a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Beginning {
    /// With the oldest message that is kept.
    Oldest,
    /// With messages that are stored from now on.
    Now,
}

/// The point after which a client reads a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// After the message at this position.
    After(Position),
    /// Before the oldest message that is kept.
    Oldest,
    /// After the newest message.
    Now,
}

/// Why a frame cannot be read. The text does not repeat the frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidFrame {
    /// The frame is not a JSON object with a `type` or an `action` that is known here.
    #[error(
        "the frame has no `type` that is known here: send `streamer.sync`, `streamer.ack` or `streamer.ping`"
    )]
    Type,
    /// A field of the frame is missing or not valid.
    #[error(
        "the fields of the frame are not valid (line {line}, column {column}): see the schema client-frame.json"
    )]
    Field {
        /// The line of the fault, from 1.
        line: usize,
        /// The column of the fault, from 1.
        column: usize,
    },
    /// The frame names no stream, or too many.
    #[error("a sync names 1 to {SYNC_STREAMS} streams, got {0}")]
    Streams(usize),
    /// The frame names no message, or too many.
    #[error("an acknowledgment names 1 to {ACK_IDS} messages, got {0}")]
    Ids(usize),
}

/// The two fields that may name a frame.
#[derive(Deserialize)]
struct Names<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    action: Option<Cow<'a, str>>,
}

impl ClientFrame {
    /// Decodes a frame. Fields that are not known here are ignored.
    ///
    /// # Errors
    /// [`InvalidFrame`] if it is not a frame of a client. It would fail again.
    pub fn decode(text: &str) -> Result<Self, InvalidFrame> {
        let names: Names<'_> = serde_json::from_str(text).map_err(|_| InvalidFrame::Type)?;
        match names.kind.or(names.action).as_deref() {
            Some("streamer.sync") => {
                let sync: SyncFrame = fields(text)?;
                match sync.streams.len() {
                    1..=SYNC_STREAMS => Ok(Self::Sync(sync)),
                    streams => Err(InvalidFrame::Streams(streams)),
                }
            }
            Some("streamer.ack") => {
                let ack: AckFrame = fields(text)?;
                match ack.ids.len() {
                    1..=ACK_IDS => Ok(Self::Ack(ack)),
                    ids => Err(InvalidFrame::Ids(ids)),
                }
            }
            Some("streamer.ping") => Ok(Self::Ping),
            _ => Err(InvalidFrame::Type),
        }
    }
}

fn fields<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, InvalidFrame> {
    let invalid =
        |error: serde_json::Error| InvalidFrame::Field { line: error.line(), column: error.column() };
    serde_json::from_str(text).map_err(invalid)
}

impl SyncFrame {
    /// Returns a sync of one stream.
    #[must_use]
    pub fn new(n: u64, hello: bool, stream: StreamRequest) -> Self {
        Self { n, hello, streams: vec![stream], max: None }
    }

    /// Returns the maximum size of a page in bytes: what the client asks for, and at most
    /// [`PAGE_BYTES`].
    #[must_use]
    pub fn max_bytes(&self) -> usize {
        self.max.unwrap_or(PAGE_BYTES).min(PAGE_BYTES)
    }
}

impl StreamRequest {
    /// Returns a request for the user's own stream.
    #[must_use]
    pub fn user(start: Start) -> Self {
        let (epoch, seq, from) = match start {
            Start::After(Position { epoch, seq }) => (Some(epoch), Some(seq), None),
            Start::Oldest => (None, None, Some(Beginning::Oldest)),
            Start::Now => (None, None, Some(Beginning::Now)),
        };
        Self { stream: StreamName::User, epoch, seq, from }
    }

    /// Returns the point after which the client reads. A position needs both its parts.
    #[must_use]
    pub fn start(&self) -> Start {
        match (&self.epoch, self.seq, self.from) {
            (Some(epoch), Some(seq), _) => Start::After(Position { epoch: epoch.clone(), seq }),
            (_, _, Some(Beginning::Now)) => Start::Now,
            _ => Start::Oldest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sync(text: &str) -> SyncFrame {
        match ClientFrame::decode(text) {
            Ok(ClientFrame::Sync(sync)) => sync,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn type_or_action_names_the_frame() {
        for name in ["type", "action"] {
            let ping = format!(r#"{{"{name}":"streamer.ping"}}"#);
            assert_eq!(ClientFrame::decode(&ping), Ok(ClientFrame::Ping));
        }
        for other in ["", "[]", "{}", r#"{"type":"chat"}"#, r#"{"type":7}"#] {
            assert_eq!(ClientFrame::decode(other), Err(InvalidFrame::Type), "{other}");
        }
    }

    #[test]
    fn sync_names_position_or_start() {
        let frame = sync(
            r#"{"type":"streamer.sync","n":7,"hello":true,"streams":[{"stream":"user","epoch":"e","seq":41.0}],"new":1}"#,
        );
        let position = Position { epoch: "e".try_into().unwrap(), seq: 41 };
        assert_eq!((frame.n, frame.hello, frame.streams[0].start()), (7, true, Start::After(position)));
        for (fields, start) in [
            ("", Start::Oldest),
            (r#","from":"oldest""#, Start::Oldest),
            (r#","from":"now""#, Start::Now),
            (r#","epoch":"e""#, Start::Oldest),
        ] {
            let text = format!(r#"{{"type":"streamer.sync","streams":[{{"stream":"user"{fields}}}]}}"#);
            assert_eq!(sync(&text).streams[0].start(), start, "{fields}");
        }
    }

    #[test]
    fn sync_names_1_to_10_streams() {
        let of = |count: usize| {
            let streams = vec![r#"{"stream":"user"}"#; count].join(",");
            ClientFrame::decode(&format!(r#"{{"type":"streamer.sync","streams":[{streams}]}}"#))
        };
        assert!(of(1).is_ok() && of(10).is_ok());
        assert_eq!(of(0), Err(InvalidFrame::Streams(0)));
        assert_eq!(of(11), Err(InvalidFrame::Streams(11)));
    }

    #[test]
    fn acknowledgment_names_1_to_10_messages() {
        let of = |count: usize| {
            let ids = vec![r#""m""#; count].join(",");
            ClientFrame::decode(&format!(r#"{{"type":"streamer.ack","ids":[{ids}]}}"#))
        };
        let ack = AckFrame::new(vec!["m".try_into().unwrap(), "m".try_into().unwrap()]);
        assert_eq!(of(2), Ok(ClientFrame::Ack(ack)));
        assert!(of(10).is_ok());
        assert_eq!((of(0), of(11)), (Err(InvalidFrame::Ids(0)), Err(InvalidFrame::Ids(11))));
        let error = ClientFrame::decode(r#"{"type":"streamer.ack","ids":["s3cret",""]}"#).unwrap_err();
        assert!(
            matches!(error, InvalidFrame::Field { .. }) && !error.to_string().contains("s3cret"),
            "{error}"
        );
    }

    #[test]
    fn invalid_fields_are_not_repeated() {
        for fields in [r#""streams":"s3cret""#, r#""streams":[{"stream":"s3cret"}]"#, r#""n":"s3cret""#] {
            let error = ClientFrame::decode(&format!(r#"{{"type":"streamer.sync",{fields}}}"#)).unwrap_err();
            assert!(matches!(error, InvalidFrame::Field { .. }), "{error}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn page_size_is_bounded() {
        let max = |field: &str| {
            sync(&format!(r#"{{"type":"streamer.sync","streams":[{{"stream":"user"}}]{field}}}"#)).max_bytes()
        };
        assert_eq!((max(""), max(r#","max":100"#), max(r#","max":1000000"#)), (PAGE_BYTES, 100, PAGE_BYTES));
    }

    #[test]
    fn frames_round_trip() {
        let position = Position { epoch: "e".try_into().unwrap(), seq: 3 };
        for start in [Start::After(position), Start::Oldest, Start::Now] {
            let frame = ClientFrame::Sync(SyncFrame::new(1, true, StreamRequest::user(start)));
            let text = serde_json::to_string(&frame).unwrap();
            assert_eq!(ClientFrame::decode(&text), Ok(frame));
        }
        assert_eq!(serde_json::to_string(&ClientFrame::Ping).unwrap(), r#"{"type":"streamer.ping"}"#);
    }
}
