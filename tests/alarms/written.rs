//! The metrics that functions and AWS write.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use serde_json::Value as Json;
use streamer_environment::Environment;
use streamer_telemetry::{NAMESPACE, Settings, Telemetry};

use crate::{
    cloudwatch::{Metric, Values},
    definitions::{NAME, STAGE},
};

/// Returns a metric of delivery-worker.
pub(crate) fn of_worker(name: &str) -> Metric {
    of_service("delivery-worker", name)
}

/// Returns a metric of mailbox-handler.
pub(crate) fn of_mailbox(name: &str) -> Metric {
    of_service("mailbox-handler", name)
}

fn of_service(service: &str, name: &str) -> Metric {
    let dimensions = [("service", service), ("stage", STAGE)];
    let dimensions = dimensions.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Metric { namespace: NAMESPACE.to_owned(), name: name.to_owned(), dimensions: dimensions.into() }
}

/// Returns a metric of SQS.
pub(crate) fn of_queue(queue: &str, name: &str) -> Metric {
    of_aws("AWS/SQS", name, "QueueName", queue)
}

/// Returns a metric of Lambda.
pub(crate) fn of_function(function: &str, name: &str) -> Metric {
    of_aws("AWS/Lambda", name, "FunctionName", &format!("{NAME}-{function}"))
}

/// Returns a metric of API Gateway.
pub(crate) fn of_api(name: &str) -> Metric {
    let mut metric = of_aws("AWS/ApiGateway", name, "ApiId", API);
    metric.dimensions.insert("Stage".to_owned(), STAGE.to_owned());
    metric
}

/// The id of the API in the plan.
const API: &str = "a1b2c3d4e5";

fn of_aws(namespace: &str, name: &str, dimension: &str, value: &str) -> Metric {
    let dimensions = BTreeMap::from([(dimension.to_owned(), value.to_owned())]);
    Metric { namespace: namespace.to_owned(), name: name.to_owned(), dimensions }
}

/// Starts the telemetry of a function, with metrics in `sink`.
pub(crate) fn telemetry(service: &'static str, sink: &Sink) -> anyhow::Result<Telemetry> {
    let settings = Settings::read(&mut Environment::of([("LOG_LEVEL", "off"), ("STAGE", STAGE)]));
    let settings = settings.map_err(|faulty| anyhow::anyhow!("{faulty:?}"))?;
    Ok(Telemetry::start(service, settings).with_metrics_to(sink.clone()))
}

/// Lines in the embedded metric format.
#[derive(Clone, Default)]
pub(crate) struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    /// Moves all values to this minute, as CloudWatch extracts them.
    pub(crate) fn drain(&self, values: &mut Values, minute: usize) -> anyhow::Result<()> {
        let lines = mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for line in String::from_utf8(lines)?.lines() {
            let line: Json = serde_json::from_str(line)?;
            let directive = &line["_aws"]["CloudWatchMetrics"][0];
            let text = |value: &Json| value.as_str().map(str::to_owned).context("no text");
            let dimensions = directive["Dimensions"][0].as_array().context("no dimensions")?;
            let dimensions = dimensions.iter().map(|name| {
                let name = text(name)?;
                Ok((name.clone(), text(&line[&name])?))
            });
            let dimensions: BTreeMap<_, _> = dimensions.collect::<anyhow::Result<_>>()?;
            for metric in directive["Metrics"].as_array().context("no metrics")? {
                let name = text(&metric["Name"])?;
                let written = match &line[&name] {
                    Json::Array(written) => written.clone(),
                    one => vec![one.clone()],
                };
                let namespace = text(&directive["Namespace"])?;
                let metric = Metric { namespace, name, dimensions: dimensions.clone() };
                for value in written {
                    values.add(metric.clone(), minute, value.as_f64().context("no number")?);
                }
            }
        }
        Ok(())
    }
}
