//! Tokens, good and bad, each with its status and its reason: what RFC 8725, section 2, warns of, and what one might
//! try besides.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Arc, Mutex},
};

use aws_lambda_events::{apigw::ApiGatewayWebsocketProxyRequest, encodings::Body};
use connect_handler::{
    ConnectHandler,
    keys::PublicKey,
    verify::{Keys, Verifier},
};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};
use streamer_cli::stack::issuer::ISSUER;
use streamer_tests::{
    doubles::TableDouble,
    event::connect,
    key_server::{KeyServer, Page},
    signer::{ALGORITHMS, Signer, changed, set, unsigned},
    worker::telemetry,
};

use tracing_subscriber::fmt::MakeWriter;

use crate::{access, claims, keys::from_server, seconds_from_now};

/// One of each kind, by name.
pub fn signers() -> BTreeMap<&'static str, Signer> {
    let algorithms = [
        ("rsa", Algorithm::RS256),
        ("p256", Algorithm::ES256),
        ("p384", Algorithm::ES384),
        ("ed", Algorithm::EdDSA),
    ];
    algorithms.into_iter().map(|(kid, algorithm)| (kid, Signer::new(algorithm, kid).unwrap())).collect()
}

pub fn handler(keys: Keys) -> ConnectHandler {
    let verifier = Verifier::new(keys, Some(ISSUER), Some("streamer"));
    let table = TableDouble::default().client();
    ConnectHandler::new(table, verifier, access(), None, telemetry("connect-handler"))
}

/// What the handler says to a token: the status, and the reason if it refuses.
pub async fn says(handler: &ConnectHandler, token: &str) -> (i64, String) {
    says_to(handler, connect(Some(token))).await
}

/// The same to an event.
pub async fn says_to(handler: &ConnectHandler, event: ApiGatewayWebsocketProxyRequest) -> (i64, String) {
    let response = handler.handle(event).await;
    let reason = match &response.body {
        Some(Body::Text(body)) => serde_json::from_str::<Value>(body).unwrap()["error"].clone(),
        _ => "".into(),
    };
    (response.status_code, reason.as_str().unwrap().to_owned())
}

/// What was logged.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Said {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

const GOOD: (u16, &str) = (200, "");

/// What tokens are made of: whose header and key, and how header and claims differ from good ones.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_token_has_its_status_and_its_reason() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let signers = signers();
    let good = || claims(&json!({})).to_string();
    // A good token of the P-256 key with changes.
    let header = |changes: Value| {
        let key = &signers["p256"];
        key.sign_raw(key.header(&changes).to_string(), good()).unwrap()
    };
    let saying = |changes: Value| signers["p256"].sign(&changed(claims(&json!({})), &changes)).unwrap();
    let raw = |claims: &str| {
        signers["p256"].sign_raw(signers["p256"].header(&json!({})).to_string(), claims).unwrap()
    };
    // Signed by one key in the name of another.
    let as_another = |signs: &str, kid: &str, algorithm: &str| {
        signers[signs].sign_raw(json!({ "alg": algorithm, "kid": kid }).to_string(), good()).unwrap()
    };
    // Another's signature beside the content.
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
    let stranger = Signer::new(Algorithm::ES256, "p256").unwrap();
    let with_key = |parameter: &str, value: Value| {
        let header = changed(stranger.header(&json!({})), &json!({ parameter: value }));
        stranger.sign_raw(header.to_string(), good()).unwrap()
    };
    let long_tail = |bytes: usize| "a".repeat(bytes);
    let (now, exp) = (seconds_from_now(0), seconds_from_now(3600));

    let mut cases: Vec<(&str, String, (u16, &str))> = vec![
        // Good ones, of every kind.
        ("ES256", token.clone(), GOOD),
        ("ES384", signers["p384"].sign(&claims(&json!({}))).unwrap(), GOOD),
        ("EdDSA", signers["ed"].sign(&claims(&json!({}))).unwrap(), GOOD),
        ("without a kid, where one key fits", header(json!({ "kid": null })), GOOD),
        ("without a typ", header(json!({ "typ": null })), GOOD),
        ("of another typ", header(json!({ "typ": "at+jwt" })), GOOD),
        ("unknown parameters", header(json!({ "x": [1, {}], "b64x": true })), GOOD),
        ("aud in a list", saying(json!({ "aud": ["other", "streamer"] })), GOOD),
        ("a float exp", saying(json!({ "exp": exp as f64 + 0.5 })), GOOD),
        ("a far future exp", saying(json!({ "exp": 253_402_300_799_u64 })), GOOD),
        ("unknown claims", saying(json!({ "admin": true, "nested": {"sub": "eve"} })), GOOD),
        ("spaces in the JSON", raw(&format!(" {}\n", good())), GOOD),
        // The algorithm comes from the key.
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
        ("alg is no string", header(json!({ "alg": 7 })), (401, "token_malformed")),
        ("alg es256 in lower case", header(json!({ "alg": "es256" })), (401, "wrong_algorithm")),
        ("alg ES512", header(json!({ "alg": "ES512" })), (401, "wrong_algorithm")),
        ("alg ES256K", header(json!({ "alg": "ES256K" })), (401, "wrong_algorithm")),
        (
            "HMAC with the PEM as secret",
            hmac_with(signers["rsa"].pem.as_bytes(), Algorithm::HS256, "HS256", "rsa"),
            (401, "wrong_algorithm"),
        ),
        (
            "HMAC with the PEM less its last line's end",
            hmac_with(signers["rsa"].pem.trim_end().as_bytes(), Algorithm::HS512, "HS512", "rsa"),
            (401, "wrong_algorithm"),
        ),
        (
            "HMAC that calls itself RS256",
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
        ("P-256 in the name of P-384", as_another("p256", "p384", "ES384"), (401, "bad_signature")),
        ("EdDSA in the name of EC", as_another("ed", "p256", "ES256"), (401, "bad_signature")),
        ("RS256 called PS256", as_another("rsa", "rsa", "PS256"), (401, "bad_signature")),
        ("encryption's algorithm", header(json!({ "alg": "RSA-OAEP" })), (401, "wrong_algorithm")),
        // Keys come from the issuer, never from the token.
        ("a jwk of its own", with_key("jwk", stranger.jwk().unwrap()), (401, "key_in_token")),
        ("a jku", with_key("jku", "https://evil.example.com/keys".into()), (401, "key_in_token")),
        ("an x5u", with_key("x5u", "https://evil.example.com/certificate".into()), (401, "key_in_token")),
        ("an x5c", with_key("x5c", json!(["MIIB"])), (401, "key_in_token")),
        (
            "a jku beside a good signature",
            header(json!({ "jku": "https://evil.example.com/" })),
            (401, "key_in_token"),
        ),
        (
            "a stranger's key of the same name",
            stranger.sign(&claims(&json!({}))).unwrap(),
            (401, "bad_signature"),
        ),
        ("an unknown kid", header(json!({ "kid": "other" })), (401, "unknown_key")),
        ("a kid of SQL", header(json!({ "kid": "' OR 1=1 --" })), (401, "unknown_key")),
        ("a kid that is a path", header(json!({ "kid": "../../../dev/null" })), (401, "unknown_key")),
        ("an empty kid", header(json!({ "kid": "" })), (401, "unknown_key")),
        ("a kid that is no string", header(json!({ "kid": 1 })), (401, "token_malformed")),
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
            swapped(&token, &saying(json!({ "sub": "eve" }))),
            (401, "bad_signature"),
        ),
        (
            "zeros as a signature",
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
        // The form.
        ("one part", "eyJhbGciOiJFUzI1NiJ9".to_owned(), (401, "token_malformed")),
        ("two parts", format!("{}.{}", parts[0], parts[1]), (401, "token_malformed")),
        ("five parts, as a JWE", format!("{token}.a.b"), (401, "token_malformed")),
        ("only dots", "..".to_owned(), (401, "token_malformed")),
        ("an empty header", format!(".{}.{}", parts[1], parts[2]), (401, "token_malformed")),
        ("empty claims", format!("{}..{}", parts[0], parts[2]), (401, "bad_signature")),
        ("a header that is no base64", format!("!!.{}.{}", parts[1], parts[2]), (401, "token_malformed")),
        ("padding", format!("{}=.{}.{}", parts[0], parts[1], parts[2]), (401, "token_malformed")),
        (
            "the other base64",
            header(json!({ "kid": "p256", "x": "???>>>~~~" })).replace('_', "/").replace('-', "+"),
            (401, "token_malformed"),
        ),
        (
            "a header that is no JSON",
            signers["p256"].sign_raw("header", good()).unwrap(),
            (401, "token_malformed"),
        ),
        (
            "a header that is a list",
            signers["p256"].sign_raw("[]", good()).unwrap(),
            (401, "token_malformed"),
        ),
        (
            "a header that is no UTF-8",
            signers["p256"].sign_raw(b"{\"alg\":\"ES256\",\"kid\":\"\xFF\"}", good()).unwrap(),
            (401, "token_malformed"),
        ),
        ("a token of 8193 bytes", long_tail(8193), (401, "token_too_large")),
        ("a huge header", header(json!({ "x": long_tail(9000) })), (401, "token_too_large")),
        ("a header as large as it may be", header(json!({ "x": long_tail(5000) })), GOOD),
        (
            "a deep header",
            signers["p256"]
                .sign_raw(
                    format!(r#"{{"alg":"ES256","x":{}{}}}"#, "[".repeat(2000), "]".repeat(2000)),
                    good(),
                )
                .unwrap(),
            (401, "token_malformed"),
        ),
        (
            "deep claims",
            raw(&format!(r#"{{"x":{}{}}}"#, "[".repeat(2000), "]".repeat(2000))),
            (401, "invalid_claims"),
        ),
        // The claims.
        ("claims that are no JSON", raw("claims"), (401, "invalid_claims")),
        ("claims that are a list", raw("[]"), (401, "invalid_claims")),
        ("claims that are null", raw("null"), (401, "invalid_claims")),
        ("no claims", raw("{}"), (401, "invalid_claims")),
        ("two subs", raw(&good().replacen('{', r#"{"sub":"eve","#, 1)), (401, "invalid_claims")),
        ("two exps", raw(&good().replacen('{', r#"{"exp":1,"#, 1)), (401, "invalid_claims")),
        ("two tenants", raw(&good().replacen('{', r#"{"tenant_id":"eve","#, 1)), (401, "invalid_claims")),
        ("no sub", saying(json!({ "sub": null })), (401, "invalid_claims")),
        ("an empty sub", saying(json!({ "sub": "" })), (401, "invalid_claims")),
        ("sub is a number", saying(json!({ "sub": 7 })), (401, "invalid_claims")),
        ("sub is a list", saying(json!({ "sub": ["anna"] })), (401, "invalid_claims")),
        ("a long sub", saying(json!({ "sub": long_tail(257) })), (401, "invalid_claims")),
        ("a sub as long as it may be", saying(json!({ "sub": long_tail(256) })), GOOD),
        ("no tenant", saying(json!({ "tenant_id": null })), (401, "invalid_claims")),
        ("an empty tenant", saying(json!({ "tenant_id": "" })), (401, "invalid_claims")),
        ("the tenant is an object", saying(json!({ "tenant_id": {} })), (401, "invalid_claims")),
        ("permissions are no list", saying(json!({ "permissions": "admin" })), (401, "invalid_claims")),
        ("no exp", saying(json!({ "exp": null })), (401, "invalid_claims")),
        ("exp is a string", saying(json!({ "exp": exp.to_string() })), (401, "invalid_claims")),
        ("a negative exp", saying(json!({ "exp": -1 })), (401, "invalid_claims")),
        ("exp is 0", saying(json!({ "exp": 0 })), (401, "token_expired")),
        ("expired beyond the leeway", saying(json!({ "exp": now - 31 })), (401, "token_expired")),
        ("expired within it", saying(json!({ "exp": now - 25 })), GOOD),
        ("nbf in the future", saying(json!({ "nbf": now + 60 })), (401, "token_not_yet_valid")),
        ("nbf within the leeway", saying(json!({ "nbf": now + 25 })), GOOD),
        ("iat in the future", saying(json!({ "iat": now + 600 })), GOOD),
        ("another issuer", saying(json!({ "iss": "https://evil.example.com" })), (401, "wrong_issuer")),
        (
            "an issuer with a slash more",
            saying(json!({ "iss": format!("{ISSUER}/") })),
            (401, "wrong_issuer"),
        ),
        ("no issuer", saying(json!({ "iss": null })), (401, "wrong_issuer")),
        ("another audience", saying(json!({ "aud": "another" })), (401, "wrong_audience")),
        ("an empty list of audiences", saying(json!({ "aud": [] })), (401, "wrong_audience")),
        ("no audience", saying(json!({ "aud": null })), (401, "wrong_audience")),
    ];
    // All of RSA's.
    for (name, algorithm) in ALGORITHMS.into_iter().filter(|(name, _)| !name.starts_with('E')) {
        let signer = Signer::new(algorithm, "rsa").unwrap();
        let handler = handler(Keys::One(PublicKey::from_pem(&signer.pem).unwrap()));
        let token = signer.sign(&claims(&json!({}))).unwrap();
        assert_eq!(runtime.block_on(says(&handler, &token)), (200, String::new()), "{name}");
        // The keys of the set belong to another.
        cases.push((name, token, (401, "bad_signature")));
    }

    let p256 = handler(Keys::One(PublicKey::from_pem(&signers["p256"].pem).unwrap()));
    for algorithm in ["ES384", "RS256", "EdDSA", "HS256"] {
        let token = as_another("p256", "p256", algorithm);
        assert_eq!(runtime.block_on(says(&p256, &token)), (401, "wrong_algorithm".to_owned()), "{algorithm}");
    }
    let said = Said::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(said.clone());
    let _listening = tracing::subscriber::set_default(subscriber.finish());
    runtime.block_on(async {
        let server = KeyServer::start().await.unwrap();
        let keys: Vec<_> = signers.values().map(|signer| signer.jwk().unwrap()).collect();
        server.serve("/keys", Page::Body(set(&keys)));
        let handler = handler(from_server(&server, "/keys"));
        let mut wrong = Vec::new();
        for (name, token, (status, reason)) in &cases {
            let said = says(&handler, token).await;
            if said != (i64::from(*status), (*reason).to_owned()) {
                wrong.push(format!("{name}: {said:?}, not {status} {reason}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        // At every level of the log, neither a token nor its signature nor what it says of its key.
        let said = said.text();
        assert!(said.contains("bad_signature"), "{said}");
        for (name, token, _) in &cases {
            let parts = token.split('.').filter(|part| part.len() >= 16);
            assert!(parts.into_iter().all(|part| !said.contains(part)), "{name} is in the log");
        }
        assert!(!said.contains("OR 1=1") && !said.contains("evil.example.com"), "{said}");
        assert_eq!(
            server.asked(),
            ["/keys"],
            "whatever a token says, it makes nobody fetch anything from elsewhere"
        );
        println!("{} tokens", cases.len());
    });
}
