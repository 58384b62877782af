//! The table's keys and TTL attribute, as a deployment must create them.

/// The hash key: one stream.
pub const STREAM: &str = "stream";

/// The range key: the head, a message or a device of the stream.
pub const ITEM: &str = "item";

/// The TTL attribute, in seconds since the epoch.
pub const EXPIRES_AT: &str = "expires_at";
