//! The reasons why a token is refused.

/// The reason why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// The key did not make the signature.
    BadSignature,
    /// `exp` has passed.
    Expired,
    /// `nbf` is in the future.
    NotYetValid,
    /// `iss` is missing or names another issuer.
    WrongIssuer(Problem),
    /// `aud` is missing or names another audience.
    WrongAudience(Problem),
    /// Another claim is missing or malformed.
    InvalidClaims(ClaimFault),
    /// The claims are not a JSON object.
    NoClaims,
}

/// A claim and its problem. It never contains the claim's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimFault {
    /// The claim's name.
    pub claim: &'static str,
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
    /// It is not a string.
    NotAString,
    /// It is not a list of strings.
    NotAListOfStrings,
    /// It is not a number of seconds since the epoch.
    NotATime,
    /// It is an empty string.
    Empty,
    /// It is over 256 bytes.
    TooLong,
    /// The time has passed.
    Past,
    /// The time is yet to come.
    Future,
    /// It has another value than the configured one.
    Other,
    /// It is set, and none is configured.
    Unexpected,
}

impl Fault {
    /// Returns the code of the fault in metrics, in logs and in the response's body.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::TooLarge => "token_too_large",
            Self::Malformed => "token_malformed",
            Self::KeyInToken => "key_in_token",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::UnknownKey => "unknown_key",
            Self::KeysUnavailable => "keys_unavailable",
            Self::BadSignature => "bad_signature",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::WrongIssuer(_) => "wrong_issuer",
            Self::WrongAudience(_) => "wrong_audience",
            Self::InvalidClaims(_) | Self::NoClaims => "invalid_claims",
        }
    }

    /// Returns the claim that causes the fault, for the log.
    #[must_use]
    pub fn claim(self) -> Option<ClaimFault> {
        let (claim, problem) = match self {
            Self::Expired => ("exp", Problem::Past),
            Self::NotYetValid => ("nbf", Problem::Future),
            Self::WrongIssuer(problem) => ("iss", problem),
            Self::WrongAudience(problem) => ("aud", problem),
            Self::InvalidClaims(fault) => return Some(fault),
            _ => return None,
        };
        Some(ClaimFault { claim, problem })
    }
}

impl Problem {
    /// Returns the problem as the log names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Repeated => "occurs more than once",
            Self::NotAString => "not a string",
            Self::NotAListOfStrings => "not a list of strings",
            Self::NotATime => "not a number of seconds",
            Self::Empty => "empty",
            Self::TooLong => "longer than 256 bytes",
            Self::Past => "in the past",
            Self::Future => "in the future",
            Self::Other => "another value than configured",
            Self::Unexpected => "set, but not configured",
        }
    }
}
