//! Reads CloudWatch's metrics and logs.

use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_sdk_cloudwatch::{
    primitives::DateTime,
    types::{Dimension, Metric, MetricDataQuery, MetricStat},
};
use serde_json::Value;

use super::snapshot::{Circuit, WINDOW};
use crate::{aws::Call, log_events};

/// Period of the values to read: CloudWatch's default resolution.
const PERIOD: Duration = Duration::from_secs(60);

/// Namespace of the functions' own metrics.
const NAMESPACE: &str = "Streamer";

/// Clients of CloudWatch and CloudWatch Logs.
pub(super) struct CloudWatch {
    metrics: aws_sdk_cloudwatch::Client,
    logs: aws_sdk_cloudwatchlogs::Client,
}

/// A function's sums over the last [`WINDOW`]. `None` without a value.
pub(super) struct FunctionSums {
    pub invocations: Option<usize>,
    pub errors: Option<usize>,
    pub throttles: Option<usize>,
}

/// A metric with the statistic to read.
struct MetricQuery<'a> {
    namespace: &'a str,
    name: &'a str,
    statistic: &'a str,
    dimensions: &'a [(&'a str, &'a str)],
}

impl CloudWatch {
    pub(super) fn new(config: &SdkConfig) -> Self {
        Self {
            metrics: aws_sdk_cloudwatch::Client::new(config),
            logs: aws_sdk_cloudwatchlogs::Client::new(config),
        }
    }

    /// Reads a function's sums.
    pub(super) async fn function(&self, function: &str, now: SystemTime) -> anyhow::Result<FunctionSums> {
        let dimensions = [("FunctionName", function)];
        let sum =
            |name| MetricQuery { namespace: "AWS/Lambda", name, statistic: "Sum", dimensions: &dimensions };
        let values = self.values(["Invocations", "Errors", "Throttles"].map(sum), now).await?;
        let [invocations, errors, throttles] =
            values.map(|values| (!values.is_empty()).then(|| values.iter().sum::<f64>() as usize));
        Ok(FunctionSums { invocations, errors, throttles })
    }

    /// Returns the age of a queue's oldest message in seconds. `None` if it is not measured.
    pub(super) async fn oldest_message(
        &self,
        queue_url: &str,
        now: SystemTime,
    ) -> anyhow::Result<Option<u64>> {
        let dimensions = [("QueueName", queue_url.rsplit('/').next().unwrap_or_default())];
        let name = "ApproximateAgeOfOldestMessage";
        let query = MetricQuery { namespace: "AWS/SQS", name, statistic: "Maximum", dimensions: &dimensions };
        let [values] = self.values([query], now).await?;
        // CloudWatch returns the newest value first.
        Ok(values.first().map(|age| *age as u64))
    }

    /// Reads the state of the circuit breakers from the metrics, or else from the worker's log: emulators do not
    /// extract metrics from logs.
    pub(super) async fn circuit(
        &self,
        worker: &str,
        stage: &str,
        now: SystemTime,
    ) -> anyhow::Result<Circuit> {
        let dimensions = [("service", "delivery-worker"), ("stage", stage)];
        let query =
            |name, statistic| MetricQuery { namespace: NAMESPACE, name, statistic, dimensions: &dimensions };
        let queries = [query("CircuitOpen", "Maximum"), query("CircuitOpened", "Sum")];
        let [open, opened] = self.values(queries, now).await?;
        if let Some(open) = open.first() {
            return Ok(Circuit { open: Some(*open > 0.0), opened: opened.iter().sum::<f64>() as usize });
        }
        self.logged_circuit(worker, now).await
    }

    async fn logged_circuit(&self, worker: &str, now: SystemTime) -> anyhow::Result<Circuit> {
        let since = (now - WINDOW).duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
        let pattern = Some("\"CircuitOpen\"");
        let events = log_events::read(&self.logs, worker, i64::try_from(since)?, pattern).await?;
        let mut circuit = Circuit::default();
        for line in events.iter().filter_map(|event| serde_json::from_str::<Value>(event.message()?).ok()) {
            if let Some(open) = line["CircuitOpen"].as_f64() {
                circuit.open = Some(open > 0.0);
            }
            circuit.opened += line["CircuitOpened"].as_f64().unwrap_or_default() as usize;
        }
        Ok(circuit)
    }

    /// Returns the values of each metric in the last [`WINDOW`], one per [`PERIOD`], the newest first.
    async fn values<const N: usize>(
        &self,
        queries: [MetricQuery<'_>; N],
        now: SystemTime,
    ) -> anyhow::Result<[Vec<f64>; N]> {
        let queries = queries.iter().enumerate().map(|(id, query)| {
            let dimensions = query.dimensions.iter();
            let dimensions =
                dimensions.map(|(name, value)| Dimension::builder().name(*name).value(*value).build());
            let metric = Metric::builder()
                .namespace(query.namespace)
                .metric_name(query.name)
                .set_dimensions(Some(dimensions.collect()))
                .build();
            let period = i32::try_from(PERIOD.as_secs()).unwrap_or(i32::MAX);
            let stat = MetricStat::builder().metric(metric).period(period).stat(query.statistic).build();
            MetricDataQuery::builder().id(format!("m{id}")).metric_stat(stat).build()
        });
        let get = self
            .metrics
            .get_metric_data()
            .set_metric_data_queries(Some(queries.collect()))
            .start_time(DateTime::from(now - WINDOW))
            .end_time(DateTime::from(now + PERIOD));
        let call = Call { action: "cloudwatch:GetMetricData", resource: "the deployment's metrics" };
        let results = get.send().await.map_err(|error| call.failed(&error))?.metric_data_results;
        let mut values_by_query = std::array::from_fn(|_| Vec::new());
        for result in results.unwrap_or_default() {
            let id = result.id().and_then(|id| id.strip_prefix('m')).and_then(|id| id.parse::<usize>().ok());
            if let Some(values) = id.and_then(|id| values_by_query.get_mut(id)) {
                *values = result.values.unwrap_or_default();
            }
        }
        Ok(values_by_query)
    }
}
