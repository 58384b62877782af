//! The connection table: a DynamoDB table with a row for each live connection.
//!
//! - [`Connection`]: a row, as `$connect` writes it.
//! - [`IndexedConnection`]: the attributes of a row that the indexes `by_user` and `by_tenant` hold.
//! - [`schema`]: the table's keys, indexes and TTL attribute.
//! - [`TenantShards`]: the number of keys over which a tenant's rows are distributed.
//! - [`ConnectionTable`]: writes, reads and removes rows, and lists [`Live`] connections. With the feature `close` it
//!   also closes connections through the management API.
//! - [`subprotocol`]: the subprotocol of a handshake and of its answer.
//!
//! A row may outlive its socket: `$disconnect` is best-effort, and DynamoDB deletes expired rows up to days late. So
//! every read drops rows past their `expires_at`, and a post that is answered with 410 removes the row.

#[cfg(feature = "close")]
mod close;
mod config;
mod endpoints;
mod key;
mod presence;
mod removal;
mod row;
pub mod schema;
mod shards;
pub mod subprotocol;
mod table;
mod throttling;

#[cfg(feature = "close")]
pub use close::{CloseError, CloseOutcome};
pub use config::{
    CONNECT_GRACE, CONNECT_GRACE_SECONDS, CONNECTIONS_TABLE, TENANT_SHARDS, connect_grace, table_name,
    tenant_shards,
};
pub use endpoints::{Endpoints, Location};
pub use key::encode_part;
pub use presence::{Cursor, Live, LivePage, Liveness, Scope};
pub use removal::Removal;
pub use row::{Connection, IndexedConnection, InvalidRow};
pub use shards::TenantShards;
pub use table::{ConnectionTable, Page, TableError};
