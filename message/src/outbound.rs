//! What lies on the queue.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};

use crate::{
    Audience, ConnectionId, MessageId, Payload, RequestId,
    fields::{Fields, INNER},
    number::{self, Millis, Whole},
    payload::escape_for_queue,
};

/// A message on its way to clients, version 1.
///
/// Delivery is at least once. `id` is the same on every redelivery, so a client that drops an id it has seen
/// gets each message once, where the payload carries the id.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OutboundMessage<'a> {
    /// The version of the envelope: 1.
    pub version: Version,
    /// Unique for each message. A producer that may be retried sets its own, so that its second try is the
    /// same message; else a UUIDv7.
    pub id: MessageId,
    /// Whom it is for.
    pub to: Audience,
    /// What the clients receive: any JSON value of at most 128 KiB, passed on byte for byte.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub payload: Payload<'a>,
    /// The request that it belongs to, and its place among that request's messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    /// Whether a later message of the same request makes this one worthless.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(test, serde(default))]
    pub supersedable: bool,
    /// Milliseconds since the epoch after which the message is dropped, not delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// Written by the worker on what it hands back; absent from what producers send.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(skip))]
    pub retry: Option<Retry>,
    /// Fields that this version does not know, kept as they came.
    #[serde(flatten)]
    #[cfg_attr(test, schemars(skip))]
    pub unknown: UnknownFields<'a>,
}

/// The version of the envelope that this library reads and writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Version;

impl Version {
    pub(crate) const NUMBER: u64 = 1;
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(Self::NUMBER)
    }
}

/// Orders the messages of one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Request {
    /// The request.
    pub id: RequestId,
    /// Strictly increasing within the request. The library's default is the clock in microseconds, so that
    /// a router and a job that speak for one request need not agree.
    #[serde(deserialize_with = "number::whole")]
    pub seq: u64,
}

/// What the worker notes on a message that it hands back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// How often the message was handed back.
    #[serde(deserialize_with = "number::whole")]
    pub count: u32,
    /// The sum of the receives beyond the first of each copy: each may be a worker that crashed.
    #[serde(deserialize_with = "number::whole")]
    pub receives: u32,
    /// When the message was first received, in milliseconds since the epoch.
    #[serde(deserialize_with = "number::whole")]
    pub since: u64,
    /// Why it was handed back last.
    pub cause: String,
    /// Connections of a user that have it already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<ConnectionId>,
    /// Up to which connection a user with many has it already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ConnectionId>,
}

/// Fields of a message that this version does not know, in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UnknownFields<'a>(Vec<(Cow<'a, str>, Payload<'a>)>);

impl<'a> UnknownFields<'a> {
    pub(crate) fn of(fields: impl Iterator<Item = (Cow<'a, str>, Payload<'a>)>) -> Self {
        Self(fields.collect())
    }
}

impl Serialize for UnknownFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Why a body is no message. No text repeats a value of the body, which may be confidential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not a JSON object.
    #[error("the body is not a JSON object (line {line}, column {column})")]
    NotAnObject {
        /// Where reading ended, from 1.
        line: usize,
        /// Where reading ended, from 1.
        column: usize,
    },
    /// Written for a later version of Streamer.
    #[error("version {0} is not known here, only version 1: upgrade the worker, then redrive")]
    UnknownVersion(u64),
    /// A field that every message has.
    #[error("`{field}` is missing; expected {expected}")]
    Missing {
        /// The field.
        field: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// The same field twice.
    #[error("`{0}` stands there more than once")]
    Repeated(&'static str),
    /// A field that holds something else.
    #[error("`{field}` is not valid; expected {expected}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
}

impl<'a> OutboundMessage<'a> {
    /// A message with a new id and without options.
    #[must_use]
    pub fn new(to: Audience, payload: Payload<'a>) -> Self {
        Self {
            version: Version,
            id: MessageId::generate(),
            to,
            payload,
            request: None,
            supersedable: false,
            expires_at: None,
            retry: None,
            unknown: UnknownFields::default(),
        }
    }

    /// Reads the body of a queue message. The payload is checked to be JSON, and not copied.
    ///
    /// # Errors
    /// [`DecodeError`]: the body is poison, and no later try will read it.
    pub fn decode(body: &'a str) -> Result<Self, DecodeError> {
        let mut fields = Fields::read(body)?;
        match fields.required("version", "1")? {
            Whole(Version::NUMBER) => {}
            Whole(other) => return Err(DecodeError::UnknownVersion(other)),
        }
        Ok(Self {
            version: Version,
            id: fields.required("id", "a string of 1 to 128 characters")?,
            to: fields.required(
                "to",
                "one of {\"connection\": id}, {\"connections\": [1 to 100 ids]}, \
                 {\"user\": {\"tenant\": t, \"user\": u}} and {\"tenant\": t}",
            )?,
            payload: fields.required("payload", "a JSON value")?,
            request: fields
                .optional("request", "{\"id\": a string of 1 to 128 characters, \"seq\": an integer}")?,
            supersedable: fields.optional("supersedable", "true or false")?.unwrap_or(false),
            expires_at: fields
                .optional("expires_at", "milliseconds since the epoch, a number")?
                .map(|Millis(millis)| millis),
            retry: fields.optional("retry", "what a worker wrote there, or nothing")?,
            unknown: fields.rest(),
        })
    }

    /// Writes the body of a queue message, in characters that SQS takes.
    #[must_use]
    #[expect(
        clippy::missing_panics_doc,
        clippy::expect_used,
        reason = "every part is JSON, under names that are text"
    )]
    pub fn encode(&self) -> String {
        escape_for_queue(serde_json::to_string(self).expect("a message is JSON"))
    }

    /// Writes the body like [`encode`](Self::encode), with the fields inside of `to` and `request` of the body that the
    /// message was read from, as far as this version does not know them.
    #[must_use]
    pub fn encode_over(&self, original: &str) -> String {
        let body = self.encode();
        match (Fields::read(&body), Fields::read(original)) {
            (Ok(ours), Ok(theirs)) => escape_for_queue(ours.over(&theirs, &INNER)),
            _ => body,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn whole() -> Value {
        json!({
            "version": 1,
            "id": "0199f6a2-0000-7000-8000-000000000000",
            "to": {"connection": "L0SM9cOFvHcCIhw="},
            "payload": {"type": "progress", "progress": 40},
            "request": {"id": "req_123", "seq": 7},
            "supersedable": true,
            "expires_at": 1_764_000_000_000_u64,
            "retry": {"count": 3, "receives": 1, "since": 1_763_999_000_000_u64, "cause": "503", "done": ["a="]},
        })
    }

    fn without(field: &str) -> String {
        let mut body = whole();
        body.as_object_mut().unwrap().remove(field);
        body.to_string()
    }

    fn with(field: &str, value: Value) -> String {
        let mut body = whole();
        body[field] = value;
        body.to_string()
    }

    #[test]
    fn a_message_reads_back_as_it_was_written() {
        let body = whole().to_string();
        let message = OutboundMessage::decode(&body).unwrap();
        assert_eq!(message.request.as_ref().unwrap().seq, 7);
        assert_eq!(message.retry.as_ref().unwrap().done.len(), 1);
        assert_eq!(serde_json::from_str::<Value>(&message.encode()).unwrap(), whole());
    }

    #[test]
    fn the_smallest_message_has_four_fields() {
        let body = r#"{"version":1,"id":"a","to":{"tenant":"acme"},"payload":null}"#;
        let message = OutboundMessage::decode(body).unwrap();
        assert!(!message.supersedable);
        assert_eq!(message.encode(), body);
    }

    #[test]
    fn the_payload_keeps_its_bytes() {
        let payload = r#"{ "b": 1.0, "a": [1e400, "\ud800", 12345678901234567890123] }"#;
        let body = format!(r#"{{"version":1,"id":"a","to":{{"connection":"c"}},"payload":{payload}}}"#);
        let message = OutboundMessage::decode(&body).unwrap();
        assert_eq!(message.payload.as_str(), payload);
        assert_eq!(message.encode(), body);
    }

    #[test]
    fn unknown_fields_are_kept_as_they_came() {
        let body = r#"{"version":1,"id":"a","to":{"connection":"c"},"payload":1,"trace":{"x": 1.0},"é":[ ]}"#;
        assert_eq!(OutboundMessage::decode(body).unwrap().encode(), body);
    }

    #[test]
    fn null_is_as_good_as_absent_for_what_is_optional() {
        for field in ["request", "supersedable", "expires_at", "retry"] {
            assert!(OutboundMessage::decode(&with(field, Value::Null)).is_ok(), "{field}");
        }
    }

    #[test]
    fn every_missing_field_is_named() {
        for field in ["version", "id", "to", "payload"] {
            let error = OutboundMessage::decode(&without(field)).unwrap_err();
            assert!(matches!(error, DecodeError::Missing { field: named, .. } if named == field), "{error}");
        }
    }

    #[test]
    fn every_invalid_field_is_named_and_its_value_is_not_repeated() {
        for (field, value) in [
            ("version", json!("s3cret")),
            ("id", json!("")),
            ("id", json!("s3cret".repeat(30))),
            ("to", json!({"s3cret": 1})),
            ("request", json!({"id": "s3cret"})),
            ("supersedable", json!("s3cret")),
            ("version", json!(1.5)),
            ("request", json!({"id": "s3cret", "seq": 1.5})),
            ("expires_at", json!(-1.5)),
            ("retry", json!("s3cret")),
        ] {
            let error = OutboundMessage::decode(&with(field, value)).unwrap_err();
            assert!(matches!(error, DecodeError::Invalid { field: named, .. } if named == field), "{error}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn unknown_fields_inside_of_objects_are_kept() {
        let original = json!({
            "version": 1,
            "id": "m",
            "to": {"user": {"tenant": "t", "user": "u", "device": [1.0]}, "via": {"a\"b": null}},
            "payload": 1,
            "request": {"id": "r", "seq": 7, "span": "x"},
            "note": true,
        })
        .to_string();
        let message = OutboundMessage::decode(&original).unwrap();
        let written: Value = serde_json::from_str(&message.encode_over(&original)).unwrap();
        assert_eq!(written, serde_json::from_str::<Value>(&original).unwrap());

        let narrowed = OutboundMessage { to: Audience::Connection("a".try_into().unwrap()), ..message };
        let written: Value = serde_json::from_str(&narrowed.encode_over(&original)).unwrap();
        assert_eq!(written["to"], json!({"connection": "a", "via": {"a\"b": null}}));
    }

    #[test]
    fn numbers_may_be_written_with_a_fraction() {
        let text = whole().to_string();
        let as_floats = text
            .replace(r#""version":1,"#, r#""version":1.0,"#)
            .replace(r#""seq":7"#, r#""seq":7e0"#)
            .replace("1764000000000", "1764000000000.5")
            .replace(r#""count":3"#, r#""count":3.0"#)
            .replace(r#""receives":1"#, r#""receives":1.0"#)
            .replace("1763999000000", "1763999000000.0");
        assert_ne!(text, as_floats);
        assert_eq!(OutboundMessage::decode(&as_floats), OutboundMessage::decode(&text));
    }

    #[test]
    fn a_later_version_is_told_apart_before_anything_else_is_read() {
        assert_eq!(
            OutboundMessage::decode(r#"{"to":["a new form"],"version":2}"#),
            Err(DecodeError::UnknownVersion(2))
        );
    }

    #[test]
    fn a_field_that_stands_there_twice_is_refused() {
        let body = r#"{"version":1,"id":"a","id":"b","to":{"connection":"c"},"payload":1}"#;
        assert_eq!(OutboundMessage::decode(body), Err(DecodeError::Repeated("id")));
    }

    #[test]
    fn what_is_no_object_is_refused_wherever_it_breaks() {
        for body in ["", "null", "[]", "\"text\"", "{", "{\"version\":1", "{\"version\":1}}", "\u{feff}{}"] {
            let error = OutboundMessage::decode(body).unwrap_err();
            assert!(matches!(error, DecodeError::NotAnObject { .. }), "{body}: {error}");
        }
    }

    #[test]
    fn deep_nesting_is_a_payload_like_any_other() {
        let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
        let body = format!(r#"{{"version":1,"id":"a","to":{{"connection":"c"}},"payload":{deep}}}"#);
        assert_eq!(OutboundMessage::decode(&body).unwrap().payload.as_str(), deep);
    }

    #[test]
    fn what_sqs_refuses_is_escaped_in_every_field() {
        let request = Request { id: RequestId::new("r\u{FFFF}").unwrap(), seq: 1 };
        let to = Audience::Tenant("t\u{FFFE}".try_into().unwrap());
        let message =
            OutboundMessage { request: Some(request), ..OutboundMessage::new(to, Payload::new(&1).unwrap()) };
        let body = message.encode();
        assert!(!body.contains(['\u{FFFE}', '\u{FFFF}']), "{body}");
        assert_eq!(OutboundMessage::decode(&body).unwrap(), message);
    }
}
