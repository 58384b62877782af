//! The place that `listen` connects to, and its token.

use std::{path::PathBuf, time::Duration};

use anyhow::ensure;
use streamer_connections::ConnectionTable;
use streamer_message::{TenantId, UserId};

use super::token;
use crate::stack::state;

/// Lifetime of a token for the stack on this machine. Each connection gets a new one.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// The place that `listen` connects to.
#[derive(Debug)]
pub(super) enum Source {
    /// The stack on this machine, which signs tokens.
    Local { tenant: TenantId, user: UserId },
    /// Any WebSocket API.
    Url { url: String, token_file: Option<PathBuf> },
}

/// A URL and a token for it.
pub(super) struct Access {
    pub(super) url: String,
    pub(super) token: String,
    /// The table that will have the connection's row, if it can be read.
    pub(super) table: Option<ConnectionTable>,
}

impl Source {
    /// Finds the URL and a token. A file's token is read for each connection, so that it can be replaced meanwhile.
    pub(super) async fn access(&self) -> anyhow::Result<Access> {
        match self {
            Self::Local { tenant, user } => {
                let stack = state::require_running().await?.stack;
                let token = stack.issuer.token(tenant.as_str(), user.as_str(), TOKEN_LIFETIME)?;
                let table = Some(stack.table());
                Ok(Access { url: stack.deployed.websocket_url, token, table })
            }
            Self::Url { url, token_file } => {
                let is_websocket = url.starts_with("wss://") || url.starts_with("ws://");
                ensure!(is_websocket, "--url must begin with wss:// or ws://");
                let token = token::read(token_file.as_deref(), "--url")?;
                Ok(Access { url: url.clone(), token, table: None })
            }
        }
    }

    /// Describes the place. A URL is shown without its query, which may contain a token.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Local { tenant, user } => format!("user {user}, tenant {tenant}"),
            Self::Url { url, .. } => url.split(['?', '#']).next().unwrap_or_default().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn description_hides_the_query() {
        let source = Source::Url { url: "wss://a.example/s?Authorization=t".to_owned(), token_file: None };
        assert_eq!(source.describe(), "wss://a.example/s");
    }
}
