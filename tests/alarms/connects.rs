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
    /// The table denies every call, in a busy deployment.
    WithoutTable,
    /// `$connect` has no authorizer.
    WithoutAuthorizer,
    /// Every token names another issuer.
    OfOtherIssuer,
    /// Two of five tokens of a busy deployment name another issuer.
    OfOtherIssuerInPart,
    /// All clients are accepted, except some with tokens that have just expired, and some with tokens of another issuer.
    Accepted,
    /// No client connects except one, every 30 s, whose token has expired.
    LoneExpired,
}

/// A token's issuer, and its lifetime in seconds.
type Token = (&'static str, i64);

const VALID: Token = (ISSUER, 3600);
const EXPIRED: Token = (ISSUER, -60);
const FOREIGN: Token = ("https://other.example.com", 3600);

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
            for (issuer_name, lifetime) in self.tokens(minute) {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                let token = issuer.sign(&json!({
                    "iss": issuer_name,
                    "aud": "streamer",
                    "sub": "anna",
                    "tenant_id": "acme",
                    "exp": i64::try_from(now.as_secs())? + lifetime,
                }))?;
                handler.handle(connect(Some(&token))).await;
            }
            sink.drain(&mut values, minute)?;
        }
        Ok(values)
    }

    /// Returns the tokens of a minute's clients.
    fn tokens(self, minute: usize) -> Vec<Token> {
        let is_stopped = minute >= STOP;
        match self {
            Self::OfOtherIssuer if is_stopped => vec![FOREIGN],
            Self::OfOtherIssuerInPart if is_stopped => [[FOREIGN; 8].as_slice(), &[VALID; 12]].concat(),
            Self::WithoutTable | Self::OfOtherIssuerInPart => vec![VALID; 20],
            Self::Accepted if (20..23).contains(&minute) => vec![VALID, EXPIRED, FOREIGN],
            Self::LoneExpired if is_stopped => vec![EXPIRED; 2],
            _ => vec![VALID],
        }
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
