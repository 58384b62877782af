//! What CloudWatch knows.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use aws_config::SdkConfig;
use aws_sdk_cloudwatch::{
    primitives::DateTime,
    types::{Dimension, Metric, MetricDataQuery, MetricStat},
};
use serde_json::Value;

use super::{Circuit, WINDOW};

/// CloudWatch keeps a value for each minute.
const PERIOD: Duration = Duration::from_secs(60);

/// The namespace of what the functions write.
const STREAMER: &str = "Streamer";

/// CloudWatch's metrics and logs.
pub struct CloudWatch {
    metrics: aws_sdk_cloudwatch::Client,
    logs: aws_sdk_cloudwatchlogs::Client,
}

/// What a function did in the last [`WINDOW`].
pub struct Sums {
    pub invocations: Option<usize>,
    pub errors: Option<usize>,
    pub throttles: Option<usize>,
}

/// A metric, and what is wanted of it.
struct Wanted<'a> {
    namespace: &'a str,
    name: &'a str,
    statistic: &'a str,
    dimensions: &'a [(&'a str, &'a str)],
}

impl CloudWatch {
    pub fn new(config: &SdkConfig) -> Self {
        Self {
            metrics: aws_sdk_cloudwatch::Client::new(config),
            logs: aws_sdk_cloudwatchlogs::Client::new(config),
        }
    }

    pub async fn function(&self, function: &str, now: SystemTime) -> anyhow::Result<Sums> {
        let dimensions = [("FunctionName", function)];
        let sum = |name| Wanted { namespace: "AWS/Lambda", name, statistic: "Sum", dimensions: &dimensions };
        let values = self.values(["Invocations", "Errors", "Throttles"].map(sum), now).await?;
        let [invocations, errors, throttles] =
            values.map(|values| (!values.is_empty()).then(|| values.iter().sum::<f64>() as usize));
        Ok(Sums { invocations, errors, throttles })
    }

    /// The age of a queue's oldest message, in seconds; unknown where nobody measures it.
    pub async fn oldest_message(&self, queue_url: &str, now: SystemTime) -> anyhow::Result<Option<u64>> {
        let dimensions = [("QueueName", queue_url.rsplit('/').next().unwrap_or_default())];
        let name = "ApproximateAgeOfOldestMessage";
        let wanted = Wanted { namespace: "AWS/SQS", name, statistic: "Maximum", dimensions: &dimensions };
        let [values] = self.values([wanted], now).await?;
        // The newest comes first.
        Ok(values.first().map(|age| *age as u64))
    }

    /// The circuits: from the metrics, or from the log where nobody makes metrics of it, as emulators do not.
    pub async fn circuit(&self, worker: &str, stage: &str, now: SystemTime) -> anyhow::Result<Circuit> {
        let dimensions = [("service", "delivery-worker"), ("stage", stage)];
        let of = |name, statistic| Wanted { namespace: STREAMER, name, statistic, dimensions: &dimensions };
        let wanted = [of("CircuitOpen", "Maximum"), of("CircuitOpened", "Sum")];
        let [open, opened] = self.values(wanted, now).await?;
        if let Some(open) = open.first() {
            return Ok(Circuit { open: Some(*open > 0.0), opened: opened.iter().sum::<f64>() as usize });
        }
        self.logged_circuit(worker, now).await
    }

    async fn logged_circuit(&self, worker: &str, now: SystemTime) -> anyhow::Result<Circuit> {
        let since = (now - WINDOW).duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
        let filter = self.logs.filter_log_events().log_group_name(format!("/aws/lambda/{worker}"));
        let filter = filter.start_time(i64::try_from(since)?).filter_pattern("\"CircuitOpen\"");
        let mut pages = filter.into_paginator().send();
        let mut circuit = Circuit::default();
        while let Some(page) = pages.next().await {
            let events = match page {
                Ok(page) => page.events.unwrap_or_default(),
                Err(error)
                    if error
                        .as_service_error()
                        .is_some_and(|error| error.is_resource_not_found_exception()) =>
                {
                    break;
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("the log of {worker} cannot be read"));
                }
            };
            for line in events.iter().filter_map(|event| serde_json::from_str::<Value>(event.message()?).ok())
            {
                if let Some(open) = line["CircuitOpen"].as_f64() {
                    circuit.open = Some(open > 0.0);
                }
                circuit.opened += line["CircuitOpened"].as_f64().unwrap_or_default() as usize;
            }
        }
        Ok(circuit)
    }

    /// The values of each metric, one for each minute that has one, the newest first.
    async fn values<const N: usize>(
        &self,
        wanted: [Wanted<'_>; N],
        now: SystemTime,
    ) -> anyhow::Result<[Vec<f64>; N]> {
        let queries = wanted.iter().enumerate().map(|(id, wanted)| {
            let dimensions = wanted.dimensions.iter();
            let dimensions =
                dimensions.map(|(name, value)| Dimension::builder().name(*name).value(*value).build());
            let metric = Metric::builder()
                .namespace(wanted.namespace)
                .metric_name(wanted.name)
                .set_dimensions(Some(dimensions.collect()))
                .build();
            let period = i32::try_from(PERIOD.as_secs()).unwrap_or(i32::MAX);
            let stat = MetricStat::builder().metric(metric).period(period).stat(wanted.statistic).build();
            MetricDataQuery::builder().id(format!("m{id}")).metric_stat(stat).build()
        });
        let get = self
            .metrics
            .get_metric_data()
            .set_metric_data_queries(Some(queries.collect()))
            .start_time(DateTime::from(now - WINDOW))
            .end_time(DateTime::from(now + PERIOD));
        let results = get.send().await.context("CloudWatch's metrics cannot be read")?.metric_data_results;
        let mut found = std::array::from_fn(|_| Vec::new());
        for result in results.unwrap_or_default() {
            let id = result.id().and_then(|id| id.strip_prefix('m')).and_then(|id| id.parse::<usize>().ok());
            if let Some(values) = id.and_then(|id| found.get_mut(id)) {
                *values = result.values.unwrap_or_default();
            }
        }
        Ok(found)
    }
}
