//! CloudWatch's embedded metric format: metrics as JSON log lines, which CloudWatch Logs extracts.
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

/// Maximum values of one metric in one line.
const VALUES_PER_LINE: usize = 100;

/// A metric's unit, as CloudWatch names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A number of occurrences.
    Count,
    /// A duration.
    Milliseconds,
    /// A share of a whole, 0 to 100.
    Percent,
}

/// A metric that Streamer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// The name in CloudWatch.
    pub name: &'static str,
    /// The unit in CloudWatch.
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

    /// Pairs (one message for one connection) whose post API Gateway accepted.
    pub const DELIVERED: Metric = count("Delivered");
    /// Pairs whose connection no longer exists.
    pub const GONE: Metric = count("Gone");
    /// Pairs whose message had passed its `expires_at`.
    pub const EXPIRED: Metric = count("Expired");
    /// Pairs whose message was superseded by a later message in the same batch.
    pub const SUPERSEDED: Metric = count("Superseded");
    /// Messages whose audience had no connection.
    pub const NO_RECIPIENT: Metric = count("NoRecipient");
    /// Messages that are in the mailbox, and that no device got live.
    pub const KEPT: Metric = count("Kept");
    /// Messages that were fanned out into messages for parts of their audience.
    pub const EXPANDED: Metric = count("Expanded");
    /// Pairs that no retry could have delivered. A message that the dead-letter queue does not accept counts at each
    /// receive.
    pub const REJECTED: Metric = count("Rejected");
    /// Pairs that were not delivered within the maximum age.
    pub const EXHAUSTED: Metric = count("Exhausted");
    /// Records without a valid message. A record that the dead-letter queue does not accept counts at each receive.
    pub const POISON: Metric = count("Poison");
    /// Pairs that were handed back to the queue that they came from.
    pub const HANDED_BACK: Metric = count("HandedBack");
    /// Pairs whose delivery fails: the eighth try failed, or the message ended undelivered by then. Each counts once.
    pub const UNDELIVERED: Metric = count("Undelivered");
    /// Maximum time since the first receive of the messages that an invocation leaves on the queue because of a fault.
    /// The property `causes` has their number and maximum age by cause.
    pub const HANDED_BACK_AGE: Metric = time("HandedBackAge");
    /// Messages and pairs that wait, or became dead letters, because their audience is connected only at other
    /// endpoints.
    pub const ELSEWHERE: Metric = count("Elsewhere");
    /// Posts that API Gateway answered with 429.
    pub const THROTTLES: Metric = count("Throttles");
    /// 429 responses due to one client's full buffer, not the account's quota.
    pub const SLOW_CLIENTS: Metric = count("SlowClients");
    /// How often the circuit breaker opened.
    pub const CIRCUIT_OPENED: Metric = count("CircuitOpened");
    /// Whether the circuit breaker was open or half-open at the end of an invocation: 1 or 0.
    pub const CIRCUIT_OPEN: Metric = count("CircuitOpen");
    /// The concurrency limit at the end of an invocation: posts allowed in flight at once.
    pub const CONCURRENCY_LIMIT: Metric = count("ConcurrencyLimit");
    /// The maximum posts in flight during an invocation, as a percentage of the concurrency limit.
    pub const CONCURRENCY_UTILIZATION: Metric =
        Metric { name: "ConcurrencyUtilization", unit: Unit::Percent };
    /// Posts that repeated an earlier post of the same invocation.
    pub const RETRIES: Metric = count("Retries");
    /// Time from a message's creation to its post. If its id does not contain the creation time, time from its sending.
    pub const DELIVERY_LATENCY: Metric = time("DeliveryLatency");
    /// The same for the parts of large audiences that came from the parts queue, in place of `DeliveryLatency`.
    pub const PART_LATENCY: Metric = time("PartLatency");
    /// Duration of a post until its response, whatever the status, or until its timeout.
    pub const POST_LATENCY: Metric = time("PostLatency");
    /// Time from a message's sending to the start of the invocation that received it.
    pub const QUEUE_AGE: Metric = time("QueueAge");
    /// The same for messages on the parts queue, in place of `QueueAge`.
    pub const PART_QUEUE_AGE: Metric = time("PartQueueAge");
    /// Duration of an append of a batch's messages to one user's stream.
    pub const MAILBOX_APPEND_LATENCY: Metric = time("MailboxAppendLatency");
    /// Numbers in users' streams that another worker took first. Each costs a write.
    pub const MAILBOX_COLLISIONS: Metric = count("MailboxCollisions");
    /// Receipts that the receipts queue has confirmed.
    pub const RECEIPTS: Metric = count("Receipts");
    /// Receipts that the receipts queue did not confirm. The worker sends them again later.
    pub const RECEIPTS_HANDED_BACK: Metric = count("ReceiptsHandedBack");
    /// Receipts that were asked for and dropped, because no receipts queue is configured.
    pub const RECEIPTS_WITHOUT_QUEUE: Metric = count("ReceiptsWithoutQueue");
    /// Connections that `$connect` accepted.
    pub const CONNECTIONS_OPENED: Metric = count("ConnectionsOpened");
    /// Connections that `$connect` refused. The property `reason` gives the reason.
    pub const CONNECTIONS_REFUSED: Metric = count("ConnectionsRefused");
    /// Clients that `$connect` refused because of a fault of the deployment, not of the client's.
    pub const CONNECTIONS_FAILED: Metric = count("ConnectionsFailed");
    /// Clients that `$connect` refused for a reason that a change of keys, issuer or settings causes for all clients.
    pub const CONNECTIONS_MISMATCHED: Metric = count("ConnectionsMismatched");
    /// Duration of a connection.
    pub const CONNECTION_DURATION: Metric = time("ConnectionDuration");
    /// Duration of handling `$connect`.
    pub const CONNECT_LATENCY: Metric = time("ConnectLatency");
    /// Duration of handling `$disconnect`.
    pub const DISCONNECT_LATENCY: Metric = time("DisconnectLatency");
    /// Syncs of clients.
    pub const SYNCS: Metric = count("Syncs");
    /// Pages of kept messages whose post API Gateway accepted.
    pub const PAGES_POSTED: Metric = count("PagesPosted");
    /// Kept messages on these pages.
    pub const PAGE_MESSAGES: Metric = count("PageMessages");
    /// Ranges of missing messages on these pages. The property `gaps` has the number of ranges by reason.
    pub const GAPS: Metric = count("Gaps");
    /// Messages to the mailbox's routes that are neither valid syncs nor valid acknowledgments.
    pub const INVALID_FRAMES: Metric = count("InvalidFrames");
    /// Syncs and acknowledgments on connections that have no live row in the connection table.
    pub const UNKNOWN_CONNECTIONS: Metric = count("UnknownConnections");
    /// Kept messages that clients have handled, and whose receipts the receipts queue has confirmed.
    pub const ACKNOWLEDGMENTS: Metric = count("Acknowledgments");
    /// Time from the start of a sync's invocation until API Gateway accepted the page.
    pub const PAGE_LATENCY: Metric = time("PageLatency");

    /// Every metric.
    pub const ALL: [Metric; 46] = [
        DELIVERED,
        GONE,
        EXPIRED,
        SUPERSEDED,
        NO_RECIPIENT,
        KEPT,
        EXPANDED,
        REJECTED,
        EXHAUSTED,
        POISON,
        HANDED_BACK,
        UNDELIVERED,
        HANDED_BACK_AGE,
        ELSEWHERE,
        THROTTLES,
        SLOW_CLIENTS,
        CIRCUIT_OPENED,
        CIRCUIT_OPEN,
        CONCURRENCY_LIMIT,
        CONCURRENCY_UTILIZATION,
        RETRIES,
        DELIVERY_LATENCY,
        PART_LATENCY,
        POST_LATENCY,
        QUEUE_AGE,
        PART_QUEUE_AGE,
        MAILBOX_APPEND_LATENCY,
        MAILBOX_COLLISIONS,
        RECEIPTS,
        RECEIPTS_HANDED_BACK,
        RECEIPTS_WITHOUT_QUEUE,
        CONNECTIONS_OPENED,
        CONNECTIONS_REFUSED,
        CONNECTIONS_FAILED,
        CONNECTIONS_MISMATCHED,
        CONNECTION_DURATION,
        CONNECT_LATENCY,
        DISCONNECT_LATENCY,
        SYNCS,
        PAGES_POSTED,
        PAGE_MESSAGES,
        GAPS,
        INVALID_FRAMES,
        UNKNOWN_CONNECTIONS,
        ACKNOWLEDGMENTS,
        PAGE_LATENCY,
    ];
}

/// The metrics of one invocation, with the dimensions `service` and `stage`.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics<'a> {
    dimensions: [(&'static str, &'a str); 2],
    properties: Vec<(&'static str, Value)>,
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

    /// Adds to a count. A count of zero is not written.
    pub fn count(&mut self, metric: Metric, number: usize) {
        if number > 0 {
            let (_, values) = self.values.entry(metric.name).or_insert((metric.unit, vec![0.0]));
            values[0] += number as f64;
        }
    }

    /// Adds a duration, in milliseconds.
    pub fn time(&mut self, metric: Metric, time: Duration) {
        self.value(metric, time.as_secs_f64() * 1000.0);
    }

    /// Adds a value. Zero is written, too.
    pub fn value(&mut self, metric: Metric, value: f64) {
        let (_, values) = self.values.entry(metric.name).or_insert((metric.unit, Vec::new()));
        values.push(value);
    }

    /// Adds a property: searchable in the logs, but not a dimension, so it creates no additional metrics to pay for.
    pub fn property(&mut self, name: &'static str, value: impl Into<Value>) {
        self.properties.push((name, value.into()));
    }

    pub(crate) fn write(&self, now: SystemTime, to: &mut (impl Write + ?Sized)) -> io::Result<()> {
        let timestamp = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let lines = self.values.values().map(|(_, values)| values.len().div_ceil(VALUES_PER_LINE)).max();
        for line in 0..lines.unwrap_or(0) {
            writeln!(to, "{}", self.line(line, timestamp))?;
        }
        Ok(())
    }

    fn line(&self, line: usize, timestamp: u64) -> Value {
        let mut object = Map::new();
        let mut definitions = Vec::new();
        for (name, (unit, values)) in &self.values {
            let Some(chunk) = values.chunks(VALUES_PER_LINE).nth(line) else { continue };
            let unit = match unit {
                Unit::Count => "Count",
                Unit::Milliseconds => "Milliseconds",
                Unit::Percent => "Percent",
            };
            definitions.push(json!({ "Name": name, "Unit": unit }));
            object.insert((*name).to_owned(), if let [value] = chunk { json!(value) } else { json!(chunk) });
        }
        object.extend(self.dimensions.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
        object.extend(self.properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
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
    fn line_is_embedded_metric_format() {
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

    /// The metrics with fewer values are all in the first line.
    #[test]
    fn more_than_100_values_take_more_lines() {
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
    fn no_values_make_no_line() {
        let mut metrics = Metrics::new("delivery-worker", "local");
        metrics.count(metric::GONE, 0);
        assert!(lines(metrics).is_empty());
    }
}
