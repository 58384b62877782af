//! The event that carries a receipt.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;

use super::Receipt;
use crate::{id::MessageId, payload::escape_for_queue};

const SPEC_VERSION: &str = "1.0";
const TYPE: &str = "streamer.receipt";
const CONTENT_TYPE: &str = "application/json";

/// A receipt as a CloudEvents 1.0 event in JSON, of type `streamer.receipt`.
///
/// Source: <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the worker and the handler of the mailbox build it")]
pub struct ReceiptEvent {
    /// The id of the event. An event that arrives twice has the same one.
    pub event_id: String,
    /// The deployment: `/streamer/` and its stage.
    pub source: String,
    /// The receipt.
    pub receipt: Receipt,
}

/// Why a text is not a receipt. The error does not repeat the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// The text is not a CloudEvents event in JSON.
    #[error(
        "the text is not a CloudEvents 1.0 event in JSON (line {line}, column {column}): pass the body of a message from \
         the receipts queue"
    )]
    NotAnEvent {
        /// The line of the fault, from 1.
        line: usize,
        /// The column of the fault, from 1.
        column: usize,
    },
    /// The event has another type.
    #[error("the event's type is not `streamer.receipt`: check what sends to this queue")]
    Type,
    /// The receipt is not valid, or was written by a later version of Streamer.
    #[error("the event's data is not a receipt of version 1: upgrade this library to the worker's version")]
    Data,
}

#[derive(Serialize)]
struct Written<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    r#type: &'static str,
    subject: &'a str,
    time: String,
    datacontenttype: &'static str,
    data: &'a Receipt,
}

#[derive(Deserialize)]
struct Read {
    specversion: String,
    id: String,
    source: String,
    r#type: String,
    #[serde(default)]
    data: Value,
}

impl ReceiptEvent {
    /// Returns an event with a new id from the deployment with this stage.
    #[must_use]
    pub fn new(stage: &str, receipt: Receipt) -> Self {
        Self {
            event_id: MessageId::generate().as_str().to_owned(),
            source: format!("/streamer/{stage}"),
            receipt,
        }
    }

    /// Decodes the body of a message from the receipts queue.
    ///
    /// # Errors
    /// [`ReceiptError`] if it is not a receipt. It would fail again.
    pub fn decode(text: &str) -> Result<Self, ReceiptError> {
        let read: Read = serde_json::from_str(text)
            .map_err(|error| ReceiptError::NotAnEvent { line: error.line(), column: error.column() })?;
        read.event()
    }

    /// Encodes the event, in characters that SQS accepts.
    #[must_use]
    pub fn encode(&self) -> String {
        encode(self)
    }
}

/// Encodes a value, in characters that SQS accepts.
#[doc(hidden)]
#[must_use]
#[expect(clippy::expect_used, reason = "every key is a string")]
pub fn encode(value: &impl Serialize) -> String {
    escape_for_queue(serde_json::to_string(value).expect("a receipt is valid JSON"))
}

impl Read {
    fn event(self) -> Result<ReceiptEvent, ReceiptError> {
        if self.specversion != SPEC_VERSION || self.r#type != TYPE {
            return Err(ReceiptError::Type);
        }
        let receipt = serde_json::from_value(self.data).map_err(|_| ReceiptError::Data)?;
        Ok(ReceiptEvent { event_id: self.id, source: self.source, receipt })
    }
}

impl Receipt {
    /// Decodes the body of a message from the receipts queue: the receipt in its event.
    ///
    /// ```
    /// use streamer_message::{Receipt, ReceiptOutcome};
    ///
    /// let receipt = Receipt::decode(
    ///     r#"{"specversion":"1.0","id":"e","source":"/streamer/production","type":"streamer.receipt",
    ///         "data":{"version":1,"id":"order-7","at":1764000000000,"outcome":"delivered",
    ///                 "connections":{"delivered":2}}}"#,
    /// )?;
    /// assert_eq!((receipt.id.as_str(), receipt.outcome), ("order-7", ReceiptOutcome::Delivered));
    /// # Ok::<_, streamer_message::ReceiptError>(())
    /// ```
    ///
    /// # Errors
    /// [`ReceiptError`] if it is not a receipt. It would fail again.
    pub fn decode(text: &str) -> Result<Self, ReceiptError> {
        ReceiptEvent::decode(text).map(|event| event.receipt)
    }
}

impl Serialize for ReceiptEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = Written {
            specversion: SPEC_VERSION,
            id: &self.event_id,
            source: &self.source,
            r#type: TYPE,
            subject: self.receipt.id.as_str(),
            time: humantime::format_rfc3339_millis(self.receipt.time()).to_string(),
            datacontenttype: CONTENT_TYPE,
            data: &self.receipt,
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ReceiptEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Read::deserialize(deserializer)?.event().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn receipt(data: Value) -> Receipt {
        serde_json::from_value(data).unwrap()
    }

    #[test]
    fn event_has_every_attribute() {
        let data = json!({"version": 1, "id": "order-7", "at": 1_764_000_000_123_u64, "outcome": "gone", "connections": {"gone": 1}});
        let event = ReceiptEvent::new("production", receipt(data.clone()));
        let written: Value = serde_json::from_str(&event.encode()).unwrap();
        let expected = json!({
            "specversion": "1.0", "id": event.event_id, "source": "/streamer/production",
            "type": "streamer.receipt", "subject": "order-7", "time": "2025-11-24T16:00:00.123Z",
            "datacontenttype": "application/json", "data": data,
        });
        assert_eq!(written, expected);
        assert_eq!(ReceiptEvent::decode(&event.encode()), Ok(event));
    }

    #[test]
    fn other_texts_are_named_without_values() {
        let event = |kind: &str, data: Value| {
            json!({"specversion": "1.0", "id": "s3cret", "source": "s3cret", "type": kind, "data": data})
                .to_string()
        };
        for (text, expected) in [
            ("s3cret".to_owned(), "not a CloudEvents 1.0 event"),
            (json!({"id": "s3cret"}).to_string(), "not a CloudEvents 1.0 event"),
            (event("s3cret", json!(1)), "type is not"),
            (event(TYPE, json!("s3cret")), "not a receipt of version 1"),
            (event(TYPE, Value::Null), "not a receipt of version 1"),
            (
                event(TYPE, json!({"version": 2, "id": "m", "at": 1, "outcome": "gone"})),
                "upgrade this library",
            ),
        ] {
            let error = Receipt::decode(&text).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn any_time_can_be_written() {
        let data = json!({"version": 1, "id": "m", "at": u64::MAX, "outcome": "gone", "connections": {}});
        let event = ReceiptEvent::new("local", receipt(data));
        assert!(event.encode().contains("9999-12-31T23:59:59.999Z"));
    }
}
