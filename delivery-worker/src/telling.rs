//! What operators are told of an invocation.

use streamer_telemetry::{Metrics, Telemetry, metric};

use crate::{
    decode::{Message, Poison},
    outcome::{Ended, Outcome},
    time::Time,
};

/// Writes a line for each pair that was not delivered (and at debug level for those that were), a summary, and
/// the metrics.
pub(crate) fn tell(
    telemetry: &Telemetry,
    messages: &[Message],
    pairs: &[Ended],
    poison: &[Poison],
    time: &Time,
) {
    let mut metrics = telemetry.metrics();
    for pair in pairs {
        tell_pair(&mut metrics, &messages[pair.message], pair);
    }
    for poison in poison {
        metrics.count(metric::POISON, 1);
        tracing::warn!(record_id = poison.record_id, cause = %poison.error, outcome = "poison");
    }
    for sent_at in messages.iter().filter_map(|message| message.sent_at) {
        metrics.time(metric::QUEUE_AGE, time.started().duration_since(sent_at).unwrap_or_default());
    }
    telemetry.emit(&metrics);

    let number = |wanted: fn(&Outcome) -> bool| pairs.iter().filter(|pair| wanted(&pair.outcome)).count();
    tracing::info!(
        messages = messages.len() + poison.len(),
        pairs = pairs.len(),
        delivered = number(|outcome| *outcome == Outcome::Delivered),
        gone = number(|outcome| *outcome == Outcome::Gone),
        expired = number(|outcome| *outcome == Outcome::Expired),
        handed_back = number(|outcome| !outcome.is_final()),
        poison = poison.len(),
        duration_ms = time.now().duration_since(time.started()).unwrap_or_default().as_millis(),
        "batch"
    );
}

fn tell_pair(metrics: &mut Metrics<'_>, message: &Message, pair: &Ended) {
    let message_id = message.id.as_str();
    let connection_id = pair.connection.as_ref().map(streamer_message::ConnectionId::as_str);
    let request_id = message.request_id.as_ref().map(streamer_message::RequestId::as_str);
    let outcome = pair.outcome.name();
    match &pair.outcome {
        Outcome::Delivered => {
            metrics.count(metric::DELIVERED, 1);
            tracing::debug!(message_id, connection_id, request_id, outcome);
        }
        Outcome::Gone => {
            metrics.count(metric::GONE, 1);
            tracing::info!(message_id, connection_id, request_id, outcome);
        }
        Outcome::Expired => {
            metrics.count(metric::EXPIRED, 1);
            tracing::info!(message_id, connection_id, request_id, outcome);
        }
        Outcome::HandedBack(cause) => {
            metrics.count(metric::HANDED_BACK, 1);
            tracing::warn!(message_id, connection_id, request_id, outcome, %cause);
        }
    }
    if let Some(latency) = pair.latency {
        metrics.time(metric::POST_LATENCY, latency.post);
        latency.delivery.into_iter().for_each(|delivery| metrics.time(metric::DELIVERY_LATENCY, delivery));
    }
}
