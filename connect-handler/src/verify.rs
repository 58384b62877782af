//! Whether a token is good.

use std::{
    fmt,
    str::FromStr as _,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, AlgorithmFamily, Validation, decode, decode_header, errors::ErrorKind};
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    fetch::HttpFetch,
    jwks::{Jwks, NoVerdict},
    keys::{NoKey, PublicKey},
    token::Token,
};

/// How far the clocks of issuer and verifier may lie apart.
const LEEWAY: Duration = Duration::from_secs(30);

/// What tokens are verified with.
#[derive(Debug)]
pub enum Keys {
    /// One key, which is configured.
    One(PublicKey),
    /// Those of an issuer.
    Set(Jwks<HttpFetch>),
}

/// Verifies tokens: signature, `exp` (required), `nbf`, and `iss` and `aud` where they are configured.
pub struct Verifier {
    keys: Keys,
    rules: Validation,
}

/// A token's header (RFC 7515, section 4.1), as far as it counts.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    jwk: Option<IgnoredAny>,
    jku: Option<IgnoredAny>,
    x5c: Option<IgnoredAny>,
    x5u: Option<IgnoredAny>,
    crit: Option<IgnoredAny>,
}

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Claims {
    /// The user.
    pub sub: String,
    /// The user's tenant.
    pub tenant_id: String,
    /// Seconds since the epoch, maybe with a fraction (RFC 7519, section 2: NumericDate).
    exp: f64,
    /// What the user may do.
    #[serde(default)]
    pub permissions: Vec<String>,
}

/// The class of what is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// There is none.
    Missing,
    /// It is over 8 KiB.
    TooLarge,
    /// It is no JWT.
    Malformed,
    /// It brings a key of its own, or says where to find one.
    KeyInToken,
    /// It names an algorithm that is not the key's, or none at all.
    WrongAlgorithm,
    /// It is signed with a key that the issuer does not have.
    UnknownKey,
    /// The issuer's keys cannot be fetched: no fault of the token's.
    KeysUnavailable,
    /// Its signature is not that of the key.
    BadSignature,
    /// Its `exp` has passed.
    Expired,
    /// Its `nbf` is yet to come.
    NotYetValid,
    /// It comes from another issuer.
    WrongIssuer,
    /// It is meant for another audience.
    WrongAudience,
    /// A claim is missing or is not what it should be.
    InvalidClaims,
}

impl Fault {
    /// A word for metrics and for the refusal's body.
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

impl Header {
    fn of(token: &Token<'_>) -> Result<Self, Fault> {
        let (header, _) = token.expose().split_once('.').ok_or(Fault::Malformed)?;
        let json = BASE64_URL_SAFE_NO_PAD.decode(header).map_err(|_| Fault::Malformed)?;
        let header: Self = serde_json::from_slice(&json).map_err(|_| Fault::Malformed)?;
        // A key that comes with the token proves nothing (RFC 8725, section 2.1 and 3.10).
        if header.jwk.or(header.jku).or(header.x5c).or(header.x5u).is_some() {
            return Err(Fault::KeyInToken);
        }
        // What must be understood, and is not (RFC 7515, section 4.1.11).
        if header.crit.is_some() {
            return Err(Fault::Malformed);
        }
        Ok(Self { jwk: None, jku: None, x5c: None, x5u: None, crit: None, ..header })
    }
}

impl Verifier {
    /// Verifies with `keys`, and against the issuer and the audience where they are given.
    #[must_use]
    pub fn new(keys: Keys, issuer: Option<&str>, audience: Option<&str>) -> Self {
        let mut rules = Validation {
            leeway: LEEWAY.as_secs(),
            validate_nbf: true,
            // A token for an audience is not for somebody who is none (RFC 7519, section 4.1.3).
            validate_aud: true,
            ..Validation::default()
        };
        let mut required = vec!["exp", "sub"];
        if let Some(issuer) = issuer {
            rules.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = audience {
            rules.set_audience(&[audience]);
            required.push("aud");
        }
        rules.set_required_spec_claims(&required);
        Self { keys, rules }
    }

    /// What a token says, if it is good.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn verify(&self, token: &Token<'_>, now: SystemTime) -> Result<Claims, Fault> {
        let header = Header::of(token)?;
        let algorithm = Algorithm::from_str(&header.alg).map_err(|_| Fault::WrongAlgorithm)?;
        // No key is a shared secret, so nobody needs to be asked for one.
        if algorithm.family() == AlgorithmFamily::Hmac {
            return Err(Fault::WrongAlgorithm);
        }
        match &self.keys {
            Keys::One(key) => self.verify_with(key, algorithm, token),
            Keys::Set(keys) => match keys.find(header.kid.as_deref(), algorithm, now).await {
                Ok(keys) => {
                    let mut tried = keys.iter().map(|key| self.verify_with(key, algorithm, token));
                    tried.find(|tried| *tried != Err(Fault::BadSignature)).unwrap_or(Err(Fault::BadSignature))
                }
                Err(NoVerdict::Key(NoKey::Unknown)) => Err(Fault::UnknownKey),
                Err(NoVerdict::Key(NoKey::OtherAlgorithm)) => Err(Fault::WrongAlgorithm),
                Err(NoVerdict::Unavailable) => Err(Fault::KeysUnavailable),
            },
        }
    }

    /// Keeps the keys fresh while something else is done. It never ends.
    pub async fn keep_fresh(&self, now: SystemTime) {
        match &self.keys {
            Keys::One(_) => std::future::pending().await,
            Keys::Set(keys) => keys.drive(now).await,
        }
    }

    fn verify_with(&self, key: &PublicKey, algorithm: Algorithm, token: &Token<'_>) -> Result<Claims, Fault> {
        if !key.is_for(algorithm) {
            return Err(Fault::WrongAlgorithm);
        }
        let rules = Validation { algorithms: vec![algorithm], ..self.rules.clone() };
        let decoded = decode(token.expose(), key.key(), &rules);
        decoded.map(|token| token.claims).map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => Fault::BadSignature,
            ErrorKind::ExpiredSignature => Fault::Expired,
            ErrorKind::ImmatureSignature => Fault::NotYetValid,
            ErrorKind::InvalidIssuer => Fault::WrongIssuer,
            ErrorKind::InvalidAudience => Fault::WrongAudience,
            ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
                "iss" => Fault::WrongIssuer,
                "aud" => Fault::WrongAudience,
                _ => Fault::InvalidClaims,
            },
            ErrorKind::InvalidClaimFormat(_) | ErrorKind::InvalidSubject => Fault::InvalidClaims,
            // The header's JSON is read before the signature is checked, the claims' after it.
            ErrorKind::Json(_) if decode_header(token.expose()).is_ok() => Fault::InvalidClaims,
            _ => Fault::Malformed,
        })
    }
}

impl Claims {
    /// When the token expires.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        let since_epoch = Duration::try_from_secs_f64(self.exp).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(since_epoch)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Verifier").field("keys", &self.keys).finish_non_exhaustive()
    }
}
