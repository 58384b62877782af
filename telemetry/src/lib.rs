//! Logs and metrics of the Lambda functions: JSON log lines, and metrics in CloudWatch's embedded metric format.
//! Both go to standard output, without an API call.
//!
//! - [`Telemetry`] is started once per process and creates the [`Metrics`] of each invocation.
//! - [`metric`] lists every metric that Streamer writes. Dashboards and alarms use no others.

mod metrics;

pub use metrics::{Metric, Metrics, NAMESPACE, Unit, metric};

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

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
    metrics_to: MetricsTo,
}

/// The output of the metrics.
#[derive(Clone)]
enum MetricsTo {
    Nothing,
    StandardOutput,
    Other(Arc<Mutex<dyn Write + Send>>),
}

impl std::fmt::Debug for MetricsTo {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Nothing => "Nothing",
            Self::StandardOutput => "StandardOutput",
            Self::Other(_) => "Other",
        })
    }
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

    /// Returns the deployment's name.
    #[must_use]
    pub fn stage(&self) -> &str {
        &self.stage
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
        let metrics_to =
            if settings.level == LevelFilter::OFF { MetricsTo::Nothing } else { MetricsTo::StandardOutput };
        Self { service, stage: settings.stage, metrics_to }
    }

    /// Writes the metrics to `output` instead of standard output, at any log level.
    #[must_use]
    pub fn with_metrics_to(self, output: impl Write + Send + 'static) -> Self {
        Self { metrics_to: MetricsTo::Other(Arc::new(Mutex::new(output))), ..self }
    }

    /// Returns empty metrics for one invocation.
    #[must_use]
    pub fn metrics(&self) -> Metrics<'_> {
        Metrics::new(self.service, &self.stage)
    }

    /// Writes an invocation's metrics, in as many lines as needed.
    ///
    /// A write error loses the metrics; it does not affect the invocation's result.
    pub fn emit(&self, metrics: &Metrics<'_>) {
        let _lost = match &self.metrics_to {
            MetricsTo::Nothing => Ok(()),
            MetricsTo::StandardOutput => metrics.write(SystemTime::now(), &mut io::stdout().lock()),
            MetricsTo::Other(output) => {
                metrics.write(SystemTime::now(), &mut *output.lock().unwrap_or_else(PoisonError::into_inner))
            }
        };
    }
}
