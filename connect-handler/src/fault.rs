//! The reasons why a token is refused.

use std::fmt;

use serde_json::Value;

/// The reason why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The event contains no token.
    Missing,
    /// The token is over 8 KiB.
    TooLarge,
    /// The token is not a JWT.
    Malformed,
    /// The header contains a key or a reference to one.
    KeyInToken,
    /// The algorithm is not one of the key's, or is `none`.
    WrongAlgorithm,
    /// The issuer has no key with the token's `kid`.
    UnknownKey,
    /// The issuer's keys could not be fetched. The token may be valid.
    KeysUnavailable,
    /// No key made the signature.
    BadSignature,
    /// None of the first 16 keys that fit the token made the signature. A further one may have.
    ManyKeys,
    /// `exp` has passed.
    Expired,
    /// `nbf` is in the future.
    NotYetValid,
    /// `iss` is missing or names another issuer.
    WrongIssuer(Problem),
    /// The audience is missing or another one.
    WrongAudience(ClaimFault),
    /// Another claim is missing or malformed.
    InvalidClaims(ClaimFault),
    /// The claims are not a JSON object.
    NoClaims,
    /// The event has no context of an authorizer, since the route has none.
    NoAuthorizer,
}

/// A claim and its problem. It never contains the claim's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimFault {
    /// The claim's name or JSON pointer, as configured.
    pub claim: String,
    /// The problem.
    pub problem: Problem,
}

/// The problem with a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// It is missing.
    Missing,
    /// It occurs more than once.
    Repeated,
    /// It is a value of this kind, which does not fit.
    Found(Kind),
    /// Its JSON cannot be read.
    Unreadable,
    /// It is not a number of seconds since the epoch.
    NotATime,
    /// It is an empty string.
    Empty,
    /// It is over 256 bytes.
    TooLong,
    /// It contains a control character or changes the direction of text.
    ForbiddenCharacter,
    /// The time has passed.
    Past,
    /// The time is yet to come.
    Future,
    /// The time is more than ten years ahead.
    TooFarAhead,
    /// It has another value than the configured one.
    Other,
    /// It is set, and none is configured.
    Unexpected,
}

/// The kind of a JSON value that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`, inside a list.
    Null,
    /// `true` or `false`.
    Boolean,
    /// A number, where it does not fit or is not whole.
    Number,
    /// A string.
    Text,
    /// An empty list.
    EmptyList,
    /// A list that is not empty.
    List,
    /// An object.
    Object,
}

impl Fault {
    /// Returns the code of the fault in metrics, in logs and in the response's body.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::TooLarge => "token_too_large",
            Self::Malformed => "token_malformed",
            Self::KeyInToken => "key_in_token",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::UnknownKey => "unknown_key",
            Self::KeysUnavailable => "keys_unavailable",
            Self::BadSignature | Self::ManyKeys => "bad_signature",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::WrongIssuer(_) => "wrong_issuer",
            Self::WrongAudience(_) => "wrong_audience",
            Self::InvalidClaims(_) | Self::NoClaims => "invalid_claims",
            Self::NoAuthorizer => "authorizer_missing",
        }
    }

    /// Returns whether a change of keys, issuer or settings can cause the fault for all clients. Without such a change,
    /// a client's own token is old, missing or broken.
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        match self {
            Self::WrongAlgorithm
            | Self::UnknownKey
            | Self::BadSignature
            | Self::ManyKeys
            | Self::WrongIssuer(_)
            | Self::WrongAudience(_)
            | Self::InvalidClaims(_)
            | Self::NoClaims => true,
            Self::Missing
            | Self::TooLarge
            | Self::Malformed
            | Self::KeyInToken
            | Self::KeysUnavailable
            | Self::Expired
            | Self::NotYetValid
            | Self::NoAuthorizer => false,
        }
    }

    /// Returns the claim that causes the fault, for the log.
    #[must_use]
    pub fn claim(&self) -> Option<ClaimFault> {
        let (claim, problem) = match self {
            Self::Expired => ("exp", Problem::Past),
            Self::NotYetValid => ("nbf", Problem::Future),
            Self::WrongIssuer(problem) => ("iss", *problem),
            Self::WrongAudience(fault) | Self::InvalidClaims(fault) => return Some(fault.clone()),
            _ => return None,
        };
        Some(ClaimFault::new(claim, problem))
    }
}

impl ClaimFault {
    pub(crate) fn new(claim: impl ToString, problem: Problem) -> Self {
        Self { claim: claim.to_string(), problem }
    }
}

impl Kind {
    pub(crate) fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Boolean,
            Value::Number(_) => Self::Number,
            Value::String(_) => Self::Text,
            Value::Array(items) if items.is_empty() => Self::EmptyList,
            Value::Array(_) => Self::List,
            Value::Object(_) => Self::Object,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Missing => "missing",
            Self::Repeated => "occurs more than once",
            Self::Found(kind) => return write!(formatter, "of the wrong kind: {kind}"),
            Self::Unreadable => "not readable as JSON",
            Self::NotATime => "not a number of seconds",
            Self::Empty => "empty",
            Self::TooLong => "longer than 256 bytes",
            Self::ForbiddenCharacter => {
                "contains a control character or line separator, or changes the direction of text"
            }
            Self::Past => "in the past",
            Self::Future => "in the future",
            Self::TooFarAhead => "more than ten years ahead: it must be in seconds",
            Self::Other => "another value than configured",
            Self::Unexpected => "set, but not configured",
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Null => "null",
            Self::Boolean => "true or false",
            Self::Number => "a number",
            Self::Text => "a string",
            Self::EmptyList => "an empty list",
            Self::List => "a list",
            Self::Object => "an object",
        })
    }
}
