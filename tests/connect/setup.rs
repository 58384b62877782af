//! Handlers, claims, responses and logs that the tests share.

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use aws_lambda_events::{apigw::ApiGatewayProxyResponse, encodings::Body};
use connect_handler::{
    ConnectHandler,
    config::{Access, Config},
    fetch::{HttpFetch, KeyUrl, Source},
    jwks::Jwks,
    rules::{Audience, Rules},
    verify::{Keys, Verifier},
};
use serde_json::{Value, json};
use streamer_cli::stack::issuer::ISSUER;
use streamer_environment::Environment;
use streamer_events::WebSocketEvent;
use streamer_tests::{doubles::TableDouble, event::connect, key_server::KeyServer, worker::telemetry};
use tracing_subscriber::fmt::MakeWriter;

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
    let verifier = Verifier::new(keys, Rules::of(ISSUER, Audience::of("streamer")));
    let table = TableDouble::default().client();
    ConnectHandler::new(table, verifier, access(), None, telemetry("connect-handler"))
}

/// Returns a handler with these variables, in the Region of the event's API.
pub(crate) fn configured<'a>(
    variables: impl IntoIterator<Item = (&'a str, &'a str)>,
    table: &TableDouble,
) -> ConnectHandler {
    let variables = variables.into_iter().chain([("AWS_REGION", "eu-central-1")]);
    let config = Config::read(Environment::of(variables)).unwrap();
    let telemetry = telemetry("connect-handler");
    let table = table.client().with_shards(config.tenant_shards);
    ConnectHandler::new(table, config.identity, config.access, None, telemetry)
}

/// Returns the status of the response to a token, and the reason of a refusal.
pub(crate) async fn respond(handler: &ConnectHandler, token: &str) -> (i64, String) {
    respond_to(handler, connect(Some(token))).await
}

/// Returns the status of the response to an event, and the reason of a refusal.
pub(crate) async fn respond_to(handler: &ConnectHandler, event: WebSocketEvent) -> (i64, String) {
    let response = handler.handle(event).await;
    let reason = match &response.body {
        Some(Body::Text(body)) => serde_json::from_str::<Value>(body).unwrap()["error"].clone(),
        _ => "".into(),
    };
    (response.status_code, reason.as_str().unwrap().to_owned())
}

/// A writer that keeps the log.
#[derive(Clone, Default)]
pub(crate) struct LogWriter(Arc<Mutex<Vec<u8>>>);

impl LogWriter {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Returns the answer, and the log lines of it.
pub(crate) async fn logged(
    work: impl Future<Output = ApiGatewayProxyResponse>,
) -> (ApiGatewayProxyResponse, String) {
    use tracing::instrument::WithSubscriber as _;

    let log = LogWriter::default();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).finish();
    (work.with_subscriber(subscriber).await, log.text())
}
