//! Frames that Streamer sends to a client.

use serde::Serialize;

use crate::{
    id::{Epoch, MessageId},
    payload::Payload,
    position::StreamName,
};

/// A frame that Streamer sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub enum ServerFrame<'a> {
    /// A kept message, as it is stored.
    #[serde(rename = "streamer.message")]
    Message {
        /// The stream.
        stream: StreamName,
        /// The epoch of the stream.
        epoch: &'a Epoch,
        /// The number of the message in the stream.
        seq: u64,
        /// The id of the message.
        id: &'a MessageId,
        /// Whether the client sends a `streamer.ack` with the id once it has handled the message.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        #[cfg_attr(test, serde(default))]
        ack: bool,
        /// The JSON value that the producer wrote.
        #[cfg_attr(test, schemars(with = "serde_json::Value"))]
        payload: Payload<'a>,
    },
    /// The answer to a sync.
    #[serde(rename = "streamer.page")]
    Page(PageFrame<'a>),
    /// The answer to a ping.
    #[serde(rename = "streamer.pong")]
    Pong,
}

/// Everything in a stream after `after`, up to and including `through`: each number is in `messages` or in `missing`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(clippy::exhaustive_structs, reason = "the handler and the tests build it")]
pub struct PageFrame<'a> {
    /// The number of the sync.
    pub n: u64,
    /// The stream.
    pub stream: StreamName,
    /// The epoch of the stream.
    pub epoch: &'a Epoch,
    /// The number before the first one of the page.
    pub after: u64,
    /// The last number of the page. The client syncs again if it is less than `top`.
    pub through: u64,
    /// The number of the newest message.
    pub top: u64,
    /// The messages, in order.
    pub messages: Vec<PageMessage<'a>>,
    /// The ranges of numbers whose messages are not kept any more, in order.
    pub missing: Vec<Missing>,
    /// Why the page does not begin at the client's position. The client has missed an unknown number of messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset: Option<Reset>,
    /// Seconds until API Gateway ends the connection.
    pub expires_in: u64,
    /// The server's time, in milliseconds since the epoch.
    pub now: u64,
}

/// A message on a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(clippy::exhaustive_structs, reason = "the handler and the tests build it")]
pub struct PageMessage<'a> {
    /// The number of the message in the stream.
    pub seq: u64,
    /// The id of the message.
    pub id: &'a MessageId,
    /// Whether the client sends a `streamer.ack` with the id once it has handled the message.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(test, serde(default))]
    pub ack: bool,
    /// The JSON value that the producer wrote.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub payload: Payload<'a>,
}

/// A range of messages that the client can no longer get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(clippy::exhaustive_structs, reason = "the mailbox builds it")]
pub struct Missing {
    /// The first number.
    pub from: u64,
    /// The last number.
    pub to: u64,
    /// Why they are missing.
    pub reason: MissingReason,
}

/// Why messages are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum MissingReason {
    /// The time for which they were kept is over.
    Expired,
    /// The stream had more messages than are kept for one user.
    Overflow,
    /// Its payload is larger than what the deployment posts: the limit was lowered after it was kept.
    TooLarge,
}

/// Why a page does not begin at the client's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Reset {
    /// The position belongs to another epoch: the stream was erased, restored or not used for a long time.
    Epoch,
    /// The position is ahead of the newest message.
    Ahead,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_keeps_its_bytes() {
        let (epoch, id) = (Epoch::new("e").unwrap(), MessageId::new("m").unwrap());
        let payload = Payload::from_json(r#"{ "b": 1.0, "a": 1e400 }"#.to_owned()).unwrap();
        let frame = ServerFrame::Message {
            stream: StreamName::User,
            epoch: &epoch,
            seq: 42,
            id: &id,
            ack: true,
            payload,
        };
        assert_eq!(
            serde_json::to_string(&frame).unwrap(),
            r#"{"type":"streamer.message","stream":"user","epoch":"e","seq":42,"id":"m","ack":true,"payload":{ "b": 1.0, "a": 1e400 }}"#
        );
    }

    #[test]
    fn page_covers_its_range() {
        let (epoch, id) = (Epoch::new("e").unwrap(), MessageId::new("m").unwrap());
        let payload = Payload::new(&1).unwrap();
        let page = PageFrame {
            n: 7,
            stream: StreamName::User,
            epoch: &epoch,
            after: 41,
            through: 44,
            top: 80,
            messages: vec![PageMessage { seq: 42, id: &id, ack: false, payload }],
            missing: vec![Missing { from: 43, to: 44, reason: MissingReason::Expired }],
            reset: Some(Reset::Ahead),
            expires_in: 6912,
            now: 5,
        };
        assert_eq!(
            serde_json::to_string(&ServerFrame::Page(page)).unwrap(),
            concat!(
                r#"{"type":"streamer.page","n":7,"stream":"user","epoch":"e","after":41,"through":44,"top":80,"#,
                r#""messages":[{"seq":42,"id":"m","payload":1}],"#,
                r#""missing":[{"from":43,"to":44,"reason":"expired"}],"#,
                r#""reset":"ahead","expires_in":6912,"now":5}"#
            )
        );
    }

    #[test]
    fn pong_has_only_its_type() {
        assert_eq!(serde_json::to_string(&ServerFrame::Pong).unwrap(), r#"{"type":"streamer.pong"}"#);
    }
}
