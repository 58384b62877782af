//! Logs and metrics of an invocation.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, json};
use streamer_message::{ConnectionId, MessageId};
use streamer_queue::SentReceipts;
use streamer_telemetry::{Metric, Metrics, Telemetry, metric};

use crate::{
    admission::{Admission, Gate, Stats},
    decode::Record,
    delay::{Delayed, SharedLines, Try, delayed, is_undelivered},
    keep::Appends,
    outcome::{Cause, Completed, Outcome},
    time::Time,
    worker::Origin,
};

/// The facts of an invocation besides its outcomes.
#[derive(Debug)]
pub(crate) struct Invocation {
    /// The queue that the batch came from.
    pub(crate) origin: Origin,
    /// The appends to mailboxes.
    pub(crate) appends: Appends,
    /// The receipts.
    pub(crate) receipts: SentReceipts,
}

/// Logs each pair that was not delivered and a summary, and emits the metrics. Pairs that are handed back again, or are
/// many, [share a line](SharedLines) for each cause; the end of a message has a line of its own. At debug level, it also
/// logs delivered pairs, and each pair that shares a line.
pub(crate) fn report(
    telemetry: &Telemetry,
    records: &[Record],
    completed: &[Completed],
    unacknowledged: &BTreeSet<usize>,
    invocation: &Invocation,
    gate: &Gate,
    time: &Time,
) {
    let Invocation { origin, appends, receipts } = invocation;
    let mut metrics = metrics(telemetry, records, completed, unacknowledged, *origin, time);
    let delayed = delayed(records, completed, unacknowledged, time.now());
    if let Some(max_age) = delayed.values().map(|delayed| delayed.max_age).max() {
        metrics.time(metric::HANDED_BACK_AGE, max_age);
        let causes = delayed.into_iter().map(|(cause, Delayed { messages, max_age })| {
            (cause, json!({ "count": messages, "max_age_ms": max_age.as_millis() as u64 }))
        });
        metrics.property("causes", causes.collect::<Map<_, _>>());
    }
    for latency in &appends.latencies {
        metrics.time(metric::MAILBOX_APPEND_LATENCY, *latency);
    }
    metrics.count(metric::MAILBOX_COLLISIONS, usize::try_from(appends.collisions).unwrap_or(usize::MAX));
    metrics.count(metric::RECEIPTS, receipts.confirmed);
    metrics.count(metric::RECEIPTS_HANDED_BACK, receipts.unconfirmed.len());
    metrics.count(metric::RECEIPTS_WITHOUT_QUEUE, receipts.without_queue);
    measure(&mut metrics, &mut gate.admission());
    telemetry.emit(&metrics);
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    let shared = SharedLines::of(records, completed, time.now());
    for pair in completed {
        log_pair(&records[pair.index], pair, &shared);
        *outcomes.entry(pair.outcome.name()).or_default() += 1;
    }
    for (on, cause, group) in shared.iter() {
        let (pairs, messages, examples) = (group.pairs, group.messages.len(), group.examples.join(" "));
        let (outcome, max_age_ms) = ("handed_back", group.max_age.as_millis() as u64);
        match on {
            Try::First => {
                tracing::warn!(outcome, cause, pairs, messages, max_age_ms, examples, "handed back");
            }
            Try::Later => {
                tracing::warn!(outcome, cause, pairs, messages, max_age_ms, examples, "handed back again");
            }
        }
    }
    let number = |outcome: &str| outcomes.get(outcome).copied().unwrap_or_default();
    tracing::info!(
        messages = records.len(),
        pairs = completed.len(),
        delivered = number("delivered"),
        gone = number("gone"),
        expired = number("expired"),
        superseded = number("superseded"),
        no_recipient = number("no_recipient"),
        kept = number("kept"),
        expanded = number("expanded"),
        rejected = number("rejected"),
        poison = number("poison"),
        exhausted = number("exhausted"),
        handed_back = number("handed_back"),
        duration_ms = time.now().duration_since(time.started()).unwrap_or_default().as_millis() as u64,
        "batch"
    );
}

fn log_pair(record: &Record, pair: &Completed, shared: &SharedLines<'_>) {
    let message = record.content.as_ref().ok();
    let message_id = message.map(|message| MessageId::as_str(&message.envelope.id));
    let connection_id = pair.connection.as_ref().map(ConnectionId::as_str);
    let request_id =
        message.and_then(|message| message.envelope.request.as_ref()).map(|request| request.id.as_str());
    let (record_id, outcome) = (record.id.as_deref(), pair.outcome.name());
    match &pair.outcome {
        Outcome::Delivered | Outcome::Kept | Outcome::Expanded => {
            tracing::debug!(message_id, connection_id, request_id, outcome);
        }
        Outcome::Gone | Outcome::Expired | Outcome::Superseded | Outcome::NoRecipient => {
            tracing::info!(message_id, connection_id, request_id, outcome);
        }
        Outcome::HandedBack(cause) if shared.have(record, cause) => {
            tracing::debug!(message_id, connection_id, request_id, outcome, %cause);
        }
        Outcome::HandedBack(cause) => {
            tracing::warn!(message_id, connection_id, request_id, outcome, %cause);
        }
        Outcome::Exhausted(cause) => {
            tracing::error!(message_id, connection_id, request_id, outcome, %cause);
        }
        Outcome::Rejected(cause) => {
            tracing::error!(message_id, connection_id, request_id, outcome, %cause);
        }
        Outcome::Poison(cause) => tracing::error!(record_id, outcome, %cause),
    }
}

fn metrics<'a>(
    telemetry: &'a Telemetry,
    records: &[Record],
    completed: &[Completed],
    unacknowledged: &BTreeSet<usize>,
    origin: Origin,
    time: &Time,
) -> Metrics<'a> {
    let mut metrics = telemetry.metrics();
    let (latency, queue_age) = match origin {
        Origin::Outbound => (metric::DELIVERY_LATENCY, metric::QUEUE_AGE),
        Origin::Parts => (metric::PART_LATENCY, metric::PART_QUEUE_AGE),
    };
    for pair in completed {
        metrics.count(metric_of(&pair.outcome), 1);
        let is_acknowledged = !unacknowledged.contains(&pair.index);
        let is_undelivered = is_undelivered(&records[pair.index], &pair.outcome, is_acknowledged);
        metrics.count(metric::UNDELIVERED, usize::from(is_undelivered));
        if let Outcome::HandedBack(Cause::Elsewhere(_)) | Outcome::Exhausted(Cause::Elsewhere(_)) =
            &pair.outcome
        {
            metrics.count(metric::ELSEWHERE, 1);
        }
        metrics.count(metric::RETRIES, pair.posts.saturating_sub(1) as usize);
        pair.age.into_iter().for_each(|age| metrics.time(latency, age));
    }
    for sent_at in records.iter().filter_map(|record| record.sent_at) {
        metrics.time(queue_age, time.started().duration_since(sent_at).unwrap_or_default());
    }
    metrics
}

/// Adds the metrics of the admission.
fn measure(metrics: &mut Metrics<'_>, admission: &mut Admission) {
    let Stats { post_latencies, throttles, slow_clients, circuit_opened, utilization } =
        admission.take_stats();
    post_latencies.into_iter().for_each(|latency| metrics.time(metric::POST_LATENCY, latency));
    metrics.count(metric::THROTTLES, throttles);
    metrics.count(metric::SLOW_CLIENTS, slow_clients);
    metrics.count(metric::CIRCUIT_OPENED, circuit_opened);
    metrics.value(metric::CIRCUIT_OPEN, f64::from(u8::from(admission.is_open())));
    metrics.value(metric::CONCURRENCY_LIMIT, admission.limit() as f64);
    metrics.value(metric::CONCURRENCY_UTILIZATION, utilization * 100.0);
}

fn metric_of(outcome: &Outcome) -> Metric {
    match outcome {
        Outcome::Delivered => metric::DELIVERED,
        Outcome::Gone => metric::GONE,
        Outcome::Expired => metric::EXPIRED,
        Outcome::Superseded => metric::SUPERSEDED,
        Outcome::NoRecipient => metric::NO_RECIPIENT,
        Outcome::Kept => metric::KEPT,
        Outcome::Expanded => metric::EXPANDED,
        Outcome::Rejected(_) => metric::REJECTED,
        Outcome::Poison(_) => metric::POISON,
        Outcome::Exhausted(_) => metric::EXHAUSTED,
        Outcome::HandedBack(_) => metric::HANDED_BACK,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
        time::{Duration, SystemTime},
    };

    use serde_json::Value;
    use streamer_environment::Environment;
    use streamer_events::SqsRecord;
    use streamer_telemetry::Settings;

    use super::*;
    use crate::{
        admission::{Decision, breaker::Health},
        decode::Poison,
        outcome::Rejection,
    };

    fn telemetry() -> Telemetry {
        let settings = Settings::read(&mut Environment::of([("LOG_LEVEL", "off"), ("STAGE", "production")]));
        Telemetry::start("delivery-worker", settings.unwrap())
    }

    fn record(sent: &str) -> Record {
        let attributes = [("SentTimestamp".to_owned(), sent.to_owned())].into();
        Record::read(SqsRecord { attributes, ..SqsRecord::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn every_outcome_and_latency_is_measured() {
        let (telemetry, now) = (telemetry(), SystemTime::UNIX_EPOCH + Duration::from_millis(1500));
        let time = Time::start(now, now + Duration::from_secs(30), Duration::from_secs(30));
        let millis = Duration::from_millis;
        let delivered =
            Completed { age: Some(millis(90)), posts: 3, ..Completed::unposted(0, None, Outcome::Delivered) };
        let others = [
            Outcome::Gone,
            Outcome::Expired,
            Outcome::Superseded,
            Outcome::NoRecipient,
            Outcome::Kept,
            Outcome::Expanded,
            Outcome::Rejected(Rejection::Audience),
            Outcome::Poison(Poison::NoBody),
            Outcome::Exhausted(Cause::Status(429)),
            Outcome::HandedBack(Cause::Status(429)),
            Outcome::HandedBack(Cause::Elsewhere("https://other.example".to_owned())),
        ];
        let completed: Vec<_> = [delivered]
            .into_iter()
            .chain(others.map(|outcome| Completed::unposted(0, None, outcome)))
            .collect();

        let mut expected = telemetry.metrics();
        for (metric, number) in [
            (metric::DELIVERED, 1),
            (metric::GONE, 1),
            (metric::EXPIRED, 1),
            (metric::SUPERSEDED, 1),
            (metric::NO_RECIPIENT, 1),
            (metric::KEPT, 1),
            (metric::EXPANDED, 1),
            (metric::REJECTED, 1),
            (metric::POISON, 1),
            (metric::EXHAUSTED, 1),
            (metric::HANDED_BACK, 2),
            (metric::UNDELIVERED, 4),
            (metric::ELSEWHERE, 1),
            (metric::RETRIES, 2),
        ] {
            expected.count(metric, number);
        }
        expected.time(metric::DELIVERY_LATENCY, millis(90));
        expected.time(metric::QUEUE_AGE, millis(500));
        let measured = |completed: &[Completed], origin| {
            metrics(&telemetry, &[record("1000")], completed, &BTreeSet::new(), origin, &time)
        };
        assert_eq!(measured(&completed, Origin::Outbound), expected);
        let mut of_parts = telemetry.metrics();
        of_parts.count(metric::DELIVERED, 1);
        of_parts.count(metric::RETRIES, 2);
        of_parts.time(metric::PART_LATENCY, millis(90));
        of_parts.time(metric::PART_QUEUE_AGE, millis(500));
        assert_eq!(measured(&completed[..1], Origin::Parts), of_parts);
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn causes_of_delayed_messages_are_written() {
        let lines = Lines::default();
        let telemetry = telemetry().with_metrics_to(lines.clone());
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(90);
        let time = Time::start(now, now + Duration::from_secs(30), Duration::from_secs(30));
        let received = |seconds: u32| {
            let first = ("ApproximateFirstReceiveTimestamp".to_owned(), format!("{seconds}000"));
            Record::read(SqsRecord { attributes: [first].into(), ..SqsRecord::default() })
        };
        let appends = Appends { latencies: vec![Duration::from_millis(7)], collisions: 3 };
        let records = [received(30), received(60), received(80)];
        let causes = [Cause::Timeout, Cause::Status(429), Cause::Status(429)];
        let completed = causes.into_iter().enumerate();
        let completed: Vec<_> = completed
            .map(|(index, cause)| Completed::unposted(index, None, Outcome::HandedBack(cause)))
            .collect();
        let receipts = SentReceipts { confirmed: 2, without_queue: 1, unconfirmed: [4].into() };
        let invocation = Invocation { origin: Origin::Outbound, appends, receipts };
        report(&telemetry, &records, &completed, &BTreeSet::new(), &invocation, &Gate::default(), &time);
        let line: Value = serde_json::from_slice(&lines.0.lock().unwrap()).unwrap();
        assert_eq!(line["HandedBackAge"], 60_000.0);
        assert_eq!((&line["MailboxAppendLatency"], &line["MailboxCollisions"]), (&json!(7.0), &json!(3.0)));
        let receipts = ["Receipts", "ReceiptsHandedBack", "ReceiptsWithoutQueue"].map(|name| &line[name]);
        assert_eq!(receipts, [&json!(2.0), &json!(1.0), &json!(1.0)]);
        let expected = json!({
            "429": { "count": 2, "max_age_ms": 30_000 },
            "timeout": { "count": 1, "max_age_ms": 60_000 },
        });
        assert_eq!(line["causes"], expected);
    }

    #[tokio::test(start_paused = true)]
    async fn admission_is_measured_and_stats_are_reset() {
        let (telemetry, mut admission) = (telemetry(), Admission::new(None));
        let now = tokio::time::Instant::now();
        let mut go = || match admission.admit(now) {
            Decision::Admit(pass) => pass,
            other => panic!("{other:?}"),
        };
        let passes: Vec<_> = (0..64).map(|_| go()).collect();
        for (index, pass) in passes.into_iter().enumerate() {
            let connection = format!("c{index}").try_into().unwrap();
            let health = if index < 2 { Health::Throttles } else { Health::Fails };
            admission.record(pass, &connection, health, Duration::from_millis(7), now);
        }
        let mut expected = telemetry.metrics();
        (0..64).for_each(|_| expected.time(metric::POST_LATENCY, Duration::from_millis(7)));
        expected.count(metric::THROTTLES, 2);
        expected.count(metric::SLOW_CLIENTS, 2);
        expected.count(metric::CIRCUIT_OPENED, 1);
        expected.value(metric::CIRCUIT_OPEN, 1.0);
        expected.value(metric::CONCURRENCY_LIMIT, 128.0);
        expected.value(metric::CONCURRENCY_UTILIZATION, 50.0);
        let mut measured = telemetry.metrics();
        measure(&mut measured, &mut admission);
        assert_eq!(measured, expected);
        assert_eq!(admission.take_stats(), Stats::default());
    }
}
