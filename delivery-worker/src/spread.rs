//! Audiences that are too large for one message: they become messages for their parts, page by page, so that memory
//! does not grow with the audience.
//!
//! A tenant becomes a message for each of its shards. A shard, or a user, that is more than one message's worth of
//! connections becomes messages of up to 100. What is confirmed is done; where the time or a call ends it before, the
//! message goes back with a cursor behind the last page that is.

use std::collections::HashSet;

use streamer_connections::{Page, SHARDS, TableError};
use streamer_message::{Audience, ConnectionId, TenantId, UserId, limits::CONNECTIONS};
use tokio::time::timeout;

use crate::{
    Worker,
    decode::Record,
    letter::Letter,
    outcome::{Cause, Ended, Outcome},
    time::Time,
};

/// Where connections are found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source<'a> {
    /// All of a user's.
    User(&'a TenantId, &'a UserId),
    /// Those in a part of a tenant, behind a connection.
    Shard(&'a TenantId, u8, Option<&'a ConnectionId>),
}

/// What a page of a source holds for this worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The live connections at the worker's endpoint, each once.
    pub live: Vec<ConnectionId>,
    /// An endpoint at which there are others.
    pub elsewhere: Option<String>,
    /// Behind which connection there may be more.
    pub next: Option<ConnectionId>,
}

/// A record whose audience becomes messages for its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spread<'a> {
    /// The record's place in the batch.
    pub place: usize,
    /// Where its connections are; none for a tenant, whose shards are not looked into.
    pub source: Option<Source<'a>>,
}

impl<'a> Source<'a> {
    /// Where an audience's connections are to be looked for.
    #[must_use]
    pub fn of(audience: &'a Audience) -> Option<Self> {
        match audience {
            Audience::User { tenant, user } => Some(Self::User(tenant, user)),
            Audience::Shard { tenant, shard, after } => Some(Self::Shard(tenant, *shard, after.as_ref())),
            Audience::Connection(_) | Audience::Connections(_) | Audience::Tenant(_) => None,
        }
    }

    /// Where its first page begins.
    fn start(&self) -> Option<&'a ConnectionId> {
        match self {
            Self::User(..) => None,
            Self::Shard(_, _, after) => *after,
        }
    }

    /// Its page behind a connection, or the first, within the time of a call.
    ///
    /// # Errors
    /// Why it is not known.
    pub async fn page<G>(
        &self,
        worker: &Worker<G>,
        after: Option<&ConnectionId>,
        time: &Time,
    ) -> Result<Found, Cause> {
        if time.left().is_zero() {
            return Err(Cause::Deadline);
        }
        match timeout(time.call(), self.read(worker, after.or(self.start()), time)).await {
            Ok(Ok(page)) => Ok(Found::of(page, &worker.endpoint)),
            Ok(Err(error)) => Err(Cause::Table(error.to_string())),
            Err(_) => Err(time.late("Query")),
        }
    }

    async fn read<G>(
        &self,
        worker: &Worker<G>,
        after: Option<&ConnectionId>,
        time: &Time,
    ) -> Result<Page, TableError> {
        match self {
            Self::User(tenant, user) => worker.table.by_user(tenant, user, after, time.now()).await,
            Self::Shard(tenant, shard, _) => worker.table.by_tenant(tenant, *shard, after, time.now()).await,
        }
    }
}

impl Found {
    fn of(page: Page, endpoint: &str) -> Self {
        let (mut live, mut seen, mut elsewhere) = (Vec::new(), HashSet::new(), None);
        for connection in page.connections {
            if connection.endpoint != endpoint {
                elsewhere = Some(connection.endpoint);
            } else if seen.insert(connection.connection_id.clone()) {
                live.push(connection.connection_id);
            }
        }
        Self { live, elsewhere, next: page.next }
    }

    /// Whether one message could name them all.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.next.is_none() && self.live.len() <= CONNECTIONS
    }
}

/// Puts messages for the parts of a record's audience on the queue.
pub async fn spread<G>(worker: &Worker<G>, records: &[Record], spread: &Spread<'_>, time: &Time) -> Ended {
    let Spread { place, source } = spread;
    let record = &records[*place];
    let (mut after, mut parts) = (None, 0);
    let outcome = loop {
        let (audiences, next): (Vec<_>, _) = match source {
            None => (shards(record), None),
            Some(source) => match source.page(worker, after.as_ref(), time).await {
                Ok(Found { live, next, .. }) => {
                    let done = record.done();
                    let unserved: Vec<_> = live.into_iter().filter(|id| !done.contains(id)).collect();
                    (Audience::split(&unserved, CONNECTIONS).collect(), next)
                }
                Err(cause) => break Outcome::HandedBack(cause),
            },
        };
        parts += audiences.len();
        let letters = Letter::parts(*place, record, audiences);
        if !worker.outbound.send(&letters, time.parts()).await.is_empty() {
            break Outcome::HandedBack(Cause::Unconfirmed);
        }
        after = next;
        match after {
            Some(_) => {}
            None if parts > 0 => break Outcome::Expanded,
            // Those of the first page have gone, or have the message already.
            None => break worker.policy.nobody(record, time.now()),
        }
    };
    Ended { after, ..Ended::unposted(*place, None, outcome) }
}

/// The parts of a tenant.
fn shards(record: &Record) -> Vec<Audience> {
    match record.content.as_ref().map(|message| &message.to) {
        Ok(Audience::Tenant(tenant)) => {
            let shard = |shard| Audience::Shard { tenant: tenant.clone(), shard, after: None };
            (0..SHARDS).map(shard).collect()
        }
        _ => Vec::new(),
    }
}
