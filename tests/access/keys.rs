//! Keys that come from an issuer, over HTTP: rotation under load, and a server that fails, hangs and lies.

use std::time::{Duration, Instant};

use connect_handler::{
    config::Config,
    fetch::{HttpFetch, KeyUrl, Source},
    jwks::{Fetch as _, Jwks},
    verify::Keys,
};
use futures::future::join_all;
use jsonwebtoken::Algorithm;
use serde_json::json;
use streamer_environment::Environment;
use streamer_tests::{
    key_server::{KeyServer, Page},
    signer::{Signer, set},
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

/// The old key goes on, whatever the server does while the new one is asked for.
#[tokio::test]
async fn a_server_that_fails_hangs_or_lies_keeps_nobody_out_whose_key_is_known() {
    for page in [
        Page::Status(500, String::new()),
        Page::Status(302, "https://evil.example.com/".to_owned()),
        Page::Silence,
        Page::Endless,
        Page::Cut,
        Page::Body("<html>maintenance</html>".to_owned()),
        Page::Body("{}".to_owned()),
        Page::Body(set(&[])),
        Page::Body(set(&[json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "b" })])),
        Page::Body(format!("{}{}", " ".repeat(257 * 1024), set(&[]))),
    ] {
        let server = KeyServer::start().await.unwrap();
        let [old, new] = ["a", "b"].map(|kid| Signer::new(Algorithm::ES256, kid).unwrap());
        let source = || Source::Url(KeyUrl::new(&server.url("/keys")).unwrap());
        server.serve("/keys", page.clone());
        // It fails within its time, and says why without a word of what was answered.
        let (started, handler) = (Instant::now(), handler(from_server(&server, "/keys")));
        let token = old.sign(&claims(&json!({}))).unwrap();
        assert_eq!(says(&handler, &token).await, (500, "keys_unavailable".to_owned()), "{page:?}");
        assert!(started.elapsed() < Duration::from_secs(4), "{page:?}");
        if !matches!(page, Page::Silence) {
            let error = HttpFetch::new(source()).fetch().await.unwrap_err();
            assert!(!error.contains("maintenance") && !error.contains("evil"), "{error}");
        }

        // A second later it is asked again, and works.
        server.serve("/keys", body(&[&old]));
        tokio::time::sleep(Duration::from_secs(1).saturating_sub(started.elapsed())).await;
        assert_eq!(says(&handler, &token).await.0, 200, "{page:?}");
        // Nobody waits for the new key, which is not looked for within the minute.
        server.serve("/keys", page.clone());
        let (before, newer) = (server.asked().len(), new.sign(&claims(&json!({}))).unwrap());
        let mixed = (0..100).map(|number| says(&handler, if number % 3 == 0 { &newer } else { &token }));
        for (number, answer) in join_all(mixed).await.into_iter().enumerate() {
            let expected = if number % 3 == 0 { (401, "unknown_key") } else { (200, "") };
            assert_eq!((answer.0, answer.1.as_str()), expected, "{page:?}");
        }
        assert_eq!(server.asked().len(), before);
    }
}

/// The issuer rotates its key while clients connect: old and new ones get in, and the set is fetched once for it.
#[tokio::test]
async fn keys_rotate_under_load() {
    let server = KeyServer::start().await.unwrap();
    let [old, new] = ["a", "b"].map(|kid| Signer::new(Algorithm::RS256, kid).unwrap());
    server.serve("/keys", body(&[&old]));
    let handler = handler(from_server(&server, "/keys"));
    let [of_old, of_new] = [&old, &new].map(|signer| signer.sign(&claims(&json!({}))).unwrap());
    assert_eq!(says(&handler, &of_old).await.0, 200);
    server.serve("/keys", body(&[&old, &new]));
    // Within a minute of a fetch there is no other: time is told to pass.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    let started = Instant::now();
    let answers =
        join_all((0..300).map(|number| says(&handler, if number % 2 == 0 { &of_old } else { &of_new })));
    assert!(answers.await.iter().all(|answer| answer.0 == 200));
    println!("300 connects while the keys rotate: {:?}", started.elapsed());
    assert_eq!(server.asked().len(), 2);
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
    let token = signer.sign(&claims(&json!({ "iss": issuer }))).unwrap();
    for page in [
        configuration("https://evil.example.com", &server.url("/keys")),
        configuration(&format!("{issuer}/"), &server.url("/keys")),
        configuration(&issuer, "http://evil.example.com/keys"),
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
    let other = signer.sign(&claims(&json!({ "iss": "https://evil.example.com" }))).unwrap();
    assert_eq!(says(&handler, &other).await, (401, "wrong_issuer".to_owned()));
}
