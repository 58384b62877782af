//! Issuers' keys for every algorithm, and tokens, valid and invalid.

use anyhow::Context as _;
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        KeyPair as _,
    },
};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, crypto, jwk::Jwk};
use serde_json::{Value, json};

/// The algorithms that `connect-handler` accepts, by name.
pub const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// An issuer's key pair.
pub struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    /// The public key's bytes, for Ed25519 only.
    ed25519: Option<Vec<u8>>,
    /// The key id.
    pub kid: String,
    /// The public key, as PEM.
    pub pem: String,
}

impl Signer {
    /// Generates a key pair for an algorithm.
    ///
    /// # Errors
    /// When the key cannot be generated.
    pub fn new(algorithm: Algorithm, kid: &str) -> anyhow::Result<Self> {
        let (random, mut ed25519) = (SystemRandom::new(), None);
        let (key, public) = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => {
                let curve = match algorithm {
                    Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
                    _ => &ECDSA_P384_SHA384_FIXED_SIGNING,
                };
                let pkcs8 = EcdsaKeyPair::generate_pkcs8(curve, &random)?;
                let pair = EcdsaKeyPair::from_pkcs8(curve, pkcs8.as_ref())?;
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der()?;
                (EncodingKey::from_ec_der(pkcs8.as_ref()), public.as_ref().to_vec())
            }
            Algorithm::EdDSA => {
                let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random)?;
                let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref())?;
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der()?;
                ed25519 = Some(pair.public_key().as_ref().to_vec());
                (EncodingKey::from_ed_der(pkcs8.as_ref()), public.as_ref().to_vec())
            }
            _ => {
                let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048)?;
                let pkcs8: Pkcs8V1Der<'_> = pair.as_der()?;
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der()?;
                let pem = pem("PRIVATE KEY", pkcs8.as_ref());
                (EncodingKey::from_rsa_pem(pem.as_bytes())?, public.as_ref().to_vec())
            }
        };
        Ok(Self { algorithm, key, ed25519, kid: kid.to_owned(), pem: pem("PUBLIC KEY", &public) })
    }

    /// Returns the public key as a JWK without `alg`, so for every algorithm of its type.
    ///
    /// # Errors
    /// When it cannot be encoded as a JWK.
    pub fn jwk(&self) -> anyhow::Result<Value> {
        let mut jwk = match &self.ed25519 {
            // RFC 8037, section 2.
            Some(x) => json!({ "kty": "OKP", "crv": "Ed25519", "x": BASE64_URL_SAFE_NO_PAD.encode(x) }),
            None => serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm)?)?,
        };
        let jwk_object = jwk.as_object_mut().context("the JWK is not an object")?;
        jwk_object.remove("alg");
        jwk_object.insert("kid".to_owned(), self.kid.as_str().into());
        jwk_object.insert("use".to_owned(), "sig".into());
        Ok(jwk)
    }

    /// Returns the header of this signer's tokens, with changes. `null` removes a parameter.
    #[must_use]
    pub fn header(&self, changes: &Value) -> Value {
        let header = json!({ "alg": format!("{:?}", self.algorithm), "typ": "JWT", "kid": self.kid });
        changed(header, changes)
    }

    /// Signs a token with these claims.
    ///
    /// # Errors
    /// When signing fails.
    pub fn sign(&self, claims: &Value) -> anyhow::Result<String> {
        self.sign_raw(self.header(&json!({})).to_string(), claims.to_string())
    }

    /// Signs a token with any header and claims, valid JSON or not.
    ///
    /// # Errors
    /// When signing fails.
    pub fn sign_raw(&self, header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> anyhow::Result<String> {
        let message = unsigned(header, claims);
        let signature = crypto::sign(message.as_bytes(), &self.key, self.algorithm)?;
        Ok(format!("{message}.{signature}"))
    }
}

/// Builds a JWK set.
#[must_use]
pub fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// Encodes a token's first two parts.
#[must_use]
pub fn unsigned(header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
    format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(claims))
}

/// Applies changes to an object. `null` removes a member.
#[must_use]
pub fn changed(mut object: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().into_iter().flatten() {
        object[name] = value.clone();
    }
    if let Some(object) = object.as_object_mut() {
        object.retain(|_, value| !value.is_null());
    }
    object
}

/// Encodes DER as PEM.
#[must_use]
pub fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
}
