//! Identifiers, checked once, where they enter.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::limits::{ID_CHARACTERS, PRINCIPAL_BYTES};

/// A text that is no valid identifier. It does not repeat the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {what} has {expected}, this one has {found}")]
pub struct InvalidId {
    what: &'static str,
    expected: &'static str,
    found: usize,
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $what:literal, $expected:literal, $maximum:expr, $measure:expr $(, not $excluded:pat)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        // JSON Schema counts characters; a limit in bytes is checked where the value is read.
        #[cfg_attr(
            test,
            derive(schemars::JsonSchema),
            schemars(extend("minLength" = 1, "maxLength" = $maximum))
        )]
        pub struct $name(String);

        impl $name {
            #[doc = concat!("Takes ", $expected, ".")]
            ///
            /// # Errors
            /// [`InvalidId`] for anything else.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidId> {
                let text = text.into();
                let measure: fn(&str) -> usize = $measure;
                match measure(&text) {
                    $(found if matches!(text.as_str(), $excluded) => {
                        Err(InvalidId { what: $what, expected: $expected, found })
                    })?
                    1..=$maximum => Ok(Self(text)),
                    found => Err(InvalidId { what: $what, expected: $expected, found }),
                }
            }

            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
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
    /// Names a message: the same on every redelivery, so a client can drop what it has seen.
    MessageId, "message id", "1 to 128 characters", ID_CHARACTERS, |text| text.chars().count()
);
identifier!(
    /// Names the request that a message belongs to.
    RequestId, "request id", "1 to 128 characters", ID_CHARACTERS, |text| text.chars().count()
);
identifier!(
    /// A connection of a WebSocket API, as API Gateway names it (`L0SM9cOFvHcCIhw=`). It is a segment of a URL's
    /// path, where `.` and `..` would name another place (RFC 3986, section 5.2.4).
    ConnectionId, "connection id", "1 to 128 characters and is neither `.` nor `..`", ID_CHARACTERS,
    |text| text.chars().count(), not "." | ".."
);
identifier!(
    /// A tenant: the token's `tenant_id`.
    TenantId, "tenant id", "1 to 256 bytes", PRINCIPAL_BYTES, str::len
);
identifier!(
    /// A user of a tenant: the token's `sub`.
    UserId, "user id", "1 to 256 bytes", PRINCIPAL_BYTES, str::len
);

impl MessageId {
    /// A new UUIDv7 (RFC 9562): unique, and it holds the time in milliseconds at which it was made.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7().to_string())
    }

    /// When the id was made, in milliseconds since the epoch, where it is a UUIDv7.
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
    fn an_id_has_1_to_128_characters_whatever_their_bytes() {
        assert!(MessageId::new("").is_err());
        assert!(MessageId::new("ß".repeat(128)).is_ok());
        assert!(MessageId::new("a".repeat(129)).is_err());
    }

    #[test]
    fn a_connection_is_no_dot_segment() {
        for text in [".", ".."] {
            assert!(ConnectionId::new(text).is_err() && MessageId::new(text).is_ok(), "{text}");
        }
        assert!(ConnectionId::new("...").is_ok());
    }

    #[test]
    fn a_tenant_has_1_to_256_bytes() {
        assert!(TenantId::new("").is_err());
        assert!(TenantId::new("ß".repeat(128)).is_ok());
        assert!(TenantId::new("ß".repeat(129)).is_err());
    }

    #[test]
    fn the_error_names_the_limit_and_never_the_text() {
        let error = TenantId::new("s3cret".repeat(50)).unwrap_err().to_string();
        assert_eq!(error, "a tenant id has 1 to 256 bytes, this one has 300");
    }

    #[test]
    fn a_generated_id_tells_when_it_was_made() {
        let id = MessageId::new("017f22e2-79b0-7cc3-98c4-dc0c0c07398f").unwrap();
        assert_eq!(id.created_at(), Some(1_645_557_742_000), "the example of RFC 9562, appendix A.6");
        assert!(MessageId::generate().created_at().is_some());
    }

    #[test]
    fn another_id_tells_no_time() {
        for text in ["order-7", "919108f7-52d1-4320-9bac-f847db4148a8"] {
            assert_eq!(MessageId::new(text).unwrap().created_at(), None);
        }
    }
}
