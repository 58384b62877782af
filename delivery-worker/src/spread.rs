//! Audiences that are too large for one message: they become messages for their parts, page by page, so that memory
//! does not grow with the audience.
//!
//! A tenant becomes a message for each of its shards. A shard, or a user, that is more than one message's worth of
//! connections becomes messages of up to 100. What is confirmed is done; where the time or a call ends it before, the
//! message goes back with a cursor behind the last page that is.

use std::{collections::HashSet, panic::AssertUnwindSafe, time::Duration};

use futures::{FutureExt as _, StreamExt as _, stream};
use streamer_connections::{Endpoints, Page, SHARDS, TableError};
use streamer_message::{Audience, ConnectionId, TenantId, UserId, limits::CONNECTIONS};
use tokio::time::timeout;

use crate::{
    Worker,
    decode::{Message, Record},
    letter::Letter,
    outcome::{Cause, Ended, Outcome},
    time::Time,
};

/// How long an invocation spreads audiences, at most: what else is in its batch waits for its end to be acknowledged or
/// handed back.
const SPREADING: Duration = Duration::from_secs(5);

/// Audiences that are spread at the same time: it bounds what is in memory.
const SPREADS: usize = 4;

/// Connections whose messages are sent together: as many as keep a large audience's memory near a small one's.
const AT_ONCE: usize = 5 * CONNECTIONS;

/// Where connections are found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source<'a> {
    /// Those of a user, behind a connection.
    User(&'a TenantId, &'a UserId, Option<&'a ConnectionId>),
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
    /// Where the connections of a message's audience are to be looked for.
    #[must_use]
    pub fn of(message: &'a Message) -> Option<Self> {
        match &message.to {
            Audience::User { tenant, user } => {
                let after = message.retry.as_ref().and_then(|retry| retry.after.as_ref());
                Some(Self::User(tenant, user, after))
            }
            Audience::Shard { tenant, shard, after } => Some(Self::Shard(tenant, *shard, after.as_ref())),
            Audience::Connection(_) | Audience::Connections(_) | Audience::Tenant(_) => None,
        }
    }

    /// Where its first page begins.
    fn start(&self) -> Option<&'a ConnectionId> {
        match self {
            Self::User(_, _, after) | Self::Shard(_, _, after) => *after,
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
        if time.remaining().is_zero() {
            return Err(Cause::Deadline);
        }
        match timeout(time.call_timeout(), self.read(worker, after.or(self.start()), time)).await {
            Ok(Ok(page)) => Ok(Found::of(page, &worker.endpoints)),
            Ok(Err(error)) => Err(Cause::Table(error.to_string())),
            Err(_) => Err(time.timeout_cause("Query")),
        }
    }

    async fn read<G>(
        &self,
        worker: &Worker<G>,
        after: Option<&ConnectionId>,
        time: &Time,
    ) -> Result<Page, TableError> {
        match self {
            Self::User(tenant, user, _) => worker.table.by_user(tenant, user, after, time.now()).await,
            Self::Shard(tenant, shard, _) => worker.table.by_tenant(tenant, *shard, after, time.now()).await,
        }
    }
}

impl Found {
    fn of(page: Page, here: &Endpoints) -> Self {
        let (mut live, mut seen, mut elsewhere) = (Vec::new(), HashSet::new(), None);
        for connection in page.connections {
            if !here.include(&connection.endpoint) {
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

/// Spreads audiences, some at a time. What a panic left is reported as it is.
pub async fn spread_all<G>(
    worker: &Worker<G>,
    records: &[Record],
    spreads: &[Spread<'_>],
    time: &Time,
) -> Vec<Ended> {
    let spreading = stream::iter(spreads).map(|audience| {
        let panicked = Ended::unposted(audience.place, None, Outcome::HandedBack(Cause::Panic));
        let spread = AssertUnwindSafe(spread(worker, records, audience, time)).catch_unwind();
        spread.map(|ended| ended.unwrap_or(panicked))
    });
    spreading.buffer_unordered(SPREADS).collect().await
}

/// Puts messages for the parts of a record's audience on the queue, some at a time.
async fn spread<G>(worker: &Worker<G>, records: &[Record], spread: &Spread<'_>, time: &Time) -> Ended {
    let Spread { place, source } = spread;
    let record = &records[*place];
    let Some(source) = source else {
        let sent = match time.remaining().is_zero() {
            true => Err(Cause::Deadline),
            false => send(worker, record, shards(record), time).await,
        };
        return Ended::unposted(*place, None, sent.map_or_else(Outcome::HandedBack, |()| Outcome::Expanded));
    };
    // What is confirmed, and what has been read behind it.
    let (mut after, mut read, mut unsent, mut any) = (None, None, Vec::new(), false);
    let mut elsewhere = None;
    let outcome = loop {
        if record.content.as_ref().is_ok_and(|message| message.is_expired(time.now())) {
            break Outcome::Expired;
        }
        // At least one page, or it would never end.
        let page = match read.is_some() && time.elapsed() >= SPREADING {
            true => Err(Cause::Deadline),
            false => source.page(worker, read.as_ref(), time).await,
        };
        let (next, stops) = match page {
            Ok(Found { live, next, elsewhere: others }) => {
                elsewhere = elsewhere.or(others);
                let is_unserved = |id: &ConnectionId| !record.done().contains(id);
                unsent.extend(live.into_iter().filter(is_unserved));
                (next, None)
            }
            // What has been read is sent first.
            Err(cause) => (read.clone(), Some(cause)),
        };
        if next.is_none() || stops.is_some() || unsent.len() >= AT_ONCE {
            any |= !unsent.is_empty();
            let audiences = Audience::split(&unsent, CONNECTIONS).collect();
            if let Err(cause) = send(worker, record, audiences, time).await {
                break Outcome::HandedBack(cause);
            }
            unsent.clear();
            after.clone_from(&next);
        }
        read = next;
        match (&read, stops) {
            // What was read lies behind the cursor, so only the cause can tell of it.
            (_, Some(cause)) => {
                let elsewhere = elsewhere.filter(|_| !any).map(Cause::Elsewhere);
                break Outcome::HandedBack(elsewhere.unwrap_or(cause));
            }
            (Some(_), None) => {}
            (None, None) if any => break Outcome::Expanded,
            // Those of the first look have gone.
            (None, None) => break worker.policy.unreached(record, elsewhere, time.now()),
        }
    };
    Ended { after, ..Ended::unposted(*place, None, outcome) }
}

/// Sends a message for each of these audiences, all of which the queue has to confirm: within 5 s, and in half of the
/// time that settling has.
async fn send<G>(
    worker: &Worker<G>,
    record: &Record,
    audiences: Vec<Audience>,
    time: &Time,
) -> Result<(), Cause> {
    // None that could not be written counts as sent.
    let letters = Letter::parts(record, audiences).ok_or(Cause::Unconfirmed)?;
    let unsent = worker.outbound.send(&letters, time.fan_out_deadline()).await;
    if unsent.is_empty() { Ok(()) } else { Err(Cause::Unconfirmed) }
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
