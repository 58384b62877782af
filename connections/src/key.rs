//! The keys of the table's indexes.

use std::fmt::Write as _;

use streamer_message::{TenantId, UserId};

/// Returns the key of a user in `by_user`: `{tenant}#{user}`.
pub(crate) fn tenant_user(tenant: &TenantId, user: &UserId) -> String {
    format!("{}#{}", encode_part(tenant.as_str()), encode_part(user.as_str()))
}

/// Returns the key of a tenant's shard in `by_tenant`: `{tenant}#{shard}`.
pub(crate) fn tenant_shard(tenant: &TenantId, shard: u8) -> String {
    format!("{}#{shard}", encode_part(tenant.as_str()))
}

/// Percent-encodes `%` and `#` in a part of a key, so that different pairs have different keys.
#[must_use]
pub fn encode_part(part: &str) -> String {
    part.chars().fold(String::with_capacity(part.len()), |mut encoded, character| {
        match character {
            // Writing to a string cannot fail.
            '%' | '#' => _ = write!(encoded, "%{:02X}", u32::from(character)),
            other => encoded.push(other),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(tenant: &str, user: &str) -> String {
        tenant_user(&tenant.try_into().unwrap(), &user.try_into().unwrap())
    }

    #[test]
    fn keys_encode_only_separators() {
        assert_eq!(key("acme", "anna@example.com"), "acme#anna@example.com");
        assert_eq!(key("a#b", "100%"), "a%23b#100%25");
        assert_eq!(tenant_shard(&"a#b".try_into().unwrap(), 7), "a%23b#7");
    }

    proptest! {
        #[test]
        fn different_users_have_different_keys(
            one in ("[a#%23]{1,5}", "[a#%23]{1,5}"),
            other in ("[a#%23]{1,5}", "[a#%23]{1,5}"),
        ) {
            prop_assert_eq!(one == other, key(&one.0, &one.1) == key(&other.0, &other.1));
        }
    }
}
