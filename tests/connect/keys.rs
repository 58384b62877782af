//! Keys that come from an issuer, over HTTP: rotation under load, and a server that fails, hangs and lies.

use std::time::{Duration, Instant, SystemTime};

use connect_handler::{
    config::Config,
    fetch::{HttpFetch, KeyUrl, Source},
    jwks::{Fetch as _, Jwks, NoVerdict},
    verify::Keys,
};
use futures::future::join_all;
use jsonwebtoken::Algorithm;
use serde_json::json;
use streamer_environment::Environment;
use streamer_tests::{
    key_server::{KeyServer, Page},
    signer::{Signer, changed, set},
};

use crate::{
    claims,
    tokens::{handler, says},
};

pub fn from_server(server: &KeyServer, path: &str) -> Keys {
    let url = KeyUrl::new(&server.url(path)).unwrap();
    Keys::Set(Jwks::new(HttpFetch::new(Source::Url(url))))
}

fn body(signers: &[&Signer]) -> Page {
    Page::Body(set(&signers.iter().map(|signer| signer.jwk().unwrap()).collect::<Vec<_>>()))
}

#[tokio::test]
async fn many_clients_at_once_fetch_the_keys_once() {
    let (server, signer) = (KeyServer::start().await.unwrap(), Signer::new(Algorithm::ES256, "a").unwrap());
    server.serve("/keys", body(&[&signer]));
    let handler = handler(from_server(&server, "/keys"));
    let token = signer.sign(&claims(&json!({}))).unwrap();
    let answers = join_all((0..200).map(|_| says(&handler, &token))).await;
    assert!(answers.iter().all(|answer| answer.0 == 200), "{answers:?}");
    assert_eq!(server.asked().len(), 1);
}

/// The old key goes on, whatever the server answers to those who ask for a new one.
#[tokio::test]
async fn a_server_that_fails_hangs_or_lies_keeps_nobody_out_whose_key_is_known() {
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
        // Good keys, and a status that says that they are none.
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
        assert_eq!(find("b", 61).await, Err(NoVerdict::Unavailable), "{page:?}");
        assert!(started.elapsed() < Duration::from_secs(4), "{page:?}");
        assert_eq!(server.asked().len(), 2, "{page:?}");
        for after in [62, 3700, 7300] {
            assert_eq!(find("a", after).await, Ok(1), "{page:?}");
        }
        if !matches!(page, Page::Silence) {
            // It says why, without a word of what was answered.
            let error = HttpFetch::new(Source::Url(url)).fetch().await.unwrap_err();
            assert!(!error.contains("maintenance") && !error.contains("127.0.0.1"), "{error}");
        }
        server.serve("/keys", keys(256 * 1024));
        assert_eq!(find("b", 7400).await, Ok(1), "{page:?}");
    }
    assert!(elsewhere.asked().is_empty(), "no redirection is followed");
}

/// Who comes while there are no keys at all is told that it is not the token's fault.
#[tokio::test]
async fn without_any_keys_nobody_gets_in_and_nobody_is_blamed() {
    let (server, signer) = (KeyServer::start().await.unwrap(), Signer::new(Algorithm::ES256, "a").unwrap());
    server.serve("/keys", Page::Status(503, String::new()));
    let handler = handler(from_server(&server, "/keys"));
    let token = signer.sign(&claims(&json!({}))).unwrap();
    assert_eq!(says(&handler, &token).await, (500, "keys_unavailable".to_owned()));
    server.serve("/keys", body(&[&signer]));
    streamer_tests::eventually("it is asked again", async || Ok(says(&handler, &token).await.0 == 200))
        .await
        .unwrap();
    assert_eq!(server.asked().len(), 2);
}

/// An issuer without names for its keys: each of them is tried.
#[tokio::test]
async fn keys_without_names_are_all_tried() {
    let server = KeyServer::start().await.unwrap();
    let [one, other] = ["", ""].map(|kid| Signer::new(Algorithm::ES256, kid).unwrap());
    let nameless = |signer: &Signer| changed(signer.jwk().unwrap(), &json!({ "kid": null }));
    server.serve("/keys", Page::Body(set(&[nameless(&one), nameless(&other)])));
    let handler = handler(from_server(&server, "/keys"));
    for signer in [one, other] {
        let header = signer.header(&json!({ "kid": null })).to_string();
        let token = signer.sign_raw(header, claims(&json!({})).to_string()).unwrap();
        assert_eq!(says(&handler, &token).await.0, 200);
    }
}

/// The issuer rotates its key while clients connect: old and new ones get in, and the set is fetched once for it.
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
    // Within a minute of a fetch there is no other.
    assert!(!find("b", 30).await);
    let started = Instant::now();
    let found = join_all((0..300).map(|number| find(if number % 2 == 0 { "a" } else { "b" }, 61))).await;
    assert!(found.into_iter().all(|found| found));
    println!("300 look-ups while the keys rotate: {:?}", started.elapsed());
    assert_eq!(server.asked().len(), 2);
    // An hour later the old one is taken back.
    server.serve("/keys", body(&[&new]));
    _ = tokio::time::timeout(Duration::from_secs(1), async {
        assert!(find("b", 3700).await);
        jwks.drive(begun + Duration::from_secs(3700)).await;
    })
    .await;
    assert!(find("b", 3701).await && !find("a", 3701).await);
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn the_issuers_own_configuration_says_where_its_keys_are() {
    let (server, signer) = (KeyServer::start().await.unwrap(), Signer::new(Algorithm::EdDSA, "a").unwrap());
    let issuer = server.url("");
    let at = "/.well-known/openid-configuration";
    let configuration = |issuer: &str, jwks_uri: &str| {
        Page::Body(json!({ "issuer": issuer, "jwks_uri": jwks_uri, "other": [] }).to_string())
    };
    server.serve("/keys", body(&[&signer]));
    let read = || {
        let config = Config::read(Environment::of([("JWT_ISSUER", issuer.as_str())])).unwrap();
        let table = streamer_tests::doubles::TableDouble::default().client();
        let telemetry = streamer_tests::worker::telemetry("connect-handler");
        connect_handler::ConnectHandler::new(table, config.verifier, crate::access(), None, telemetry)
    };
    let token = signer.sign(&claims(&json!({ "iss": issuer, "aud": null }))).unwrap();
    for page in [
        configuration("https://evil.example.com", &server.url("/keys")),
        configuration(&format!("{issuer}/"), &server.url("/keys")),
        configuration(&issuer, "http://evil.example.com/keys"),
        configuration(&issuer, "https://user:secret@127.0.0.1/keys"),
        configuration(&issuer, "file:///etc/passwd"),
        Page::Body("{}".to_owned()),
        Page::Status(404, String::new()),
    ] {
        server.serve(at, page.clone());
        assert_eq!(says(&read(), &token).await, (500, "keys_unavailable".to_owned()), "{page:?}");
    }
    assert!(!server.asked().contains(&"/keys".to_owned()));
    server.serve(at, configuration(&issuer, &server.url("/keys")));
    let handler = read();
    assert_eq!(says(&handler, &token).await.0, 200);
    let other = signer.sign(&claims(&json!({ "iss": "https://evil.example.com", "aud": null }))).unwrap();
    assert_eq!(says(&handler, &other).await, (401, "wrong_issuer".to_owned()));
}
