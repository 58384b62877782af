//! Handlers, claims and responses that the tests share.

use std::time::SystemTime;

use aws_lambda_events::{apigw::ApiGatewayWebsocketProxyRequest, encodings::Body};
use connect_handler::{
    ConnectHandler,
    config::Access,
    fetch::{HttpFetch, KeyUrl, Source},
    jwks::Jwks,
    verify::{Keys, Verifier},
};
use serde_json::{Value, json};
use streamer_cli::stack::issuer::ISSUER;
use streamer_tests::{doubles::TableDouble, event::connect, key_server::KeyServer, worker::telemetry};

pub(crate) fn access() -> Access {
    Access { region: Some("eu-central-1".to_owned()), ..Access::default() }
}

pub(crate) fn seconds_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap() + seconds
}

/// Returns valid claims with changes; `null` removes a claim.
pub(crate) fn claims(changes: &Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": "streamer", "sub": "anna", "tenant_id": "acme", "exp": seconds_from_now(3600),
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

/// Returns the keys that `server` serves at `path`.
pub(crate) fn from_server(server: &KeyServer, path: &str) -> Keys {
    let url = KeyUrl::new(&server.url(path)).unwrap();
    Keys::Set(Jwks::new(HttpFetch::new(Source::Url(url))))
}

/// Returns a handler that verifies tokens with `keys`.
pub(crate) fn verifying(keys: Keys) -> ConnectHandler {
    let verifier = Verifier::new(keys, Some(ISSUER), Some("streamer"));
    let table = TableDouble::default().client();
    ConnectHandler::new(table, verifier, access(), None, telemetry("connect-handler"))
}

/// Returns the status of the response to a token, and the reason of a refusal.
pub(crate) async fn respond(handler: &ConnectHandler, token: &str) -> (i64, String) {
    respond_to(handler, connect(Some(token))).await
}

/// Returns the status of the response to an event, and the reason of a refusal.
pub(crate) async fn respond_to(
    handler: &ConnectHandler,
    event: ApiGatewayWebsocketProxyRequest,
) -> (i64, String) {
    let response = handler.handle(event).await;
    let reason = match &response.body {
        Some(Body::Text(body)) => serde_json::from_str::<Value>(body).unwrap()["error"].clone(),
        _ => "".into(),
    };
    (response.status_code, reason.as_str().unwrap().to_owned())
}
