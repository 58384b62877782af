//! The bytes that a client receives.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::limits::PAYLOAD_BYTES;

/// One JSON value, kept as the text it was written in: what a producer serialized is, byte for byte, what
/// the client receives. (U+FFFE and U+FFFF, which SQS refuses, are written as JSON escapes: the same value.)
#[derive(Debug, Clone)]
pub struct Payload<'a>(Cow<'a, RawValue>);

/// Why a value cannot be a payload.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// The value's `Serialize` failed, or the text is not JSON.
    #[error("the payload cannot be written as JSON: {0}")]
    NotJson(#[source] serde_json::Error),
    /// API Gateway would refuse it.
    #[error(
        "the payload has {bytes} bytes, API Gateway delivers at most {PAYLOAD_BYTES}: \
         send a reference to it, or send it in parts"
    )]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
    },
}

impl Payload<'static> {
    /// Serializes a value.
    ///
    /// # Errors
    /// [`PayloadError::NotJson`] when the value cannot be serialized, [`PayloadError::TooLarge`] over 128 KiB.
    pub fn new<T: Serialize + ?Sized>(value: &T) -> Result<Self, PayloadError> {
        Self::from_json(serde_json::to_string(value).map_err(PayloadError::NotJson)?)
    }

    /// Takes JSON text as it is.
    ///
    /// # Errors
    /// [`PayloadError::NotJson`] when the text is not one JSON value, [`PayloadError::TooLarge`] over 128 KiB.
    pub fn from_json(text: String) -> Result<Self, PayloadError> {
        let text = RawValue::from_string(escape_for_queue(text)).map_err(PayloadError::NotJson)?;
        match text.get().len() {
            0..=PAYLOAD_BYTES => Ok(Self(Cow::Owned(text))),
            bytes => Err(PayloadError::TooLarge { bytes }),
        }
    }
}

impl Payload<'_> {
    /// The payload's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl<'a> From<&'a RawValue> for Payload<'a> {
    fn from(raw: &'a RawValue) -> Self {
        Self(Cow::Borrowed(raw))
    }
}

impl PartialEq for Payload<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Serialize for Payload<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Payload<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(Self::from)
    }
}

/// Writes the two characters of JSON that SQS does not take as escapes. SQS takes what XML 1.0 takes: of the
/// characters outside it, JSON itself escapes the controls, and UTF-8 has no surrogates, so two are left.
///
/// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>.
pub(crate) fn escape_for_queue(json: String) -> String {
    const REFUSED: [(char, &str); 2] = [('\u{FFFE}', "\\ufffe"), ('\u{FFFF}', "\\uffff")];
    if !json.contains(REFUSED.map(|(character, _)| character)) {
        return json;
    }
    REFUSED.into_iter().fold(json, |json, (character, escape)| json.replace(character, escape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_keeps_its_text() {
        let text = r#"{"b":1.50, "a" : "\u00e9", "n": 1e2}"#;
        assert_eq!(Payload::from_json(text.to_owned()).unwrap().as_str(), text);
    }

    #[test]
    fn a_payload_has_at_most_128_kib() {
        assert!(Payload::new(&"x".repeat(PAYLOAD_BYTES - 2)).is_ok());
        let error = Payload::new(&"x".repeat(PAYLOAD_BYTES - 1)).unwrap_err();
        assert!(matches!(error, PayloadError::TooLarge { bytes } if bytes == PAYLOAD_BYTES + 1));
        assert!(error.to_string().contains("131073 bytes"), "{error}");
    }

    #[test]
    fn an_escape_counts_with_its_own_length() {
        let text = "\u{FFFE}".repeat(PAYLOAD_BYTES / 4);
        assert!(matches!(Payload::new(&text), Err(PayloadError::TooLarge { .. })));
    }

    #[test]
    fn what_sqs_refuses_is_escaped_and_stays_the_same_value() {
        let value = "\u{FFFE} and \u{FFFF}\u{0}\u{b}\u{7f}";
        let payload = Payload::new(value).unwrap();
        assert_eq!(payload.as_str(), "\"\\ufffe and \\uffff\\u0000\\u000b\u{7f}\"");
        assert_eq!(serde_json::from_str::<String>(payload.as_str()).unwrap(), value);
    }

    #[test]
    fn text_that_is_not_one_json_value_is_refused() {
        for text in ["", "{", "1 2", "nul"] {
            assert!(matches!(Payload::from_json(text.to_owned()), Err(PayloadError::NotJson(_))), "{text}");
        }
    }
}
