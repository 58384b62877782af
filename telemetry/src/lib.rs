//! Logs and metrics of the Lambda functions: JSON log lines, and metrics in CloudWatch's embedded metric format.
//! Both go to standard output, without an API call.
//!
//! - [`Telemetry`] is started once per process and creates the [`Metrics`] of each invocation.
//! - [`metric`] lists every metric that Streamer writes. Dashboards and alarms use no others.

mod metrics;

pub use metrics::{Metric, Metrics, NAMESPACE, Unit, metric};

use std::{io, time::SystemTime};

use streamer_environment::{Environment, Faulty, Variable, values};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// The log level.
pub const LOG_LEVEL: Variable = Variable {
    name: "LOG_LEVEL",
    expected: "error, warn, info (the default), debug or trace; or off, which also turns metrics off",
    example: "info",
};

/// The deployment's name in metrics.
pub const STAGE: Variable = Variable {
    name: "STAGE",
    expected: "the deployment's name in metrics, `local` by default",
    example: "production",
};

/// The log level and the deployment's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    level: LevelFilter,
    stage: String,
}

/// The telemetry of one Lambda function.
#[derive(Debug, Clone)]
pub struct Telemetry {
    service: &'static str,
    stage: String,
    is_on: bool,
}

impl Settings {
    /// Reads [`LOG_LEVEL`] and [`STAGE`].
    ///
    /// # Errors
    /// [`Faulty`] if one of them is malformed.
    pub fn read(environment: &mut Environment) -> Result<Self, Faulty> {
        let level = environment.or(&LOG_LEVEL, |text| text.parse().ok(), || LevelFilter::INFO);
        let stage = environment.or(&STAGE, values::text, || "local".to_owned());
        Ok(Self { level: level?, stage: stage? })
    }
}

impl Telemetry {
    /// Starts logging for the Lambda function `service`. Libraries log only warnings and errors: their messages at
    /// lower levels may contain tokens or payloads. A second start in one process changes nothing.
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
        // It fails only if logging has already started.
        let _started = tracing_subscriber::registry().with(lines).with(targets).try_init();
        Self { service, stage: settings.stage, is_on: settings.level != LevelFilter::OFF }
    }

    /// Returns empty metrics for one invocation.
    #[must_use]
    pub fn metrics(&self) -> Metrics<'_> {
        Metrics::new(self.service, &self.stage)
    }

    /// Writes an invocation's metrics to standard output, in as many lines as needed.
    ///
    /// A write error loses the metrics; it does not affect the invocation's result.
    pub fn emit(&self, metrics: &Metrics<'_>) {
        if self.is_on {
            let _lost = metrics.write(SystemTime::now(), &mut io::stdout().lock());
        }
    }
}
