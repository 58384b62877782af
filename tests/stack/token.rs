//! `streamer token` with keys of one's own.

use std::{fs, path::Path};

use aws_lc_rs::{
    encoding::{AsDer as _, EcPrivateKeyRfc5915Der, Pkcs8V1Der, PublicKeyX509Der},
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use connect_handler::keys::PublicKey;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Value, json};
use streamer_tests::{command::Streamer, signer::pem};

const ISSUER: &str = "https://issuer.example.com";

/// Writes the key to a file and returns a token that is signed with it.
async fn token(streamer: &Streamer, private: &str) -> anyhow::Result<String> {
    let file = streamer.folder().with_file_name("key.pem");
    fs::write(&file, private)?;
    let key = Path::to_str(&file).unwrap();
    let arguments = ["token", "--user", "anna", "--tenant", "acme", "--key", key, "--issuer", ISSUER];
    let claims = ["--audience", "streamer", "--claim", "permissions=[\"listen\"]"];
    let signed = streamer.run_all(arguments.into_iter().chain(claims)).await?;
    anyhow::ensure!(signed.success && signed.err.is_empty(), "{signed:?}");
    Ok(signed.out.trim_end().to_owned())
}

#[tokio::test]
async fn token_fits_the_key_and_audience() -> anyhow::Result<()> {
    let streamer = Streamer::new("token").await?;
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
    let ec_public: PublicKeyX509Der<'_> = ec.public_key().as_der()?;
    let sec1: EcPrivateKeyRfc5915Der<'_> = ec.private_key().as_der()?;
    let rsa = rsa::KeyPair::generate(rsa::KeySize::Rsa2048)?;
    let rsa_public: PublicKeyX509Der<'_> = rsa.public_key().as_der()?;
    let rsa: Pkcs8V1Der<'_> = rsa.as_der()?;
    let ed25519 = Ed25519KeyPair::generate()?;
    let ed25519_public: PublicKeyX509Der<'_> = ed25519.public_key().as_der()?;
    for (private, public, algorithm) in [
        (pem("EC PRIVATE KEY", sec1.as_ref()), ec_public.as_ref(), Algorithm::ES256),
        (pem("PRIVATE KEY", rsa.as_ref()), rsa_public.as_ref(), Algorithm::RS256),
        (pem("PRIVATE KEY", ed25519.to_pkcs8()?.as_ref()), ed25519_public.as_ref(), Algorithm::EdDSA),
    ] {
        let token = token(&streamer, &private).await?;
        assert_eq!(decode_header(&token)?.alg, algorithm);
        let public = pem("PUBLIC KEY", public);
        assert!(PublicKey::from_pem(&public).is_some_and(|key| key.supports(algorithm)), "{algorithm:?}");
        let key = match algorithm {
            Algorithm::ES256 => DecodingKey::from_ec_pem(public.as_bytes())?,
            Algorithm::RS256 => DecodingKey::from_rsa_pem(public.as_bytes())?,
            _ => DecodingKey::from_ed_pem(public.as_bytes())?,
        };
        let mut rules = Validation::new(algorithm);
        rules.set_audience(&["streamer"]);
        rules.set_issuer(&[ISSUER]);
        let claims = decode::<Value>(&token, &key, &rules)?.claims;
        assert_eq!(claims["permissions"], json!(["listen"]));
        assert_eq!((&claims["sub"], &claims["tenant_id"]), (&json!("anna"), &json!("acme")));
    }

    let error = token(&streamer, &pem("PUBLIC KEY", ec_public.as_ref())).await.unwrap_err().to_string();
    assert!(
        error.contains("key.pem holds a public key, which verifies tokens but cannot sign them"),
        "{error}"
    );
    Ok(())
}
