//! From records of the queue to messages.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use aws_lambda_events::sqs::SqsMessage;
use bytes::Bytes;
use streamer_message::{Audience, DecodeError, MessageId, OutboundMessage, RequestId};

use crate::InvalidEvent;

/// A record of the event, which can be reported by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    id: String,
    body: String,
    attributes: HashMap<String, String>,
}

/// A message that can be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The record's id: what is reported to SQS.
    pub record_id: String,
    /// The message's own id.
    pub id: MessageId,
    /// Whom it is for.
    pub to: Audience,
    /// The bytes for the clients: a slice of the record's body.
    pub payload: Bytes,
    /// The request that it belongs to.
    pub request_id: Option<RequestId>,
    /// After it the message is worthless.
    pub expires_at: Option<SystemTime>,
    /// When it was put on the queue.
    pub sent_at: Option<SystemTime>,
    /// When it was made: the id's time where that tells, else when it was put on the queue.
    pub made_at: Option<SystemTime>,
}

/// A record that holds no message, and never will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poison {
    /// The record's id.
    pub record_id: String,
    /// The record's body, untouched.
    pub body: String,
    /// What is wrong with it.
    pub error: DecodeError,
    /// How often SQS has delivered it.
    pub attempts: String,
    /// When SQS delivered it first, in milliseconds since the epoch.
    pub since: String,
}

/// What a record holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// A message.
    Message(Message),
    /// Something else.
    Poison(Poison),
}

impl TryFrom<SqsMessage> for Record {
    type Error = InvalidEvent;

    fn try_from(record: SqsMessage) -> Result<Self, InvalidEvent> {
        Ok(Self {
            id: record.message_id.filter(|id| !id.is_empty()).ok_or(InvalidEvent)?,
            body: record.body.unwrap_or_default(),
            attributes: record.attributes,
        })
    }
}

/// Reads a record. The payload's bytes are neither copied nor changed.
#[must_use]
pub fn decode(record: Record) -> Decoded {
    let Record { id: record_id, body, attributes } = record;
    let attribute = |name: &str| attributes.get(name).cloned().unwrap_or_default();
    let decoded = OutboundMessage::decode(&body).map(|message| {
        let place = message.payload.as_str().as_ptr().addr() - body.as_ptr().addr();
        let span = place..place + message.payload.as_str().len();
        let request_id = message.request.map(|request| request.id);
        (message.id, message.to, message.expires_at, request_id, span)
    });
    match decoded {
        Ok((id, to, expires_at, request_id, span)) => {
            let sent_at = attribute("SentTimestamp").parse().ok().and_then(at);
            Decoded::Message(Message {
                record_id,
                to,
                payload: Bytes::from(body).slice(span),
                request_id,
                expires_at: expires_at.and_then(at),
                sent_at,
                made_at: id.created_at().and_then(at).or(sent_at),
                id,
            })
        }
        Err(error) => Decoded::Poison(Poison {
            record_id,
            error,
            attempts: attribute("ApproximateReceiveCount"),
            since: attribute("ApproximateFirstReceiveTimestamp"),
            body,
        }),
    }
}

/// A time in milliseconds since the epoch; `None` past the end of time, which is never reached.
fn at(millis: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(body: &str) -> Record {
        let attributes = [
            ("SentTimestamp", "1764000000000"),
            ("ApproximateReceiveCount", "2"),
            ("ApproximateFirstReceiveTimestamp", "1764000000007"),
        ];
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Record { id: "record".to_owned(), body: body.to_owned(), attributes: attributes.map(owned).into() }
    }

    fn message(body: &str) -> Message {
        match decode(record(body)) {
            Decoded::Message(message) => message,
            Decoded::Poison(poison) => panic!("{poison:?}"),
        }
    }

    #[test]
    fn the_payload_is_a_slice_of_the_body() {
        let body = r#"{"version":1,"id":"m","payload": {"é": [1.0, "\ud83d"]} ,"to":{"connection":"c"}}"#;
        assert_eq!(message(body).payload, r#"{"é": [1.0, "\ud83d"]}"#);
    }

    #[test]
    fn a_message_is_as_old_as_its_id_says_or_else_as_the_queue_says() {
        let body = |id: &str| format!(r#"{{"version":1,"id":"{id}","payload":1,"to":{{"connection":"c"}}}}"#);
        assert_eq!(message(&body("m")).made_at, at(1_764_000_000_000));
        let uuid = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
        assert_eq!(message(&body(uuid)).made_at, at(1_645_557_742_000));
    }

    #[test]
    fn poison_keeps_its_body_and_what_the_queue_knows_of_it() {
        let Decoded::Poison(poison) = decode(record("{\"version\":1}")) else { panic!("it has no id") };
        assert_eq!((poison.body.as_str(), poison.attempts.as_str()), ("{\"version\":1}", "2"));
        assert_eq!(poison.since, "1764000000007");
    }

    #[test]
    fn a_record_without_an_id_is_no_record() {
        let without = SqsMessage::default();
        let mut empty = SqsMessage::default();
        empty.message_id = Some(String::new());
        assert!(Record::try_from(without).is_err() && Record::try_from(empty).is_err());
    }
}
