//! Uses a deployment as clients and producers do.
//!
//! - `run` has what all checks share, and notes what they make. `cleanup` removes it, also after Ctrl-C.
//! - `net`, `probe` and `answer` post to the management endpoint and read its answers byte by byte. `socket` is a client
//!   that counts frames. `take` takes the run's own messages off a queue, and `kept` removes its items from the mailbox.
//!   `cause` finds out why a message is missing.
//! - `endpoint`, `connect`, `delivery`, `post`, `mailbox` and `permissions` are the checks, in this order.

mod answer;
mod cause;
mod cleanup;
mod connect;
mod delivery;
mod endpoint;
mod expected;
mod kept;
mod mailbox;
mod net;
mod permissions;
mod post;
mod probe;
mod run;
mod socket;
mod take;

use std::{collections::HashSet, pin::pin};

use streamer_message::{TenantId, UserId};

pub use self::expected::CHECKS;
use self::run::Run;
use super::{Check, Subject};
use crate::shutdown::{self, Signal};

/// Name of the check of the cleanup.
pub const CLEANUP: &str = cleanup::NAME;

/// Messages besides those of [`delivery::MESSAGES`]: the first, one each for user and tenant, a kept one, one for a
/// closed connection, a dead letter, and one with a receipt.
const OTHER_MESSAGES: usize = 7;

/// The user whose token is signed by default. Its mailbox belongs to the checks.
pub const DEFAULT_USER: &str = "streamer-doctor";

/// The client that the checks connect.
pub struct Client {
    /// URL that clients connect to. `None` if the worker does not name its endpoint.
    pub url: Option<String>,
    /// Its token. `None` if none was given; the URL's query may have one.
    pub token: Option<String>,
    /// Tenant of the token.
    pub tenant: TenantId,
    /// User of the token.
    pub user: UserId,
}

impl Client {
    /// Returns the URL without its query, which may have a token.
    #[must_use]
    pub fn shown_url(&self) -> &str {
        let url = self.url.as_deref().unwrap_or("an unknown URL");
        url.split(['?', '#']).next().unwrap_or_default()
    }

    /// Returns whether the URL has a query.
    #[must_use]
    pub fn has_query(&self) -> bool {
        self.url.as_ref().is_some_and(|url| url.contains('?'))
    }
}

/// Omits the token, and the URL's query.
impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tenant, user, .. } = self;
        let (mut client, url) = (formatter.debug_struct("Client"), self.shown_url());
        client.field("url", &url).field("tenant", tenant).field("user", user).finish_non_exhaustive()
    }
}

/// Returns the plan that is printed before the checks.
#[must_use]
pub fn plan(subject: &Subject, client: &Client) -> String {
    let region = subject.config.region().map_or("no Region", |region| region.as_ref());
    let queue = subject.variable("QUEUE_URL").unwrap_or("no outbound queue");
    let (name, url, Client { tenant, user, .. }) = (&subject.name, client.shown_url(), client);
    let messages = delivery::MESSAGES + OTHER_MESSAGES;
    format!(
        "\
Examines {name} in {region}
  {url}
  as user {user} of tenant {tenant}
  {queue}
In about a minute if everything works, and for less than 0.01 USD, it
  connects as that user, unless MAX_CONNECTIONS_PER_USER leaves no place, and
  tries to connect without a valid token
  sends up to {messages} messages through that queue to that client; one each to
  its user and tenant, if they have no other connections
  posts about 30 payloads of up to 129 KiB to its connection
  makes a dead letter (the alarm `dead-letters` may go off), a kept message and
  three receipts, and writes a row
At the end, also after Ctrl-C, it removes all of that."
    )
}

/// Runs the checks, each through `done` when it ends, and removes all that the checks made. Returns the signal that ended them
/// early, if one did.
pub async fn examine(subject: &Subject, client: &Client, done: &mut impl FnMut(Check)) -> Option<Signal> {
    let (run, stopped) = (Run::new(subject, client), shutdown::requested());
    let mut names = HashSet::from([cleanup::NAME]);
    let signal = {
        let mut done = |check: Check| {
            names.insert(check.name);
            done(check);
        };
        let mut checks = pin!(checks(&run, &mut done));
        let signal = tokio::select! {
            biased;
            signal = stopped => Some(signal),
            () = &mut checks => None,
        };
        if signal.is_some() {
            run.interrupt(checks).await;
        }
        signal
    };
    if signal.is_none() {
        for (name, expected) in CHECKS.into_iter().filter(|(name, _)| !names.contains(name)) {
            done(Check::skipped(name, expected, "another check has to succeed first"));
        }
    }
    done(cleanup::clean(&run).await);
    signal
}

async fn checks(run: &Run<'_>, done: &mut dyn FnMut(Check)) {
    let probe = endpoint::reach(run, done).await;
    let open = connect::let_in(run, done).await;
    let mut session = match open {
        Some((socket, opened)) => connect::row(run, socket, opened, done).await,
        None => None,
    };
    connect::refuse(run, done).await;
    let is_answered = match &probe {
        Some(probe) => endpoint::answers(run, probe, session.as_mut(), done).await,
        None => false,
    };
    let probe = probe.filter(|_| is_answered);
    let Some(mut session) = session else { return };
    let is_delivered = delivery::through_queue(run, probe.as_ref(), &mut session, done).await;
    if let Some(probe) = &probe {
        let Some(open) = post::sizes(run, probe, session, done).await else { return };
        session = open;
    }
    if is_delivered {
        let Some(open) = mailbox::round_trip(run, session, done).await else { return };
        session = open;
    }
    let row = session.row.clone();
    post::gone(run, probe.as_ref(), session, done).await;
    if is_delivered {
        let (letter, receipt) =
            tokio::join!(permissions::dead_letter(run, &row), permissions::receipt(run, &row));
        [letter, receipt].into_iter().for_each(&mut *done);
        // Last, because the row that it writes would delay the message with a receipt.
        done(permissions::gone_row(run, &row).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_of_the_url_is_not_shown() {
        let client = Client {
            url: Some("wss://ws.example.com/live?Authorization=secret".to_owned()),
            token: None,
            tenant: TenantId::new("acme").unwrap(),
            user: UserId::new("anna").unwrap(),
        };
        assert_eq!(client.shown_url(), "wss://ws.example.com/live");
        assert!(client.has_query() && !format!("{client:?}").contains("secret"));
    }
}
