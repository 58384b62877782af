//! Valid and invalid tokens, each with its status and its reason: the threats in RFC 8725, section 2, and other
//! attacks.

use std::collections::BTreeMap;

use connect_handler::{keys::PublicKey, verify::Keys};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};
use streamer_cli::stack::issuer::ISSUER;
use streamer_tests::{
    key_server::{KeyServer, Page},
    signer::{ALGORITHMS, Signer, changed, set, unsigned},
};

use crate::setup::{LogWriter, claims, from_server, respond, seconds_from_now, verifying};

/// Returns a signer of each key type, by name.
fn signers() -> BTreeMap<&'static str, Signer> {
    let algorithms = [
        ("rsa", Algorithm::RS256),
        ("p256", Algorithm::ES256),
        ("p384", Algorithm::ES384),
        ("ed", Algorithm::EdDSA),
    ];
    algorithms.into_iter().map(|(kid, algorithm)| (kid, Signer::new(algorithm, kid).unwrap())).collect()
}

const GOOD: (u16, &str) = (200, "");

/// Each token has a header and a key, and its header and claims differ from valid ones.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_token_gets_status_and_reason() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let signers = signers();
    let good = || claims(&json!({})).to_string();
    // Returns a valid token of the P-256 key with changes to its header.
    let header = |changes: Value| {
        let key = &signers["p256"];
        key.sign_raw(key.header(&changes).to_string(), good()).unwrap()
    };
    let claiming = |changes: Value| signers["p256"].sign(&changed(claims(&json!({})), &changes)).unwrap();
    let raw = |claims: &str| {
        signers["p256"].sign_raw(signers["p256"].header(&json!({})).to_string(), claims).unwrap()
    };
    // Signs with one key and names another.
    let as_another = |signs: &str, kid: &str, algorithm: &str| {
        signers[signs].sign_raw(json!({ "alg": algorithm, "kid": kid }).to_string(), good()).unwrap()
    };
    // Replaces the signature with that of another token.
    let swapped = |token: &str, other: &str| {
        let (content, _) = token.rsplit_once('.').unwrap();
        format!("{content}.{}", other.rsplit('.').next().unwrap())
    };
    let hmac_with = |secret: &[u8], algorithm, name: &str, kid: &str| {
        let message = unsigned(json!({ "alg": name, "kid": kid }).to_string(), good());
        let signature =
            crypto::sign(message.as_bytes(), &EncodingKey::from_secret(secret), algorithm).unwrap();
        format!("{message}.{signature}")
    };
    let token = header(json!({}));
    let parts: Vec<_> = token.split('.').collect();
    let other = Signer::new(Algorithm::ES256, "p256").unwrap();
    let with_key = |parameter: &str, value: Value| {
        let header = changed(other.header(&json!({})), &json!({ parameter: value }));
        other.sign_raw(header.to_string(), good()).unwrap()
    };
    let long_tail = |bytes: usize| "a".repeat(bytes);
    // Every RSA algorithm. Generating the keys takes seconds, so it precedes the tokens that are about to expire.
    let mut of_rsa = Vec::new();
    for (name, algorithm) in ALGORITHMS.into_iter().filter(|(name, _)| !name.starts_with('E')) {
        let signer = Signer::new(algorithm, "rsa").unwrap();
        let handler = verifying(Keys::One(PublicKey::from_pem(&signer.pem).unwrap()));
        let token = signer.sign(&claims(&json!({}))).unwrap();
        assert_eq!(runtime.block_on(respond(&handler, &token)), (200, String::new()), "{name}");
        of_rsa.push((name, token));
    }

    let (now, exp) = (seconds_from_now(0), seconds_from_now(3600));

    let mut cases: Vec<(&str, String, (u16, &str))> = vec![
        // Valid tokens of every key type.
        ("ES256", token.clone(), GOOD),
        ("ES384", signers["p384"].sign(&claims(&json!({}))).unwrap(), GOOD),
        ("EdDSA", signers["ed"].sign(&claims(&json!({}))).unwrap(), GOOD),
        ("without a kid, if one key supports the algorithm", header(json!({ "kid": null })), GOOD),
        ("without a typ", header(json!({ "typ": null })), GOOD),
        ("of another typ", header(json!({ "typ": "at+jwt" })), GOOD),
        ("unknown parameters", header(json!({ "x": [1, {}], "b64x": true })), GOOD),
        ("aud in a list", claiming(json!({ "aud": ["other", "streamer"] })), GOOD),
        ("a float exp", claiming(json!({ "exp": exp as f64 + 0.5 })), GOOD),
        ("an exp in ten years", claiming(json!({ "exp": now + 315_000_000 })), GOOD),
        ("unknown claims", claiming(json!({ "admin": true, "nested": {"sub": "eve"} })), GOOD),
        ("spaces in the JSON", raw(&format!(" {}\n", good())), GOOD),
        // The key determines the algorithm.
        (
            "alg none, unsigned",
            format!("{}.", unsigned(r#"{"alg":"none"}"#, good())),
            (401, "wrong_algorithm"),
        ),
        (
            "alg None",
            format!("{}.", unsigned(r#"{"alg":"None","kid":"p256"}"#, good())),
            (401, "wrong_algorithm"),
        ),
        (
            "alg nOnE with a signature",
            swapped(&format!("{}.", unsigned(r#"{"alg":"nOnE"}"#, good())), &token),
            (401, "wrong_algorithm"),
        ),
        ("no alg", header(json!({ "alg": null })), (401, "token_malformed")),
        ("alg is not a string", header(json!({ "alg": 7 })), (401, "token_malformed")),
        ("alg es256 in lower case", header(json!({ "alg": "es256" })), (401, "wrong_algorithm")),
        ("alg ES512", header(json!({ "alg": "ES512" })), (401, "wrong_algorithm")),
        ("alg ES256K", header(json!({ "alg": "ES256K" })), (401, "wrong_algorithm")),
        (
            "HMAC with the PEM as secret",
            hmac_with(signers["rsa"].pem.as_bytes(), Algorithm::HS256, "HS256", "rsa"),
            (401, "wrong_algorithm"),
        ),
        (
            "HMAC with the PEM without its last newline",
            hmac_with(signers["rsa"].pem.trim_end().as_bytes(), Algorithm::HS512, "HS512", "rsa"),
            (401, "wrong_algorithm"),
        ),
        (
            "HMAC named RS256",
            hmac_with(signers["rsa"].pem.as_bytes(), Algorithm::HS256, "RS256", "rsa"),
            (401, "bad_signature"),
        ),
        (
            "HMAC with an empty secret",
            hmac_with(b"", Algorithm::HS256, "HS256", "p256"),
            (401, "wrong_algorithm"),
        ),
        ("an EC key with an RSA algorithm", as_another("p256", "p256", "RS256"), (401, "wrong_algorithm")),
        ("an RSA key with an EC algorithm", as_another("rsa", "rsa", "ES256"), (401, "wrong_algorithm")),
        ("P-256 as ES384", as_another("p256", "p256", "ES384"), (401, "wrong_algorithm")),
        ("P-384 as ES256", as_another("p384", "p384", "ES256"), (401, "wrong_algorithm")),
        ("P-256 with the kid of P-384", as_another("p256", "p384", "ES384"), (401, "bad_signature")),
        ("EdDSA with the kid of P-256", as_another("ed", "p256", "ES256"), (401, "bad_signature")),
        ("RS256 named PS256", as_another("rsa", "rsa", "PS256"), (401, "bad_signature")),
        ("an encryption algorithm", header(json!({ "alg": "RSA-OAEP" })), (401, "wrong_algorithm")),
        // Keys come from the issuer, never from the token.
        ("a jwk", with_key("jwk", other.jwk().unwrap()), (401, "key_in_token")),
        ("a jku", with_key("jku", "https://evil.example.com/keys".into()), (401, "key_in_token")),
        ("an x5u", with_key("x5u", "https://evil.example.com/certificate".into()), (401, "key_in_token")),
        ("an x5c", with_key("x5c", json!(["MIIB"])), (401, "key_in_token")),
        (
            "a jku with a valid signature",
            header(json!({ "jku": "https://evil.example.com/" })),
            (401, "key_in_token"),
        ),
        ("another key with the same kid", other.sign(&claims(&json!({}))).unwrap(), (401, "bad_signature")),
        ("an unknown kid", header(json!({ "kid": "other" })), (401, "unknown_key")),
        ("a kid with SQL", header(json!({ "kid": "' OR 1=1 --" })), (401, "unknown_key")),
        ("a kid that is a path", header(json!({ "kid": "../../../dev/null" })), (401, "unknown_key")),
        ("an empty kid", header(json!({ "kid": "" })), (401, "unknown_key")),
        ("a kid that is not a string", header(json!({ "kid": 1 })), (401, "token_malformed")),
        ("crit", header(json!({ "crit": ["exp"] })), (401, "token_malformed")),
        (
            "two algs",
            signers["p256"].sign_raw(r#"{"alg":"ES256","alg":"none","kid":"p256"}"#, good()).unwrap(),
            (401, "token_malformed"),
        ),
        // The signature.
        ("no signature", format!("{}.{}.", parts[0], parts[1]), (401, "bad_signature")),
        ("half a signature", token[..token.len() - 46].to_owned(), (401, "bad_signature")),
        (
            "the signature of other claims",
            swapped(&token, &claiming(json!({ "sub": "eve" }))),
            (401, "bad_signature"),
        ),
        (
            "a signature of zeros",
            format!("{}.{}.{}", parts[0], parts[1], "A".repeat(86)),
            (401, "bad_signature"),
        ),
        (
            "other claims under the signature",
            format!(
                "{}.{}.{}",
                parts[0],
                unsigned("", claims(&json!({ "sub": "eve" })).to_string()).trim_start_matches('.'),
                parts[2]
            ),
            (401, "bad_signature"),
        ),
        ("a longer signature", format!("{token}AAAA"), (401, "bad_signature")),
        // The format.
        ("one part", "eyJhbGciOiJFUzI1NiJ9".to_owned(), (401, "token_malformed")),
        ("two parts", format!("{}.{}", parts[0], parts[1]), (401, "token_malformed")),
        ("five parts, as a JWE", format!("{token}.a.b"), (401, "token_malformed")),
        (
            "the opaque token of Auth0",
            "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..aaaa.bbbb.cccc".to_owned(),
            (401, "token_malformed"),
        ),
        ("only dots", "..".to_owned(), (401, "token_malformed")),
        ("an empty header", format!(".{}.{}", parts[1], parts[2]), (401, "token_malformed")),
        ("empty claims", format!("{}..{}", parts[0], parts[2]), (401, "bad_signature")),
        ("a header that is not base64", format!("!!.{}.{}", parts[1], parts[2]), (401, "token_malformed")),
        ("padding", format!("{}=.{}.{}", parts[0], parts[1], parts[2]), (401, "token_malformed")),
        (
            "the standard base64 alphabet",
            header(json!({ "kid": "p256", "x": "???>>>~~~" })).replace('_', "/").replace('-', "+"),
            (401, "token_malformed"),
        ),
        (
            "a header that is not JSON",
            signers["p256"].sign_raw("header", good()).unwrap(),
            (401, "token_malformed"),
        ),
        (
            "a header that is a list",
            signers["p256"].sign_raw("[]", good()).unwrap(),
            (401, "token_malformed"),
        ),
        (
            "a header that is not UTF-8",
            signers["p256"].sign_raw(b"{\"alg\":\"ES256\",\"kid\":\"\xFF\"}", good()).unwrap(),
            (401, "token_malformed"),
        ),
        ("a token of 8193 bytes", long_tail(8193), (401, "token_too_large")),
        ("a huge header", header(json!({ "x": long_tail(9000) })), (401, "token_too_large")),
        ("a header of maximum size", header(json!({ "x": long_tail(5000) })), GOOD),
        (
            "a deep parameter that is not used",
            signers["p256"]
                .sign_raw(
                    format!(r#"{{"alg":"ES256","x":{}{}}}"#, "[".repeat(2000), "]".repeat(2000)),
                    good(),
                )
                .unwrap(),
            GOOD,
        ),
        (
            "deep claims",
            raw(&format!(r#"{{"x":{}{}}}"#, "[".repeat(2000), "]".repeat(2000))),
            (401, "invalid_claims"),
        ),
        // The claims.
        ("claims that are not JSON", raw("claims"), (401, "invalid_claims")),
        ("claims that are a list", raw("[]"), (401, "invalid_claims")),
        ("claims that are null", raw("null"), (401, "invalid_claims")),
        ("no claims", raw("{}"), (401, "invalid_claims")),
        ("two subs", raw(&good().replacen('{', r#"{"sub":"eve","#, 1)), (401, "invalid_claims")),
        ("two exps", raw(&good().replacen('{', r#"{"exp":1,"#, 1)), (401, "invalid_claims")),
        ("two tenants", raw(&good().replacen('{', r#"{"tenant_id":"eve","#, 1)), (401, "invalid_claims")),
        ("no sub", claiming(json!({ "sub": null })), (401, "invalid_claims")),
        ("an empty sub", claiming(json!({ "sub": "" })), (401, "invalid_claims")),
        ("sub is a whole number", claiming(json!({ "sub": 7 })), GOOD),
        (
            "sub is a number that several become",
            claiming(json!({ "sub": 9_007_199_254_740_993.0 })),
            (401, "invalid_claims"),
        ),
        ("sub is a fraction", claiming(json!({ "sub": 7.5 })), (401, "invalid_claims")),
        ("sub is true", claiming(json!({ "sub": true })), (401, "invalid_claims")),
        ("sub is a list of one", claiming(json!({ "sub": ["anna"] })), GOOD),
        ("sub is a list of two", claiming(json!({ "sub": ["anna", "eve"] })), (401, "invalid_claims")),
        ("sub is an empty list", claiming(json!({ "sub": [] })), (401, "invalid_claims")),
        ("sub is a list in a list", claiming(json!({ "sub": [["anna"]] })), (401, "invalid_claims")),
        ("a sub with a line break", claiming(json!({ "sub": "anna\nroot" })), (401, "invalid_claims")),
        ("a sub with an override", claiming(json!({ "sub": "anna\u{202E}" })), (401, "invalid_claims")),
        ("a tenant with an escape", claiming(json!({ "tenant_id": "\u{1B}[2J" })), (401, "invalid_claims")),
        ("a long sub", claiming(json!({ "sub": long_tail(257) })), (401, "invalid_claims")),
        ("a sub of maximum length", claiming(json!({ "sub": long_tail(256) })), GOOD),
        ("no tenant", claiming(json!({ "tenant_id": null })), (401, "invalid_claims")),
        ("an empty tenant", claiming(json!({ "tenant_id": "" })), (401, "invalid_claims")),
        ("a tenant that is an object", claiming(json!({ "tenant_id": {} })), (401, "invalid_claims")),
        ("permissions that are not a list", claiming(json!({ "permissions": "admin" })), GOOD),
        ("no exp", claiming(json!({ "exp": null })), (401, "invalid_claims")),
        ("an exp in milliseconds", claiming(json!({ "exp": exp * 1000 })), (401, "invalid_claims")),
        ("exp is a string", claiming(json!({ "exp": exp.to_string() })), (401, "invalid_claims")),
        ("a negative exp", claiming(json!({ "exp": -1 })), (401, "invalid_claims")),
        ("exp is 0", claiming(json!({ "exp": 0 })), (401, "token_expired")),
        ("expired beyond the leeway", claiming(json!({ "exp": now - 31 })), (401, "token_expired")),
        ("expired within the leeway", claiming(json!({ "exp": now - 5 })), GOOD),
        ("nbf in the future", claiming(json!({ "nbf": now + 600 })), (401, "token_not_yet_valid")),
        ("nbf within the leeway", claiming(json!({ "nbf": now + 25 })), GOOD),
        ("iat in the future", claiming(json!({ "iat": now + 600 })), GOOD),
        ("another issuer", claiming(json!({ "iss": "https://evil.example.com" })), (401, "wrong_issuer")),
        (
            "an issuer with a trailing slash",
            claiming(json!({ "iss": format!("{ISSUER}/") })),
            (401, "wrong_issuer"),
        ),
        ("a list of issuers", claiming(json!({ "iss": [ISSUER] })), (401, "wrong_issuer")),
        ("no issuer", claiming(json!({ "iss": null })), (401, "wrong_issuer")),
        ("another audience", claiming(json!({ "aud": "another" })), (401, "wrong_audience")),
        ("an empty list of audiences", claiming(json!({ "aud": [] })), (401, "wrong_audience")),
        ("no audience", claiming(json!({ "aud": null })), (401, "wrong_audience")),
    ];
    // The RSA key in the set is another one.
    cases.extend(of_rsa.into_iter().map(|(name, token)| (name, token, (401, "bad_signature"))));

    let p256 = verifying(Keys::One(PublicKey::from_pem(&signers["p256"].pem).unwrap()));
    for algorithm in ["ES384", "RS256", "EdDSA", "HS256"] {
        let token = as_another("p256", "p256", algorithm);
        assert_eq!(
            runtime.block_on(respond(&p256, &token)),
            (401, "wrong_algorithm".to_owned()),
            "{algorithm}"
        );
    }
    let log = LogWriter::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    runtime.block_on(async {
        let server = KeyServer::start().await.unwrap();
        let keys: Vec<_> = signers.values().map(|signer| signer.jwk().unwrap()).collect();
        server.serve("/keys", Page::Body(set(&keys)));
        let handler = verifying(from_server(&server, "/keys"));
        let mut wrong = Vec::new();
        for (name, token, (status, reason)) in &cases {
            let response = respond(&handler, token).await;
            if response != (i64::from(*status), (*reason).to_owned()) {
                wrong.push(format!("{name}: {response:?}, not {status} {reason}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        // At no level does the log contain a token, its signature or the key that it names.
        let log = log.text();
        assert!(log.contains("bad_signature"), "{log}");
        for (name, token, _) in &cases {
            let parts = token.split('.').filter(|part| part.len() >= 16);
            assert!(parts.into_iter().all(|part| !log.contains(part)), "{name} is in the log");
        }
        assert!(!log.contains("OR 1=1") && !log.contains("evil.example.com"), "{log}");
        assert_eq!(server.requests(), ["/keys"], "no token causes a fetch from elsewhere");
        println!("{} tokens", cases.len());
    });
}
