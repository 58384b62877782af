//! The configuration of `delivery-worker`, from environment variables.

use std::{ops::RangeInclusive, time::Duration};

use streamer_connections::{
    CONNECT_GRACE_SECONDS, Endpoints, TENANT_SHARDS, TenantShards, connect_grace, tenant_shards,
};
use streamer_environment::{Environment, EnvironmentError, Faulty, Variable, values};
use streamer_gateway::{MAX_PAYLOAD_BYTES, PayloadLimit};
use streamer_mailbox::{MAILBOX_GENERATION, MAILBOX_MAX_MESSAGES, MAILBOX_TABLE};
use streamer_queue::{QueueKind, RECEIPTS_QUEUE_URL, receipts_queue_url};
use streamer_telemetry::{LOG_LEVEL, STAGE, Settings};

use crate::{policy::Policy, time};

const WEBSOCKET_ENDPOINT: Variable = Variable {
    name: "WEBSOCKET_ENDPOINT",
    expected: "the management endpoint to post to, an https URL",
    example: "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/production",
};
const WEBSOCKET_ENDPOINT_ALIASES: Variable = Variable {
    name: "WEBSOCKET_ENDPOINT_ALIASES",
    expected: "further https URLs of the same API and stage, current or former, separated by commas",
    example: "https://ws.example.com,https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/production",
};
const CELL_ENDPOINTS: Variable = Variable {
    name: "CELL_ENDPOINTS",
    expected: "the https URLs of the management endpoints of all cells that share the connection table, with their aliases, \
               separated by commas",
    example: "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/a,https://f6g7h8i9j0.execute-api.eu-west-1.amazonaws.com/b",
};
const QUEUE_URL: Variable = Variable {
    name: "QUEUE_URL",
    expected: "the URL of the queue that invokes the worker",
    example: "https://sqs.eu-central-1.amazonaws.com/123456789012/streamer-outbound",
};
const DEAD_LETTER_QUEUE_URL: Variable = Variable {
    name: "DEAD_LETTER_QUEUE_URL",
    expected: "the URL of the dead-letter queue, a FIFO queue if the outbound queue is one",
    example: "https://sqs.eu-central-1.amazonaws.com/123456789012/streamer-dead-letters",
};
const PARTS_QUEUE_URL: Variable = Variable {
    name: "PARTS_QUEUE_URL",
    expected: "the URL of a further queue that invokes the worker, for the parts of large audiences: a standard queue, beside \
               a standard outbound queue; without it, parts are sent to the outbound queue",
    example: "https://sqs.eu-central-1.amazonaws.com/123456789012/streamer-parts",
};
const AWAY_GRACE_SECONDS: Variable = Variable {
    name: "AWAY_GRACE_SECONDS",
    expected: "the time after a message's first receive during which its user may be reconnecting, in whole seconds up to \
               3600, 30 by default",
    example: "30",
};
const MAX_AGE_SECONDS: Variable = Variable {
    name: "MAX_AGE_SECONDS",
    expected: "the time after its first receive during which a message is retried, in whole seconds from 1 to 259200, 7800 by \
               default; no less than AWAY_GRACE_SECONDS and CONNECT_GRACE_SECONDS",
    example: "7800",
};
const MAX_POSTS_PER_SECOND: Variable = Variable {
    name: "MAX_POSTS_PER_SECOND",
    expected: "the posts that an execution environment may begin in a second, a whole number from 1 to 10000, unlimited by \
               default",
    example: "200",
};
const CONNECTIONS_TABLE: Variable = Variable {
    name: "CONNECTIONS_TABLE",
    expected: "the connection table's name; without it, only messages for connections are delivered",
    example: "streamer_connections",
};
const TIMEOUT_SECONDS: Variable = Variable {
    name: "TIMEOUT_SECONDS",
    expected: "the function's timeout in whole seconds, 1 to 900, which Lambda itself does not pass; 900 by default",
    example: "30",
};

/// Everything that `delivery-worker` reads from its environment.
pub const VARIABLES: [Variable; 20] = [
    WEBSOCKET_ENDPOINT,
    WEBSOCKET_ENDPOINT_ALIASES,
    CELL_ENDPOINTS,
    QUEUE_URL,
    DEAD_LETTER_QUEUE_URL,
    PARTS_QUEUE_URL,
    RECEIPTS_QUEUE_URL,
    CONNECT_GRACE_SECONDS,
    AWAY_GRACE_SECONDS,
    MAX_AGE_SECONDS,
    MAX_POSTS_PER_SECOND,
    MAX_PAYLOAD_BYTES,
    TIMEOUT_SECONDS,
    CONNECTIONS_TABLE,
    TENANT_SHARDS,
    MAILBOX_TABLE,
    MAILBOX_GENERATION,
    MAILBOX_MAX_MESSAGES,
    LOG_LEVEL,
    STAGE,
];

/// API Gateway ends a connection after 2 h, so 10 min later no client waits for the message.
///
/// Source: "Connection duration for WebSocket API" in
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html>.
const MAX_AGE: Duration = Duration::from_secs(2 * 3600 + 600);

/// On a FIFO queue a message keeps its place, so it is to be given up before the queue's retention of 4 days ends.
const AGES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3 * 24 * 3600);

/// The configuration of `delivery-worker`.
#[derive(Debug)]
pub struct Config {
    /// The management endpoint to post to, with its aliases, and those of all cells.
    pub endpoints: Endpoints,
    /// The URL of the queue that invokes the worker.
    pub queue_url: String,
    /// The dead-letter queue's URL.
    pub dead_letter_queue_url: String,
    /// The parts queue's URL. `None` where parts are sent to the outbound queue.
    pub parts_queue_url: Option<String>,
    /// The receipts queue's URL. `None` where receipts are not sent.
    pub receipts_queue_url: Option<String>,
    /// When to retry and when to give up.
    pub policy: Policy,
    /// Posts that an execution environment may begin in a second, if limited.
    pub posts_per_second: Option<u32>,
    /// The maximum size of a payload.
    pub payloads: PayloadLimit,
    /// The function's timeout, which bounds an invocation where this machine's clock differs from Lambda's.
    pub timeout: Duration,
    /// The connection table's name. `None` where only messages for connections are delivered.
    pub table: Option<String>,
    /// The number of shards into which a message for a tenant is split.
    pub tenant_shards: TenantShards,
    /// The name and the settings of the mailbox's table. `None` where messages are not kept.
    pub mailbox: Option<(String, streamer_mailbox::Settings)>,
    /// Logs and metrics.
    pub telemetry: Settings,
}

impl Config {
    /// Reads [`VARIABLES`].
    ///
    /// # Errors
    /// [`EnvironmentError`] names every faulty variable.
    pub fn read(mut environment: Environment) -> Result<Self, EnvironmentError> {
        let endpoint = environment.required(&WEBSOCKET_ENDPOINT, values::http_url);
        let urls = |text: &str| values::list(text)?.iter().map(|url| values::http_url(url)).collect();
        let aliases = environment.or(&WEBSOCKET_ENDPOINT_ALIASES, urls, Vec::new);
        let cells = environment.or(&CELL_ENDPOINTS, urls, Vec::new);
        let queue_url = environment.required(&QUEUE_URL, values::http_url);
        let queue_kind = queue_url.as_deref().map_or(QueueKind::Standard, QueueKind::of_url);
        let of_same_kind = |text: &str| {
            values::http_url(text).filter(|url| QueueKind::of_url(url) == queue_kind || queue_url.is_err())
        };
        let dead_letter_queue_url = environment.required(&DEAD_LETTER_QUEUE_URL, of_same_kind);
        let of_parts = |text: &str| {
            let url = of_same_kind(text).filter(|url| QueueKind::of_url(url) == QueueKind::Standard)?;
            (queue_url.as_ref().ok() != Some(&url)).then_some(url)
        };
        let parts_queue_url = environment.optional(&PARTS_QUEUE_URL, of_parts);
        let receipts_queue_url = receipts_queue_url(&mut environment);
        let hour = at_most(Duration::from_secs(3600));
        let connect_grace = connect_grace(&mut environment);
        let away_grace = environment.or(&AWAY_GRACE_SECONDS, hour, || Duration::from_secs(30));
        let longest_grace = connect_grace.ok().max(away_grace.ok());
        let max_age = |text: &str| {
            let age = values::seconds(text).filter(|age| AGES.contains(age))?;
            longest_grace.is_none_or(|grace| age >= grace).then_some(age)
        };
        let max_age = environment.or(&MAX_AGE_SECONDS, max_age, || MAX_AGE);
        let pace = |text: &str| text.parse().ok().filter(|posts| (1..=10_000).contains(posts));
        let posts_per_second = environment.optional(&MAX_POSTS_PER_SECOND, pace);
        let payloads = PayloadLimit::read(&mut environment);
        let timeout = |text: &str| {
            values::seconds(text)
                .filter(|timeout| (Duration::from_secs(1)..=time::MAX_TIMEOUT).contains(timeout))
        };
        let timeout = environment.or(&TIMEOUT_SECONDS, timeout, || time::MAX_TIMEOUT);
        let table = environment.optional(&CONNECTIONS_TABLE, values::text);
        let tenant_shards = tenant_shards(&mut environment);
        let mailbox = mailbox(&mut environment);
        let telemetry = Settings::read(&mut environment);
        environment.finish(|| {
            let (connect_grace, away_grace, max_age) = (connect_grace?, away_grace?, max_age?);
            Ok(Self {
                endpoints: Endpoints::new(endpoint?, aliases?).with_cells(cells?),
                queue_url: queue_url?,
                dead_letter_queue_url: dead_letter_queue_url?,
                parts_queue_url: parts_queue_url?,
                receipts_queue_url: receipts_queue_url?,
                policy: Policy { queue_kind, connect_grace, away_grace, max_age },
                posts_per_second: posts_per_second?,
                payloads: payloads?,
                timeout: timeout?,
                table: table?,
                tenant_shards: tenant_shards?,
                mailbox: mailbox?,
                telemetry: telemetry?,
            })
        })
    }
}

/// Reads the name and the settings of the mailbox's table. Faults of the settings are reported without a table, too.
fn mailbox(environment: &mut Environment) -> Result<Option<(String, streamer_mailbox::Settings)>, Faulty> {
    let table = streamer_mailbox::mailbox_table(environment);
    let generation = streamer_mailbox::generation(environment);
    let max_messages = streamer_mailbox::max_messages(environment);
    let settings = streamer_mailbox::Settings { generation: generation?, max_messages: max_messages? };
    Ok(table?.map(|name| (name, settings)))
}

fn at_most(most: Duration) -> impl Fn(&str) -> Option<Duration> {
    move |text| values::seconds(text).filter(|time| *time <= most)
}

#[cfg(test)]
mod tests {
    use streamer_connections::Location;

    use super::*;

    const ENDPOINT: (&str, &str) = ("WEBSOCKET_ENDPOINT", "https://a.example.com/stage/");
    const QUEUE: (&str, &str) = ("QUEUE_URL", "https://sqs.example.com/outbound");
    const DEAD_LETTERS: (&str, &str) = ("DEAD_LETTER_QUEUE_URL", "https://sqs.example.com/dead-letters");

    /// Reads a valid configuration with one variable changed.
    fn with(name: &str, value: &str) -> Result<Config, EnvironmentError> {
        Config::read(Environment::of([(name, value), ENDPOINT, QUEUE, DEAD_LETTERS]))
    }

    #[test]
    fn all_missing_variables_are_named() {
        let error = Config::read(Environment::of([])).unwrap_err().to_string();
        for expected in [
            "WEBSOCKET_ENDPOINT is missing",
            "QUEUE_URL is missing",
            "DEAD_LETTER_QUEUE_URL is missing",
            "for example https://",
        ] {
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn times_have_defaults_and_limits() {
        let policy = with("STAGE", "local").unwrap().policy;
        let seconds = [policy.connect_grace, policy.away_grace, policy.max_age].map(|time| time.as_secs());
        assert_eq!((policy.queue_kind, seconds), (QueueKind::Standard, [5, 30, 7800]));
        for (name, most) in
            [("CONNECT_GRACE_SECONDS", 3600), ("AWAY_GRACE_SECONDS", 3600), ("MAX_AGE_SECONDS", 259_200_u64)]
        {
            assert!(with(name, &most.to_string()).is_ok(), "{name}");
            assert!(with(name, &(most + 1).to_string()).is_err(), "{name}");
            assert!(with(name, &u64::MAX.to_string()).is_err(), "{name}");
        }
        assert!(with("MAX_AGE_SECONDS", "0").is_err(), "0 would post nothing");
        assert!(with("MAX_AGE_SECONDS", "30").is_ok());
        let error = with("MAX_AGE_SECONDS", "29").unwrap_err().to_string();
        assert!(error.contains("no less than AWAY_GRACE_SECONDS"), "{error}");
    }

    #[test]
    fn pace_is_optional_and_bounded() {
        let pace =
            |value: &str| with("MAX_POSTS_PER_SECOND", value).map(|config| config.posts_per_second).ok();
        assert_eq!((pace("1"), pace("10000")), (Some(Some(1)), Some(Some(10_000))));
        assert_eq!((pace("0"), pace("10001"), pace("fast")), (None, None, None));
        assert_eq!(with("STAGE", "local").unwrap().posts_per_second, None);
    }

    #[test]
    fn aliases_belong_to_the_endpoint() {
        let config =
            with("WEBSOCKET_ENDPOINT_ALIASES", "https://ws.example.com/, https://b.example.com/stage");
        let endpoints = config.unwrap().endpoints;
        assert_eq!(endpoints.name(), "https://a.example.com/stage");
        assert!(
            endpoints.include("https://ws.example.com") && endpoints.include("https://b.example.com/stage")
        );
        assert!(with("WEBSOCKET_ENDPOINT_ALIASES", "ws.example.com").is_err());
    }

    /// All cells can have the same list.
    #[test]
    fn cell_endpoints_may_contain_own() {
        let config = with("CELL_ENDPOINTS", "https://a.example.com/stage, https://b.example.com/stage");
        let endpoints = config.unwrap().endpoints;
        let located = ["https://a.example.com/stage", "https://b.example.com/stage", "https://c.example.com"]
            .map(|endpoint| endpoints.locate(endpoint));
        assert_eq!(located, [Location::Here, Location::OtherCell, Location::Elsewhere]);
        let error = with("CELL_ENDPOINTS", "b.example.com").unwrap_err().to_string();
        assert!(error.contains("CELL_ENDPOINTS is malformed"), "{error}");
    }

    #[test]
    fn table_is_optional() {
        assert_eq!(with("STAGE", "local").unwrap().table, None);
        assert_eq!(with("CONNECTIONS_TABLE", "").unwrap().table, None);
        assert_eq!(with("CONNECTIONS_TABLE", "chat").unwrap().table.as_deref(), Some("chat"));
    }

    #[test]
    fn mailbox_is_optional() {
        assert_eq!(with("MAILBOX_MAX_MESSAGES", "500").unwrap().mailbox, None);
        let (name, settings) = with("MAILBOX_TABLE", "kept").unwrap().mailbox.unwrap();
        assert_eq!((name.as_str(), settings), ("kept", streamer_mailbox::Settings::default()));
        let variables =
            [("MAILBOX_TABLE", "kept"), ("MAILBOX_GENERATION", "2"), ("MAILBOX_MAX_MESSAGES", "500")];
        let config =
            Config::read(Environment::of([ENDPOINT, QUEUE, DEAD_LETTERS].into_iter().chain(variables)));
        let (_, settings) = config.unwrap().mailbox.unwrap();
        assert_eq!((settings.generation.as_str(), settings.max_messages), ("2", 500));
        let faulty = with("MAILBOX_GENERATION", "a.b").unwrap_err().to_string();
        assert!(faulty.contains("MAILBOX_GENERATION is malformed"), "{faulty}");
    }

    #[test]
    fn receipts_queue_is_optional_and_standard() {
        let url = |value: &str| with("RECEIPTS_QUEUE_URL", value).map(|config| config.receipts_queue_url);
        assert_eq!(url("").unwrap(), None);
        assert_eq!(url(QUEUE.1).unwrap().as_deref(), Some(QUEUE.1));
        let error = url("https://sqs.example.com/receipts.fifo").unwrap_err().to_string();
        assert!(
            error.contains("RECEIPTS_QUEUE_URL is malformed") && error.contains("a standard queue"),
            "{error}"
        );
    }

    #[test]
    fn parts_queue_is_a_standard_queue_apart() {
        let url = |value: &str| with("PARTS_QUEUE_URL", value).map(|config| config.parts_queue_url);
        let parts = "https://sqs.example.com/parts";
        assert_eq!(url("").unwrap(), None);
        assert_eq!(url(parts).unwrap().as_deref(), Some(parts));
        for refused in [QUEUE.1, "https://sqs.example.com/parts.fifo", "parts"] {
            let error = url(refused).unwrap_err().to_string();
            assert!(error.contains("PARTS_QUEUE_URL is malformed"), "{error}");
        }
        let fifo = "https://sqs.example.com/outbound.fifo";
        let beside_fifo =
            [("QUEUE_URL", fifo), ("DEAD_LETTER_QUEUE_URL", fifo), ENDPOINT, ("PARTS_QUEUE_URL", parts)];
        assert!(Config::read(Environment::of(beside_fifo)).is_err());
    }

    #[test]
    fn timeout_is_at_most_lambdas() {
        let timeout =
            |value: &str| with("TIMEOUT_SECONDS", value).map(|config| config.timeout.as_secs()).ok();
        assert_eq!((timeout("1"), timeout("900")), (Some(1), Some(900)));
        assert_eq!((timeout("0"), timeout("901")), (None, None));
        assert_eq!(with("STAGE", "local").unwrap().timeout, time::MAX_TIMEOUT);
    }

    #[test]
    fn dead_letter_queue_has_same_kind() {
        let fifo = "https://sqs.example.com/outbound.fifo";
        let error = with("QUEUE_URL", fifo).unwrap_err().to_string();
        assert!(error.contains("DEAD_LETTER_QUEUE_URL is malformed"), "{error}");
        assert!(with("DEAD_LETTER_QUEUE_URL", fifo).is_err());
        let both = [("QUEUE_URL", fifo), ("DEAD_LETTER_QUEUE_URL", fifo), ENDPOINT];
        assert_eq!(Config::read(Environment::of(both)).unwrap().policy.queue_kind, QueueKind::Fifo);
    }
}
