//! Batches of an SQS event source mapping.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::object::{Object, read};

/// A batch of records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SqsEvent {
    /// The records, in order of arrival.
    pub records: Vec<SqsRecord>,
}

/// A record: one receive of an SQS message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SqsRecord {
    /// The SQS message id, which names the record in `batchItemFailures`. Never empty.
    pub message_id: Option<String>,
    /// The handle for `ChangeMessageVisibility`. Never empty.
    pub receipt_handle: Option<String>,
    /// The ARN of the queue that the record is from.
    pub queue_arn: Option<String>,
    /// The body.
    pub body: Body,
    /// The system attributes, those that are strings or numbers.
    pub attributes: HashMap<String, String>,
}

/// The body of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// The text of the SQS message.
    Text(String),
    /// The record has no body that is a string. The whole record, as JSON.
    Unreadable(String),
}

impl Default for Body {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// A record as SQS sends it, which is read at once.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Whole {
    message_id: String,
    receipt_handle: String,
    body: String,
    attributes: HashMap<String, String>,
    #[serde(default, rename = "eventSourceARN")]
    queue_arn: Option<String>,
}

impl SqsRecord {
    fn read(json: &RawValue) -> Self {
        let record = match read::<Whole>(json) {
            Some(Whole { message_id, receipt_handle, body, attributes, queue_arn }) => Self {
                message_id: Some(message_id),
                receipt_handle: Some(receipt_handle),
                queue_arn,
                body: Body::Text(body),
                attributes,
            },
            None => Self::read_by_field(json),
        };
        let named = |text: &String| !text.is_empty();
        Self {
            message_id: record.message_id.filter(named),
            receipt_handle: record.receipt_handle.filter(named),
            ..record
        }
    }

    fn read_by_field(json: &RawValue) -> Self {
        let record = Object::read(json);
        let attributes = record.object("attributes").into_fields();
        Self {
            message_id: record.field("messageId"),
            receipt_handle: record.field("receiptHandle"),
            queue_arn: record.field("eventSourceARN"),
            body: record.field("body").map_or_else(|| Body::Unreadable(json.get().to_owned()), Body::Text),
            attributes: attributes
                .filter_map(|(name, value)| Some((name.into_owned(), scalar(value)?)))
                .collect(),
        }
    }
}

/// Reads a string or a number as text.
fn scalar(json: &RawValue) -> Option<String> {
    read(json).or_else(|| read::<serde_json::Number>(json).map(|_| json.get().to_owned()))
}

impl<'de> Deserialize<'de> for SqsEvent {
    /// # Errors
    /// When the event has no list of records, so it is not from SQS.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Event<'a> {
            #[serde(rename = "Records", borrow)]
            records: Vec<&'a RawValue>,
        }

        let Event { records } = Event::deserialize(deserializer)?;
        Ok(Self { records: records.into_iter().map(SqsRecord::read).collect() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn event(records: &Value) -> SqsEvent {
        serde_json::from_str(&json!({ "Records": records }).to_string()).unwrap()
    }

    fn record(changes: &[(&str, Value)]) -> Value {
        let mut record = json!({
            "messageId": "m",
            "receiptHandle": "r",
            "body": "é\"",
            "attributes": {"ApproximateReceiveCount": "2", "SentTimestamp": "1764000000000"},
            "messageAttributes": {},
            "md5OfBody": "x",
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:eu-central-1:123456789012:outbound",
            "awsRegion": "eu-central-1",
        });
        for (name, value) in changes {
            record[*name] = value.clone();
        }
        record
    }

    #[test]
    fn unused_fields_may_have_any_value() {
        let expected = event(&json!([record(&[])])).records.remove(0);
        assert_eq!(
            (expected.message_id.as_deref(), expected.receipt_handle.as_deref()),
            (Some("m"), Some("r"))
        );
        assert_eq!(
            (&expected.body, expected.attributes["ApproximateReceiveCount"].as_str()),
            (&Body::Text("é\"".to_owned()), "2")
        );
        let lists =
            json!({"trace": {"stringValue": "1", "stringListValues": null, "binaryListValues": null}});
        for unused in ["messageAttributes", "md5OfBody", "eventSource", "awsRegion", "new"] {
            for value in [json!(null), json!(7), json!([{}]), json!({"a": null}), json!("x"), lists.clone()] {
                let read = event(&json!([record(&[(unused, value.clone())])])).records;
                assert_eq!(read, std::slice::from_ref(&expected), "{unused}: {value}");
            }
        }
        let huge = record(&[])
            .to_string()
            .replace("\"x\"", &format!("[1e999,\"\\ud800\",{}1{}]", "[".repeat(5000), "]".repeat(5000)));
        assert_eq!(
            serde_json::from_str::<SqsEvent>(&format!("{{\"Records\":[{huge}]}}")).unwrap().records,
            [expected]
        );
    }

    #[test]
    fn queue_is_unknown_without_its_arn() {
        let arn = |value: Value| event(&json!([record(&[("eventSourceARN", value)])])).records.remove(0);
        let known = arn(json!("arn:aws:sqs:eu-central-1:123456789012:parts"));
        assert_eq!(known.queue_arn.as_deref(), Some("arn:aws:sqs:eu-central-1:123456789012:parts"));
        for unknown in [json!(null), json!(7), json!({})] {
            let unknown = arn(unknown);
            assert_eq!(unknown, SqsRecord { queue_arn: None, ..known.clone() });
        }
    }

    #[test]
    fn unreadable_record_affects_no_other() {
        let other = event(&json!([record(&[])])).records.remove(0);
        for bad in
            [json!(null), json!(1), json!("text"), json!([]), json!({}), record(&[("body", json!({"a": 1}))])]
        {
            let read = event(&json!([record(&[]), bad, record(&[])])).records;
            assert_eq!((&read[0], &read[2]), (&other, &other), "{bad}");
            assert_eq!(read[1].body, Body::Unreadable(bad.to_string()));
        }
    }

    #[test]
    fn used_fields_of_other_types_are_missing() {
        let changes = [
            ("messageId", json!(7)),
            ("receiptHandle", json!("")),
            ("attributes", json!({"ApproximateReceiveCount": 3, "SentTimestamp": null, "SenderId": {}})),
        ];
        let read = event(&json!([record(&changes)])).records.remove(0);
        assert_eq!((read.message_id, read.receipt_handle), (None, None));
        assert_eq!(read.attributes, HashMap::from([("ApproximateReceiveCount".to_owned(), "3".to_owned())]));
        assert_eq!(
            event(&json!([record(&[("attributes", json!(null))])])).records[0].attributes,
            HashMap::new()
        );
    }

    #[test]
    fn event_without_records_is_refused() {
        for event in ["{}", "null", "[]", r#"{"Records":null}"#, r#"{"Records":{}}"#] {
            assert!(serde_json::from_str::<SqsEvent>(event).is_err(), "{event}");
        }
    }
}
