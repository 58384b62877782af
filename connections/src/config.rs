//! The environment variables of the programs that use the table.

use std::time::Duration;

use streamer_environment::{Environment, Faulty, Variable, values};

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
