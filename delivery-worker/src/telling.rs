//! What operators are told of an invocation.

use std::collections::BTreeMap;

use streamer_message::{ConnectionId, MessageId};
use streamer_telemetry::{Metric, Metrics, Telemetry, metric};

use crate::{
    decode::Record,
    outcome::{Cause, Ended, Outcome},
    time::Time,
};

/// Writes a line for each pair that was not delivered (and at debug level for those that were), a summary, and
/// the metrics.
pub(crate) fn tell(telemetry: &Telemetry, records: &[Record], ended: &[Ended], time: &Time) {
    let mut metrics = telemetry.metrics();
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for pair in ended {
        tell_pair(&records[pair.place], pair);
        count(&mut metrics, pair);
        *outcomes.entry(pair.outcome.name()).or_default() += 1;
    }
    for sent_at in records.iter().filter_map(|record| record.sent_at) {
        metrics.time(metric::QUEUE_AGE, time.started().duration_since(sent_at).unwrap_or_default());
    }
    telemetry.emit(&metrics);

    let number = |outcome: &str| outcomes.get(outcome).copied().unwrap_or_default();
    tracing::info!(
        messages = records.len(),
        pairs = ended.len(),
        delivered = number("delivered"),
        gone = number("gone"),
        expired = number("expired"),
        no_recipient = number("no_recipient"),
        rejected = number("rejected"),
        poison = number("poison"),
        exhausted = number("exhausted"),
        handed_back = number("handed_back"),
        duration_ms = time.now().duration_since(time.started()).unwrap_or_default().as_millis(),
        "batch"
    );
}

fn tell_pair(record: &Record, pair: &Ended) {
    let message = record.content.as_ref().ok();
    let message_id = message.map(|message| MessageId::as_str(&message.id));
    let connection_id = pair.connection.as_ref().map(ConnectionId::as_str);
    let request_id = message.and_then(|message| message.request.as_ref()).map(|request| request.id.as_str());
    let (record_id, outcome) = (&record.id, pair.outcome.name());
    match &pair.outcome {
        Outcome::Delivered => tracing::debug!(message_id, connection_id, request_id, outcome),
        Outcome::Gone | Outcome::Expired | Outcome::NoRecipient => {
            tracing::info!(message_id, connection_id, request_id, outcome);
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

fn count(metrics: &mut Metrics<'_>, pair: &Ended) {
    metrics.count(metric_of(&pair.outcome), 1);
    metrics.count(metric::RETRIES, pair.posts.saturating_sub(1) as usize);
    if let Outcome::HandedBack(Cause::Status(429)) | Outcome::Exhausted(Cause::Status(429)) = &pair.outcome {
        metrics.count(metric::THROTTLES, 1);
    }
    if let Some(latency) = pair.latency {
        metrics.time(metric::POST_LATENCY, latency.post);
        latency.delivery.into_iter().for_each(|delivery| metrics.time(metric::DELIVERY_LATENCY, delivery));
    }
}

fn metric_of(outcome: &Outcome) -> Metric {
    match outcome {
        Outcome::Delivered => metric::DELIVERED,
        Outcome::Gone => metric::GONE,
        Outcome::Expired => metric::EXPIRED,
        Outcome::NoRecipient => metric::NO_RECIPIENT,
        Outcome::Rejected(_) => metric::REJECTED,
        Outcome::Poison(_) => metric::POISON,
        Outcome::Exhausted(_) => metric::EXHAUSTED,
        Outcome::HandedBack(_) => metric::HANDED_BACK,
    }
}
