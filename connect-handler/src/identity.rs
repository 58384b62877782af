//! The sources of a client's identity.

use std::{future::pending, time::SystemTime};

use streamer_events::WebSocketEvent;

use crate::{
    claims::{ClaimSet, Claims},
    fault::Fault,
    rules::ClaimNames,
    token::Token,
    verify::Verifier,
};

/// The source of a client's identity.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one for each execution environment")]
pub enum Identity {
    /// A token in the handshake, which this function verifies.
    Token(Verifier),
    /// The context of a Lambda authorizer on `$connect`, which has authenticated the client.
    Authorizer(ClaimNames),
}

impl From<Verifier> for Identity {
    fn from(verifier: Verifier) -> Self {
        Self::Token(verifier)
    }
}

impl Identity {
    /// Finds and verifies the identity of a client.
    ///
    /// # Errors
    /// [`Fault`] says why it is refused.
    pub async fn verify(&self, event: &WebSocketEvent, now: SystemTime) -> Result<Claims, Fault> {
        match self {
            Self::Token(verifier) => verifier.verify(&Token::find(event)?, now).await,
            Self::Authorizer(names) => {
                let context = event.authorizer.as_deref().ok_or(Fault::NoAuthorizer)?;
                let context: ClaimSet = serde_json::from_str(context).map_err(|_| Fault::NoAuthorizer)?;
                Claims::read(&context, names).map_err(Fault::InvalidClaims)
            }
        }
    }

    /// Logs a warning if tokens for other applications are accepted.
    pub fn log_warnings(&self) {
        if matches!(self, Self::Token(verifier) if verifier.accepts_any_audience()) {
            tracing::warn!(
                "JWT_AUDIENCE is `any`: tokens of the issuer for other applications are accepted, too"
            );
        }
    }

    /// Refreshes the keys of tokens while another future runs. It never completes.
    pub async fn keep_fresh(&self, now: SystemTime) {
        match self {
            Self::Token(verifier) => verifier.keep_fresh(now).await,
            Self::Authorizer(_) => pending().await,
        }
    }
}
