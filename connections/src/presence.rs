//! Who is live.

use std::time::SystemTime;

use streamer_message::{ConnectionId, TenantId, UserId};

use crate::{Connection, ConnectionTable, IndexedConnection, SHARDS, TableError};

/// Whose connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's. It reads the whole table, which costs what the table's size is: for people, not for programs.
    All,
    /// Those of a tenant.
    Tenant(TenantId),
    /// Those of a user of a tenant.
    User(TenantId, UserId),
}

/// A live connection, as [`ConnectionTable::live`] finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// Its user's tenant.
    pub tenant_id: TenantId,
    /// The connection.
    pub connection: IndexedConnection,
}

/// Where the next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    shard: u8,
    after: Option<ConnectionId>,
}

/// A page of live connections. It may be empty and not the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePage {
    /// The connections.
    pub connections: Vec<Live>,
    /// Where the next page begins, where there may be one.
    pub next: Option<Cursor>,
}

/// What is known of a connection before it is posted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Liveness {
    /// It has no row: it was never made, has ended, or is still being made.
    NotFound,
    /// It has a row past its expiry, which DynamoDB has not deleted yet: it has ended, or where rows expire with
    /// tokens has outlived its token.
    Stale,
    /// It has a row. It is live, unless its `$disconnect` never came: only a post can tell.
    Live(Box<Connection>),
}

impl ConnectionTable {
    /// A page of the connections whose rows expire after `now`, from `cursor` on or from the beginning. A page is what DynamoDB reads in one call. The indexes lag behind the table, mostly by less than a second.
    ///
    /// # Errors
    /// [`TableError`]; rows that cannot be read are skipped.
    pub async fn live(
        &self,
        who: &Scope,
        cursor: Option<&Cursor>,
        now: SystemTime,
    ) -> Result<LivePage, TableError> {
        let (shard, after) = cursor.map_or((0, None), |cursor| (cursor.shard, cursor.after.as_ref()));
        let of = |tenant: &TenantId| {
            let tenant = tenant.clone();
            move |connection| Live { tenant_id: tenant.clone(), connection }
        };
        let (connections, next): (Vec<_>, _) = match who {
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
        let next = match (next, who) {
            (Some(after), _) => Some(Cursor { shard, after: Some(after) }),
            (None, Scope::Tenant(_)) if shard + 1 < SHARDS => Some(Cursor { shard: shard + 1, after: None }),
            (None, _) => None,
        };
        Ok(LivePage { connections, next })
    }

    /// Whether a connection is live, as far as its row tells, read consistently.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn liveness(&self, id: &ConnectionId, now: SystemTime) -> Result<Liveness, TableError> {
        Ok(match self.read(id).await? {
            None => Liveness::NotFound,
            Some(connection) if connection.expires_at <= now => Liveness::Stale,
            Some(connection) => Liveness::Live(Box::new(connection)),
        })
    }
}
