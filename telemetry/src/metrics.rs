//! CloudWatch's embedded metric format: metrics as JSON log lines that CloudWatch Logs reads.
//!
//! Format and limits:
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    time::{Duration, SystemTime},
};

use serde_json::{Map, Value, json};

/// The namespace of every metric.
pub const NAMESPACE: &str = "Streamer";

/// Values of one metric in one line, at most.
const VALUES_IN_A_LINE: usize = 100;

/// A metric's unit, in CloudWatch's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// How many.
    Count,
    /// How long.
    Milliseconds,
    /// How much of a whole.
    Percent,
}

/// A metric that Streamer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its unit.
    pub unit: Unit,
}

/// Every metric that Streamer writes.
pub mod metric {
    use super::{Metric, Unit};

    const fn count(name: &'static str) -> Metric {
        Metric { name, unit: Unit::Count }
    }

    const fn time(name: &'static str) -> Metric {
        Metric { name, unit: Unit::Milliseconds }
    }

    /// Pairs of message and connection that API Gateway accepted.
    pub const DELIVERED: Metric = count("Delivered");
    /// Pairs whose connection no longer exists.
    pub const GONE: Metric = count("Gone");
    /// Pairs whose message was past its `expires_at`.
    pub const EXPIRED: Metric = count("Expired");
    /// Pairs whose message was made worthless by a later one of the same batch.
    pub const SUPERSEDED: Metric = count("Superseded");
    /// Messages for whom nobody was there.
    pub const NO_RECIPIENT: Metric = count("NoRecipient");
    /// Messages that became messages for the parts of their audience.
    pub const EXPANDED: Metric = count("Expanded");
    /// Pairs that no later try would have served. What the dead-letter queue does not take counts at each
    /// receive.
    pub const REJECTED: Metric = count("Rejected");
    /// Pairs that were tried for too long.
    pub const EXHAUSTED: Metric = count("Exhausted");
    /// Records that hold no message; one that the dead-letter queue does not take counts at each receive.
    pub const POISON: Metric = count("Poison");
    /// Pairs that went back to the queue.
    pub const HANDED_BACK: Metric = count("HandedBack");
    /// Messages and pairs that wait or were given up because their audience is connected at another endpoint only.
    pub const ELSEWHERE: Metric = count("Elsewhere");
    /// Posts that were answered with 429.
    pub const THROTTLES: Metric = count("Throttles");
    /// Those of them that were about one client's full buffer, not about the account.
    pub const SLOW_CLIENTS: Metric = count("SlowClients");
    /// How often the circuit opened.
    pub const CIRCUIT_OPENED: Metric = count("CircuitOpened");
    /// Whether the circuit was open or half-open at the end of an invocation: 1 or 0.
    pub const CIRCUIT_OPEN: Metric = count("CircuitOpen");
    /// How many posts may be in flight, at the end of an invocation.
    pub const CONCURRENCY_LIMIT: Metric = count("ConcurrencyLimit");
    /// The most posts of an invocation that were in flight, of those that might have been.
    pub const CONCURRENCY_UTILIZATION: Metric =
        Metric { name: "ConcurrencyUtilization", unit: Unit::Percent };
    /// Posts that were made again in the same invocation.
    pub const RETRIES: Metric = count("Retries");
    /// From the message's making (or, where its id does not tell, its sending) to its posting.
    pub const DELIVERY_LATENCY: Metric = time("DeliveryLatency");
    /// How long a post took, whatever was answered, or until it was given up.
    pub const POST_LATENCY: Metric = time("PostLatency");
    /// From the message's sending to the start of the invocation that has it.
    pub const QUEUE_AGE: Metric = time("QueueAge");
    /// Connections that were let in.
    pub const CONNECTIONS_OPENED: Metric = count("ConnectionsOpened");
    /// Connections that were refused, by a property `reason` beside it.
    pub const CONNECTIONS_REFUSED: Metric = count("ConnectionsRefused");
    /// How long a connection lived.
    pub const CONNECTION_DURATION: Metric = time("ConnectionDuration");
    /// How long the handling of `$connect` took.
    pub const CONNECT_LATENCY: Metric = time("ConnectLatency");
    /// How long the handling of `$disconnect` took.
    pub const DISCONNECT_LATENCY: Metric = time("DisconnectLatency");

    /// All of them.
    pub const ALL: [Metric; 26] = [
        DELIVERED,
        GONE,
        EXPIRED,
        SUPERSEDED,
        NO_RECIPIENT,
        EXPANDED,
        REJECTED,
        EXHAUSTED,
        POISON,
        HANDED_BACK,
        ELSEWHERE,
        THROTTLES,
        SLOW_CLIENTS,
        CIRCUIT_OPENED,
        CIRCUIT_OPEN,
        CONCURRENCY_LIMIT,
        CONCURRENCY_UTILIZATION,
        RETRIES,
        DELIVERY_LATENCY,
        POST_LATENCY,
        QUEUE_AGE,
        CONNECTIONS_OPENED,
        CONNECTIONS_REFUSED,
        CONNECTION_DURATION,
        CONNECT_LATENCY,
        DISCONNECT_LATENCY,
    ];
}

/// The metrics of one invocation, with the dimensions `service` and `stage`.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics<'a> {
    dimensions: [(&'static str, &'a str); 2],
    properties: Vec<(&'static str, String)>,
    values: BTreeMap<&'static str, (Unit, Vec<f64>)>,
}

impl<'a> Metrics<'a> {
    pub(crate) fn new(service: &'a str, stage: &'a str) -> Self {
        Self {
            dimensions: [("service", service), ("stage", stage)],
            properties: Vec::new(),
            values: BTreeMap::new(),
        }
    }

    /// Adds to a metric that counts. What is zero is not written.
    pub fn count(&mut self, metric: Metric, number: usize) {
        if number > 0 {
            let (_, values) = self.values.entry(metric.name).or_insert((metric.unit, vec![0.0]));
            values[0] += number as f64;
        }
    }

    /// Adds a value to a metric that measures time.
    pub fn time(&mut self, metric: Metric, time: Duration) {
        self.value(metric, time.as_secs_f64() * 1000.0);
    }

    /// Adds a value, zero or not.
    pub fn value(&mut self, metric: Metric, value: f64) {
        let (_, values) = self.values.entry(metric.name).or_insert((metric.unit, Vec::new()));
        values.push(value);
    }

    /// Adds a property, which is no dimension: to be found in the logs, at no cost in metrics.
    pub fn property(&mut self, name: &'static str, value: impl Into<String>) {
        self.properties.push((name, value.into()));
    }

    pub(crate) fn write(&self, now: SystemTime, to: &mut impl Write) -> io::Result<()> {
        let timestamp = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let lines = self.values.values().map(|(_, values)| values.len().div_ceil(VALUES_IN_A_LINE)).max();
        for line in 0..lines.unwrap_or(0) {
            writeln!(to, "{}", self.line(line, timestamp))?;
        }
        Ok(())
    }

    fn line(&self, line: usize, timestamp: u64) -> Value {
        let mut object = Map::new();
        let mut definitions = Vec::new();
        for (name, (unit, values)) in &self.values {
            let Some(chunk) = values.chunks(VALUES_IN_A_LINE).nth(line) else { continue };
            let unit = match unit {
                Unit::Count => "Count",
                Unit::Milliseconds => "Milliseconds",
                Unit::Percent => "Percent",
            };
            definitions.push(json!({ "Name": name, "Unit": unit }));
            object.insert((*name).to_owned(), if let [value] = chunk { json!(value) } else { json!(chunk) });
        }
        object.extend(self.dimensions.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
        object.extend(self.properties.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
        let directive = json!({
            "Namespace": NAMESPACE,
            "Dimensions": [self.dimensions.map(|(name, _)| name)],
            "Metrics": definitions,
        });
        object.insert("_aws".to_owned(), json!({ "Timestamp": timestamp, "CloudWatchMetrics": [directive] }));
        Value::Object(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(metrics: Metrics<'_>) -> Vec<Value> {
        let mut written = Vec::new();
        metrics.write(SystemTime::UNIX_EPOCH + Duration::from_millis(5), &mut written).unwrap();
        String::from_utf8(written).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_is_embedded_metric_format() {
        let mut metrics = Metrics::new("delivery-worker", "local");
        metrics.count(metric::DELIVERED, 2);
        metrics.count(metric::DELIVERED, 1);
        metrics.time(metric::POST_LATENCY, Duration::from_micros(1500));
        metrics.property("reason", "expired");
        assert_eq!(
            lines(metrics),
            [json!({
                "_aws": {
                    "Timestamp": 5,
                    "CloudWatchMetrics": [{
                        "Namespace": "Streamer",
                        "Dimensions": [["service", "stage"]],
                        "Metrics": [
                            {"Name": "Delivered", "Unit": "Count"},
                            {"Name": "PostLatency", "Unit": "Milliseconds"},
                        ],
                    }],
                },
                "service": "delivery-worker",
                "stage": "local",
                "reason": "expired",
                "Delivered": 3.0,
                "PostLatency": 1.5,
            })]
        );
    }

    #[test]
    fn a_metric_with_more_than_100_values_takes_more_lines_and_the_others_stand_in_the_first() {
        let mut metrics = Metrics::new("delivery-worker", "local");
        metrics.count(metric::DELIVERED, 250);
        (0..250).for_each(|millis| metrics.time(metric::POST_LATENCY, Duration::from_millis(millis)));

        let lines = lines(metrics);
        let values = |line: &Value| line["PostLatency"].as_array().unwrap().len();
        assert_eq!(lines.iter().map(values).collect::<Vec<_>>(), [100, 100, 50]);
        assert_eq!(lines.iter().filter(|line| line.get("Delivered").is_some()).count(), 1);
        assert_eq!(lines[2]["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn nothing_to_say_makes_no_line() {
        let mut metrics = Metrics::new("delivery-worker", "local");
        metrics.count(metric::GONE, 0);
        assert!(lines(metrics).is_empty());
    }
}
