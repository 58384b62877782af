//! What `disconnect-handler` is told by its environment.

use streamer_connections::table_name;
use streamer_environment::{Environment, EnvironmentError, Variable};
use streamer_telemetry::Settings;

/// Everything that `disconnect-handler` reads from its environment.
pub const VARIABLES: [Variable; 3] = [
    streamer_connections::CONNECTIONS_TABLE,
    streamer_telemetry::VARIABLES[0],
    streamer_telemetry::VARIABLES[1],
];

/// The configuration of `disconnect-handler`.
#[derive(Debug)]
pub struct Config {
    /// The connection table's name.
    pub table: String,
    /// Logs and metrics.
    pub telemetry: Settings,
}

impl Config {
    /// Reads [`VARIABLES`].
    ///
    /// # Errors
    /// [`EnvironmentError`] names every one that is faulty.
    pub fn read(mut environment: Environment) -> Result<Self, EnvironmentError> {
        let table = table_name(&mut environment);
        let telemetry = Settings::read(&mut environment);
        environment.finish(|| Some(Self { table: table?, telemetry: telemetry? }))
    }
}
