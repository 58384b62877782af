//! Streams and the keys of their items.

use std::time::{Duration, SystemTime};

use streamer_connections::encode_part;
use streamer_message::{ConnectionId, Epoch, TenantId, UserId};

/// The kept messages of one user.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stream {
    /// The user's tenant.
    pub tenant: TenantId,
    /// The user.
    pub user: UserId,
}

/// A connection that wants the messages of its stream live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The connection.
    pub connection: ConnectionId,
    /// The management endpoint at which it is connected.
    pub endpoint: String,
    /// When API Gateway has ended the connection at the latest.
    pub expires_at: SystemTime,
}

impl Stream {
    /// Returns the hash key: `u#{tenant}#{user}`, with `%` and `#` percent-encoded in each part.
    #[must_use]
    pub fn key(&self) -> String {
        format!("u#{}#{}", encode_part(self.tenant.as_str()), encode_part(self.user.as_str()))
    }
}

/// The range key of the head.
pub(crate) const HEAD: &str = "h";

/// The beginning of the range keys of devices.
pub(crate) const DEVICES: &str = "c#";

/// The beginning of the range keys of messages.
pub(crate) const MESSAGES: &str = "m#";

/// Returns the range key of a message: `m#{epoch}#{seq}`, with 20 digits, so that keys sort as numbers do.
pub(crate) fn message_key(epoch: &Epoch, seq: u64) -> String {
    format!("{}{seq:020}", messages_of(epoch))
}

/// Returns the beginning of the range keys of an epoch's messages.
pub(crate) fn messages_of(epoch: &Epoch) -> String {
    format!("{MESSAGES}{epoch}#")
}

/// Returns the number in a message's range key.
pub(crate) fn seq_of(key: &str) -> Option<u64> {
    key.rsplit_once('#')?.1.parse().ok()
}

/// Returns the range key of a device: `c#{connection_id}`.
pub(crate) fn device_key(connection: &ConnectionId) -> String {
    format!("{DEVICES}{connection}")
}

/// Returns the milliseconds since the epoch; 0 for a time before it.
pub(crate) fn millis(time: SystemTime) -> u64 {
    u64::try_from(since_epoch(time).as_millis()).unwrap_or(u64::MAX)
}

/// Returns the seconds since the epoch, rounded up, as a TTL attribute has them.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    let since = since_epoch(time);
    since.as_secs().saturating_add(u64::from(since.subsec_nanos() > 0))
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(tenant: &str, user: &str) -> String {
        Stream { tenant: tenant.try_into().unwrap(), user: user.try_into().unwrap() }.key()
    }

    #[test]
    fn keys_name_tenant_and_user() {
        assert_eq!(key("acme", "anna"), "u#acme#anna");
        assert_eq!(key("a#b", "100%"), "u#a%23b#100%25");
    }

    #[test]
    fn message_keys_sort_by_number() {
        let epoch = Epoch::new("k3J9").unwrap();
        let keys = [1, 9, 10, 1_000_000, u64::MAX].map(|seq| message_key(&epoch, seq));
        assert!(keys.is_sorted());
        assert_eq!(keys[2], "m#k3J9#00000000000000000010");
        assert_eq!(keys.map(|key| seq_of(&key).unwrap()), [1, 9, 10, 1_000_000, u64::MAX]);
    }

    proptest! {
        #[test]
        fn different_users_have_different_keys(a in "[a#%2]{1,4}", b in "[a#%2]{1,4}", c in "[a#%2]{1,4}", d in "[a#%2]{1,4}") {
            prop_assert_eq!(key(&a, &b) == key(&c, &d), (a, b) == (c, d));
        }
    }
}
