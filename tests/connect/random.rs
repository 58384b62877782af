//! Random tokens and events: only valid tokens are accepted, and nothing panics.

use connect_handler::{ConnectHandler, keys::PublicKey, verify::Keys};
use jsonwebtoken::Algorithm;
use proptest::prelude::*;
use serde_json::{Value, json};
use streamer_events::WebSocketEvent;
use streamer_tests::{
    event::connect,
    signer::{Signer, changed, unsigned},
};

use crate::setup::{claims, respond_to, verifying};

/// A change to a valid token.
#[derive(Debug, Clone)]
enum Change {
    Byte { at: usize, to: char },
    Cut { at: usize },
    Insert { at: usize, text: String },
    Header(Value),
    Claims(Value),
    Other(String),
    None,
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        "\\PC{0,12}".prop_map(Value::from),
        Just(json!("none")),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z]{1,6}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

fn members(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop::collection::hash_map(prop::sample::select(names), json(), 1..3).prop_map(|map| json!(map))
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<usize>(), any::<char>()).prop_map(|(at, to)| Change::Byte { at, to }),
        2 => (any::<usize>(), prop::char::range('-', 'z')).prop_map(|(at, to)| Change::Byte { at, to }),
        1 => any::<usize>().prop_map(|at| Change::Cut { at }),
        2 => (any::<usize>(), "[A-Za-z0-9_.=-]{1,4}").prop_map(|(at, text)| Change::Insert { at, text }),
        3 => members(&["alg", "kid", "typ", "jwk", "crit", "cty"]).prop_map(Change::Header),
        3 => members(&["sub", "exp", "nbf", "iss", "aud", "tenant_id", "permissions"]).prop_map(Change::Claims),
        2 => "\\PC{0,60}".prop_map(Change::Other),
        1 => "[A-Za-z0-9_-]{0,30}\\.[A-Za-z0-9_-]{0,30}\\.[A-Za-z0-9_-]{0,90}".prop_map(Change::Other),
        1 => Just(Change::None),
    ]
}

/// Returns the changed token, and whether it must be accepted; `None` if that depends on its claims.
fn apply(change: Change, good: &str, signer: &Signer) -> (String, Option<bool>) {
    let index = |at: usize| at % good.len();
    match change {
        Change::Byte { at, to } => {
            let token: String = good
                .char_indices()
                .map(|(position, old)| if position == index(at) { to } else { old })
                .collect();
            let same = token == good;
            (token, Some(same))
        }
        Change::Cut { at } => (good[..index(at)].to_owned(), Some(false)),
        Change::Insert { at, text } => {
            (format!("{}{text}{}", &good[..index(at)], &good[index(at)..]), Some(false))
        }
        // The signature is that of the old header, so the token must be refused.
        Change::Header(changes) => {
            let header = changed(signer.header(&json!({})), &changes).to_string();
            let (_, rest) = good.split_once('.').unwrap();
            let token = format!("{}.{rest}", unsigned(header, "").trim_end_matches('.'));
            let same = token == good;
            (token, Some(same))
        }
        // The issuer signs the changed claims, so only their validity matters.
        Change::Claims(changes) => (signer.sign(&changed(claims(&json!({})), &changes)).unwrap(), None),
        Change::Other(text) => (text, Some(false)),
        Change::None => (good.to_owned(), Some(true)),
    }
}

fn rig() -> (ConnectHandler, Signer, tokio::runtime::Runtime) {
    let signer = Signer::new(Algorithm::EdDSA, "ed").unwrap();
    let handler = verifying(Keys::One(PublicKey::from_pem(&signer.pem).unwrap()));
    (handler, signer, tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(streamer_tests::cases() * 5 / 4))]

    #[test]
    fn only_issued_tokens_are_accepted((changes, seed) in (prop::collection::vec(change(), 1..3), any::<u8>())) {
        thread_local! {
            static RIG: (ConnectHandler, Signer, tokio::runtime::Runtime) = rig();
        }
        RIG.with(|(handler, signer, runtime)| {
            for change in changes {
                let good = signer.sign(&claims(&json!({ "seed": seed }))).unwrap();
                let (token, accepted) = apply(change, &good, signer);
                // A query, since a header cannot contain every text.
                let mut event = connect(None);
                event.query.push(("Authorization".to_owned(), token.clone()));
                let (status, reason) = runtime.block_on(respond_to(handler, event));
                prop_assert!([200, 401].contains(&status), "{status} {reason}");
                prop_assert!(accepted.is_none_or(|accepted| accepted == (status == 200)), "{status} {reason}");
                prop_assert!(token.len() < 8 || !reason.contains(&token));
            }
            Ok(())
        })?;
    }

    #[test]
    fn every_event_gets_a_response(
        context in json(),
        headers in json(),
        query in json(),
        extra in json(),
        id in json(),
    ) {
        thread_local! {
            static RIG: (ConnectHandler, Signer, tokio::runtime::Runtime) = rig();
        }
        RIG.with(|(handler, signer, runtime)| {
            let mut event = json!({
                "requestContext": changed(json!({}), &context),
                "headers": headers,
                "queryStringParameters": query,
                "extra": extra,
            });
            event["requestContext"]["connectionId"] = id;
            let mut event: WebSocketEvent = serde_json::from_str(&event.to_string()).unwrap();
            let status = runtime.block_on(handler.handle(event.clone())).status_code;
            prop_assert_eq!(status, 401);
            let token = signer.sign(&claims(&json!({}))).unwrap();
            event.headers = connect(Some(&token)).headers;
            event.query.clear();
            let status = runtime.block_on(handler.handle(event)).status_code;
            prop_assert!([200, 500].contains(&status), "{status}");
            Ok(())
        })?;
    }
}
