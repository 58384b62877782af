//! Messages on the outbound queue.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    audience::Audience,
    error::DecodeError,
    fields::{Fields, UnknownFields},
    id::{ConnectionId, MessageId, RequestId},
    keep::Keep,
    number::{self, Whole},
    payload::{Payload, escape_for_queue},
    position::Position,
    receipt::ReceiptRequest,
    time, wrapped,
};

/// A message on the outbound queue, version 1.
///
/// Delivery is at least once. `id` is the same on every redelivery: if the payload contains the id, a client that drops
/// ids it has seen handles each message once.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OutboundMessage<'a> {
    /// The version of the envelope: 1.
    pub version: Version,
    /// Unique for each message. A producer that may be retried sets its own id, so that a retry sends the same message.
    /// The default is a UUIDv7.
    pub id: MessageId,
    /// The recipients.
    pub to: Audience,
    /// The JSON value that clients receive: at most 128 KiB, delivered byte for byte.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub payload: Payload<'a>,
    /// The request that the message belongs to, and its sequence number within the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    /// Whether a later message of the same request makes this one worthless.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(test, serde(default))]
    pub supersedable: bool,
    /// Time in milliseconds since the epoch after which the message is dropped. A number below 100000000000 would be a
    /// time in seconds and makes the message invalid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = time::EARLIEST)))]
    pub expires_at: Option<u64>,
    /// Seconds for which the mailbox keeps the message for a user who is away, from 60 to 2592000. Only for a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// Whether the worker sends a receipt with the message's outcome to the receipts queue: `true`, or
    /// `{"part": "1/3"}` in the first of three messages with the same id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<crate::schema::ReceiptField>"))]
    pub receipt: Option<ReceiptRequest>,
    /// The worker's notes on a message that it handed back. Producers leave it out.
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(skip))]
    pub retry: Option<Retry>,
    /// Fields that this version does not know. [`encode`](Self::encode) writes them unchanged.
    #[serde(flatten)]
    #[cfg_attr(test, schemars(skip))]
    pub unknown: UnknownFields<'a>,
}

/// The valid values of `keep`, for errors.
const KEEP: &str = "a whole number of seconds from 60 to 2592000 (30 days)";

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

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Whole::<u64>::deserialize(deserializer)? {
            Whole(Self::NUMBER) => Ok(Self),
            Whole(other) => Err(D::Error::custom(format_args!("version {other} is not known here"))),
        }
    }
}

/// The request that a message belongs to, and its sequence number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Request {
    /// The id of the request.
    pub id: RequestId,
    /// Sequence number, strictly increasing within the request. The library's default is the clock in microseconds, so
    /// that a router and a job that answer one request need no coordination.
    #[serde(deserialize_with = "number::whole")]
    pub seq: u64,
}

impl Request {
    /// Returns the request with this id, for the message with this sequence number.
    #[must_use]
    pub fn new(id: RequestId, seq: u64) -> Self {
        Self { id, seq }
    }
}

/// The worker's notes on a message that it hands back.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Number of hand-backs.
    #[serde(deserialize_with = "number::whole")]
    pub count: u32,
    /// Number of receives beyond the first of each copy. Each may have crashed a worker.
    #[serde(deserialize_with = "number::whole")]
    pub receives: u32,
    /// Time of the first receive, in milliseconds since the epoch.
    #[serde(deserialize_with = "number::whole")]
    pub since: u64,
    /// Cause of the last hand-back.
    pub cause: String,
    /// Connections of a user that need no further attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<ConnectionId>,
    /// For a user with many connections, the cursor: the last connection that has the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ConnectionId>,
    /// The position at which the mailbox has the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Position>,
}

impl<'a> OutboundMessage<'a> {
    /// Returns a message with a new id and without options.
    ///
    /// ```
    /// use streamer_message::{ConnectionId, OutboundMessage, Payload};
    ///
    /// let to = ConnectionId::new("L0SM9cOFvHcCIhw=")?;
    /// let mut message = OutboundMessage::new(to.into(), Payload::new("hello")?);
    /// message.expires_at = Some(1_764_000_000_000);
    /// let body = message.encode();
    /// assert_eq!(OutboundMessage::decode(&body)?, message);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
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
            keep: None,
            receipt: None,
            retry: None,
            unknown: UnknownFields::default(),
        }
    }

    /// Decodes the body of a queue message. The payload is checked to be JSON, and is not copied.
    ///
    /// # Errors
    /// [`DecodeError`] if the body is not a message of this version. A retry would fail again.
    pub fn decode(body: &'a str) -> Result<Self, DecodeError> {
        Self::from_fields(Fields::read(body)?)
    }

    pub(crate) fn from_fields(mut fields: Fields<'a>) -> Result<Self, DecodeError> {
        match fields.required("version", "1") {
            Ok(Whole(Version::NUMBER)) => {}
            Ok(Whole(other)) => return Err(DecodeError::UnknownVersion(other)),
            Err(error) => return Err(wrapped::object(|name| fields.get(name).is_some()).unwrap_or(error)),
        }
        let message = Self {
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
            expires_at: time::optional(&mut fields, "expires_at")?,
            keep: fields.optional("keep", KEEP)?,
            receipt: ReceiptRequest::read(&mut fields)?,
            retry: fields.optional("retry", "the value that a worker wrote, or no value")?,
            unknown: fields.rest(),
        };
        match (&message.keep, &message.to) {
            (None, _) | (Some(_), Audience::User { .. }) => Ok(message),
            (Some(_), _) => Err(DecodeError::KeepAudience),
        }
    }

    /// Encodes the body of a queue message, in characters that SQS accepts.
    #[must_use]
    #[expect(
        clippy::missing_panics_doc,
        clippy::expect_used,
        reason = "every part is JSON, and every key is a string"
    )]
    pub fn encode(&self) -> String {
        escape_for_queue(serde_json::to_string(self).expect("a message is valid JSON"))
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
            "receipt": true,
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
    fn messages_round_trip() {
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
    fn payload_keeps_its_bytes() {
        let payload = r#"{ "b": 1.0, "a": [1e400, "\ud800", 12345678901234567890123] }"#;
        let body = format!(r#"{{"version":1,"id":"a","to":{{"connection":"c"}},"payload":{payload}}}"#);
        let message = OutboundMessage::decode(&body).unwrap();
        assert_eq!(message.payload.as_str(), payload);
        assert_eq!(message.encode(), body);
    }

    #[test]
    fn unknown_fields_are_unchanged() {
        let body = r#"{"version":1,"id":"a","to":{"connection":"c"},"payload":1,"trace":{"x": 1.0},"é":[ ]}"#;
        assert_eq!(OutboundMessage::decode(body).unwrap().encode(), body);
    }

    #[test]
    fn optional_fields_accept_null() {
        for field in ["request", "supersedable", "expires_at", "keep", "receipt", "retry"] {
            assert!(OutboundMessage::decode(&with(field, Value::Null)).is_ok(), "{field}");
        }
    }

    #[test]
    fn errors_name_missing_fields() {
        for field in ["version", "id", "to", "payload"] {
            let error = OutboundMessage::decode(&without(field)).unwrap_err();
            assert!(matches!(error, DecodeError::Missing { field: named, .. } if named == field), "{error}");
        }
    }

    #[test]
    fn errors_name_invalid_fields_without_values() {
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
            ("keep", json!(59)),
            ("keep", json!("s3cret")),
            ("receipt", json!("s3cret")),
            ("retry", json!("s3cret")),
        ] {
            let error = OutboundMessage::decode(&with(field, value)).unwrap_err();
            assert!(matches!(error, DecodeError::Invalid { field: named, .. } if named == field), "{error}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn only_messages_for_users_are_kept() {
        let user = r#"{"version":1,"id":"a","to":{"user":{"tenant":"t","user":"u"}},"payload":1,"keep":60}"#;
        let message = OutboundMessage::decode(user).unwrap();
        assert_eq!(message.keep.unwrap().duration().as_secs(), 60);
        assert_eq!(message.encode(), user);
        assert_eq!(OutboundMessage::decode(&with("keep", json!(60))), Err(DecodeError::KeepAudience));
    }

    #[test]
    fn numbers_may_have_a_fraction() {
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
    fn version_is_checked_before_other_fields() {
        assert_eq!(
            OutboundMessage::decode(r#"{"to":["a new form"],"version":2}"#),
            Err(DecodeError::UnknownVersion(2))
        );
    }

    #[test]
    fn repeated_fields_are_refused() {
        let body = r#"{"version":1,"id":"a","id":"b","to":{"connection":"c"},"payload":1}"#;
        assert_eq!(OutboundMessage::decode(body), Err(DecodeError::Repeated("id")));
    }

    #[test]
    fn body_must_be_a_json_object() {
        for body in ["", "null", "[]", "\"text\"", "{", "{\"version\":1", "{\"version\":1}}"] {
            let error = OutboundMessage::decode(body).unwrap_err();
            assert!(matches!(error, DecodeError::NotAnObject { .. }), "{body}: {error}");
        }
    }

    #[test]
    fn payload_may_be_deeply_nested() {
        let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
        let body = format!(r#"{{"version":1,"id":"a","to":{{"connection":"c"}},"payload":{deep}}}"#);
        assert_eq!(OutboundMessage::decode(&body).unwrap().payload.as_str(), deep);
    }

    #[test]
    fn every_field_is_escaped_for_sqs() {
        let request = Request { id: RequestId::new("r\u{FFFF}").unwrap(), seq: 1 };
        let to = Audience::Tenant("t\u{FFFE}".try_into().unwrap());
        let message =
            OutboundMessage { request: Some(request), ..OutboundMessage::new(to, Payload::new(&1).unwrap()) };
        let body = message.encode();
        assert!(!body.contains(['\u{FFFE}', '\u{FFFF}']), "{body}");
        assert_eq!(OutboundMessage::decode(&body).unwrap(), message);
    }
}
