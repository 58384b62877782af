//! Private keys that sign tokens, and a description of files that hold no such key.

use std::{fs, path::Path};

use anyhow::{Context as _, bail};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, RsaKeyPair,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use memchr::memmem;
use pem::Pem;
use serde_json::Value;

/// The keys that [`PrivateKey`] reads.
const EXPECTED: &str =
    "expected a private key as PEM: EC (P-256 or P-384), RSA (2048 to 8192 bits) or Ed25519";

/// Object identifiers in DER, each with the key that it stands for.
const FOREIGN_KEYS: [(&[u8], &str); 8] = [
    (b"\x06\x05\x2b\x81\x04\x00\x23", "an EC key on the curve P-521"),
    (b"\x06\x05\x2b\x81\x04\x00\x0a", "an EC key on the curve secp256k1"),
    (b"\x06\x05\x2b\x81\x04\x00\x21", "an EC key on the curve P-224"),
    (b"\x06\x03\x2b\x65\x71", "an Ed448 key"),
    (b"\x06\x03\x2b\x65\x6e", "an X25519 key, which cannot sign"),
    (b"\x06\x03\x2b\x65\x6f", "an X448 key, which cannot sign"),
    (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a", "an RSA key that is restricted to PSS"),
    (b"\x06\x07\x2a\x86\x48\xce\x38\x04\x01", "a DSA key"),
];

/// A private key, with the algorithm that it signs with.
#[derive(Debug)]
pub struct PrivateKey {
    algorithm: Algorithm,
    key: EncodingKey,
}

impl PrivateKey {
    /// Reads a key from a PEM file: EC (P-256, P-384), RSA or Ed25519, as PKCS #8, SEC1 or PKCS #1.
    ///
    /// # Errors
    /// When the file holds no such key. The error says what it holds and how to convert it, without its content.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let file = path.display();
        let content = fs::read(path).with_context(|| format!("cannot read {file}"))?;
        Self::parse(&content, &file.to_string())
    }

    fn parse(content: &[u8], file: &str) -> anyhow::Result<Self> {
        let blocks = pem::parse_many(content).unwrap_or_default();
        // `openssl ecparam -genkey` writes the curve into a block of its own.
        let blocks: Vec<_> = blocks.into_iter().filter(|block| block.tag() != "EC PARAMETERS").collect();
        let is_private = |block: &&Pem| block.tag().ends_with("PRIVATE KEY");
        let keys: Vec<_> = blocks.iter().filter(is_private).collect();
        match (keys.as_slice(), blocks.first()) {
            ([key], _) => Self::from_block(key, file),
            ([], Some(other)) => bail!("{file} holds {}; {EXPECTED}", describe_block(other)),
            ([], None) => bail!("{file} {}; {EXPECTED}", describe_content(content, file)),
            _ => bail!("{file} holds {} private keys: keep the one to sign with", keys.len()),
        }
    }

    fn from_block(block: &Pem, file: &str) -> anyhow::Result<Self> {
        let header = block.headers().get("Proc-Type");
        if block.tag() == "ENCRYPTED PRIVATE KEY" || header.is_some_and(|kind| kind.contains("ENCRYPTED")) {
            bail!(
                "{file} holds an encrypted private key: decrypt it with `openssl pkey -in {file} -out key.pem`"
            )
        }
        let der = block.contents();
        let key = match block.tag() {
            "PRIVATE KEY" => ec(der).or_else(|| ed25519(der)).or_else(|| rsa(block)),
            "EC PRIVATE KEY" => ec(der),
            "RSA PRIVATE KEY" => rsa(block),
            "OPENSSH PRIVATE KEY" => bail!(
                "{file} holds a private key in OpenSSH's own format: convert a copy of it with \
                 `ssh-keygen -p -N '' -m PKCS8 -f COPY`"
            ),
            _ => bail!("{file} holds {}; {EXPECTED}", describe_block(block)),
        };
        key.with_context(|| format!("{file} holds {}; {EXPECTED}", describe_key(block)))
    }

    /// Signs a token with these claims.
    ///
    /// # Errors
    /// When signing fails.
    pub fn sign(&self, claims: &Value) -> anyhow::Result<String> {
        Ok(jsonwebtoken::encode(&Header::new(self.algorithm), claims, &self.key)?)
    }
}

/// Reads an EC key from PKCS #8 or SEC1 (RFC 5915).
fn ec(der: &[u8]) -> Option<PrivateKey> {
    let on_curve = |curve: &'static EcdsaSigningAlgorithm, algorithm| {
        let pkcs8 = EcdsaKeyPair::from_private_key_der(curve, der).ok()?.to_pkcs8v1().ok()?;
        Some(PrivateKey { algorithm, key: EncodingKey::from_ec_der(pkcs8.as_ref()) })
    };
    on_curve(&ECDSA_P256_SHA256_FIXED_SIGNING, Algorithm::ES256)
        .or_else(|| on_curve(&ECDSA_P384_SHA384_FIXED_SIGNING, Algorithm::ES384))
}

fn ed25519(der: &[u8]) -> Option<PrivateKey> {
    Ed25519KeyPair::from_pkcs8(der).ok()?;
    Some(PrivateKey { algorithm: Algorithm::EdDSA, key: EncodingKey::from_ed_der(der) })
}

/// Reads an RSA key from PKCS #8 or PKCS #1.
fn rsa(block: &Pem) -> Option<PrivateKey> {
    let key = EncodingKey::from_rsa_pem(pem::encode(block).as_bytes()).ok()?;
    RsaKeyPair::from_der(key.as_bytes()).ok()?;
    Some(PrivateKey { algorithm: Algorithm::RS256, key })
}

/// Describes a private key that cannot be used.
fn describe_key(block: &Pem) -> &'static str {
    let der = block.contents();
    // In PKCS #8, the identifiers precede the key's bytes, which may contain anything.
    let identifiers = if block.tag() == "PRIVATE KEY" { &der[..der.len().min(48)] } else { der };
    let foreign = FOREIGN_KEYS.iter().find(|(id, _)| memmem::find(identifiers, id).is_some());
    if let Some((_, key)) = foreign {
        return key;
    }
    let pkcs1 = EncodingKey::from_rsa_pem(pem::encode(block).as_bytes());
    match pkcs1.map(|key| RsaKeyPair::from_der(key.as_bytes()).err().map(|error| error.to_string())) {
        Ok(Some(error)) if error == "TooSmall" => "an RSA key below 2048 bits",
        Ok(Some(error)) if error == "TooLarge" => "an RSA key above 8192 bits",
        _ => "a private key that is damaged, or of another type",
    }
}

fn describe_block(block: &Pem) -> String {
    match block.tag() {
        "PUBLIC KEY" | "RSA PUBLIC KEY" | "EC PUBLIC KEY" => {
            "a public key, which verifies tokens but cannot sign them".to_owned()
        }
        "CERTIFICATE" => "a certificate, which has a public key only".to_owned(),
        "DSA PRIVATE KEY" => "a DSA key".to_owned(),
        tag if tag.len() <= 32 && tag.chars().all(|c| c.is_ascii_uppercase() || c == ' ') => {
            format!("a PEM block `{tag}`")
        }
        _ => "a PEM block of an unknown kind".to_owned(),
    }
}

/// Describes a file without a PEM block.
fn describe_content(content: &[u8], file: &str) -> String {
    let text = String::from_utf8_lossy(content);
    let text = text.trim_start();
    if text.is_empty() {
        "is empty".to_owned()
    } else if text.contains("-----BEGIN ") {
        "holds a damaged PEM: its base64 is invalid, or its END line is missing".to_owned()
    } else if text.starts_with('{') {
        "holds JSON, perhaps a JWK".to_owned()
    } else if text.starts_with("ssh-") || text.starts_with("ecdsa-sha2-") {
        "holds an SSH public key, which cannot sign".to_owned()
    } else if content.starts_with(b"\x30") && std::str::from_utf8(content).is_err() {
        format!(
            "holds binary data, perhaps DER (convert it with `openssl pkey -inform DER -in {file} -out key.pem`)"
        )
    } else {
        "holds no PEM".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        encoding::{AsDer as _, EcPrivateKeyRfc5915Der, Pkcs8V1Der, PublicKeyX509Der},
        rsa,
        signature::{ECDSA_P521_SHA512_FIXED_SIGNING, KeyPair as _},
    };
    use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
    use serde_json::json;

    use super::*;

    fn pem(tag: &str, der: &[u8]) -> String {
        pem::encode(&Pem::new(tag, der))
    }

    fn read(text: &str) -> anyhow::Result<PrivateKey> {
        PrivateKey::parse(text.as_bytes(), "key.pem")
    }

    fn error(content: impl AsRef<[u8]>) -> String {
        PrivateKey::parse(content.as_ref(), "key.pem").unwrap_err().to_string()
    }

    /// Asserts that the private key's token is verified with the public key.
    fn assert_signs(private: &str, public: &str, algorithm: Algorithm) {
        let claims = json!({"sub": "anna", "exp": 4_000_000_000_u64});
        let token = read(private).unwrap().sign(&claims).unwrap();
        assert_eq!(decode_header(&token).unwrap().alg, algorithm);
        let key = match algorithm {
            Algorithm::RS256 => DecodingKey::from_rsa_pem(public.as_bytes()),
            Algorithm::EdDSA => DecodingKey::from_ed_pem(public.as_bytes()),
            _ => DecodingKey::from_ec_pem(public.as_bytes()),
        };
        assert_eq!(
            decode::<Value>(&token, &key.unwrap(), &Validation::new(algorithm)).unwrap().claims,
            claims
        );
    }

    #[test]
    fn ec_keys_sign_from_either_format() {
        for (curve, algorithm) in [
            (&ECDSA_P256_SHA256_FIXED_SIGNING, Algorithm::ES256),
            (&ECDSA_P384_SHA384_FIXED_SIGNING, Algorithm::ES384),
        ] {
            let pair = EcdsaKeyPair::generate(curve).unwrap();
            let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            let public = pem("PUBLIC KEY", public.as_ref());
            let sec1: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().unwrap();
            let sec1 = pem("EC PRIVATE KEY", sec1.as_ref());
            assert_signs(&pem("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref()), &public, algorithm);
            assert_signs(&sec1, &public, algorithm);
            let with_parameters = format!("{}{sec1}", pem("EC PARAMETERS", b"\x06\x05\x2b\x81\x04\x00\x22"));
            assert_signs(&with_parameters, &public, algorithm);
        }
    }

    #[test]
    fn rsa_keys_sign_from_either_format() {
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let pkcs8 = pem("PRIVATE KEY", pkcs8.as_ref());
        let pkcs1 = EncodingKey::from_rsa_pem(pkcs8.as_bytes()).unwrap();
        for private in [pkcs8, pem("RSA PRIVATE KEY", pkcs1.as_bytes())] {
            assert_signs(&private, &pem("PUBLIC KEY", public.as_ref()), Algorithm::RS256);
        }
    }

    #[test]
    fn ed25519_key_signs() {
        let pair = Ed25519KeyPair::generate().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        for pkcs8 in [pair.to_pkcs8v1().unwrap(), pair.to_pkcs8().unwrap()] {
            assert_signs(
                &pem("PRIVATE KEY", pkcs8.as_ref()),
                &pem("PUBLIC KEY", public.as_ref()),
                Algorithm::EdDSA,
            );
        }
    }

    #[test]
    fn other_files_are_named() {
        let block = |tag: &str| pem(tag, b"\x30\x03\x02\x01\x00");
        for (content, expected) in [
            (String::new(), "key.pem is empty; expected a private key"),
            ("hello".to_owned(), "key.pem holds no PEM; expected"),
            ("{\"kty\":\"EC\"}".to_owned(), "holds JSON, perhaps a JWK; expected"),
            ("ssh-ed25519 AAAA anna".to_owned(), "holds an SSH public key"),
            ("-----BEGIN PRIVATE KEY-----\nMHc=\n".to_owned(), "holds a damaged PEM: its base64"),
            (block("PUBLIC KEY"), "holds a public key, which verifies tokens but cannot sign them; expected"),
            (block("CERTIFICATE"), "holds a certificate"),
            (
                block("ENCRYPTED PRIVATE KEY"),
                "an encrypted private key: decrypt it with `openssl pkey -in key.pem",
            ),
            (block("OPENSSH PRIVATE KEY"), "OpenSSH's own format: convert a copy"),
            (block("DSA PRIVATE KEY"), "holds a DSA key; expected"),
            (block("CERTIFICATE REQUEST"), "a PEM block `CERTIFICATE REQUEST`; expected"),
            (block("PRIVATE KEY"), "a private key that is damaged, or of another type; expected"),
            (block("PRIVATE KEY").repeat(2), "holds 2 private keys: keep the one to sign with"),
        ] {
            assert!(error(&content).contains(expected), "{}", error(&content));
        }
        let encrypted = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,AA\n\nMHc=\n\
                         -----END RSA PRIVATE KEY-----\n";
        assert!(error(encrypted).contains("an encrypted private key"), "{}", error(encrypted));
        assert!(error(b"\x30\x82\xff\x00").contains("openssl pkey -inform DER -in key.pem"));
    }

    /// A key of 1024 bits, made for this test. aws-lc-rs makes none.
    const RSA_1024: &str = "\
        MIICXgIBAAKBgQCyDgMRvduavjiBZls9OviMTUlnxfgsaV+9DgPtmuE6s2l/Y0Olrs5VI72EUAklctEKGEQOeFGExB\
        1h5sqvpbeDb/roOmlTeJaJTcdPe+RBsEfYXFSs0wkdYyUk5qmA07WIpml8J/3yTs6PvzHToXGI8iW/BlqBSg9cln0t\
        GkAmgQIDAQABAoGBAJpm2jSFXiz3LUrQ9ufG/oez8abCnq3shrALuk5OE2fy8tYbvyqqxpRAFPTq7rOBuFI3rrSZk5\
        887XnbSAI/Az3OCNRtUa7F5VGLNVk67HTHCrw31WrzxR3wytlkNSUP+hN8RNvBJPQ7yZ+s+61l2yh9dfsLz3L4MAgl\
        pqwcLJn9AkEA2IghAAy0C6hoanyQzsa/PWC/tOEYuwJPZwcCPx+cxEBPVLRRmnJi7Auy+d/QQdabQ5RIWeBagVquaJ\
        P9EmVZTwJBANKCdOR8Zc4Fhfa+RZwcpDshEIsVT+FN+U5KkVhneYD/9DjIQtP+YDAbl3JvNvUh4TS3lD4mDnFgGvZD\
        F1d87y8CQQDX11qN4hvXQxhSjbkLZbJcTITMmVU9lR/xY1sp8Skjt7dciCKQAlX5VfAihKfj+TjsNHOqo6mUKACS3n\
        H2VHChAkBTdzhj09MFwfjg4YZ2JIEVlMGbc+LNQX5lBXnlpHlvpYyu6vBcX9LBoF8HF4Oh5EIIBfX4QlydpW5rUCS0\
        IqwvAkEAnY6kD2CtGXGIjbMbGYT+RiPqSu0dtPX/nSH4X6fVcJHooMYTMq6P9WFdkLWRt0/Nl0adhxwv+fuoTNk4Sq\
        yd6w==";

    /// A key with an object identifier, as PKCS #8.
    fn pkcs8(id: &[u8]) -> String {
        let key = b"\x04\x10secret secret s.";
        let length = |bytes: usize| u8::try_from(bytes).unwrap();
        let head = [&[0x30, length(id.len() + key.len() + 5), 2, 1, 0, 0x30, length(id.len())], id].concat();
        pem("PRIVATE KEY", &[&head, key.as_slice()].concat())
    }

    #[test]
    fn unsupported_keys_are_named() {
        let p521 = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap();
        let sec1: EcPrivateKeyRfc5915Der<'_> = p521.private_key().as_der().unwrap();
        let rsa_1024 =
            format!("-----BEGIN RSA PRIVATE KEY-----\n{RSA_1024}\n-----END RSA PRIVATE KEY-----\n");
        let mut keys = vec![
            (pem("PRIVATE KEY", p521.to_pkcs8v1().unwrap().as_ref()), "an EC key on the curve P-521"),
            (pem("EC PRIVATE KEY", sec1.as_ref()), "an EC key on the curve P-521"),
            (rsa_1024, "an RSA key below 2048 bits"),
        ];
        keys.extend(FOREIGN_KEYS.map(|(id, description)| (pkcs8(id), description)));
        for (key, expected) in keys {
            let error = error(&key);
            assert!(error.contains(&format!("key.pem holds {expected}; expected a private key")), "{error}");
            let body: String = key.lines().filter(|line| !line.starts_with('-')).collect();
            let mut parts = body.as_bytes().chunks_exact(8);
            assert!(!parts.any(|part| memmem::find(error.as_bytes(), part).is_some()), "{error}");
        }
    }
}
