//! Clients that connect, each minute, through a real connect handler.

use std::time::SystemTime;

use anyhow::Context as _;
use connect_handler::{
    ConnectHandler,
    config::Access,
    fetch::{HttpFetch, KeyUrl, Source},
    identity::Identity,
    jwks::Jwks,
    keys::PublicKey,
    rules::{Audience, Rules},
    verify::{Keys, Verifier},
};
use serde_json::json;
use streamer_cli::stack::issuer::{ISSUER, Issuer};
use streamer_tests::{doubles::TableDouble, event::connect};

use crate::{
    cloudwatch::Values,
    world::{END, STOP},
    written::{Sink, telemetry},
};

/// Clients from the moment of a stop on. Before, all are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clients {
    /// No key of the issuer can be fetched.
    WithoutKeys,
    /// The table denies every call.
    WithoutTable,
    /// `$connect` has no authorizer.
    WithoutAuthorizer,
    /// Every token names another issuer.
    OfOtherIssuer,
    /// Three of ten tokens of a busy deployment name another issuer.
    OfOtherIssuerInPart,
    /// All clients are accepted, except some with tokens that have just expired.
    Accepted,
}

/// A port without a server.
const NO_KEYS: &str = "http://127.0.0.1:9/keys";

impl Clients {
    /// Connects clients, and returns what the handler wrote.
    pub(crate) async fn play(self) -> anyhow::Result<Values> {
        let (issuer, sink) = (Issuer::generate()?, Sink::default());
        let works = Self::Accepted.handler(&issuer, &sink)?;
        let stopped = self.handler(&issuer, &sink)?;
        let mut values = Values::default();
        for minute in 0..END {
            let handler = if minute < STOP { &works } else { &stopped };
            for client in 0..if self == Self::OfOtherIssuerInPart { 20 } else { 1 } {
                let is_refused = minute >= STOP
                    && (self == Self::OfOtherIssuer || self == Self::OfOtherIssuerInPart && client % 10 < 3);
                let token = |issuer_name: &str, lifetime: i64| {
                    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                    let exp = i64::try_from(now.as_secs()).unwrap_or_default() + lifetime;
                    issuer.sign(&json!({
                        "iss": issuer_name, "aud": "streamer", "sub": "anna", "tenant_id": "acme", "exp": exp,
                    }))
                };
                if self == Self::Accepted && (20..23).contains(&minute) {
                    handler.handle(connect(Some(&token(ISSUER, -60)?))).await;
                }
                let name = if is_refused { "https://other.example.com" } else { ISSUER };
                handler.handle(connect(Some(&token(name, 3600)?))).await;
            }
            sink.drain(&mut values, minute)?;
        }
        Ok(values)
    }

    fn handler(self, issuer: &Issuer, sink: &Sink) -> anyhow::Result<ConnectHandler> {
        let table = match self {
            Self::WithoutTable => TableDouble::failing(),
            _ => TableDouble::default(),
        };
        let keys = match self {
            Self::WithoutKeys => {
                Keys::Set(Jwks::new(HttpFetch::new(Source::Url(KeyUrl::new(NO_KEYS).context("no URL")?))))
            }
            _ => Keys::One(PublicKey::from_pem(&issuer.public_key).context("no key")?),
        };
        let identity = match self {
            Self::WithoutAuthorizer => Identity::Authorizer(Rules::of(ISSUER, Audience::None).names),
            _ => Verifier::new(keys, Rules::of(ISSUER, Audience::of("streamer"))).into(),
        };
        let access = Access { region: Some("eu-central-1".to_owned()), ..Access::default() };
        Ok(ConnectHandler::new(table.client(), identity, access, None, telemetry("connect-handler", sink)?))
    }
}
