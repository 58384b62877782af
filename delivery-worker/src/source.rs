//! Finds the connections of users and shards.

use std::collections::HashSet;

use streamer_connections::{ConnectionTable, Endpoints, Location, Page, TableError};
use streamer_message::{Audience, ConnectionId, TenantId, UserId, limits::CONNECTIONS};
use tokio::time::timeout;

use crate::{
    Worker,
    decode::Message,
    outcome::{Cause, Rejection},
    time::Time,
};

/// The part of an index that holds an audience's connections, read after a connection where one is given.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source<'a> {
    /// A user's connections.
    User(&'a TenantId, &'a UserId, Option<&'a ConnectionId>),
    /// The connections of a tenant's shard.
    Shard(&'a TenantId, u8, Option<&'a ConnectionId>),
}

/// One page of a source, as this worker sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourcePage {
    /// The live connections at the worker's endpoint, each once.
    pub live: Vec<ConnectionId>,
    /// An endpoint at which the page has connections, and which is neither the worker's nor another cell's.
    pub elsewhere: Option<String>,
    /// The connection after which there may be more.
    pub next: Option<ConnectionId>,
}

impl<'a> Source<'a> {
    /// Returns the source of a message's audience. Audiences that name their connections, and whole tenants, have none.
    #[must_use]
    pub fn of(message: &'a Message) -> Option<Self> {
        match &message.envelope.to {
            Audience::User { tenant, user } => {
                let after = message.envelope.retry.as_ref().and_then(|retry| retry.after.as_ref());
                Some(Self::User(tenant, user, after))
            }
            Audience::Shard { tenant, shard, after } => Some(Self::Shard(tenant, *shard, after.as_ref())),
            Audience::Connection(_) | Audience::Connections(_) | Audience::Tenant(_) => None,
        }
    }

    /// Returns the connection after which the first page begins.
    fn start(&self) -> Option<&'a ConnectionId> {
        match self {
            Self::User(_, _, after) | Self::Shard(_, _, after) => *after,
        }
    }

    /// Reads the page after a connection, or the first page, within the time limit of one call.
    ///
    /// # Errors
    /// [`Cause::Deadline`] when the invocation's time is over, [`Cause::Table`] when the query failed or there is no
    /// table.
    pub async fn page<G>(
        &self,
        worker: &Worker<G>,
        after: Option<&ConnectionId>,
        time: &Time,
    ) -> Result<SourcePage, Cause> {
        if time.remaining().is_zero() {
            return Err(Cause::Deadline);
        }
        let table = worker.table.as_ref().ok_or_else(|| Cause::Table(Rejection::NoTable.to_string()))?;
        match timeout(time.call_timeout(), self.query(table, after.or(self.start()), time)).await {
            Ok(Ok(page)) => Ok(SourcePage::of(page, &worker.endpoints)),
            Ok(Err(error)) => Err(Cause::Table(error.to_string())),
            Err(_) => Err(time.timeout_cause("Query")),
        }
    }

    async fn query(
        &self,
        table: &ConnectionTable,
        after: Option<&ConnectionId>,
        time: &Time,
    ) -> Result<Page, TableError> {
        match self {
            Self::User(tenant, user, _) => table.by_user(tenant, user, after, time.now()).await,
            Self::Shard(tenant, shard, _) => table.by_tenant(tenant, *shard, after, time.now()).await,
        }
    }
}

impl SourcePage {
    fn of(page: Page, here: &Endpoints) -> Self {
        let (mut live, mut seen, mut elsewhere) = (Vec::new(), HashSet::new(), None);
        for connection in page.connections {
            match here.locate(&connection.endpoint) {
                Location::Here if seen.insert(connection.connection_id.clone()) => {
                    live.push(connection.connection_id);
                }
                // The other cell's worker has a copy of the message.
                Location::Here | Location::OtherCell => {}
                Location::Elsewhere => elsewhere = Some(connection.endpoint),
            }
        }
        Self { live, elsewhere, next: page.next }
    }

    /// Returns whether one message can name all connections of the source.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.next.is_none() && self.live.len() <= CONNECTIONS
    }
}
