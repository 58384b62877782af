//! The field `receipt` of a message on the outbound queue.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize, Serializer};

use super::OutcomeCounts;
use crate::{error::DecodeError, fields::Fields, id::ConnectionId};

const FIELD: &str = "receipt";
const EXPECTED: &str = "true or false, or {\"part\": \"1/3\"} in the first of three bodies of one message";

/// Maximum number of characters of a part's name. A worker writes up to 22.
const PART_CHARACTERS: usize = 64;

/// Returns whether a text may be the name of a part.
#[doc(hidden)]
#[must_use]
pub fn is_part_name(text: &str) -> bool {
    (1..=PART_CHARACTERS).contains(&text.chars().count())
}

/// A producer's request for a receipt, with the notes of the workers that have handled the message since.
///
/// A producer writes `true`, or `{"part": "1/3"}` into the first of three bodies of one message. A worker adds notes to a message that it hands back or splits, so that the last receipt
/// counts every connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
#[allow(clippy::exhaustive_structs, reason = "the worker builds it")]
pub struct ReceiptRequest {
    /// The name of the part. `None` for the whole message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// The connections that settled in earlier attempts.
    #[doc(hidden)]
    #[serde(default, skip_serializing_if = "OutcomeCounts::is_empty")]
    pub settled: OutcomeCounts,
    /// The connections of a user that are among the settled ones as gone, so that each is counted once: an index or the
    /// mailbox may still show them in a later attempt.
    #[doc(hidden)]
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gone: BTreeSet<ConnectionId>,
    /// Why connections were rejected or exhausted in earlier attempts.
    #[doc(hidden)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

impl ReceiptRequest {
    /// Returns the request of one of the bodies of a message, whose connections do not fit one. Numbers begin at 1.
    #[doc(hidden)]
    #[must_use]
    pub fn of_body(self, number: usize, bodies: usize) -> Self {
        match bodies {
            1 => self,
            _ => Self { part: Some(format!("{number}/{bodies}")), ..self },
        }
    }

    /// Returns whether a producer may have written it: it has no notes of a worker.
    #[doc(hidden)]
    #[must_use]
    pub fn is_of_producer(&self) -> bool {
        self.settled.is_empty() && self.gone.is_empty() && self.cause.is_none()
    }

    /// Reads the field, in which `false` and `null` count as absent.
    pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Option<Self>, DecodeError> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Field {
            Flag(bool),
            Notes(#[serde(with = "ReceiptRequest")] ReceiptRequest),
        }
        Ok(match fields.optional(FIELD, EXPECTED)? {
            None | Some(Field::Flag(false)) => None,
            Some(Field::Flag(true)) => Some(Self::default()),
            Some(Field::Notes(notes)) if notes.part.as_deref().is_none_or(is_part_name) => Some(notes),
            Some(Field::Notes(_)) => return Err(DecodeError::Invalid { field: FIELD, expected: EXPECTED }),
        })
    }
}

impl Serialize for ReceiptRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self == Self::default() {
            true => serializer.serialize_bool(true),
            false => Self::serialize(self, serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Option<ReceiptRequest>, DecodeError> {
        let body = format!(r#"{{"receipt":{value}}}"#);
        ReceiptRequest::read(&mut Fields::read(&body).unwrap())
    }

    #[test]
    fn producers_write_true_or_false() {
        assert_eq!(read("true"), Ok(Some(ReceiptRequest::default())));
        assert_eq!((read("false"), read("null")), (Ok(None), Ok(None)));
        assert_eq!(serde_json::to_string(&ReceiptRequest::default()).unwrap(), "true");
        let part = |length| read(&format!(r#"{{"part":"{}"}}"#, "x".repeat(length)));
        assert!(part(64).is_ok() && part(0).is_err() && part(65).is_err());
        for value in ["1", "\"s3cret\"", "[1]"] {
            let error = read(value).unwrap_err().to_string();
            assert_eq!(error, format!("`receipt` is not valid; expected {EXPECTED}"), "{value}");
        }
    }

    #[test]
    fn notes_round_trip() {
        for notes in [
            r#"{"part":"9f3c.0"}"#,
            r#"{"part":"1/3","settled":{"delivered":2,"gone":1},"gone":["a="],"cause":"413"}"#,
        ] {
            let request = read(notes).unwrap().unwrap();
            assert_eq!(serde_json::to_string(&request).unwrap(), notes);
        }
    }
}
