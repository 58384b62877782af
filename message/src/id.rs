//! Identifiers, checked once, when they are created.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::limits::{EPOCH_CHARACTERS, ID_CHARACTERS, PRINCIPAL_BYTES};

/// A text is not a valid identifier. The error does not repeat the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {kind} must have {expected}; this one has {problem}")]
pub struct InvalidId {
    kind: &'static str,
    expected: &'static str,
    problem: Problem,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Problem {
    Length(usize),
    Character,
}

impl InvalidId {
    /// Returns whether the text is longer than the limit.
    #[must_use]
    pub fn is_too_long(&self) -> bool {
        matches!(self.problem, Problem::Length(found) if found > 0)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(found) => write!(formatter, "{found}"),
            Self::Character => formatter.write_str("one"),
        }
    }
}

/// Returns whether a character could change what a terminal or a table shows: a control character, a line or paragraph
/// separator, or a character that changes the direction of text (Unicode Standard Annex 9, section 2).
fn is_misleading(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}'
        )
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $expected:literal, $maximum:expr, $measure:expr $(, not $excluded:pat)? $(, without $forbidden:expr, pattern $pattern:literal)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        // JSON Schema counts characters; a limit in bytes is checked where the value is read.
        #[cfg_attr(
            test,
            derive(schemars::JsonSchema),
            schemars(extend("minLength" = 1, "maxLength" = $maximum $(, "pattern" = $pattern)?))
        )]
        pub struct $name(String);

        impl $name {
            #[doc = concat!("Checks a text, which must have ", $expected, ".")]
            ///
            /// # Errors
            /// [`InvalidId`] for any other text: correct it.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidId> {
                let text = text.into();
                let measure: fn(&str) -> usize = $measure;
                let invalid = |problem| Err(InvalidId { kind: $kind, expected: $expected, problem });
                match measure(&text) {
                    $(found if matches!(text.as_str(), $excluded) => invalid(Problem::Length(found)),)?
                    $(_ if text.contains($forbidden) => invalid(Problem::Character),)?
                    1..=$maximum => Ok(Self(text)),
                    found => invalid(Problem::Length(found)),
                }
            }

            /// Returns the identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidId;

            fn try_from(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl From<&$name> for String {
            fn from(id: &$name) -> Self {
                id.0.clone()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

identifier!(
    /// Identifies a message. It is the same on every redelivery, so that a client can drop a message that it has seen.
    MessageId, "message id", "1 to 128 characters", ID_CHARACTERS, |text| text.chars().count()
);
identifier!(
    /// Identifies the request that a message belongs to.
    RequestId, "request id", "1 to 128 characters", ID_CHARACTERS, |text| text.chars().count()
);
identifier!(
    /// Identifies a connection of a WebSocket API, such as `L0SM9cOFvHcCIhw=`. API Gateway assigns it. It is a
    /// segment of a URL's path, where `.` and `..` would address another resource (RFC 3986, section 5.2.4).
    ConnectionId, "connection id", "1 to 128 characters and be neither `.` nor `..`", ID_CHARACTERS,
    |text| text.chars().count(), not "." | ".."
);
identifier!(
    /// Identifies one life of a stream of kept messages. The mailbox generates it.
    Epoch, "epoch", "1 to 64 characters", EPOCH_CHARACTERS, |text| text.chars().count()
);
identifier!(
    /// Identifies a tenant: the claim `tenant_id` of a token, or the one that is configured.
    TenantId, "tenant id", "1 to 256 bytes and no control or bidirectional formatting character", PRINCIPAL_BYTES,
    str::len, without is_misleading,
    pattern "^[^\\u0000-\\u001F\\u007F-\\u009F\\u061C\\u200E\\u200F\\u2028-\\u202E\\u2066-\\u2069]*$"
);
identifier!(
    /// Identifies a user of a tenant: the claim `sub` of a token, or the one that is configured.
    UserId, "user id", "1 to 256 bytes and no control or bidirectional formatting character", PRINCIPAL_BYTES,
    str::len, without is_misleading,
    pattern "^[^\\u0000-\\u001F\\u007F-\\u009F\\u061C\\u200E\\u200F\\u2028-\\u202E\\u2066-\\u2069]*$"
);

impl MessageId {
    /// Generates a UUIDv7 (RFC 9562), which is unique and contains the current time in milliseconds.
    ///
    /// ```
    /// # use streamer_message::MessageId;
    /// assert!(MessageId::generate().created_at().is_some());
    /// assert_eq!("order-7".parse::<MessageId>()?.as_str(), "order-7");
    /// # Ok::<_, streamer_message::InvalidId>(())
    /// ```
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7().to_string())
    }

    /// Returns the time at which the id was generated, in milliseconds since the epoch, or `None` if it is not a
    /// UUIDv7.
    #[must_use]
    pub fn created_at(&self) -> Option<u64> {
        let uuid = Uuid::try_parse(&self.0).ok()?;
        match uuid.get_version_num() {
            7 => u64::try_from(uuid.as_u128() >> 80).ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_1_to_128_characters() {
        assert!(MessageId::new("").is_err());
        assert!(MessageId::new("ß".repeat(128)).is_ok());
        assert!(MessageId::new("a".repeat(129)).is_err());
    }

    #[test]
    fn connection_ids_are_not_dot_segments() {
        for text in [".", ".."] {
            assert!(ConnectionId::new(text).is_err() && MessageId::new(text).is_ok(), "{text}");
        }
        assert!(ConnectionId::new("...").is_ok());
    }

    #[test]
    fn tenant_ids_have_1_to_256_bytes() {
        assert!(TenantId::new("").is_err());
        assert!(TenantId::new("ß".repeat(128)).is_ok());
        assert!(TenantId::new("ß".repeat(129)).is_err());
    }

    #[test]
    fn error_names_the_limit_not_the_text() {
        let error = TenantId::new("s3cret".repeat(50)).unwrap_err().to_string();
        assert_eq!(
            error,
            "a tenant id must have 1 to 256 bytes and no control or bidirectional formatting character; this one has 300"
        );
    }

    #[test]
    fn principals_have_no_misleading_characters() {
        for character in
            ['\0', '\t', '\n', '\u{1B}', '\u{7F}', '\u{85}', '\u{61C}', '\u{202E}', '\u{2028}', '\u{2069}']
        {
            let text = format!("anna{character}");
            for error in [UserId::new(text.as_str()).unwrap_err(), TenantId::new(text.as_str()).unwrap_err()]
            {
                assert!(error.to_string().ends_with("character; this one has one"), "{error}");
                assert!(!error.is_too_long());
            }
            assert!(MessageId::new(text).is_ok());
        }
        for text in ["auth0|5f7c", "a b", "Ünïcode", "אנה", "👩‍🚀", "a#b"] {
            assert!(UserId::new(text).is_ok() && TenantId::new(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn generated_ids_contain_their_time() {
        let id = MessageId::new("017f22e2-79b0-7cc3-98c4-dc0c0c07398f").unwrap();
        assert_eq!(id.created_at(), Some(1_645_557_742_000), "the example of RFC 9562, appendix A.6");
        assert!(MessageId::generate().created_at().is_some());
    }

    #[test]
    fn other_ids_contain_no_time() {
        for text in ["order-7", "919108f7-52d1-4320-9bac-f847db4148a8"] {
            assert_eq!(MessageId::new(text).unwrap().created_at(), None);
        }
    }
}
