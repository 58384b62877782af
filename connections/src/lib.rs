//! The connection table: a DynamoDB table with a row for each live connection.
//!
//! - [`Connection`]: a row, as `$connect` writes it.
//! - [`IndexedConnection`]: what the indexes `by_user` and `by_tenant` hold of a row.
//! - [`schema`]: the table's keys, indexes and TTL attribute.
//! - [`ConnectionTable`]: writes, reads and removes rows, and says who is [`Live`].
//!
//! A row may outlive its socket: `$disconnect` is best-effort, and DynamoDB deletes expired rows up to days
//! late. So every read drops rows past their `expires_at`, and a post that finds no socket removes the row.

mod endpoints;
mod key;
mod presence;
mod removal;
mod row;
pub mod schema;
mod table;

pub use endpoints::Endpoints;
pub use key::{SHARDS, shard_of};
pub use presence::{Cursor, Live, LivePage, Liveness, Scope};
pub use removal::Removal;
pub use row::{Connection, IndexedConnection, InvalidRow};
pub use table::{ConnectionTable, Page, TableError};

use streamer_environment::{Environment, Variable, values};

/// Names the table.
pub const CONNECTIONS_TABLE: Variable = Variable {
    name: "CONNECTIONS_TABLE",
    expected: "the connection table's name, `streamer_connections` by default",
    example: "streamer_connections",
};

/// Reads [`CONNECTIONS_TABLE`]. `None` means that a fault was noted.
pub fn table_name(environment: &mut Environment) -> Option<String> {
    environment.or(&CONNECTIONS_TABLE, values::text, || "streamer_connections".to_owned())
}
