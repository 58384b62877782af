//! Fuzzes the parsers of input from clients and issuers. The first byte selects the kind: `t` a token, `k` a JWK set,
//! `p` a PEM, `e` an event. No input may panic, and only the token that the issuer signed may be accepted.

#![no_main]

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use connect_handler::{
    keys::{KeySet, PublicKey},
    rules::{Audience, Rules},
    token::Token,
    verify::{Keys, Verifier},
};
use futures::executor::block_on;
use libfuzzer_sys::fuzz_target;
use streamer_events::WebSocketEvent;

const GOOD: &str = include_str!("good.jwt");

/// A year before `exp` of the good token, which is the last second of the year 9999.
const NOW: Duration = Duration::from_secs(253_402_300_799 - 365 * 24 * 60 * 60);

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let key = PublicKey::from_pem(include_str!("key.pem")).expect("the key");
    let verifier = Verifier::new(Keys::One(key), Rules::of("https://auth.example.com", Audience::of("streamer")));
    let query = vec![("Authorization".to_owned(), GOOD.trim().to_owned())];
    let event = WebSocketEvent { query, ..WebSocketEvent::default() };
    let token = Token::find(&event).expect("the good token");
    block_on(verifier.verify(&token, SystemTime::UNIX_EPOCH + NOW)).expect("the good token is accepted");
    verifier
});

fn verify(event: &WebSocketEvent) {
    let Ok(token) = Token::find(event) else { return };
    if block_on(VERIFIER.verify(&token, SystemTime::UNIX_EPOCH + NOW)).is_ok() {
        let mut values = event.query.iter().chain(&event.headers).map(|(_, value)| value);
        assert!(values.any(|text| text.contains(GOOD)), "accepted a token that the issuer did not sign");
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match (kind, std::str::from_utf8(bytes)) {
        (b't', Ok(token)) => {
            let query = vec![("Authorization".to_owned(), token.to_owned())];
            verify(&WebSocketEvent { query, ..WebSocketEvent::default() });
        }
        (b'k', _) => _ = KeySet::from_json(bytes),
        (b'p', Ok(pem)) => _ = PublicKey::from_pem(pem),
        (b'e', _) => {
            if let Ok(event) = serde_json::from_slice(bytes) {
                verify(&event);
            }
        }
        _ => {}
    }
});
