//! The requests with which the page acts on the stack.

use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};
use streamer_message::{InvalidId, TenantId, UserId};
use streamer_producer::Message;

use crate::stack::Stack;

/// Lifetime of the page's tokens. The client asks for one for each connection.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// Time for which a message that the page sends is kept.
const KEEP: Duration = Duration::from_secs(3600);

/// Longest text of a message that the page sends, in bytes.
const MAX_TEXT: usize = 1024;

/// An action, with its body as JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Returns a token for a user.
    Token(User),
    /// Publishes a message for a user.
    Message(Note),
    /// Kills the worker's processes.
    KillWorker,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    tenant: TenantId,
    user: UserId,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Note {
    to: User,
    text: String,
    keep: bool,
}

/// The body of an action cannot be used. Holds a sentence that says what to do, and nothing of the body.
#[derive(Debug)]
pub(super) struct InvalidBody(pub String);

/// The fields of a body, before they are checked.
#[derive(Deserialize)]
struct Fields {
    tenant: String,
    user: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    keep: bool,
}

impl Action {
    /// Parses the action at a path. `None` if the path has no action.
    ///
    /// # Errors
    /// [`InvalidBody`] for a body that the action can't use.
    pub(super) fn parse(path: &str, body: &[u8]) -> Option<Result<Self, InvalidBody>> {
        Some(match path {
            "/token" => parse(body).map(|Note { to, .. }| Self::Token(to)),
            "/message" => parse(body).map(Self::Message),
            "/worker/kill" => Ok(Self::KillWorker),
            _ => return None,
        })
    }

    /// Runs the action on a stack.
    ///
    /// # Errors
    /// When signing, the payload, the queue or the list of processes fails. No error has a token or a text.
    pub(super) async fn run(self, stack: &Stack) -> anyhow::Result<Value> {
        match self {
            Self::Token(User { tenant, user }) => {
                let token = stack.issuer.token(tenant.as_str(), user.as_str(), TOKEN_LIFETIME);
                Ok(json!({ "token": token.context("cannot sign a token")? }))
            }
            Self::Message(Note { to: User { tenant, user }, text, keep }) => {
                let message = Message::user(tenant.as_str(), user.as_str());
                let message = if keep { message.keep(KEEP) } else { message };
                let message = message.payload(&json!({ "type": "note", "text": text }))?;
                let id = message.id().to_string();
                let sent = stack.producer().send(message).await;
                sent.context("the stack's queue does not take the message: check it with `streamer status`")?;
                Ok(json!({ "id": id }))
            }
            Self::KillWorker => Ok(json!({ "killed": stack.processes("delivery")?.kill() })),
        }
    }
}

fn parse(body: &[u8]) -> Result<Note, InvalidBody> {
    // The error of the JSON library may repeat the body.
    let fields = serde_json::from_slice(body)
        .map_err(|_| InvalidBody("the body is not JSON with `tenant` and `user`: add them".to_owned()))?;
    let Fields { tenant, user, text, keep } = fields;
    if text.len() > MAX_TEXT {
        return Err(InvalidBody("the text has more than 1 KiB: send a shorter one".to_owned()));
    }
    let id = |error: InvalidId| InvalidBody(error.to_string());
    let to = User { tenant: TenantId::new(tenant).map_err(id)?, user: UserId::new(user).map_err(id)? };
    Ok(Note { to, text, keep })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn is_valid(path: &str, body: &Value) -> bool {
        Action::parse(path, &serde_json::to_vec(body).unwrap()).unwrap().is_ok()
    }

    #[test]
    fn bodies_are_validated() {
        assert!(is_valid("/token", &json!({ "tenant": "acme", "user": "anna" })));
        assert!(is_valid(
            "/message",
            &json!({ "tenant": "acme", "user": "anna", "text": "hi", "keep": true })
        ));
        assert!(!is_valid("/token", &json!({ "tenant": "acme" })));
        assert!(!is_valid("/token", &json!({ "tenant": "", "user": "anna" })));
        let long = "x".repeat(MAX_TEXT + 1);
        assert!(!is_valid("/message", &json!({ "tenant": "acme", "user": "anna", "text": long })));
        assert!(Action::parse("/token", b"{").unwrap().is_err());
        assert!(Action::parse("/worker", b"{}").is_none());
    }
}
