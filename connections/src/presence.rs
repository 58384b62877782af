//! Lists live connections, and looks one up.

use std::time::SystemTime;

use streamer_message::{ConnectionId, TenantId, UserId};

use crate::{
    error::TableError,
    row::{Connection, IndexedConnection},
    table::ConnectionTable,
};

/// The connections to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every connection. This reads the whole table, at a cost proportional to its size: for operators, not for
    /// programs.
    All,
    /// A tenant's connections.
    Tenant(TenantId),
    /// The connections of a tenant's user.
    User(TenantId, UserId),
}

/// A live connection, as [`ConnectionTable::live`] lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// The tenant of the connection's user.
    pub tenant_id: TenantId,
    /// The connection.
    pub connection: IndexedConnection,
}

/// The start of the next page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    shard: u8,
    after: Option<ConnectionId>,
}

/// A page of live connections. A page may be empty even if it is not the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePage {
    /// The connections.
    pub connections: Vec<Live>,
    /// The start of the next page; `None` on the last page.
    pub next: Option<Cursor>,
}

/// The state of a connection according to its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Liveness {
    /// The connection has no row: it never existed, has ended, or is being established.
    NotFound,
    /// The row has expired, and DynamoDB has not deleted it yet. The connection has ended or, if rows expire with
    /// tokens, may have outlived its token.
    Stale,
    /// The connection has a valid row. It is live unless its `$disconnect` was lost; only a post can find out.
    Live(Box<Connection>),
}

impl ConnectionTable {
    /// Returns a page of the connections in `scope` whose rows expire after `now`, from `cursor` on or from the
    /// beginning. A page holds the rows that DynamoDB reads in one call. The indexes lag behind the table, mostly by
    /// less than a second.
    ///
    /// [`with_shards`](Self::with_shards) sets the number of a tenant's shards that are read.
    ///
    /// # Errors
    /// [`TableError`] if the call fails. Rows that cannot be parsed are skipped.
    pub async fn live(
        &self,
        scope: &Scope,
        cursor: Option<&Cursor>,
        now: SystemTime,
    ) -> Result<LivePage, TableError> {
        let (shard, after) = cursor.map_or((0, None), |cursor| (cursor.shard, cursor.after.as_ref()));
        let of = |tenant: &TenantId| {
            let tenant = tenant.clone();
            move |connection| Live { tenant_id: tenant.clone(), connection }
        };
        let (connections, next): (Vec<_>, _) = match scope {
            Scope::All => {
                let page = self.scan(after, now).await?;
                let live = |connection: Connection| {
                    let tenant_id = connection.tenant_id.clone();
                    Live { tenant_id, connection: connection.into() }
                };
                (page.connections.into_iter().map(live).collect(), page.next)
            }
            Scope::Tenant(tenant) => {
                let page = self.by_tenant(tenant, shard, after, now).await?;
                (page.connections.into_iter().map(of(tenant)).collect(), page.next)
            }
            Scope::User(tenant, user) => {
                let page = self.by_user(tenant, user, after, now).await?;
                (page.connections.into_iter().map(of(tenant)).collect(), page.next)
            }
        };
        let next = match (next, scope) {
            (Some(after), _) => Some(Cursor { shard, after: Some(after) }),
            (None, Scope::Tenant(_)) => self.shards().after(shard).map(|shard| Cursor { shard, after: None }),
            (None, Scope::All | Scope::User(..)) => None,
        };
        Ok(LivePage { connections, next })
    }

    /// Returns the state of a connection according to its row, with a consistent read.
    ///
    /// # Errors
    /// [`TableError`] if the call fails or the row cannot be parsed.
    pub async fn liveness(&self, id: &ConnectionId, now: SystemTime) -> Result<Liveness, TableError> {
        Ok(match self.read(id).await? {
            None => Liveness::NotFound,
            Some(connection) if connection.expires_at <= now => Liveness::Stale,
            Some(connection) => Liveness::Live(Box::new(connection)),
        })
    }
}
