//! The environment variables of the programs that use the table.

use std::time::Duration;

use streamer_environment::{Environment, Faulty, Variable, values};

use crate::shards::TenantShards;

/// The name of the table.
pub const CONNECTIONS_TABLE: Variable = Variable {
    name: "CONNECTIONS_TABLE",
    expected: "the connection table's name, `streamer_connections` by default",
    example: "streamer_connections",
};

/// The connect grace.
pub const CONNECT_GRACE_SECONDS: Variable = Variable {
    name: "CONNECT_GRACE_SECONDS",
    expected: "how long after `$connect` a 410 still means that a connection is not established yet, in whole seconds \
               up to 3600, 5 by default",
    example: "5",
};

/// The number of shards of a tenant.
pub const TENANT_SHARDS: Variable = Variable {
    name: "TENANT_SHARDS",
    expected: "the number of keys over which a tenant's rows are distributed, a whole number from 1 to 256, 8 by default; \
               a reader's is the largest with which a row was written",
    example: "64",
};

/// The connect grace by default: how young a connection may be for a 410 to mean "not yet connected".
///
/// `delivery-worker` and `connect-handler` read [`CONNECT_GRACE_SECONDS`]. `streamer disconnect` cannot see their
/// settings and uses this default.
pub const CONNECT_GRACE: Duration = Duration::from_secs(5);

const MAX_CONNECT_GRACE: Duration = Duration::from_secs(3600);

/// Reads [`CONNECTIONS_TABLE`].
///
/// # Errors
/// [`Faulty`] if the variable is malformed.
pub fn table_name(environment: &mut Environment) -> Result<String, Faulty> {
    environment.or(&CONNECTIONS_TABLE, values::text, || "streamer_connections".to_owned())
}

/// Reads [`CONNECT_GRACE_SECONDS`].
///
/// # Errors
/// [`Faulty`] if the variable is malformed or over 3600.
pub fn connect_grace(environment: &mut Environment) -> Result<Duration, Faulty> {
    let parse = |text: &str| values::seconds(text).filter(|grace| *grace <= MAX_CONNECT_GRACE);
    environment.or(&CONNECT_GRACE_SECONDS, parse, || CONNECT_GRACE)
}

/// Reads [`TENANT_SHARDS`].
///
/// # Errors
/// [`Faulty`] if the variable is malformed, 0 or over 256.
pub fn tenant_shards(environment: &mut Environment) -> Result<TenantShards, Faulty> {
    let parse = |text: &str| text.parse().ok().and_then(TenantShards::new);
    environment.or(&TENANT_SHARDS, parse, || TenantShards::DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_shards_are_1_to_256() {
        let read = |value: &str| {
            let mut environment = Environment::of([("TENANT_SHARDS", value)]);
            tenant_shards(&mut environment).map(TenantShards::count).ok()
        };
        assert_eq!((read("1"), read("256"), read("")), (Some(1), Some(256), Some(8)));
        for faulty in ["0", "257", "65544", "-1", "many"] {
            assert_eq!(read(faulty), None, "{faulty}");
        }
    }
}
