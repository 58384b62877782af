//! Verifies tokens.

use std::{
    fmt,
    str::FromStr as _,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, AlgorithmFamily, Validation, decode, decode_header, errors::ErrorKind};
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    fault::Fault,
    fetch::HttpFetch,
    jwks::{Jwks, JwksError},
    keys::{KeyError, PublicKey},
    token::Token,
};

/// Tolerated difference between the clocks of issuer and verifier.
const LEEWAY: Duration = Duration::from_secs(30);

/// The keys that verify tokens.
#[derive(Debug)]
pub enum Keys {
    /// One configured key.
    One(PublicKey),
    /// An issuer's JWK set.
    Set(Jwks<HttpFetch>),
}

/// Verifies tokens: signature, `exp` (required), `nbf`, and `iss` and `aud` if they are configured.
pub struct Verifier {
    keys: Keys,
    rules: Validation,
}

/// The parameters of a token's header (RFC 7515, section 4.1) that affect its verification.
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

/// The claims of a verified token.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Claims {
    /// The user.
    pub sub: String,
    /// The user's tenant.
    pub tenant_id: String,
    /// Seconds since the epoch, possibly with a fraction (RFC 7519, section 2: NumericDate).
    exp: f64,
    /// The user's permissions.
    #[serde(default)]
    pub permissions: Vec<String>,
}

impl Header {
    fn parse(token: &Token<'_>) -> Result<Self, Fault> {
        let (header, _) = token.expose().split_once('.').ok_or(Fault::Malformed)?;
        let json = BASE64_URL_SAFE_NO_PAD.decode(header).map_err(|_| Fault::Malformed)?;
        let header: Self = serde_json::from_slice(&json).map_err(|_| Fault::Malformed)?;
        // A key that comes with the token proves nothing (RFC 8725, section 2.1 and 3.10).
        if header.jwk.or(header.jku).or(header.x5c).or(header.x5u).is_some() {
            return Err(Fault::KeyInToken);
        }
        // `crit` lists extensions that a verifier must understand (RFC 7515, section 4.1.11). None is supported.
        if header.crit.is_some() {
            return Err(Fault::Malformed);
        }
        Ok(Self { jwk: None, jku: None, x5c: None, x5u: None, crit: None, ..header })
    }
}

impl Verifier {
    /// Creates a verifier with `keys`, and with the required issuer and audience if they are given.
    #[must_use]
    pub fn new(keys: Keys, issuer: Option<&str>, audience: Option<&str>) -> Self {
        let mut rules = Validation {
            leeway: LEEWAY.as_secs(),
            validate_nbf: true,
            // Without a configured audience, a token with `aud` is refused (RFC 7519, section 4.1.3).
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

    /// Verifies a token and returns its claims.
    ///
    /// # Errors
    /// [`Fault`] says why the token is refused.
    pub async fn verify(&self, token: &Token<'_>, now: SystemTime) -> Result<Claims, Fault> {
        let header = Header::parse(token)?;
        let algorithm = Algorithm::from_str(&header.alg).map_err(|_| Fault::WrongAlgorithm)?;
        // No key is a shared secret, so do not fetch keys for such a token.
        if algorithm.family() == AlgorithmFamily::Hmac {
            return Err(Fault::WrongAlgorithm);
        }
        match &self.keys {
            Keys::One(key) => self.verify_with(key, algorithm, token),
            Keys::Set(keys) => match keys.find(header.kid.as_deref(), algorithm, now).await {
                Ok(keys) => {
                    let mut results = keys.iter().map(|key| self.verify_with(key, algorithm, token));
                    let bad_signature = Err(Fault::BadSignature);
                    results.find(|result| *result != bad_signature).unwrap_or(bad_signature)
                }
                Err(JwksError::Key(KeyError::Unknown)) => Err(Fault::UnknownKey),
                Err(JwksError::Key(KeyError::OtherAlgorithm)) => Err(Fault::WrongAlgorithm),
                Err(JwksError::Unavailable) => Err(Fault::KeysUnavailable),
            },
        }
    }

    /// Refreshes the keys while another future runs. It never completes.
    pub async fn keep_fresh(&self, now: SystemTime) {
        match &self.keys {
            Keys::One(_) => std::future::pending().await,
            Keys::Set(keys) => keys.drive(now).await,
        }
    }

    fn verify_with(&self, key: &PublicKey, algorithm: Algorithm, token: &Token<'_>) -> Result<Claims, Fault> {
        if !key.supports(algorithm) {
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
            // The header's JSON is parsed before the signature is verified, the claims' JSON after it.
            ErrorKind::Json(_) if decode_header(token.expose()).is_ok() => Fault::InvalidClaims,
            _ => Fault::Malformed,
        })
    }
}

impl Claims {
    /// Returns the time when the token expires, or `None` if `exp` is not a representable time.
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
