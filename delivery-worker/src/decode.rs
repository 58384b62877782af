//! Decodes SQS records into messages.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use streamer_events::{Body, SqsRecord};
use streamer_mailbox::Stream;
use streamer_message::{
    Audience, ConnectionId, DecodeError, Envelope, Payload, Position, ReceiptRequest, Retry, StreamName,
    Texts, frame::ServerFrame,
};

use crate::{
    due_receipt::DueReceipt,
    outcome::{Completed, Outcome},
};

/// Why a record has no message. It becomes a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Poison {
    /// The body is not a valid message.
    #[error(transparent)]
    Body(#[from] DecodeError),
    /// The record has no body that is a string.
    #[error("the record's body is missing or not a string; the dead letter's body is the record, as JSON")]
    NoBody,
}

/// An SQS record and its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The SQS message id, which names it in `batchItemFailures`.
    pub id: Option<String>,
    /// The handle for `ChangeMessageVisibility`.
    pub receipt_handle: Option<String>,
    /// The body, valid UTF-8. Without a body that is a string, the record as JSON.
    pub body: Bytes,
    /// The message group.
    pub group: Option<String>,
    /// The X-Ray trace header.
    pub trace: Option<String>,
    /// When it was sent to the queue.
    pub sent_at: Option<SystemTime>,
    /// When SQS first delivered it.
    pub first_received_at: Option<SystemTime>,
    /// How many times SQS has delivered it, including this time.
    pub receives: u32,
    /// The message, or why there is none.
    pub content: Result<Message, Poison>,
    /// A receipt that an earlier worker could not send. It is no message.
    pub due: Option<Box<DueReceipt>>,
}

/// Bytes of a frame besides its payload, for most ids.
const FRAME_BYTES: usize = 256;

/// A valid message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// All fields except the payload.
    pub envelope: Envelope,
    /// The bytes for the clients, a slice of the record's body.
    pub payload: Bytes,
    /// The JSON of `to`, a slice of the record's body.
    to_json: Bytes,
    /// The JSON of `request`, a slice of the record's body. Empty if there is none.
    request_json: Bytes,
    /// When the message expires.
    pub expires_at: Option<SystemTime>,
    /// When it was made: the time in its id, else when it was first received or sent.
    pub made_at: Option<SystemTime>,
    /// For a message that is to be kept: the mailbox has it. The stage [`keep`](mod@crate::keep) sets it.
    pub stored: Option<Stored>,
}

/// A message in the mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The position in the user's stream.
    pub position: Position,
    /// The bytes for devices: the payload in a frame with the position. Empty if no device needs a post.
    pub frame: Bytes,
    /// Another endpoint at which the user has devices.
    pub elsewhere: Option<String>,
}

/// A message and one of its recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair<'a> {
    /// The record's index in the batch.
    pub index: usize,
    /// The message.
    pub message: &'a Message,
    /// The recipient.
    pub connection: ConnectionId,
}

impl Record {
    /// Decodes a record without copying or changing the payload's bytes.
    #[must_use]
    pub fn read(record: SqsRecord) -> Self {
        let attribute = |name: &str| record.attributes.get(name).filter(|value| !value.is_empty());
        let time = |name: &str| attribute(name).and_then(|millis| millis.parse().ok()).and_then(at);
        let sent_at = time("SentTimestamp");
        let (body, content) = match record.body {
            Body::Text(text) => {
                let body = Bytes::from(text);
                let content = Message::read(&body, sent_at).map_err(Poison::Body);
                (body, content)
            }
            Body::Unreadable(json) => (Bytes::from(json), Err(Poison::NoBody)),
        };
        let due = content.as_ref().err().and_then(|_| DueReceipt::read(text(&body)));
        Self {
            id: record.message_id,
            receipt_handle: record.receipt_handle,
            group: attribute("MessageGroupId").cloned(),
            trace: attribute("AWSTraceHeader").cloned(),
            sent_at,
            first_received_at: time("ApproximateFirstReceiveTimestamp"),
            receives: attribute("ApproximateReceiveCount").and_then(|count| count.parse().ok()).unwrap_or(1),
            content,
            due,
            body,
        }
    }

    /// Returns the body as text.
    #[must_use]
    pub fn text(&self) -> &str {
        text(&self.body)
    }

    /// Returns the note of the worker that handed the message back.
    #[must_use]
    pub fn retry(&self) -> Option<&Retry> {
        let due = || self.due.as_ref().and_then(|due| due.retry.as_ref());
        self.content.as_ref().ok().and_then(|message| message.envelope.retry.as_ref()).or_else(due)
    }

    /// Returns the connections that already have the message.
    #[must_use]
    pub fn done(&self) -> &[ConnectionId] {
        self.content.as_ref().map_or(&[], Message::done)
    }

    /// Returns whether the mailbox keeps the message.
    #[must_use]
    pub fn is_to_be_kept(&self) -> bool {
        self.content.as_ref().is_ok_and(|message| message.envelope.keep.is_some())
    }

    /// Returns the position of the message in its user's stream, if this worker or an earlier one has stored it.
    #[must_use]
    pub fn position(&self) -> Option<&Position> {
        let stored = self.content.as_ref().ok().and_then(|message| message.stored.as_ref());
        let before = || self.retry().and_then(|retry| retry.kept.as_ref());
        stored.map(|stored| &stored.position).or_else(before)
    }

    /// Returns when any copy of the message was first received.
    #[must_use]
    pub fn since(&self) -> Option<SystemTime> {
        self.retry().and_then(|retry| at(retry.since)).or(self.first_received_at)
    }

    /// Returns the receives that may each have crashed a worker: every receive of this copy, and all but the first of
    /// each earlier copy.
    #[must_use]
    pub fn suspicious_receives(&self) -> u32 {
        self.retry().map_or(0, |retry| retry.receives).saturating_add(self.receives)
    }

    /// Returns how many times any copy of the message was received.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.retry().map_or(0, |retry| retry.count).saturating_add(self.suspicious_receives())
    }
}

impl Message {
    fn read(body: &Bytes, sent_at: Option<SystemTime>) -> Result<Self, DecodeError> {
        let (envelope, texts) = Envelope::decode(text(body))?;
        let since = envelope.retry.as_ref().map(|retry| retry.since);
        Ok(Self {
            payload: body.slice_ref(texts.payload.as_bytes()),
            to_json: body.slice_ref(texts.to.as_bytes()),
            request_json: body.slice_ref(texts.request.as_bytes()),
            made_at: envelope.id.created_at().or(since).and_then(at).or(sent_at),
            expires_at: envelope.expires_at.and_then(at),
            envelope,
            stored: None,
        })
    }

    /// Encodes the message for other recipients, with other notes.
    #[must_use]
    pub fn encode(&self, to: &Audience, receipt: Option<&ReceiptRequest>, retry: Option<&Retry>) -> String {
        let [payload, to_json, request] = [&self.payload, &self.to_json, &self.request_json].map(text);
        self.envelope.encode(Texts { payload, to: to_json, request }, to, receipt, retry)
    }

    /// Returns the stream of its user.
    #[must_use]
    pub fn stream(&self) -> Option<Stream> {
        match &self.envelope.to {
            Audience::User { tenant, user } => Some(Stream { tenant: tenant.clone(), user: user.clone() }),
            _ => None,
        }
    }

    /// Builds the bytes for devices of a message at this position: a `streamer.message` frame with the payload, byte
    /// for byte.
    #[expect(clippy::expect_used, reason = "the payload was read as JSON, and a frame is valid JSON")]
    pub(crate) fn frame(&self, Position { epoch, seq }: &Position) -> Bytes {
        let (stream, id, ack) = (StreamName::User, &self.envelope.id, self.envelope.receipt.is_some());
        let payload: Payload<'_> = serde_json::from_str(self.payload_text()).expect("a payload is JSON");
        let frame = ServerFrame::Message { stream, epoch, seq: *seq, id, ack, payload };
        let mut bytes = Vec::with_capacity(self.payload.len() + FRAME_BYTES);
        serde_json::to_writer(&mut bytes, &frame).expect("a frame is JSON");
        bytes.into()
    }

    /// Returns the payload as JSON text.
    #[must_use]
    pub fn payload_text(&self) -> &str {
        text(&self.payload)
    }

    /// Returns the bytes to post: the payload, or the frame of a kept message.
    #[must_use]
    pub fn posted_bytes(&self) -> &Bytes {
        self.stored.as_ref().map_or(&self.payload, |stored| &stored.frame)
    }

    /// Returns whether it has expired at `now`.
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.expires_at.is_some_and(|expiry| expiry <= now)
    }

    /// Returns a user's connections that already have it.
    #[must_use]
    pub fn done(&self) -> &[ConnectionId] {
        self.envelope.retry.as_ref().map_or(&[], |retry| &retry.done)
    }
}

impl Pair<'_> {
    /// Completes the pair without a post.
    #[must_use]
    pub fn unposted(&self, outcome: Outcome) -> Completed {
        Completed::unposted(self.index, Some(self.connection.clone()), outcome)
    }
}

/// Returns bytes of a body, which was a string, as text.
fn text(bytes: &Bytes) -> &str {
    str::from_utf8(bytes).unwrap_or_default()
}

/// Converts milliseconds since the epoch. `None` for a time that `SystemTime` cannot hold.
fn at(millis: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

/// Returns milliseconds since the epoch.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(body: &str) -> Record {
        let attributes = [
            ("SentTimestamp", "1764000000000"),
            ("ApproximateReceiveCount", "2"),
            ("ApproximateFirstReceiveTimestamp", "1764000000007"),
            ("MessageGroupId", "acme"),
            ("AWSTraceHeader", ""),
        ];
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Record::read(SqsRecord {
            message_id: Some("record".to_owned()),
            body: Body::Text(body.to_owned()),
            attributes: attributes.map(owned).into(),
            ..SqsRecord::default()
        })
    }

    fn message(body: &str) -> Message {
        record(body).content.unwrap()
    }

    #[test]
    fn payload_is_a_slice_of_the_body() {
        let body = r#"{"version":1,"id":"m","payload": {"é": [1.0, "\ud83d"]} ,"to":{"connection":"c"}}"#;
        let record = record(body);
        let payload = record.content.unwrap().payload;
        assert_eq!(payload, r#"{"é": [1.0, "\ud83d"]}"#);
        assert!(record.body.as_ptr_range().contains(&payload.as_ptr()), "the payload must not be copied");
    }

    #[test]
    fn frame_has_position_and_payload_bytes() {
        let to = r#"{"user":{"tenant":"t","user":"u"}}"#;
        let message =
            message(&format!(r#"{{"version":1,"id":"m","payload": {{"é": 1.0}},"to":{to},"keep":60}}"#));
        let position = Position { epoch: "e.0".to_owned().try_into().unwrap(), seq: 42 };
        let expected = r#"{"type":"streamer.message","stream":"user","epoch":"e.0","seq":42,"id":"m","payload":{"é": 1.0}}"#;
        assert_eq!(message.frame(&position), expected);
    }

    #[test]
    fn age_comes_from_id_or_queue() {
        let body = |id: &str| format!(r#"{{"version":1,"id":"{id}","payload":1,"to":{{"connection":"c"}}}}"#);
        assert_eq!(message(&body("m")).made_at, at(1_764_000_000_000));
        let retry = r#""retry":{"count":1,"receives":0,"since":1763999999000,"cause":"503"},"id":"m""#;
        assert_eq!(message(&body("m").replace("\"id\":\"m\"", retry)).made_at, at(1_763_999_999_000));
        let uuid = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
        assert_eq!(message(&body(uuid)).made_at, at(1_645_557_742_000));
    }

    #[test]
    fn poison_keeps_body_and_queue_attributes() {
        let record = record("{\"version\":1}");
        assert!(record.content.is_err(), "a message needs an id");
        assert_eq!((record.text(), record.attempts()), ("{\"version\":1}", 2));
        assert_eq!(record.since(), at(1_764_000_000_007));
        assert_eq!((record.group.as_deref(), record.trace), (Some("acme"), None));
    }

    #[test]
    fn retry_note_adds_to_queue_counts() {
        let retry = r#"{"count":3,"receives":4,"since":1763999999000,"cause":"503"}"#;
        let body =
            format!(r#"{{"version":1,"id":"m","payload":1,"to":{{"connection":"c"}},"retry":{retry}}}"#);
        let record = record(&body);
        assert_eq!(record.since(), at(1_763_999_999_000));
        assert_eq!((record.suspicious_receives(), record.attempts()), (6, 9));
    }

    #[test]
    fn record_without_text_is_poison() {
        let body = Body::Unreadable(r#"{"body":null}"#.to_owned());
        let record = Record::read(SqsRecord { body, ..SqsRecord::default() });
        assert_eq!((record.text(), &record.content), (r#"{"body":null}"#, &Err(Poison::NoBody)));
    }
}
