//! The configuration of `mailbox-handler`, from its environment.

use std::{ops::RangeInclusive, time::Duration};

use streamer_environment::{Environment, EnvironmentError, Variable, values};
use streamer_gateway::{MAX_PAYLOAD_BYTES, PayloadLimit};
use streamer_mailbox::{MAILBOX_GENERATION, MAILBOX_TABLE, generation, required_mailbox_table};
use streamer_queue::{RECEIPTS_QUEUE_URL, receipts_queue_url};
use streamer_telemetry::{LOG_LEVEL, STAGE, Settings};

const WEBSOCKET_ENDPOINT: Variable = Variable {
    name: "WEBSOCKET_ENDPOINT",
    expected: "the management endpoint to post to, an https URL; the same as for `delivery-worker`",
    example: "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/production",
};
const CONNECTIONS_TABLE: Variable = Variable {
    name: "CONNECTIONS_TABLE",
    expected: "the connection table's name",
    example: "streamer_connections",
};
const TIMEOUT_SECONDS: Variable = Variable {
    name: "TIMEOUT_SECONDS",
    expected: "the function's timeout in whole seconds, 1 to 900, which Lambda itself does not pass; 29 by default",
    example: "10",
};

/// Everything that `mailbox-handler` reads from its environment.
pub const VARIABLES: [Variable; 9] = [
    WEBSOCKET_ENDPOINT,
    CONNECTIONS_TABLE,
    MAILBOX_TABLE,
    MAILBOX_GENERATION,
    RECEIPTS_QUEUE_URL,
    TIMEOUT_SECONDS,
    MAX_PAYLOAD_BYTES,
    LOG_LEVEL,
    STAGE,
];

/// API Gateway waits 29 s for a function.
///
/// Source: "Integration timeout" in
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html>.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(29);

/// Lambda's timeouts.
///
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/configuration-timeout.html>.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(900);

/// The configuration of `mailbox-handler`.
#[derive(Debug)]
pub struct Config {
    /// The management endpoint to post to.
    pub endpoint: String,
    /// The connection table's name.
    pub connections: String,
    /// The name of the mailbox's table.
    pub mailbox: String,
    /// The part of epochs that changes when the mailbox's table was restored from a backup.
    pub generation: String,
    /// The receipts queue's URL. `None` where receipts are not sent.
    pub receipts_queue_url: Option<String>,
    /// The maximum size of a page, and of a kept payload with its position.
    pub payloads: PayloadLimit,
    /// The function's timeout, which bounds an invocation where this machine's clock differs from Lambda's.
    pub timeout: Duration,
    /// The settings of logs and metrics.
    pub telemetry: Settings,
}

impl Config {
    /// Reads [`VARIABLES`].
    ///
    /// # Errors
    /// [`EnvironmentError`] names every variable that is missing or malformed.
    pub fn read(mut environment: Environment) -> Result<Self, EnvironmentError> {
        let endpoint = environment.required(&WEBSOCKET_ENDPOINT, values::http_url);
        let connections = environment.required(&CONNECTIONS_TABLE, values::text);
        let mailbox = required_mailbox_table(&mut environment);
        let generation = generation(&mut environment);
        let receipts_queue_url = receipts_queue_url(&mut environment);
        let timeout = |text: &str| values::seconds(text).filter(|timeout| TIMEOUTS.contains(timeout));
        let timeout = environment.or(&TIMEOUT_SECONDS, timeout, || DEFAULT_TIMEOUT);
        let payloads = PayloadLimit::read(&mut environment);
        let telemetry = Settings::read(&mut environment);
        environment.finish(|| {
            Ok(Self {
                endpoint: endpoint?,
                connections: connections?,
                mailbox: mailbox?,
                generation: generation?,
                receipts_queue_url: receipts_queue_url?,
                payloads: payloads?,
                timeout: timeout?,
                telemetry: telemetry?,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: [(&str, &str); 3] = [
        ("WEBSOCKET_ENDPOINT", "https://a.example.com/stage"),
        ("CONNECTIONS_TABLE", "connections"),
        ("MAILBOX_TABLE", "mailbox"),
    ];

    /// Reads a valid configuration with one variable changed.
    fn with(name: &str, value: &str) -> Result<Config, EnvironmentError> {
        Config::read(Environment::of([(name, value)].into_iter().chain(VALID)))
    }

    #[test]
    fn endpoint_and_tables_are_required() {
        let error = Config::read(Environment::of([])).unwrap_err().to_string();
        for (name, _) in VALID {
            assert!(error.contains(&format!("{name} is missing")), "{error}");
            assert!(with(name, "").is_err(), "{name}");
        }
        let config = with("STAGE", "local").unwrap();
        let names = [config.endpoint, config.connections, config.mailbox];
        assert_eq!(names, ["https://a.example.com/stage", "connections", "mailbox"]);
    }

    #[test]
    fn timeout_is_at_most_lambdas() {
        let timeout =
            |value: &str| with("TIMEOUT_SECONDS", value).map(|config| config.timeout.as_secs()).ok();
        assert_eq!([timeout("1"), timeout("900"), timeout("")], [Some(1), Some(900), Some(29)]);
        assert_eq!([timeout("0"), timeout("901")], [None, None]);
    }

    #[test]
    fn generation_has_a_default() {
        let generation = |value: &str| with("MAILBOX_GENERATION", value).map(|config| config.generation).ok();
        assert_eq!(
            [generation("7"), generation(""), generation("a.b")],
            [Some("7".to_owned()), Some("0".to_owned()), None]
        );
    }

    #[test]
    fn receipts_queue_is_optional_and_standard() {
        let url = |value: &str| with("RECEIPTS_QUEUE_URL", value).map(|config| config.receipts_queue_url);
        let standard = "https://sqs.example.com/receipts";
        assert_eq!((url("").unwrap(), url(standard).unwrap().as_deref()), (None, Some(standard)));
        let error = url("https://sqs.example.com/receipts.fifo").unwrap_err().to_string();
        assert!(error.contains("RECEIPTS_QUEUE_URL is malformed"), "{error}");
    }
}
