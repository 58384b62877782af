//! What a deployment has to make of the table: its keys, its indexes and its TTL attribute.

/// The table's key.
pub const CONNECTION_ID: &str = "connection_id";

/// The TTL attribute, in seconds since the epoch.
pub const EXPIRES_AT: &str = "expires_at";

/// What the indexes hold besides keys.
pub const PROJECTION: [&str; 4] = ["user_id", "endpoint", "connected_at", EXPIRES_AT];

/// The users' connections.
pub const BY_USER: Index = Index { name: "by_user", hash_key: "tenant_user" };

/// The tenants' connections, each tenant's in [`SHARDS`](crate::SHARDS) parts.
pub const BY_TENANT: Index = Index { name: "by_tenant", hash_key: "tenant_shard" };

/// A global secondary index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Index {
    /// Its name.
    pub name: &'static str,
    /// Its key.
    pub hash_key: &'static str,
}
