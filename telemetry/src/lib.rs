//! What a Lambda tells its operators: logs as JSON lines, and metrics in CloudWatch's embedded metric format,
//! both on standard output and without an API call.
//!
//! - [`Telemetry`]: started once at the start of a Lambda; gives each invocation its [`Metrics`].
//! - [`metric`]: every metric that Streamer writes. Dashboards and alarms name these and no others.

mod metrics;

pub use metrics::{Metric, Metrics, NAMESPACE, Unit, metric};

use std::{io, time::SystemTime};

use streamer_environment::{Environment, Variable};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// Telemetry's variables.
pub const VARIABLES: [Variable; 2] = [LOG_LEVEL, STAGE];

const LOG_LEVEL: Variable = Variable {
    name: "LOG_LEVEL",
    expected: "error, warn, info (the default), debug or trace; or off, which stops metrics too",
    example: "info",
};
const STAGE: Variable = Variable {
    name: "STAGE",
    expected: "the deployment's name in metrics, `local` by default",
    example: "production",
};

/// How much to log, and what to call the deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    level: LevelFilter,
    stage: String,
}

/// The telemetry of one Lambda.
#[derive(Debug, Clone)]
pub struct Telemetry {
    service: &'static str,
    stage: String,
    on: bool,
}

impl Settings {
    /// Reads [`VARIABLES`]. `None` means that a fault was noted.
    pub fn read(environment: &mut Environment) -> Option<Self> {
        let level = environment.or(&LOG_LEVEL, |text| text.parse().ok(), || LevelFilter::INFO);
        let stage = environment.or(&STAGE, streamer_environment::values::text, || "local".to_owned());
        Some(Self { level: level?, stage: stage? })
    }
}

impl Telemetry {
    /// Starts logging for the Lambda `service`. Only Streamer's own modules log below `warn`: what libraries
    /// say at lower levels may hold tokens or payloads. A second start in one process changes nothing.
    #[must_use]
    pub fn start(service: &'static str, settings: Settings) -> Self {
        let targets = Targets::new()
            .with_default(settings.level.min(LevelFilter::WARN))
            .with_target("streamer", settings.level)
            .with_target(service.replace('-', "_"), settings.level);
        let lines = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false);
        // An error says that logging has been started already.
        let _started = tracing_subscriber::registry().with(lines).with(targets).try_init();
        Self { service, stage: settings.stage, on: settings.level != LevelFilter::OFF }
    }

    /// Empty metrics for one invocation.
    #[must_use]
    pub fn metrics(&self) -> Metrics<'_> {
        Metrics::new(self.service, &self.stage)
    }

    /// Writes an invocation's metrics to standard output, in as many lines as they need.
    ///
    /// Metrics that cannot be written are lost: the invocation's outcome does not depend on them.
    pub fn emit(&self, metrics: &Metrics<'_>) {
        if self.on {
            let _lost = metrics.write(SystemTime::now(), &mut io::stdout().lock());
        }
    }
}
