//! What `delivery-worker` is told by its environment.

use std::time::Duration;

use streamer_connections::table_name;
use streamer_environment::{Environment, EnvironmentError, Variable, values};
use streamer_telemetry::Settings;

const WEBSOCKET_ENDPOINT: Variable = Variable {
    name: "WEBSOCKET_ENDPOINT",
    expected: "the management endpoint to post to, an https URL",
    example: "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/production",
};
const DEAD_LETTER_QUEUE_URL: Variable = Variable {
    name: "DEAD_LETTER_QUEUE_URL",
    expected: "the dead-letter queue's URL",
    example: "https://sqs.eu-central-1.amazonaws.com/123456789012/streamer-dead-letters",
};
const CONNECT_GRACE_SECONDS: Variable = Variable {
    name: "CONNECT_GRACE_SECONDS",
    expected: "how young a connection may be for a 410 to mean that it is not there yet, in whole seconds up to \
               3600, 5 by default",
    example: "5",
};

/// Everything that `delivery-worker` reads from its environment.
pub const VARIABLES: [Variable; 6] = [
    WEBSOCKET_ENDPOINT,
    DEAD_LETTER_QUEUE_URL,
    CONNECT_GRACE_SECONDS,
    streamer_connections::CONNECTIONS_TABLE,
    streamer_telemetry::VARIABLES[0],
    streamer_telemetry::VARIABLES[1],
];

/// The configuration of `delivery-worker`.
#[derive(Debug)]
pub struct Config {
    /// The management endpoint to post to.
    pub endpoint: String,
    /// The dead-letter queue's URL.
    pub dead_letter_queue_url: String,
    /// How young a connection may be for a 410 to mean that it is not there yet.
    pub connect_grace: Duration,
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
        let endpoint = environment.required(&WEBSOCKET_ENDPOINT, values::http_url);
        let dead_letter_queue_url = environment.required(&DEAD_LETTER_QUEUE_URL, values::http_url);
        let connect_grace = environment.or(&CONNECT_GRACE_SECONDS, grace, || Duration::from_secs(5));
        let table = table_name(&mut environment);
        let telemetry = Settings::read(&mut environment);
        environment.finish(|| {
            Some(Self {
                endpoint: endpoint?,
                dead_letter_queue_url: dead_letter_queue_url?,
                connect_grace: connect_grace?,
                table: table?,
                telemetry: telemetry?,
            })
        })
    }
}

fn grace(text: &str) -> Option<Duration> {
    values::seconds(text).filter(|grace| *grace <= Duration::from_secs(3600))
}
