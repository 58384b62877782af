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
    WrongIssuer,
    /// `aud` is missing or names another audience.
    WrongAudience,
    /// Another claim is missing or malformed.
    InvalidClaims,
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
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
            Self::InvalidClaims => "invalid_claims",
        }
    }
}
