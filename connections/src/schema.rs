//! The table's keys, indexes and TTL attribute, as a deployment must create them.

/// The table's key.
pub const CONNECTION_ID: &str = "connection_id";

/// The TTL attribute, in seconds since the epoch.
pub const EXPIRES_AT: &str = "expires_at";

/// The attributes that the indexes hold besides keys.
pub const PROJECTION: [&str; 4] = ["user_id", "endpoint", "connected_at", EXPIRES_AT];

/// The index of connections by user.
pub const BY_USER: Index = Index { name: "by_user", hash_key: "tenant_user" };

/// The index of connections by tenant. Each tenant has [`TenantShards`](crate::TenantShards) keys in it.
pub const BY_TENANT: Index = Index { name: "by_tenant", hash_key: "tenant_shard" };

/// A global secondary index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Index {
    /// The name.
    pub name: &'static str,
    /// The hash key.
    pub hash_key: &'static str,
}
