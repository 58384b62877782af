//! Several issuers, and key sets as issuers really publish them.

use connect_handler::config::Config;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use streamer_environment::Environment;
use streamer_tests::{
    doubles::TableDouble,
    event::connect,
    key_server::{KeyServer, Page},
    signer::{ALGORITHMS, Signer, changed, set},
};

use crate::setup::{LogWriter, claims, configured, from_server, logged, respond, verifying};

const AUDIENCE: (&str, &str) = ("JWT_AUDIENCE", "streamer");

/// Serves an issuer's configuration and keys, and returns the issuer.
fn issuer(server: &KeyServer, name: &str, at: &str, keys: &[Value]) -> String {
    let issuer = server.url(&format!("/{name}"));
    let configuration = json!({ "issuer": issuer, "jwks_uri": server.url(&format!("/{at}/keys")) });
    server.serve(&format!("/{at}/.well-known/openid-configuration"), Page::Body(configuration.to_string()));
    server.serve(&format!("/{at}/keys"), Page::Body(set(keys)));
    issuer
}

#[tokio::test]
async fn each_issuer_has_its_own_keys() {
    let server = KeyServer::start().await.unwrap();
    let [one, two] = ["1", "2"].map(|kid| Signer::new(Algorithm::ES256, kid).unwrap());
    let same_kid = Signer::new(Algorithm::ES256, "1").unwrap();
    let first = issuer(&server, "one", "one", &[one.jwk().unwrap()]);
    let second = issuer(&server, "two", "two", &[two.jwk().unwrap(), same_kid.jwk().unwrap()]);
    let handler =
        configured([("JWT_ISSUER", &*format!("{first}, {second}")), AUDIENCE], &TableDouble::default());
    let token = |signer: &Signer, issuer: Value| signer.sign(&claims(&json!({ "iss": issuer }))).unwrap();
    for (signer, iss, expected) in [
        (&one, json!(first), (200, "")),
        (&two, json!(second), (200, "")),
        (&same_kid, json!(second), (200, "")),
        (&one, json!(second), (401, "bad_signature")),
        (&same_kid, json!(first), (401, "bad_signature")),
        (&two, json!(first), (401, "unknown_key")),
        (&one, json!("https://evil.example.com"), (401, "wrong_issuer")),
        (&one, json!([first]), (401, "wrong_issuer")),
        (&one, Value::Null, (401, "wrong_issuer")),
    ] {
        let response = respond(&handler, &token(signer, iss.clone())).await;
        assert_eq!(response, (expected.0, expected.1.to_owned()), "{} {iss}", signer.kid);
    }
    for (iss, problem) in [(json!([first]), "of the wrong kind: a list"), (Value::Null, "missing")] {
        let (_, log) = logged(handler.handle(connect(Some(&token(&one, iss))))).await;
        assert!(log.contains(&format!("claim=\"iss\" problem=\"{problem}\"")), "{log}");
    }
}

/// Entra's set for all tenants has keys of all of them and keys of one.
#[tokio::test]
async fn key_of_another_tenant_is_refused() {
    let server = KeyServer::start().await.unwrap();
    let [shared, own] = ["shared", "own"].map(|kid| Signer::new(Algorithm::RS256, kid).unwrap());
    let keyed = |signer: &Signer, tenant: &str| {
        let issuer = server.url(&format!("/{tenant}/v2.0"));
        changed(signer.jwk().unwrap(), &json!({ "issuer": issuer }))
    };
    let keys = [keyed(&shared, "{tenantid}"), keyed(&own, "globex")];
    let issuer = issuer(&server, "{tenantid}/v2.0", "common/v2.0", &keys);
    let settings = [("JWT_ISSUER", &*issuer), AUDIENCE, ("TENANT_CLAIM", "tid")];
    let url = server.url("/common/v2.0/keys");
    let discovered = configured(settings, &TableDouble::default());
    let with_url = settings.into_iter().chain([("JWT_JWKS_URL", &*url)]);
    let with_url = configured(with_url, &TableDouble::default());
    for (signer, iss, tid, expected) in [
        (&shared, "acme", "acme", (200, "")),
        (&shared, "globex", "globex", (200, "")),
        (&own, "globex", "globex", (200, "")),
        (&own, "acme", "acme", (401, "wrong_issuer")),
        (&shared, "acme", "globex", (401, "wrong_issuer")),
        (&own, "acme", "globex", (401, "wrong_issuer")),
    ] {
        let claims = claims(&json!({ "iss": server.url(&format!("/{iss}/v2.0")), "tid": tid }));
        for handler in [&discovered, &with_url] {
            let response = respond(handler, &signer.sign(&claims).unwrap()).await;
            assert_eq!(response, (expected.0, expected.1.to_owned()), "{} {iss} {tid}", signer.kid);
        }
    }
}

/// A key that two issuers share stands in the set twice.
#[tokio::test]
async fn key_of_two_issuers_verifies_both() {
    let (server, signer) =
        (KeyServer::start().await.unwrap(), Signer::new(Algorithm::ES256, "shared").unwrap());
    let issuers = ["https://a.example.com", "https://b.example.com"];
    let keys = issuers.map(|issuer| changed(signer.jwk().unwrap(), &json!({ "issuer": issuer })));
    server.serve("/keys", Page::Body(set(&keys)));
    let url = server.url("/keys");
    let issuer_list = issuers.join(",");
    let settings = [("JWT_ISSUER", &*issuer_list), ("JWT_JWKS_URL", &url), AUDIENCE];
    let handler = configured(settings, &TableDouble::default());
    for issuer in issuers {
        let token = signer.sign(&claims(&json!({ "iss": issuer }))).unwrap();
        assert_eq!(respond(&handler, &token).await, (200, String::new()), "{issuer}");
    }
}

/// Java's `BigInteger` writes a zero before a number whose first bit is set.
#[tokio::test]
async fn numbers_of_keys_may_have_leading_zeros() {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

    let with_zero = |number: &Value| {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(number.as_str().unwrap()).unwrap();
        BASE64_URL_SAFE_NO_PAD.encode([&[0][..], &bytes].concat())
    };
    for (name, algorithm) in ALGORITHMS.into_iter().filter(|(name, _)| *name != "EdDSA") {
        let (server, signer) = (KeyServer::start().await.unwrap(), Signer::new(algorithm, "java").unwrap());
        let jwk = signer.jwk().unwrap();
        let numbers =
            ["n", "e", "x", "y"].into_iter().filter_map(|name| Some((name, with_zero(jwk.get(name)?))));
        let padded: Value = numbers.collect();
        server.serve("/keys", Page::Body(set(&[changed(jwk, &padded)])));
        let token = signer.sign(&claims(&json!({}))).unwrap();
        let response = respond(&verifying(from_server(&server, "/keys")), &token).await;
        assert_eq!(response, (200, String::new()), "{name}");
    }
}

/// Without a `kid`, up to 16 keys are tried, and the log says if there were more.
#[tokio::test]
async fn tokens_without_kid_try_sixteen_keys() {
    let server = KeyServer::start().await.unwrap();
    let signers: Vec<_> = (0..17).map(|_| Signer::new(Algorithm::ES256, "").unwrap()).collect();
    let keys: Vec<_> =
        signers.iter().map(|signer| changed(signer.jwk().unwrap(), &json!({ "kid": null }))).collect();
    server.serve("/few", Page::Body(set(&keys[..16])));
    server.serve("/many", Page::Body(set(&keys)));
    let [few, many] = ["/few", "/many"].map(|path| verifying(from_server(&server, path)));
    let token = |signer: &Signer| {
        let header = signer.header(&json!({ "kid": null })).to_string();
        signer.sign_raw(header, claims(&json!({})).to_string()).unwrap()
    };
    assert_eq!(respond(&many, &token(&signers[15])).await.0, 200);
    for (handler, is_named) in [(&few, false), (&many, true)] {
        let (response, log) = logged(handler.handle(connect(Some(&token(&signers[16]))))).await;
        assert_eq!(response.status_code, 401);
        assert!(log.contains("reason=\"bad_signature\""), "{log}");
        assert_eq!(log.contains("problem=\"more keys fit than the 16 that were tried"), is_named, "{log}");
    }
}

/// An issuer may serve other applications, so its tokens need an audience.
#[test]
fn issuers_keys_require_an_audience() {
    let fault = |variables: &[(&str, &str)]| {
        Config::read(Environment::of(variables.iter().copied())).err().map(|error| error.to_string())
    };
    let (url, issuer) =
        (("JWT_JWKS_URL", "https://auth.example.com/keys"), ("JWT_ISSUER", "https://auth.example.com"));
    let claim = ("JWT_AUDIENCE_CLAIM", "client_id");
    for variables in [&[url][..], &[issuer], &[url, issuer], &[issuer, ("JWT_AUDIENCE", "")]] {
        let error = fault(variables).unwrap();
        assert!(
            error.contains("JWT_AUDIENCE is missing") || error.contains("JWT_AUDIENCE is empty"),
            "{error}"
        );
    }
    for audience in ["web", "web, ios", "any"] {
        assert_eq!(fault(&[issuer, ("JWT_AUDIENCE", audience)]), None, "{audience}");
    }
    assert_eq!(fault(&[issuer, claim, ("JWT_AUDIENCE", "web,ios")]), None);
    for variables in
        [[issuer, claim, ("JWT_AUDIENCE", "any")], [issuer, ("JWT_AUDIENCE", "web,any"), ("", "")]]
    {
        assert!(fault(&variables).unwrap().contains("JWT_AUDIENCE"), "{variables:?}");
    }
}

/// A value that was lost during deployment must not make another claim count.
#[test]
fn identity_settings_must_not_be_empty() {
    for name in ["USER_CLAIM", "TENANT_CLAIM", "PERMISSIONS_CLAIM", "DEFAULT_TENANT", "IDENTITY_SOURCE"] {
        let variables = [("JWT_ISSUER", "https://auth.example.com"), AUDIENCE, (name, "")];
        let error = Config::read(Environment::of(variables)).unwrap_err().to_string();
        assert!(error.contains(&format!("{name} is empty")), "{error}");
    }
}

/// A claim of another kind never makes a user one of the default tenant.
#[tokio::test]
async fn unusable_tenant_does_not_become_default() {
    let (server, signer) = (KeyServer::start().await.unwrap(), Signer::new(Algorithm::ES256, "a").unwrap());
    server.serve("/keys", Page::Body(set(&[signer.jwk().unwrap()])));
    let url = server.url("/keys");
    let settings = [("JWT_JWKS_URL", &*url), AUDIENCE, ("DEFAULT_TENANT", "acme")];
    let settings = settings.into_iter().chain([("TENANT_CLAIM", "/organization/0")]);
    let handler = configured(settings, &TableDouble::default());
    for (organization, kind) in [
        (json!({ "acme": {} }), "an object"),
        (json!("acme"), "a string"),
        (json!([{}]), "an object"),
        (json!(7), "a number"),
    ] {
        let token = signer.sign(&claims(&json!({ "organization": organization }))).unwrap();
        let (response, log) = logged(handler.handle(connect(Some(&token)))).await;
        assert_eq!(response.status_code, 401, "{organization}");
        let named = format!("claim=\"/organization/0\" problem=\"of the wrong kind: {kind}\"");
        assert!(log.contains(&named), "{organization}: {log}");
    }
    for absent in [Value::Null, json!([])] {
        let token = signer.sign(&claims(&json!({ "organization": absent }))).unwrap();
        assert_eq!(respond(&handler, &token).await.0, 200, "{absent}");
    }
}

/// Tokens of other applications are accepted only after a warning.
#[tokio::test]
async fn any_audience_is_accepted_with_a_warning() {
    let (server, signer) = (KeyServer::start().await.unwrap(), Signer::new(Algorithm::ES256, "a").unwrap());
    server.serve("/keys", Page::Body(set(&[signer.jwk().unwrap()])));
    let url = server.url("/keys");
    for (audience, is_any) in [("any", true), ("streamer", false)] {
        let variables = [("JWT_JWKS_URL", &*url), ("JWT_AUDIENCE", audience)];
        let log = LogWriter::default();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).finish();
        let identity = Config::read(Environment::of(variables)).unwrap().identity;
        tracing::subscriber::with_default(subscriber, || identity.log_warnings());
        assert_eq!(log.text().contains("WARN") && log.text().contains("JWT_AUDIENCE is `any`"), is_any);
        for aud in [json!("another"), json!(["a", "b"]), Value::Null] {
            let token = signer.sign(&claims(&json!({ "aud": aud }))).unwrap();
            assert_eq!(
                respond(&configured(variables, &TableDouble::default()), &token).await.0 == 200,
                is_any,
                "{audience} {aud}"
            );
        }
    }
}
