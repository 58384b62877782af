//! The table's keys and TTL attribute, as a deployment must create them.

/// The hash key: one stream.
pub const STREAM: &str = "stream";

/// The range key: the head, a message or a device of the stream. It is a reserved word, so expressions need a placeholder.
///
/// Source: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ReservedWords.html>.
pub const ITEM: &str = "item";

/// The TTL attribute, in seconds since the epoch.
pub const EXPIRES_AT: &str = "expires_at";
