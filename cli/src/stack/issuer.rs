//! Issues tokens for the local stack.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

/// The `iss` of the tokens.
pub const ISSUER: &str = "https://issuer.streamer.localhost";

const ALGORITHM: &EcdsaSigningAlgorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;

/// Signs tokens (ES256) that the local stack accepts. Each stack has its own issuer.
#[derive(Clone)]
pub struct Issuer {
    pkcs8: Vec<u8>,
    /// The public key, as PEM.
    pub public_key: String,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Issuer").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}

impl Issuer {
    /// Creates an issuer with a new key.
    ///
    /// # Errors
    /// When key generation fails.
    pub fn generate() -> anyhow::Result<Self> {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(ALGORITHM, &SystemRandom::new()).context("cannot generate a key")?;
        Self::from_pkcs8(pkcs8.as_ref())
    }

    /// Reads the private key from PKCS #8 in base64.
    pub(super) fn from_base64(key: &str) -> anyhow::Result<Self> {
        Self::from_pkcs8(&BASE64_STANDARD.decode(key).context("the key is not base64")?)
    }

    /// Returns the private key as PKCS #8 in base64.
    pub(super) fn to_base64(&self) -> String {
        BASE64_STANDARD.encode(&self.pkcs8)
    }

    fn from_pkcs8(pkcs8: &[u8]) -> anyhow::Result<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(ALGORITHM, pkcs8).context("the key is not an EC key (P-256)")?;
        let public: PublicKeyX509Der<'_> =
            pair.public_key().as_der().context("the key has no public part")?;
        let public = BASE64_STANDARD.encode(public.as_ref());
        Ok(Self {
            pkcs8: pkcs8.to_vec(),
            public_key: format!("-----BEGIN PUBLIC KEY-----\n{public}\n-----END PUBLIC KEY-----\n"),
        })
    }

    /// Signs a token for a user of a tenant.
    ///
    /// # Errors
    /// When signing fails.
    pub fn token(&self, tenant: &str, user: &str, lifetime: Duration) -> anyhow::Result<String> {
        let expiry = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)? + lifetime;
        self.sign(&json!({ "iss": ISSUER, "sub": user, "tenant_id": tenant, "exp": expiry.as_secs() }))
    }

    /// Signs a token with these claims.
    ///
    /// # Errors
    /// When signing fails.
    pub fn sign(&self, claims: &serde_json::Value) -> anyhow::Result<String> {
        Ok(jsonwebtoken::encode(
            &Header::new(Algorithm::ES256),
            claims,
            &EncodingKey::from_ec_der(&self.pkcs8),
        )?)
    }
}
