//! Whether a token is good.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use jsonwebtoken::{AlgorithmFamily, DecodingKey, Validation, decode, errors::ErrorKind};
use serde::Deserialize;

use crate::token::Token;

/// How far the clocks of issuer and verifier may lie apart.
const LEEWAY: Duration = Duration::from_secs(30);

/// The public key that tokens are verified with. Its kind fixes the algorithms, never the token (RFC 8725,
/// section 3.1): RS and PS 256 to 512, ES256 and ES384, or EdDSA.
#[derive(Clone)]
pub struct PublicKey(DecodingKey);

/// Verifies tokens: signature, `exp` (required), `nbf`, and `iss` and `aud` where they are configured.
#[derive(Clone)]
pub struct Verifier {
    key: DecodingKey,
    validation: Validation,
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
    /// It names an algorithm that is not the key's.
    WrongAlgorithm,
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
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::BadSignature => "bad_signature",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
            Self::InvalidClaims => "invalid_claims",
        }
    }
}

impl PublicKey {
    /// Reads the PEM of a public key: RSA, EC (P-256, P-384) or Ed25519. `None` for anything else, and above
    /// all for a private key, which has no place here.
    #[must_use]
    pub fn from_pem(pem: &str) -> Option<Self> {
        let public = ["-----BEGIN PUBLIC KEY-----", "-----BEGIN RSA PUBLIC KEY-----"];
        if !public.iter().any(|label| pem.trim_start().starts_with(label)) {
            return None;
        }
        let pem = pem.as_bytes();
        let readers = [DecodingKey::from_rsa_pem, DecodingKey::from_ec_pem, DecodingKey::from_ed_pem];
        readers.into_iter().find_map(|read| read(pem).ok()).filter(has_known_curve).map(Self)
    }
}

/// Whether an EC key is of P-256 or P-384, by the length of its point: two coordinates and a byte of form (SEC
/// 1, section 2.3.3).
fn has_known_curve(key: &DecodingKey) -> bool {
    key.family() != AlgorithmFamily::Ec || matches!(key.try_get_as_bytes().map(<[u8]>::len), Ok(65 | 97))
}

impl Verifier {
    /// Verifies with `key`, and against the issuer and the audience where they are given.
    #[must_use]
    pub fn new(key: PublicKey, issuer: Option<&str>, audience: Option<&str>) -> Self {
        let PublicKey(key) = key;
        let mut validation = Validation::new_for_family(key.family());
        validation.leeway = LEEWAY.as_secs();
        validation.validate_nbf = true;
        validation.validate_aud = audience.is_some();
        let mut required = vec!["exp", "sub"];
        if let Some(issuer) = issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        Self { key, validation }
    }

    /// What a token says, if it is good.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn verify(&self, token: &Token<'_>) -> Result<Claims, Fault> {
        let decoded = decode(token.expose(), &self.key, &self.validation);
        decoded.map(|token| token.claims).map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => Fault::BadSignature,
            ErrorKind::ExpiredSignature => Fault::Expired,
            ErrorKind::ImmatureSignature => Fault::NotYetValid,
            ErrorKind::InvalidIssuer => Fault::WrongIssuer,
            ErrorKind::InvalidAudience => Fault::WrongAudience,
            ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => Fault::WrongAlgorithm,
            ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
                "iss" => Fault::WrongIssuer,
                "aud" => Fault::WrongAudience,
                _ => Fault::InvalidClaims,
            },
            // The header's JSON is read before the signature is checked, the claims' after it.
            ErrorKind::InvalidClaimFormat(_) | ErrorKind::InvalidSubject => Fault::InvalidClaims,
            ErrorKind::Json(_) if self.is_signed(token) => Fault::InvalidClaims,
            _ => Fault::Malformed,
        })
    }

    /// Whether the header can be read, so that what could not are the claims.
    fn is_signed(&self, token: &Token<'_>) -> bool {
        jsonwebtoken::decode_header(token.expose()).is_ok()
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
        formatter
            .debug_struct("Verifier")
            .field("algorithms", &self.validation.algorithms)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PublicKey").field("family", &self.0.family()).finish_non_exhaustive()
    }
}
