//! `$connect` and `$disconnect`, called as functions: responses and the rows written.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod authorizer;
mod issuers;
mod keys;
mod limit;
mod null_fields;
mod presence;
mod providers;
mod random;
mod refusals;
mod setup;
mod shards;
mod throttling;
mod tokens;

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use aws_lambda_events::{apigw::ApiGatewayProxyResponse, encodings::Body};
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa,
    signature::KeyPair as _,
};
use connect_handler::{
    ConnectHandler,
    config::{Access, Config},
    keys::PublicKey,
    rules::{Audience, Rules},
    verify::{Keys, Verifier},
};
use disconnect_handler::DisconnectHandler;
use serde_json::{Value, json};
use streamer_cli::stack::issuer::{ISSUER, Issuer};
use streamer_connections::{Connection, Page};
use streamer_environment::Environment;
use streamer_tests::{
    doubles::{Row, TableDouble},
    event::{CONNECTION, connect, disconnect},
    signer,
    worker::telemetry,
};

use crate::setup::{access, claims, seconds_from_now};

const HOUR: Duration = Duration::from_secs(3600);

fn handler(issuer: &Issuer, table: &TableDouble, access: Access) -> ConnectHandler {
    let key = PublicKey::from_pem(&issuer.public_key).unwrap();
    let verifier = Verifier::new(Keys::One(key), Rules::of(ISSUER, Audience::of("streamer")));
    ConnectHandler::new(table.client(), verifier, access, None, telemetry("connect-handler"))
}

async fn answer(changes: &Value, access: Access) -> (ApiGatewayProxyResponse, TableDouble) {
    let (issuer, table) = (Issuer::generate().unwrap(), TableDouble::default());
    let token = issuer.sign(&claims(changes)).unwrap();
    (handler(&issuer, &table, access).handle(connect(Some(&token))).await, table)
}

fn refusal(response: &ApiGatewayProxyResponse) -> (i64, String) {
    let Some(Body::Text(body)) = &response.body else { panic!("no body: {response:?}") };
    let body: Value = serde_json::from_str(body).unwrap();
    (response.status_code, body["error"].as_str().unwrap().to_owned())
}

fn text(row: &Row, attribute: &str) -> String {
    row[attribute].as_s().unwrap().clone()
}

fn number(row: &Row, attribute: &str) -> u64 {
    row[attribute].as_n().unwrap().parse().unwrap()
}

#[tokio::test]
async fn valid_token_connects_and_writes_row() {
    let (response, table) = answer(&json!({ "permissions": ["read", "write", ""] }), access()).await;
    assert_eq!((response.status_code, response.body), (200, None));
    let row = table.rows().remove(CONNECTION).unwrap();
    assert_eq!((text(&row, "user_id"), text(&row, "tenant_id")), ("anna".into(), "acme".into()));
    assert_eq!(text(&row, "tenant_user"), "acme#anna");
    assert_eq!(text(&row, "source_ip"), "192.0.2.1");
    assert_eq!(text(&row, "user_agent"), "tests/1.0");
    let mut permissions = row["permissions"].as_ss().unwrap().clone();
    permissions.sort_unstable();
    assert_eq!(permissions, ["read", "write"]);
    assert_eq!(number(&row, "expires_at"), (number(&row, "connected_at") + 7_800_000) / 1000);
}

/// A row never holds the custom domain that the event names.
#[tokio::test]
async fn endpoint_is_configured_or_default() {
    let endpoint =
        async |access: Access| text(&answer(&json!({}), access).await.1.rows()[CONNECTION], "endpoint");
    let own = "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/production";
    assert_eq!(endpoint(access()).await, own);
    let configured = "https://elsewhere.example.com/stage";
    assert_eq!(endpoint(Access { endpoint: Some(configured.to_owned()), ..access() }).await, configured);
    let china = endpoint(Access { region: Some("cn-north-1".to_owned()), ..access() }).await;
    assert_eq!(china, "https://a1b2c3d4e5.execute-api.cn-north-1.amazonaws.com.cn/production");
}

/// The row expires with its token only if that is earlier than the end of the row's lifetime.
#[tokio::test]
async fn row_expires_with_token_if_configured() {
    let expiry = async |exp: i64, expire_with_token: bool| {
        let (_, table) = answer(&json!({ "exp": exp }), Access { expire_with_token, ..access() }).await;
        i64::try_from(number(&table.rows()[CONNECTION], "expires_at")).unwrap()
    };
    let (soon, late) = (seconds_from_now(60), seconds_from_now(86_400));
    assert_eq!(expiry(soon, true).await, soon);
    assert!(expiry(soon, false).await > soon);
    assert!(expiry(late, true).await < late);
}

#[tokio::test]
async fn invalid_token_gets_401_with_reason() {
    for (changes, reason) in [
        (json!({ "exp": seconds_from_now(-31) }), "token_expired"),
        (json!({ "nbf": seconds_from_now(600) }), "token_not_yet_valid"),
        (json!({ "iss": "https://evil.example.com" }), "wrong_issuer"),
        (json!({ "iss": null }), "wrong_issuer"),
        (json!({ "aud": "another" }), "wrong_audience"),
        (json!({ "aud": null }), "wrong_audience"),
        (json!({ "exp": null }), "invalid_claims"),
        (json!({ "sub": null }), "invalid_claims"),
        (json!({ "sub": "" }), "invalid_claims"),
        (json!({ "sub": 7.5 }), "invalid_claims"),
        (json!({ "tenant_id": null }), "invalid_claims"),
        (json!({ "tenant_id": "" }), "invalid_claims"),
        (json!({ "tenant_id": "t".repeat(257) }), "invalid_claims"),
    ] {
        let (response, table) = answer(&changes, access()).await;
        assert_eq!(refusal(&response), (401, reason.to_owned()), "{changes}");
        assert!(table.rows().is_empty(), "{changes}");
    }
}

/// RFC 7519, section 4.1.3.
#[tokio::test]
async fn without_audience_token_with_aud_is_refused() {
    let (issuer, table) = (Issuer::generate().unwrap(), TableDouble::default());
    let key = PublicKey::from_pem(&issuer.public_key).unwrap();
    let verifier = Verifier::new(Keys::One(key), Rules::of(ISSUER, Audience::None));
    let handler = ConnectHandler::new(table.client(), verifier, access(), None, telemetry("connect-handler"));
    let token = |aud: Value| issuer.sign(&claims(&json!({ "aud": aud }))).unwrap();
    let response = handler.handle(connect(Some(&token("other".into())))).await;
    assert_eq!(refusal(&response), (401, "wrong_audience".to_owned()));
    assert_eq!(handler.handle(connect(Some(&token(Value::Null)))).await.status_code, 200);
}

#[tokio::test]
async fn clock_skew_up_to_30_s_is_accepted() {
    for changes in [json!({ "exp": seconds_from_now(-15) }), json!({ "nbf": seconds_from_now(25) })] {
        assert_eq!(answer(&changes, access()).await.0.status_code, 200, "{changes}");
    }
}

#[tokio::test]
async fn missing_forged_and_foreign_tokens_are_refused() {
    let (issuer, table) = (Issuer::generate().unwrap(), TableDouble::default());
    let handler = handler(&issuer, &table, access());
    let good = issuer.sign(&claims(&json!({}))).unwrap();
    let other = Issuer::generate().unwrap().sign(&claims(&json!({}))).unwrap();
    let parts = good.split('.').collect::<Vec<_>>();
    // {"alg":"none"} and {"alg":"HS256"}
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", parts[1]);
    let hmac = format!("eyJhbGciOiJIUzI1NiJ9.{}.{}", parts[1], parts[2]);
    for (token, reason) in [
        (None, "token_missing"),
        (Some(""), "token_missing"),
        (Some("not a token"), "token_malformed"),
        (Some(other.as_str()), "bad_signature"),
        (Some(&unsigned), "wrong_algorithm"),
        (Some(&hmac), "wrong_algorithm"),
        (Some(&"t".repeat(8193)), "token_too_large"),
    ] {
        let response = handler.handle(connect(token)).await;
        assert_eq!(refusal(&response), (401, reason.to_owned()));
    }
    assert!(table.rows().is_empty());
}

#[tokio::test]
async fn disallowed_tenant_gets_403() {
    let only = |tenant: &str| Access { allowed_tenants: Some(vec![tenant.try_into().unwrap()]), ..access() };
    assert_eq!(answer(&json!({}), only("acme")).await.0.status_code, 200);
    let (response, table) = answer(&json!({}), only("globex")).await;
    assert_eq!(refusal(&response), (403, "tenant_not_allowed".to_owned()));
    assert!(table.rows().is_empty());
}

#[tokio::test]
async fn missing_permission_gets_403() {
    let required = || Access { required_permission: Some("chat".to_owned()), ..access() };
    assert_eq!(answer(&json!({ "permissions": ["read", "chat"] }), required()).await.0.status_code, 200);
    for permissions in [json!(null), json!([]), json!(["chat2", "Chat", " chat"])] {
        let (response, table) = answer(&json!({ "permissions": permissions }), required()).await;
        assert_eq!(refusal(&response), (403, "permission_missing".to_owned()));
        assert!(table.rows().is_empty());
    }
}

#[tokio::test]
async fn failed_row_write_gets_500() {
    let issuer = Issuer::generate().unwrap();
    let token = issuer.sign(&claims(&json!({}))).unwrap();
    let handler = handler(&issuer, &TableDouble::failing(), access());
    assert_eq!(refusal(&handler.handle(connect(Some(&token))).await), (500, "internal".to_owned()));
}

#[tokio::test]
async fn offered_subprotocol_is_confirmed() {
    let (issuer, table) = (Issuer::generate().unwrap(), TableDouble::default());
    let handler = handler(&issuer, &table, access());
    let token = issuer.sign(&claims(&json!({}))).unwrap();
    let mut event = connect(None);
    event.headers.push(("Sec-WebSocket-Protocol".to_owned(), format!("streamer.jwt, {token}")));
    let response = handler.handle(event).await;
    assert_eq!(response.status_code, 200);
    assert_eq!(response.headers["Sec-WebSocket-Protocol"], "streamer.jwt");
    assert!(handler.handle(connect(Some(&token))).await.headers.is_empty());
}

/// A browser closes a connection whose answer names none of the subprotocols that it offered.
#[tokio::test]
async fn configured_subprotocols_are_confirmed() {
    let (issuer, table) = (Issuer::generate().unwrap(), TableDouble::default());
    let token = issuer.sign(&claims(&json!({}))).unwrap();
    let environment = [("JWT_PUBLIC_KEY", RSA), ("SUBPROTOCOLS", "graphql-transport-ws, mqtt")];
    let subprotocols = Config::read(Environment::of(environment)).unwrap().access.subprotocols;
    let handler = handler(&issuer, &table, Access { subprotocols, ..access() });
    for (offered, confirmed) in [
        ("graphql-transport-ws", Some("graphql-transport-ws")),
        ("graphql-ws, mqtt", Some("mqtt")),
        ("graphql-ws", None),
    ] {
        let mut event = connect(Some(&token));
        event.headers.push(("sec-websocket-protocol".to_owned(), offered.to_owned()));
        let response = handler.handle(event).await;
        assert_eq!(response.status_code, 200);
        let answer = response.headers.get("Sec-WebSocket-Protocol");
        assert_eq!(answer.map(|answer| answer.to_str().unwrap()), confirmed, "{offered}");
    }
    for malformed in ["a b", "a,", "\u{e9}", "a;b"] {
        assert!(
            faults([("JWT_PUBLIC_KEY", RSA), ("SUBPROTOCOLS", malformed)]).contains("SUBPROTOCOLS"),
            "{malformed}"
        );
    }
}

#[tokio::test]
async fn disconnect_removes_row_and_always_answers_200() {
    let rows = || {
        TableDouble::of_user([(CONNECTION, SystemTime::now() - HOUR), ("another", SystemTime::now())], || {
            true
        })
    };
    let table = rows();
    // The first event, a repeated one, one for an unknown connection, one without an id, and a failing table.
    let mut unknown = disconnect();
    unknown.connection_id = Some("unknown".to_owned());
    let mut without_id = disconnect();
    without_id.connection_id = None;
    for (table, event) in [
        (&table, disconnect()),
        (&table, disconnect()),
        (&table, unknown),
        (&table, without_id),
        (&TableDouble::failing(), disconnect()),
    ] {
        let handler = DisconnectHandler::new(table.client(), telemetry("disconnect-handler"));
        assert_eq!(handler.handle(event).await.status_code, 200);
    }
    assert_eq!(table.connections(), ["another"]);
}

fn faults<const N: usize>(variables: [(&str, &str); N]) -> String {
    Config::read(Environment::of(variables)).map(drop).map_err(|error| error.to_string()).unwrap_err()
}

#[test]
fn config_error_names_every_faulty_variable() {
    let error = faults([
        ("JWT_PUBLIC_KEY", "s3cret"),
        ("EXPIRE_WITH_TOKEN", "yes"),
        ("JWT_JWKS_URL", "http://auth.example.com/keys"),
        ("MAX_CONNECTIONS_PER_USER", "0"),
    ]);
    assert!(error.starts_with("4 environment variables are faulty: "), "{error}");
    for name in ["JWT_PUBLIC_KEY", "EXPIRE_WITH_TOKEN", "JWT_JWKS_URL", "MAX_CONNECTIONS_PER_USER"] {
        assert!(error.contains(&format!("{name} is malformed")), "{error}");
    }
    assert!(!error.contains("s3cret"), "{error}");
}

#[test]
fn key_sources_are_exclusive() {
    let url = ("JWT_JWKS_URL", "https://auth.example.com/keys");
    assert!(
        faults([("JWT_PUBLIC_KEY", RSA), url]).contains("JWT_JWKS_URL is set together with JWT_PUBLIC_KEY")
    );
    assert!(faults([]).contains("JWT_PUBLIC_KEY is missing"));
    // An empty value does not lift the restriction.
    for name in
        ["ALLOWED_TENANTS", "JWT_AUDIENCE", "JWT_ISSUER", "REQUIRED_PERMISSION", "MAX_CONNECTIONS_PER_USER"]
    {
        assert!(
            faults([("JWT_PUBLIC_KEY", RSA), (name, "")]).contains(&format!("{name} is empty")),
            "{name}"
        );
    }
    assert!(
        faults([("JWT_ISSUER", "https://auth.example.com/?tenant=1")])
            .contains("JWT_ISSUER is not an https URL")
    );
    assert!(faults([("JWT_ISSUER", "auth.example.com")]).contains("JWT_ISSUER is not an https URL"));
    let audience = ("JWT_AUDIENCE", "streamer");
    for variables in [
        [url, audience],
        [("JWT_PUBLIC_KEY", RSA), ("JWT_ISSUER", "auth.example.com")],
        [("JWT_ISSUER", "https://auth.example.com"), audience],
    ] {
        assert!(Config::read(Environment::of(variables)).is_ok());
    }
}

#[tokio::test]
async fn index_is_read_by_pages() {
    let (table, now) = (TableDouble::default(), SystemTime::now());
    let connection = |id: &str| Connection {
        connection_id: id.try_into().unwrap(),
        user_id: "anna".try_into().unwrap(),
        tenant_id: "acme".try_into().unwrap(),
        endpoint: "https://a.example.com/stage".to_owned(),
        connected_at: now,
        expires_at: now + if id == "expired" { Duration::ZERO } else { HOUR },
        permissions: BTreeSet::new(),
        source_ip: None,
        user_agent: None,
    };
    for id in ["a", "b", "expired", "c"] {
        table.client().put(&connection(id)).await.unwrap();
    }
    let rows = table.rows();
    let page = |ids: &[&str]| ids.iter().map(|id| rows[*id].clone()).collect::<Vec<_>>();
    let table = TableDouble::paged(vec![page(&["a", "b"]), page(&["expired"]), page(&["c"])]);

    let (tenant, user) = ("acme".try_into().unwrap(), "anna".try_into().unwrap());
    let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let Page { connections, next } = table.by_user(&tenant, &user, after.as_ref(), now).await.unwrap();
        seen.extend(connections.into_iter().map(|connection| connection.connection_id.to_string()));
        pages += 1;
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!((seen, pages), (vec!["a".to_owned(), "b".to_owned(), "c".to_owned()], 3));
}

fn rsa_key(size: rsa::KeySize, label: &str) -> String {
    let pair = rsa::KeyPair::generate(size).unwrap();
    let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    signer::pem(label, if label.contains("PRIVATE") { pkcs8.as_ref() } else { public.as_ref() })
}

#[test]
fn only_supported_public_keys_parse() {
    for pem in [RSA, EC_P256, ED25519, &rsa_key(rsa::KeySize::Rsa3072, "PUBLIC KEY")] {
        assert!(PublicKey::from_pem(pem).is_some(), "{pem}");
    }
    for text in [
        "",
        "s3cret",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        EC_P521,
        RSA_1024,
        &rsa_key(rsa::KeySize::Rsa2048, "PRIVATE KEY"),
        &rsa_key(rsa::KeySize::Rsa2048, "RSA PRIVATE KEY"),
    ] {
        assert!(PublicKey::from_pem(text).is_none(), "{text}");
    }
}

const RSA: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr14s27i5wbfBYKGJRA5t
9418cJ3YeHqkaADPDoMPPAL2e+C1Q4XzTDdusfe6eUJZU9nRNeLTfacEuDPeh/ym
TRf+qKo5SDnLyLYCOkcHLVCPna+NPkc/trN8O20opVWh6hh5DQpN8jKMhYbqWsAe
fPcshbPhX5XXirvs0koGnuNL2dleTQVihDAkdBIxclJCyLs3ouONpX97jyXHeiko
i3DBTocv/zE/Cqf2pyLM8VnsTZMN+gJAOTdyPHgkwN4aAOxwbuhy3iJm3Ei4UKuw
nOn3rjfVnrabLenjNV5is19K3UtORetq8AZk67/9QmCdrq6wZ5j9nS4f5J/KRJye
bwIDAQAB
-----END PUBLIC KEY-----";

const EC_P256: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEB3JW9ZAarL5ySP7DxyPKO+TdGTrZ
w8gRq0Wx4GShBE9pv0eaVYnlhWGHGt7jP9H1WDVgSfDKx0uryhI/ZHrY0g==
-----END PUBLIC KEY-----";

const ED25519: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAOiJhfpTEHeUZ36jlgFdJWzM7ENLw0WwLdQSy7q7p/p4=
-----END PUBLIC KEY-----";

const EC_P521: &str = "-----BEGIN PUBLIC KEY-----
MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQBmSDp6cpdZ3Kl6bOxw8/UiqSDddgd
aLQqaDeFPrx66DBmlocNO2WeC3MspjUxgAIKaCBF/Vy+WCjNxNiXSohIJyIBacoz
dATqO7bd5syhdcWWYtBOQMEUf2hXC8foulFPl44XkFh+nxgYj0QIbQ+fB5nwjOWw
+BS4NICxOkzJPf/i/+M=
-----END PUBLIC KEY-----";

/// An RSA key of half the minimum length.
const RSA_1024: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDNeOfF/dTnaMPCt+SMn/0rAnQY
RsTQxHqh0ct2CtMK73zoggySVbRWqzt0iTJQRL7F345e0t9KWJ5N+NSm1JvmY88S
KLFAOr2LuIwyLPdjgW1bgPhQb4ZofgA5q0Fg7z28bg2eSjc9xsjYteR7WrHIZfjV
Y/rsoOiivFB0VdvQuQIDAQAB
-----END PUBLIC KEY-----";
