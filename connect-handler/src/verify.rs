//! Verifies tokens.

use std::{fmt, str::FromStr as _, sync::Arc, time::SystemTime};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use futures::future::join_all;
use jsonwebtoken::{Algorithm, AlgorithmFamily, crypto};
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    claims::{ClaimSet, Claims},
    fault::{Fault, Problem},
    fetch::HttpFetch,
    issuer::IssuerName,
    jwks::{Jwks, JwksError},
    keys::{KeyError, MAX_CANDIDATES, PublicKey},
    rules::{Audience, Rules},
    token::Token,
};

/// The keys that verify tokens.
#[derive(Debug)]
pub enum Keys {
    /// One configured key.
    One(PublicKey),
    /// A JWK set.
    Set(Jwks<HttpFetch>),
    /// The JWK set of each issuer.
    Issuers(Vec<(IssuerName, Jwks<HttpFetch>)>),
}

/// Verifies tokens: the signature, `exp` (required), `nbf`, issuer, audience, and then the claims that become user,
/// tenant and permissions.
pub struct Verifier {
    keys: Keys,
    rules: Rules,
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
        let (header, rest) = token.expose().split_once('.').ok_or(Fault::Malformed)?;
        if rest.matches('.').count() != 1 {
            return Err(Fault::Malformed);
        }
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
    /// Creates a verifier with `keys`, for tokens whose claims satisfy `rules`.
    #[must_use]
    pub fn new(keys: Keys, rules: Rules) -> Self {
        Self { keys, rules }
    }

    /// Returns whether a token for any audience is accepted.
    #[must_use]
    pub fn accepts_any_audience(&self) -> bool {
        self.rules.audience == Audience::Any
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
        // The claims are trusted only after the signature is verified.
        let claims = claims(token);
        let keys = match &self.keys {
            Keys::One(key) => return self.verify_with(key, algorithm, token, claims.as_ref(), now),
            Keys::Set(keys) => keys,
            Keys::Issuers(issuers) => of_issuer(issuers, claims.as_ref().map_err(Clone::clone)?)?,
        };
        match keys.find(header.kid.as_deref(), algorithm, now).await {
            Ok(keys) => {
                let of_other = |key: &Arc<PublicKey>| claims.as_ref().is_ok_and(|claims| !key.is_of(claims));
                let candidates: Vec<_> = keys.iter().filter(|key| !of_other(key)).collect();
                if candidates.is_empty() {
                    return Err(Fault::WrongIssuer(Problem::Other));
                }
                let verify =
                    |key: &&Arc<PublicKey>| self.verify_with(key, algorithm, token, claims.as_ref(), now);
                let mut results = candidates.iter().take(MAX_CANDIDATES).map(verify);
                let signed = results.find(|result| *result != Err(Fault::BadSignature));
                let has_more = candidates.len() > MAX_CANDIDATES;
                signed.unwrap_or(Err(if has_more { Fault::ManyKeys } else { Fault::BadSignature }))
            }
            Err(JwksError::Key(KeyError::Unknown)) => Err(Fault::UnknownKey),
            Err(JwksError::Key(KeyError::OtherAlgorithm)) => Err(Fault::WrongAlgorithm),
            Err(JwksError::Unavailable) => Err(Fault::KeysUnavailable),
        }
    }

    /// Refreshes the keys while another future runs. It never completes.
    pub async fn keep_fresh(&self, now: SystemTime) {
        match &self.keys {
            Keys::One(_) => std::future::pending().await,
            Keys::Set(keys) => keys.drive(now).await,
            Keys::Issuers(issuers) => _ = join_all(issuers.iter().map(|(_, keys)| keys.drive(now))).await,
        }
    }

    fn verify_with(
        &self,
        key: &PublicKey,
        algorithm: Algorithm,
        token: &Token<'_>,
        claims: Result<&ClaimSet, &Fault>,
        now: SystemTime,
    ) -> Result<Claims, Fault> {
        if !key.supports(algorithm) {
            return Err(Fault::WrongAlgorithm);
        }
        let (message, signature) = token.expose().rsplit_once('.').ok_or(Fault::Malformed)?;
        match crypto::verify(signature, message.as_bytes(), key.key(), algorithm) {
            Ok(true) => {}
            Ok(false) => return Err(Fault::BadSignature),
            Err(_) => return Err(Fault::Malformed),
        }
        let claims = claims.map_err(Clone::clone)?;
        claims.check(&self.rules, now)?;
        Claims::read(claims, &self.rules.names).map_err(Fault::InvalidClaims)
    }
}

/// Returns the keys of the issuer that the token names. The token is not yet verified; the keys decide.
fn of_issuer<'a>(
    issuers: &'a [(IssuerName, Jwks<HttpFetch>)],
    claims: &ClaimSet,
) -> Result<&'a Jwks<HttpFetch>, Fault> {
    let iss = claims.issuer().map_err(Fault::WrongIssuer)?;
    let tid = claims.directory();
    let found = issuers.iter().find(|(issuer, _)| issuer.matches(&iss, tid.as_deref()));
    found.map(|(_, keys)| keys).ok_or(Fault::WrongIssuer(Problem::Other))
}

/// Decodes a token's claims, verified or not.
fn claims(token: &Token<'_>) -> Result<ClaimSet, Fault> {
    let (_, rest) = token.expose().split_once('.').ok_or(Fault::Malformed)?;
    let (claims, _) = rest.split_once('.').ok_or(Fault::Malformed)?;
    let json = BASE64_URL_SAFE_NO_PAD.decode(claims).map_err(|_| Fault::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| Fault::NoClaims)
}

impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Verifier").field("keys", &self.keys).finish_non_exhaustive()
    }
}
