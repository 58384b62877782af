//! The configuration of `disconnect-handler`, from its environment.

use streamer_connections::{CONNECTIONS_TABLE, table_name};
use streamer_environment::{Environment, EnvironmentError, Variable};
use streamer_telemetry::{LOG_LEVEL, STAGE, Settings};

/// Every environment variable that `disconnect-handler` reads.
pub const VARIABLES: [Variable; 3] = [CONNECTIONS_TABLE, LOG_LEVEL, STAGE];

/// The configuration of `disconnect-handler`.
#[derive(Debug)]
pub struct Config {
    /// The connection table's name.
    pub table: String,
    /// The settings of logs and metrics.
    pub telemetry: Settings,
}

impl Config {
    /// Reads [`VARIABLES`].
    ///
    /// # Errors
    /// [`EnvironmentError`] names every variable that is missing or malformed.
    pub fn read(mut environment: Environment) -> Result<Self, EnvironmentError> {
        let table = table_name(&mut environment);
        let telemetry = Settings::read(&mut environment);
        environment.finish(|| Ok(Self { table: table?, telemetry: telemetry? }))
    }
}
