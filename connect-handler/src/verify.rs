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
    claims::{ClaimSet, Claims},
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
        let mut required = vec!["exp"];
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
            Keys::One(key) => self.verify_with(key, algorithm, token, now),
            Keys::Set(keys) => match keys.find(header.kid.as_deref(), algorithm, now).await {
                Ok(keys) => {
                    let mut results = keys.iter().map(|key| self.verify_with(key, algorithm, token, now));
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

    fn verify_with(
        &self,
        key: &PublicKey,
        algorithm: Algorithm,
        token: &Token<'_>,
        now: SystemTime,
    ) -> Result<Claims, Fault> {
        if !key.supports(algorithm) {
            return Err(Fault::WrongAlgorithm);
        }
        let rules = Validation { algorithms: vec![algorithm], ..self.rules.clone() };
        match decode::<ClaimSet>(token.expose(), key.key(), &rules) {
            Ok(token) => Claims::read(&token.claims).map_err(Fault::InvalidClaims),
            Err(error) => Err(self.fault(error.kind(), token, now)),
        }
    }

    fn fault(&self, error: &ErrorKind, token: &Token<'_>, now: SystemTime) -> Fault {
        match error {
            ErrorKind::InvalidSignature => Fault::BadSignature,
            ErrorKind::ExpiredSignature
            | ErrorKind::ImmatureSignature
            | ErrorKind::InvalidIssuer
            | ErrorKind::InvalidAudience
            | ErrorKind::MissingRequiredClaim(_)
            | ErrorKind::InvalidClaimFormat(_)
            | ErrorKind::InvalidSubject => self.claim_fault(token, now),
            // The header's JSON is parsed before the signature is verified, the claims' JSON after it.
            ErrorKind::Json(_) if decode_header(token.expose()).is_ok() => self.claim_fault(token, now),
            _ => Fault::Malformed,
        }
    }

    /// Returns which claim refuses a token whose signature is verified.
    fn claim_fault(&self, token: &Token<'_>, now: SystemTime) -> Fault {
        let claims =
            token.expose().split('.').nth(1).and_then(|part| BASE64_URL_SAFE_NO_PAD.decode(part).ok());
        let claims = claims.and_then(|json| serde_json::from_slice::<ClaimSet>(&json).ok());
        let Some(claims) = claims else { return Fault::NoClaims };
        let later = || Claims::read(&claims).err().map(Fault::InvalidClaims);
        claims.fault(&self.rules, now).or_else(later).unwrap_or(Fault::NoClaims)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Verifier").field("keys", &self.keys).finish_non_exhaustive()
    }
}
