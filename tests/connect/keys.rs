//! Keys fetched from an issuer over HTTP: rotation under load, and key servers that fail, hang or serve invalid sets.

use std::time::{Duration, Instant, SystemTime};

use connect_handler::{
    config::Config,
    fetch::{HttpFetch, KeyUrl, Source},
    jwks::{Fetch as _, Jwks, JwksError},
};
use futures::future::join_all;
use jsonwebtoken::Algorithm;
use serde_json::json;
use streamer_environment::Environment;
use streamer_tests::{
    key_server::{KeyServer, Page},
    signer::{Signer, changed, set},
};

use crate::setup::{access, claims, from_server, respond, verifying};

fn body(signers: &[&Signer]) -> Page {
    Page::Body(set(&signers.iter().map(|signer| signer.jwk().unwrap()).collect::<Vec<_>>()))
}

#[tokio::test]
async fn concurrent_clients_share_one_key_fetch() {
    let (server, signer) = (KeyServer::start().await.unwrap(), Signer::new(Algorithm::ES256, "a").unwrap());
    server.serve("/keys", body(&[&signer]));
    let handler = verifying(from_server(&server, "/keys"));
    let token = signer.sign(&claims(&json!({}))).unwrap();
    let answers = join_all((0..200).map(|_| respond(&handler, &token))).await;
    assert!(answers.iter().all(|answer| answer.0 == 200), "{answers:?}");
    assert_eq!(server.requests().len(), 1);
}

/// The cached key stays valid, whatever the server answers when a token has an unknown `kid`.
#[tokio::test]
async fn faulty_key_server_keeps_cached_keys() {
    let [old, new] = ["a", "b"].map(|kid| Signer::new(Algorithm::ES256, kid).unwrap());
    let elsewhere = KeyServer::start().await.unwrap();
    elsewhere.serve("/keys", body(&[&new]));
    let keys = |bytes: usize| {
        let set = set(&[new.jwk().unwrap()]);
        Page::Body(format!("{}{set}", " ".repeat(bytes - set.len())))
    };
    for page in [
        Page::Status(500, String::new()),
        Page::Status(302, elsewhere.url("/keys")),
        // Valid keys with a status other than 200.
        Page::Answer(404, set(&[new.jwk().unwrap()])),
        Page::Answer(203, set(&[new.jwk().unwrap()])),
        Page::Silence,
        Page::Endless,
        Page::Cut,
        Page::Body("<html>maintenance</html>".to_owned()),
        Page::Body("{}".to_owned()),
        Page::Body(set(&[])),
        Page::Body(set(&[json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "b" })])),
        keys(256 * 1024 + 1),
    ] {
        let server = KeyServer::start().await.unwrap();
        let url = KeyUrl::new(&server.url("/keys")).unwrap();
        let jwks = Jwks::new(HttpFetch::new(Source::Url(url.clone())));
        let begun = SystemTime::now();
        let find = async |kid, after: u64| {
            jwks.find(Some(kid), Algorithm::ES256, begun + Duration::from_secs(after))
                .await
                .map(|keys| keys.len())
        };
        server.serve("/keys", body(&[&old]));
        assert_eq!(find("a", 0).await, Ok(1));
        server.serve("/keys", page.clone());
        let started = Instant::now();
        assert_eq!(find("b", 61).await, Err(JwksError::Unavailable), "{page:?}");
        assert!(started.elapsed() < Duration::from_secs(4), "{page:?}");
        assert_eq!(server.requests().len(), 2, "{page:?}");
        for after in [62, 3700, 7300] {
            assert_eq!(find("a", after).await, Ok(1), "{page:?}");
        }
        if !matches!(page, Page::Silence) {
            // The error contains neither the response nor the address.
            let error = HttpFetch::new(Source::Url(url)).fetch().await.unwrap_err();
            assert!(!error.contains("maintenance") && !error.contains("127.0.0.1"), "{error}");
        }
        server.serve("/keys", keys(256 * 1024));
        assert_eq!(find("b", 7400).await, Ok(1), "{page:?}");
    }
    assert!(elsewhere.requests().is_empty(), "redirects are not followed");
}

/// The reason `keys_unavailable` does not blame the token.
#[tokio::test]
async fn unavailable_keys_get_500() {
    let (server, signer) = (KeyServer::start().await.unwrap(), Signer::new(Algorithm::ES256, "a").unwrap());
    server.serve("/keys", Page::Status(503, String::new()));
    let handler = verifying(from_server(&server, "/keys"));
    let token = signer.sign(&claims(&json!({}))).unwrap();
    assert_eq!(respond(&handler, &token).await, (500, "keys_unavailable".to_owned()));
    server.serve("/keys", body(&[&signer]));
    streamer_tests::eventually("the server is asked again", async || {
        Ok(respond(&handler, &token).await.0 == 200)
    })
    .await
    .unwrap();
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn keys_without_kid_are_all_candidates() {
    let server = KeyServer::start().await.unwrap();
    let [one, other] = ["", ""].map(|kid| Signer::new(Algorithm::ES256, kid).unwrap());
    let without_kid = |signer: &Signer| changed(signer.jwk().unwrap(), &json!({ "kid": null }));
    server.serve("/keys", Page::Body(set(&[without_kid(&one), without_kid(&other)])));
    let handler = verifying(from_server(&server, "/keys"));
    for signer in [one, other] {
        let header = signer.header(&json!({ "kid": null })).to_string();
        let token = signer.sign_raw(header, claims(&json!({})).to_string()).unwrap();
        assert_eq!(respond(&handler, &token).await.0, 200);
    }
}

/// The issuer rotates its key while clients connect: tokens of both keys are accepted, and the set is fetched once.
#[tokio::test]
async fn keys_rotate_under_load() {
    let server = KeyServer::start().await.unwrap();
    let [old, new] = ["a", "b"].map(|kid| Signer::new(Algorithm::RS256, kid).unwrap());
    server.serve("/keys", body(&[&old]));
    let url = KeyUrl::new(&server.url("/keys")).unwrap();
    let jwks = Jwks::new(HttpFetch::new(Source::Url(url)));
    let begun = SystemTime::now();
    let find = async |kid: &str, after: u64| {
        jwks.find(Some(kid), Algorithm::RS256, begun + Duration::from_secs(after)).await.is_ok()
    };
    assert!(find("a", 0).await);
    server.serve("/keys", body(&[&old, &new]));
    // There is no second fetch within a minute.
    assert!(!find("b", 30).await);
    let started = Instant::now();
    let found = join_all((0..300).map(|number| find(if number % 2 == 0 { "a" } else { "b" }, 61))).await;
    assert!(found.into_iter().all(|found| found));
    println!("300 look-ups while the keys rotate: {:?}", started.elapsed());
    assert_eq!(server.requests().len(), 2);
    // An hour later the issuer revokes the old key.
    server.serve("/keys", body(&[&new]));
    _ = tokio::time::timeout(Duration::from_secs(1), async {
        assert!(find("b", 3700).await);
        jwks.drive(begun + Duration::from_secs(3700)).await;
    })
    .await;
    assert!(find("b", 3701).await && !find("a", 3701).await);
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn discovery_finds_keys_of_configured_issuer() {
    let (server, signer) = (KeyServer::start().await.unwrap(), Signer::new(Algorithm::EdDSA, "a").unwrap());
    let issuer = server.url("");
    let path = "/.well-known/openid-configuration";
    let configuration = |issuer: &str, jwks_uri: &str| {
        Page::Body(json!({ "issuer": issuer, "jwks_uri": jwks_uri, "other": [] }).to_string())
    };
    server.serve("/keys", body(&[&signer]));
    let new_handler = || {
        let environment = [("JWT_ISSUER", issuer.as_str()), ("JWT_AUDIENCE", "streamer")];
        let config = Config::read(Environment::of(environment)).unwrap();
        let table = streamer_tests::doubles::TableDouble::default().client();
        let telemetry = streamer_tests::worker::telemetry("connect-handler");
        connect_handler::ConnectHandler::new(table, config.identity, access(), None, telemetry)
    };
    let token = signer.sign(&claims(&json!({ "iss": issuer }))).unwrap();
    for page in [
        configuration("https://evil.example.com", &server.url("/keys")),
        configuration(&format!("{issuer}/"), &server.url("/keys")),
        configuration(&issuer, "http://evil.example.com/keys"),
        configuration(&issuer, "https://user:secret@127.0.0.1/keys"),
        configuration(&issuer, "file:///etc/passwd"),
        Page::Body("{}".to_owned()),
        Page::Status(404, String::new()),
    ] {
        server.serve(path, page.clone());
        assert_eq!(respond(&new_handler(), &token).await, (500, "keys_unavailable".to_owned()), "{page:?}");
    }
    assert!(!server.requests().contains(&"/keys".to_owned()));
    server.serve(path, configuration(&issuer, &server.url("/keys")));
    let handler = new_handler();
    assert_eq!(respond(&handler, &token).await.0, 200);
    let other = signer.sign(&claims(&json!({ "iss": "https://evil.example.com" }))).unwrap();
    assert_eq!(respond(&handler, &other).await, (401, "wrong_issuer".to_owned()));
}
