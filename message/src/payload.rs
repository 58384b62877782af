//! The JSON that a client receives.

use std::{
    borrow::Cow,
    hash::{Hash, Hasher},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::limits::PAYLOAD_BYTES;

/// One JSON value, kept as text: the client receives the same bytes that the producer serialized. Only U+FFFE and
/// U+FFFF, which SQS refuses, are written as JSON escapes, which does not change the value.
///
/// ```
/// use streamer_message::Payload;
///
/// assert_eq!(Payload::new(&[1, 2])?.as_str(), "[1,2]");
/// assert_eq!(Payload::from_json("[1, 2]".to_owned())?.as_str(), "[1, 2]");
/// # Ok::<_, streamer_message::PayloadError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Payload<'a>(Cow<'a, RawValue>);

/// Why a value cannot be a payload.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The value's `Serialize` failed, or the text is not JSON.
    #[error("the payload cannot be written as JSON")]
    NotJson(#[source] serde_json::Error),
    /// API Gateway would refuse the payload.
    #[error(
        "the payload has {bytes} bytes, API Gateway delivers at most {PAYLOAD_BYTES}: \
         send a reference to it, or send it in parts"
    )]
    TooLarge {
        /// The size of the payload in bytes.
        bytes: usize,
    },
}

impl Payload<'static> {
    /// Serializes a value.
    ///
    /// # Errors
    /// [`PayloadError::NotJson`] if the value cannot be serialized; [`PayloadError::TooLarge`] over 128 KiB.
    pub fn new<T: Serialize + ?Sized>(value: &T) -> Result<Self, PayloadError> {
        Self::from_json(serde_json::to_string(value).map_err(PayloadError::NotJson)?)
    }

    /// Checks JSON text and keeps it unchanged.
    ///
    /// # Errors
    /// [`PayloadError::NotJson`] if the text is not one JSON value; [`PayloadError::TooLarge`] over 128 KiB.
    pub fn from_json(text: String) -> Result<Self, PayloadError> {
        let text = RawValue::from_string(escape_for_queue(text)).map_err(PayloadError::NotJson)?;
        match text.get().len() {
            0..=PAYLOAD_BYTES => Ok(Self(Cow::Owned(text))),
            bytes => Err(PayloadError::TooLarge { bytes }),
        }
    }
}

impl Payload<'_> {
    /// Returns the JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl<'a> Payload<'a> {
    pub(crate) fn borrowed(raw: &'a RawValue) -> Self {
        Self(Cow::Borrowed(raw))
    }

    pub(crate) fn into_owned(self) -> Payload<'static> {
        Payload(Cow::Owned(self.0.into_owned()))
    }
}

impl AsRef<str> for Payload<'_> {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for Payload<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Payload<'_> {}

impl Hash for Payload<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Serialize for Payload<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Payload<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(Self::borrowed)
    }
}

/// Escapes U+FFFE and U+FFFF. SQS accepts the characters of XML 1.0. Of the others, JSON itself escapes the control
/// characters, and UTF-8 has no surrogates, so these two are left.
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
    fn payload_keeps_its_text() {
        let text = r#"{"b":1.50, "a" : "\u00e9", "n": 1e2}"#;
        assert_eq!(Payload::from_json(text.to_owned()).unwrap().as_str(), text);
    }

    #[test]
    fn payload_has_at_most_128_kib() {
        assert!(Payload::new(&"x".repeat(PAYLOAD_BYTES - 2)).is_ok());
        let error = Payload::new(&"x".repeat(PAYLOAD_BYTES - 1)).unwrap_err();
        assert!(matches!(error, PayloadError::TooLarge { bytes } if bytes == PAYLOAD_BYTES + 1));
        assert!(error.to_string().contains("131073 bytes"), "{error}");
    }

    #[test]
    fn escapes_count_towards_the_size() {
        let text = "\u{FFFE}".repeat(PAYLOAD_BYTES / 4);
        assert!(matches!(Payload::new(&text), Err(PayloadError::TooLarge { .. })));
    }

    #[test]
    fn characters_refused_by_sqs_are_escaped() {
        let value = "\u{FFFE} and \u{FFFF}\u{0}\u{b}\u{7f}";
        let payload = Payload::new(value).unwrap();
        assert_eq!(payload.as_str(), "\"\\ufffe and \\uffff\\u0000\\u000b\u{7f}\"");
        assert_eq!(serde_json::from_str::<String>(payload.as_str()).unwrap(), value);
    }

    #[test]
    fn text_must_be_one_json_value() {
        for text in ["", "{", "1 2", "nul"] {
            assert!(matches!(Payload::from_json(text.to_owned()), Err(PayloadError::NotJson(_))), "{text}");
        }
    }
}
