//! From records of the queue to messages.

use std::time::{Duration, SystemTime};

use aws_lambda_events::sqs::SqsMessage;
use bytes::Bytes;
use streamer_message::{Audience, ConnectionId, DecodeError, MessageId, OutboundMessage, Request, Retry};

use crate::InvalidEvent;

/// A record of the event, and the message that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its id: what is reported to SQS.
    pub id: String,
    /// What SQS hides it by.
    pub receipt_handle: String,
    /// Its body, which is UTF-8.
    pub body: Bytes,
    /// Its message group.
    pub group: Option<String>,
    /// X-Ray's trace header.
    pub trace: Option<String>,
    /// When it was put on the queue.
    pub sent_at: Option<SystemTime>,
    /// When SQS delivered it first.
    pub first_received_at: Option<SystemTime>,
    /// How often SQS has delivered it, this time included.
    pub receives: u32,
    /// The message, or why the body is none and never will be.
    pub content: Result<Message, DecodeError>,
}

/// A message that can be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// Whom it is for.
    pub to: Audience,
    /// The bytes for the clients: a slice of the record's body.
    pub payload: Bytes,
    /// The request that it belongs to, and its place in it.
    pub request: Option<Request>,
    /// Whether a later message of its request makes it worthless.
    pub supersedable: bool,
    /// After it the message is worthless.
    pub expires_at: Option<SystemTime>,
    /// When it was made: the id's time where that tells, else when it was first received or put on the queue.
    pub made_at: Option<SystemTime>,
    /// What workers have noted on it.
    pub retry: Option<Retry>,
}

impl Record {
    /// Reads a record. The payload's bytes are neither copied nor changed.
    ///
    /// # Errors
    /// [`InvalidEvent`] when it has no id.
    pub fn read(record: SqsMessage) -> Result<Self, InvalidEvent> {
        let attribute = |name: &str| record.attributes.get(name).filter(|value| !value.is_empty());
        let time = |name: &str| attribute(name).and_then(|millis| millis.parse().ok()).and_then(at);
        let sent_at = time("SentTimestamp");
        let body = Bytes::from(record.body.unwrap_or_default());
        Ok(Self {
            id: record.message_id.filter(|id| !id.is_empty()).ok_or(InvalidEvent)?,
            receipt_handle: record.receipt_handle.unwrap_or_default(),
            group: attribute("MessageGroupId").cloned(),
            trace: attribute("AWSTraceHeader").cloned(),
            sent_at,
            first_received_at: time("ApproximateFirstReceiveTimestamp"),
            receives: attribute("ApproximateReceiveCount").and_then(|count| count.parse().ok()).unwrap_or(1),
            content: Message::read(&body, sent_at),
            body,
        })
    }

    /// The body's text.
    #[must_use]
    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap_or_default()
    }

    /// What workers have noted on the message.
    #[must_use]
    pub fn retry(&self) -> Option<&Retry> {
        self.content.as_ref().ok().and_then(|message| message.retry.as_ref())
    }

    /// Connections that have the message already.
    #[must_use]
    pub fn done(&self) -> &[ConnectionId] {
        self.retry().map_or(&[], |retry| &retry.done)
    }

    /// When a worker had the message first, in whichever copy.
    #[must_use]
    pub fn since(&self) -> Option<SystemTime> {
        self.retry().and_then(|retry| at(retry.since)).or(self.first_received_at)
    }

    /// Receives that may have killed a worker: all of this copy's, and those beyond the first of each earlier.
    #[must_use]
    pub fn suspicious_receives(&self) -> u32 {
        self.retry().map_or(0, |retry| retry.receives).saturating_add(self.receives)
    }

    /// How often a worker has had the message, in whichever copy.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.retry().map_or(0, |retry| retry.count).saturating_add(self.suspicious_receives())
    }
}

impl Message {
    fn read(body: &Bytes, sent_at: Option<SystemTime>) -> Result<Self, DecodeError> {
        let message = OutboundMessage::decode(str::from_utf8(body).unwrap_or_default())?;
        let since = message.retry.as_ref().map(|retry| retry.since);
        Ok(Self {
            payload: body.slice_ref(message.payload.as_str().as_bytes()),
            made_at: message.id.created_at().or(since).and_then(at).or(sent_at),
            id: message.id,
            to: message.to,
            request: message.request,
            supersedable: message.supersedable,
            expires_at: message.expires_at.and_then(at),
            retry: message.retry,
        })
    }

    /// Whether it is worthless at `now`.
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.expires_at.is_some_and(|expiry| expiry <= now)
    }

    /// Connections of a user that have it already.
    #[must_use]
    pub fn done(&self) -> &[ConnectionId] {
        self.retry.as_ref().map_or(&[], |retry| &retry.done)
    }
}

/// A time in milliseconds since the epoch; `None` past the end of time, which is never reached.
fn at(millis: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

/// Milliseconds since the epoch.
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
        let mut record = SqsMessage::default();
        record.message_id = Some("record".to_owned());
        record.body = Some(body.to_owned());
        record.attributes = attributes.map(owned).into();
        Record::read(record).unwrap()
    }

    fn message(body: &str) -> Message {
        record(body).content.unwrap()
    }

    #[test]
    fn the_payload_is_a_slice_of_the_body() {
        let body = r#"{"version":1,"id":"m","payload": {"é": [1.0, "\ud83d"]} ,"to":{"connection":"c"}}"#;
        let record = record(body);
        let payload = record.content.unwrap().payload;
        assert_eq!(payload, r#"{"é": [1.0, "\ud83d"]}"#);
        assert!(record.body.as_ptr_range().contains(&payload.as_ptr()), "it is not copied");
    }

    #[test]
    fn a_message_is_as_old_as_its_id_says_or_else_as_the_queue_says() {
        let body = |id: &str| format!(r#"{{"version":1,"id":"{id}","payload":1,"to":{{"connection":"c"}}}}"#);
        assert_eq!(message(&body("m")).made_at, at(1_764_000_000_000));
        let retry = r#""retry":{"count":1,"receives":0,"since":1763999999000,"cause":"503"},"id":"m""#;
        assert_eq!(message(&body("m").replace("\"id\":\"m\"", retry)).made_at, at(1_763_999_999_000));
        let uuid = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
        assert_eq!(message(&body(uuid)).made_at, at(1_645_557_742_000));
    }

    #[test]
    fn poison_keeps_its_body_and_what_the_queue_knows_of_it() {
        let record = record("{\"version\":1}");
        assert!(record.content.is_err(), "it has no id");
        assert_eq!((record.text(), record.attempts()), ("{\"version\":1}", 2));
        assert_eq!(record.since(), at(1_764_000_000_007));
        assert_eq!((record.group.as_deref(), record.trace), (Some("acme"), None));
    }

    #[test]
    fn what_workers_have_noted_counts_with_what_the_queue_knows() {
        let retry = r#"{"count":3,"receives":4,"since":1763999999000,"cause":"503"}"#;
        let body =
            format!(r#"{{"version":1,"id":"m","payload":1,"to":{{"connection":"c"}},"retry":{retry}}}"#);
        let record = record(&body);
        assert_eq!(record.since(), at(1_763_999_999_000));
        assert_eq!((record.suspicious_receives(), record.attempts()), (6, 9));
    }

    #[test]
    fn a_record_without_an_id_is_no_record() {
        let without = SqsMessage::default();
        let mut empty = SqsMessage::default();
        empty.message_id = Some(String::new());
        assert!(Record::read(without).is_err() && Record::read(empty).is_err());
    }
}
