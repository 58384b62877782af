//! Public keys, and the algorithms that each of them supports.

use std::{fmt, sync::Arc};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{claims::ClaimSet, issuer::TENANT};

/// Maximum keys that one token is verified with: the keys with its `kid`, or any keys for a token without `kid`.
pub(crate) const MAX_CANDIDATES: usize = 16;

/// Bits of an RSA key: at least 2048 (RFC 7518, section 3.3); more than 8192 only cost time.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// A public key. The key determines the algorithms, never the token (RFC 8725, section 3.1): RS256 to PS512 for RSA,
/// ES256 for P-256, ES384 for P-384, EdDSA for Ed25519; only one of them if the key has an `alg`.
#[derive(Clone)]
pub struct PublicKey {
    key: DecodingKey,
    algorithms: Vec<Algorithm>,
    /// The only issuer that signs with the key, in a set of several issuers.
    issuer: Option<String>,
}

/// The keys of a JWK set (RFC 7517) that can verify tokens.
#[derive(Debug, Clone, Default)]
pub struct KeySet(Vec<(Option<String>, Arc<PublicKey>)>);

/// The reason why no key of a set can verify a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyError {
    /// No key has the token's `kid`, or the token has no `kid` and no key supports its algorithm.
    Unknown,
    /// The key with the token's `kid` does not support its algorithm.
    OtherAlgorithm,
}

/// The reason why a document is not a usable JWK set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeySet {
    /// The document is not a JWK set.
    #[error("the response is not a JWK set")]
    NotASet,
    /// No key is for signatures, of a supported type and strong enough.
    #[error("the JWK set has no key that can verify a token")]
    NoKey,
}

impl PublicKey {
    /// Parses the PEM of a public key: RSA of 2048 to 8192 bits, EC (P-256, P-384) or Ed25519. Returns `None` for
    /// anything else, including a private key.
    #[must_use]
    pub fn from_pem(pem: &str) -> Option<Self> {
        let public = ["-----BEGIN PUBLIC KEY-----", "-----BEGIN RSA PUBLIC KEY-----"];
        if !public.iter().any(|label| pem.trim_start().starts_with(label)) {
            return None;
        }
        let pem = pem.as_bytes();
        let readers = [DecodingKey::from_rsa_pem, DecodingKey::from_ec_pem, DecodingKey::from_ed_pem];
        let key = readers.into_iter().find_map(|read| read(pem).ok())?;
        let bytes = key.try_get_as_bytes().ok()?;
        let algorithms = match key.family() {
            AlgorithmFamily::Rsa => RSA_BITS.contains(&modulus_bits(bytes)?).then(|| RSA.to_vec())?,
            // A point lies on one of the curves only.
            AlgorithmFamily::Ec => {
                vec![[Algorithm::ES256, Algorithm::ES384].into_iter().find(|curve| is_valid(*curve, bytes))?]
            }
            AlgorithmFamily::Ed if is_valid(Algorithm::EdDSA, bytes) => vec![Algorithm::EdDSA],
            _ => return None,
        };
        Some(Self { key, algorithms, issuer: None })
    }

    /// Converts a key of a JWK set. Returns `None` for a key that is for encryption, symmetric, weak, or of another
    /// type.
    fn from_jwk(jwk: &Jwk, issuer: Option<String>) -> Option<Self> {
        let common = &jwk.common;
        let signs = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
        let verifies = common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        let (key, algorithms) = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) => {
                let [modulus, exponent] = [significant(&rsa.n)?, significant(&rsa.e)?];
                // The exponent is odd and at least 3 (RFC 8017, section 3.1).
                let is_odd = exponent.last().is_some_and(|last| last % 2 == 1);
                let is_strong =
                    RSA_BITS.contains(&bits(&modulus)) && is_odd && (2..=64).contains(&bits(&exponent));
                let key = DecodingKey::from_rsa_components(&encode(&modulus), &encode(&exponent)).ok()?;
                is_strong.then(|| (key, RSA.to_vec()))?
            }
            AlgorithmParameters::EllipticCurve(ec) => {
                let (algorithm, size) = match ec.curve {
                    EllipticCurve::P256 => (Algorithm::ES256, 32),
                    EllipticCurve::P384 => (Algorithm::ES384, 48),
                    _ => return None,
                };
                let [x, y] = [padded(&ec.x, size)?, padded(&ec.y, size)?];
                let key = DecodingKey::from_ec_components(&encode(&x), &encode(&y)).ok()?;
                // The uncompressed form (SEC 1, section 2.3.3).
                is_valid(algorithm, &[&[4][..], &x, &y].concat()).then(|| (key, vec![algorithm]))?
            }
            AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => {
                let key = DecodingKey::from_jwk(jwk).ok()?;
                is_valid(Algorithm::EdDSA, &decode(&okp.x)?).then(|| (key, vec![Algorithm::EdDSA]))?
            }
            _ => return None,
        };
        let algorithms: Vec<_> = match common.key_algorithm {
            None => algorithms,
            Some(only) => algorithms.into_iter().filter(|algorithm| is_same(only, *algorithm)).collect(),
        };
        (signs && verifies && !algorithms.is_empty()).then_some(Self { key, algorithms, issuer })
    }

    /// Returns whether the key may sign a token with these claims: whether it belongs to no single issuer, or to theirs.
    pub(crate) fn is_of(&self, claims: &ClaimSet) -> bool {
        self.issuer.as_ref().is_none_or(|issuer| claims.issuer().is_ok_and(|iss| iss == *issuer))
    }

    /// Returns whether the key supports an algorithm.
    #[must_use]
    pub fn supports(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    pub(crate) fn key(&self) -> &DecodingKey {
        &self.key
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()
}

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes a number without leading zeros. Java's `BigInteger` writes one before a number whose first bit is set, which
/// RFC 7518, section 2 (Base64urlUInt), does not allow, and with which a key verifies nothing.
fn significant(text: &str) -> Option<Vec<u8>> {
    let number = decode(text)?;
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    Some(number[zeros..].to_vec())
}

/// Decodes a coordinate of this many bytes, some of which may be missing zeros.
fn padded(text: &str, size: usize) -> Option<Vec<u8>> {
    let number = significant(text)?;
    let zeros = size.checked_sub(number.len())?;
    Some([&vec![0; zeros], &number[..]].concat())
}

/// Returns whether `bytes` are a key for an algorithm: a point on its curve.
fn is_valid(algorithm: Algorithm, bytes: &[u8]) -> bool {
    let parsed = match algorithm {
        Algorithm::ES256 => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, bytes),
        Algorithm::ES384 => ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, bytes),
        _ => ParsedPublicKey::new(&ED25519, bytes),
    };
    parsed.is_ok()
}

fn is_same(key: KeyAlgorithm, algorithm: Algorithm) -> bool {
    matches!(
        (key, algorithm),
        (KeyAlgorithm::RS256, Algorithm::RS256)
            | (KeyAlgorithm::RS384, Algorithm::RS384)
            | (KeyAlgorithm::RS512, Algorithm::RS512)
            | (KeyAlgorithm::PS256, Algorithm::PS256)
            | (KeyAlgorithm::PS384, Algorithm::PS384)
            | (KeyAlgorithm::PS512, Algorithm::PS512)
            | (KeyAlgorithm::ES256, Algorithm::ES256)
            | (KeyAlgorithm::ES384, Algorithm::ES384)
            | (KeyAlgorithm::EdDSA, Algorithm::EdDSA)
    )
}

/// Returns the bits of an RSA key's modulus, from its `RSAPublicKey` in DER (RFC 8017, appendix A.1.1): a sequence
/// that begins with the modulus, an integer.
fn modulus_bits(der: &[u8]) -> Option<usize> {
    let (_, sequence) = element(der, 0x30)?;
    let (length, integer) = element(sequence, 0x02)?;
    integer.get(..length).map(bits)
}

/// Returns the length of a DER element with this tag, and the bytes from its content on (X.690, section 8.1).
fn element(der: &[u8], tag: u8) -> Option<(usize, &[u8])> {
    let (&first, rest) = der.strip_prefix(&[tag])?.split_first()?;
    if first < 0x80 {
        return Some((first.into(), rest));
    }
    let (length, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
    let length =
        length.iter().try_fold(0_usize, |all, byte| all.checked_mul(256)?.checked_add(usize::from(*byte)))?;
    Some((length, rest))
}

/// Returns the bits of a big-endian number.
fn bits(number: &[u8]) -> usize {
    let significant = number.iter().skip_while(|byte| **byte == 0);
    let leading = significant.clone().next().map_or(0, |byte| byte.leading_zeros());
    significant.count() * 8 - leading as usize
}

impl KeySet {
    /// Parses a JWK set and skips the keys that cannot verify tokens.
    ///
    /// # Errors
    /// [`InvalidKeySet`] if the document is not a JWK set or no key remains.
    pub fn from_json(json: &[u8]) -> Result<Self, InvalidKeySet> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }

        let Set { keys } = serde_json::from_slice(json).map_err(|_| InvalidKeySet::NotASet)?;
        // A malformed key is ignored and does not invalidate the set (RFC 7517, section 5).
        let keys = keys.into_iter().filter_map(|key| {
            // Entra's sets name each key's issuer: all tenants by a placeholder, or one tenant.
            let issuer = key["issuer"].as_str().filter(|issuer| !issuer.contains(TENANT)).map(str::to_owned);
            let jwk: Jwk = serde_json::from_value(key).ok()?;
            let key = Arc::new(PublicKey::from_jwk(&jwk, issuer)?);
            Some((jwk.common.key_id, key))
        });
        let keys: Vec<_> = keys.collect();
        if keys.is_empty() { Err(InvalidKeySet::NoKey) } else { Ok(Self(keys)) }
    }

    /// Returns the keys that may verify a token: those that have its `kid`, or any if it has none, and support its
    /// algorithm. At most 17 keys are returned, one more than a token is verified with.
    ///
    /// # Errors
    /// [`KeyError`] if there is no such key.
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Vec<Arc<PublicKey>>, KeyError> {
        let named: Vec<_> = self.0.iter().filter(|(id, _)| kid.is_none() || id.as_deref() == kid).collect();
        let fitting = named.iter().filter(|(_, key)| key.supports(algorithm)).take(MAX_CANDIDATES + 1);
        let fitting: Vec<_> = fitting.map(|(_, key)| Arc::clone(key)).collect();
        match fitting.is_empty() {
            false => Ok(fitting),
            true if kid.is_some() && !named.is_empty() => Err(KeyError::OtherAlgorithm),
            true => Err(KeyError::Unknown),
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PublicKey").field("algorithms", &self.algorithms).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const X: &str = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
    const Y: &str = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";

    fn ec(changes: &Value) -> Value {
        let mut key = json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y, "kid": "1"});
        for (name, value) in changes.as_object().unwrap() {
            key[name] = value.clone();
        }
        key
    }

    fn rsa(bits: usize) -> Value {
        let modulus = BASE64_URL_SAFE_NO_PAD.encode(vec![0xC5; bits / 8]);
        json!({"kty": "RSA", "n": modulus, "e": "AQAB", "kid": "rsa"})
    }

    fn set(keys: Value) -> Result<KeySet, InvalidKeySet> {
        KeySet::from_json(json!({ "keys": keys }).to_string().as_bytes())
    }

    fn algorithms(key: Value) -> Vec<Algorithm> {
        set(json!([key])).map(|KeySet(keys)| keys[0].1.algorithms.clone()).unwrap_or_default()
    }

    #[test]
    fn key_determines_its_algorithms() {
        assert_eq!(algorithms(ec(&json!({}))), [Algorithm::ES256]);
        assert_eq!(
            algorithms(ec(&json!({"alg": "ES256", "use": "sig", "key_ops": ["verify"]}))),
            [Algorithm::ES256]
        );
        assert_eq!(algorithms(rsa(2048)), RSA);
        let mut only = rsa(2048);
        only["alg"] = "PS384".into();
        assert_eq!(algorithms(only), [Algorithm::PS384]);
        assert_eq!(algorithms(json!({"kty": "OKP", "crv": "Ed25519", "x": X})), [Algorithm::EdDSA]);
    }

    #[test]
    fn unusable_keys_are_skipped() {
        for key in [
            ec(&json!({"use": "enc"})),
            ec(&json!({"key_ops": ["sign"]})),
            ec(&json!({"alg": "ES384"})),
            ec(&json!({"alg": "HS256"})),
            ec(&json!({"alg": "ECDH-ES"})),
            ec(&json!({"crv": "P-521"})),
            ec(&json!({"crv": "secp256k1"})),
            json!({"kty": "oct", "k": "c2VjcmV0", "kid": "1", "alg": "HS256"}),
            json!({"kty": "OKP", "crv": "X25519", "x": X}),
            json!({"kty": "unknown"}),
            ec(&json!({"x": Y})),
            ec(&json!({"x": ""})),
            ec(&json!({"crv": "P-384"})),
            ec(&json!({"x5c": "no list"})),
            ec(&json!({"kid": 1})),
            json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}),
            json!({"kty": "RSA", "n": rsa(2048)["n"], "e": "AQ"}),
            json!({"kty": "RSA", "n": rsa(2048)["n"], "e": "AAAC"}),
            json!(1),
            rsa(1024),
            rsa(2040),
            rsa(16_384),
        ] {
            assert_eq!(set(json!([key])).err(), Some(InvalidKeySet::NoKey), "{key}");
            assert!(set(json!([key, ec(&json!({}))])).is_ok(), "{key}");
        }
        for text in ["", "{}", "[]", "<html>", r#"{"keys": 1}"#] {
            assert_eq!(KeySet::from_json(text.as_bytes()).err(), Some(InvalidKeySet::NotASet), "{text}");
        }
        assert_eq!(set(json!([])).err(), Some(InvalidKeySet::NoKey));
    }

    /// Without a `kid`, every key that supports the algorithm is a candidate.
    #[test]
    fn kid_selects_keys() {
        let keys = set(json!([ec(&json!({})), ec(&json!({"kid": "2"})), rsa(2048)])).unwrap();
        let find = |keys: &KeySet, kid, algorithm| keys.find(kid, algorithm).map(|found| found.len());
        assert_eq!(find(&keys, Some("1"), Algorithm::ES256), Ok(1));
        assert_eq!(find(&keys, Some("3"), Algorithm::ES256), Err(KeyError::Unknown));
        assert_eq!(find(&keys, Some("rsa"), Algorithm::ES256), Err(KeyError::OtherAlgorithm));
        assert_eq!(find(&keys, None, Algorithm::ES256), Ok(2));
        assert_eq!(find(&keys, None, Algorithm::RS256), Ok(1));
        assert_eq!(find(&keys, None, Algorithm::EdDSA), Err(KeyError::Unknown));
        // Keys with the same `kid`: at most 16 are candidates, and the next shows that there are more.
        let twins = set(json!(vec![ec(&json!({})); 20])).unwrap();
        assert_eq!(find(&twins, Some("1"), Algorithm::ES256), Ok(17));
    }

    #[test]
    fn leading_zeros_do_not_count_as_bits() {
        assert_eq!([bits(&[]), bits(&[0, 0]), bits(&[0, 1]), bits(&[0x80, 0])], [0, 0, 1, 16]);
        let der = [&[0x30, 0x82, 1, 10, 0x02, 0x82, 1, 1, 0][..], &[0xFF; 256], &[2, 3, 1, 0, 1]].concat();
        assert_eq!(modulus_bits(&der), Some(2048));
        for cut in 0..der.len() - 5 {
            assert_eq!(modulus_bits(&der[..cut]), None, "{cut}");
        }
    }
}
