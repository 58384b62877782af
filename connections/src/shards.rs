//! The number of keys over which a tenant's rows are distributed.

use std::ops::RangeInclusive;

use streamer_message::ConnectionId;

/// The number of shards of each tenant, 1 to 256: the keys of the index `by_tenant` over which a tenant's rows are
/// distributed, so that a large tenant is not a hot partition.
///
/// The number may change while rows exist. A row that was written with `n` shards is in one of the first `n`, so a
/// reader with the largest number in use finds every row, and each once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantShards {
    /// The last shard. Shards are numbered from 0, so this holds every valid number and no other.
    last: u8,
}

impl TenantShards {
    /// The number by default.
    pub const DEFAULT: Self = Self { last: 7 };

    /// The largest number, with which a reader finds every row.
    pub const MAX: Self = Self { last: u8::MAX };

    /// Returns a number of shards. `None` unless it is from 1 to 256.
    #[must_use]
    pub fn new(count: u16) -> Option<Self> {
        u8::try_from(count.checked_sub(1)?).ok().map(|last| Self { last })
    }

    /// Returns the number, 1 to 256.
    #[must_use]
    pub fn count(self) -> u16 {
        u16::from(self.last) + 1
    }

    /// Returns all shards.
    #[must_use]
    pub fn all(self) -> RangeInclusive<u8> {
        0..=self.last
    }

    /// Returns the shard of a connection's row.
    #[must_use]
    pub fn of(self, connection: &ConnectionId) -> u8 {
        let remainder = crc32fast::hash(connection.as_str().as_bytes()) % u32::from(self.count());
        u8::try_from(remainder).unwrap_or_default()
    }

    /// Returns the shard after another one. `None` after the last.
    pub(crate) fn after(self, shard: u8) -> Option<u8> {
        shard.checked_add(1).filter(|next| *next <= self.last)
    }
}

impl Default for TenantShards {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shards(count: u16) -> TenantShards {
        TenantShards::new(count).unwrap()
    }

    #[test]
    fn shard_is_crc32_of_the_id() {
        let id = "123456789".try_into().unwrap();
        assert_eq!(TenantShards::DEFAULT.of(&id), (0xCBF4_3926_u32 % 8) as u8);
        assert_eq!(TenantShards::MAX.of(&id), 0x26);
        assert_eq!(shards(1).of(&id), 0);
    }

    #[test]
    fn count_is_1_to_256() {
        assert_eq!((TenantShards::new(0), TenantShards::new(257)), (None, None));
        assert_eq!((shards(1).all(), shards(256)), (0..=0, TenantShards::MAX));
        assert_eq!((TenantShards::DEFAULT.count(), TenantShards::MAX.count()), (8, 256));
        assert_eq!(
            (shards(256).after(254), shards(256).after(255), shards(8).after(7)),
            (Some(255), None, None)
        );
    }

    proptest! {
        /// The reader has any number that is not less than the writer's.
        #[test]
        fn larger_reader_has_every_shard(id in "[A-Za-z0-9]{1,16}", writer in 1_u16..=256, more in 0_u16..256) {
            let reader = shards((writer + more).min(256));
            prop_assert!(reader.all().contains(&shards(writer).of(&id.as_str().try_into().unwrap())));
        }
    }
}
