//! Values at the edges of the alarms, as `docs/operations.md` describes them.

use crate::{
    cloudwatch::{State, Values},
    definitions::Definitions,
    world::END,
};

/// The minute of the first values.
const FIRST: usize = 20;

/// Values that are written in some minutes, and nothing else.
struct Edge {
    alarm: &'static str,
    /// Minutes with these values.
    minutes: usize,
    /// Names of metrics, with a value and how often it is written in each minute.
    written: &'static [(&'static str, f64, usize)],
    /// Minutes for which the alarm stays in alarm. If datapoints are missing, these are more than its own minutes.
    in_alarm: usize,
}

macro_rules! edges {
    ($($alarm:literal: $minutes:literal min of $($metric:ident $value:literal x $count:literal),+ => $in_alarm:literal;)+) => {
        &[$(Edge {
            alarm: $alarm,
            minutes: $minutes,
            written: &[$((stringify!($metric), $value, $count)),+],
            in_alarm: $in_alarm,
        }),+]
    };
}

const EDGES: &[Edge] = edges! {
    "oldest-message": 9 min of ApproximateAgeOfOldestMessage 300.0 x 1 => 0;
    "oldest-message": 1 min of ApproximateAgeOfOldestMessage 301.0 x 1 => 0;
    "oldest-message": 2 min of ApproximateAgeOfOldestMessage 301.0 x 1 => 3;
    "oldest-message": 5 min of ApproximateAgeOfOldestMessage 301.0 x 1 => 6;
    "handed-back-age": 9 min of HandedBackAge 420000.0 x 9 => 0;
    "handed-back-age": 1 min of HandedBackAge 420001.0 x 1, HandedBackAge 1.0 x 199 => 7;
    "undelivered": 1 min of Undelivered 9.0 x 1 => 0;
    "undelivered": 4 min of Undelivered 0.5 x 1 => 0;
    "undelivered": 9 min of Undelivered 1.0 x 1, Delivered 2.0 x 2 => 0;
    "undelivered": 4 min of Undelivered 0.5 x 2, Delivered 1.0 x 3 => 4;
    "dead-letters": 1 min of ApproximateNumberOfMessagesVisible 1.0 x 1 => 15;
    "dead-letters": 1 min of ApproximateNumberOfMessagesVisible 0.0 x 1, ApproximateNumberOfMessagesVisible 1.0 x 9 => 0;
    "dead-letters": 9 min of ApproximateNumberOfMessagesNotVisible 1.0 x 1 => 0;
    "circuit-opened": 1 min of CircuitOpened 1.0 x 1 => 3;
    "elsewhere": 1 min of Elsewhere 1.0 x 1 => 3;
    "delivery-latency": 15 min of DeliveryLatency 10000.0 x 9 => 0;
    "delivery-latency": 6 min of DeliveryLatency 10001.0 x 9 => 0;
    "delivery-latency": 15 min of DeliveryLatency 10001.0 x 2, DeliveryLatency 1.0 x 3 => 0;
    "delivery-latency": 15 min of DeliveryLatency 10001.0 x 3, DeliveryLatency 1.0 x 2 => 19;
    "delivery-latency": 15 min of DeliveryLatency 10001.0 x 1, DeliveryLatency 1.0 x 9, Delivered 1.0 x 9 => 0;
    "delivery-latency": 15 min of DeliveryLatency 10001.0 x 1, DeliveryLatency 1.0 x 9, Delivered 1.0 x 10 => 3;
    "delivery-latency": 15 min of DeliveryLatency 10001.0 x 1, DeliveryLatency 1.0 x 199, Delivered 1.0 x 200 => 0;
    "failed-connects": 1 min of ConnectionsFailed 9.0 x 9, ExecutionError 9.0 x 9 => 0;
    "failed-connects": 2 min of ConnectionsFailed 1.0 x 1 => 9;
    "failed-connects": 2 min of ExecutionError 1.0 x 1 => 9;
    "refused-connects": 1 min of ConnectionsRefused 2.0 x 1, ConnectionsMismatched 2.0 x 1 => 0;
    "refused-connects": 1 min of ConnectionsRefused 3.0 x 1, ConnectionsMismatched 3.0 x 1, ConnectionsOpened 3.0 x 1 => 0;
    "refused-connects": 1 min of ConnectionsRefused 1.0 x 3, ConnectionsMismatched 1.0 x 3, ConnectionsOpened 1.0 x 2 => 5;
    "refused-connects": 1 min of ConnectionsRefused 19.0 x 1, ConnectionsOpened 20.0 x 1 => 0;
    "refused-connects": 1 min of ConnectionsRefused 20.0 x 1, ConnectionsOpened 80.0 x 1 => 0;
    "refused-connects": 1 min of ConnectionsRefused 10.0 x 2, ConnectionsOpened 79.0 x 1 => 5;
    "refused-connects": 1 min of ConnectionsRefused 24.0 x 1, ConnectionsFailed 5.0 x 1, ConnectionsOpened 9.0 x 1 => 0;
    "refused-connects": 1 min of ConnectionsRefused 25.0 x 1, ConnectionsFailed 1.0 x 5, ConnectionsOpened 79.0 x 1 => 5;
    "connect-errors": 1 min of Errors 1.0 x 1 => 15;
    "connect-throttles": 1 min of Throttles 1.0 x 1 => 15;
    "disconnect-errors": 1 min of Errors 1.0 x 1 => 15;
    "disconnect-throttles": 1 min of Throttles 1.0 x 1 => 15;
    "failed-syncs": 1 min of Syncs 9.0 x 9 => 0;
    "failed-syncs": 9 min of Syncs 2.0 x 5, PagesPosted 2.0 x 4 => 0;
    "failed-syncs": 3 min of Syncs 1.0 x 1 => 0;
    "failed-syncs": 4 min of Syncs 1.0 x 1 => 4;
    "failed-syncs": 4 min of Syncs 1.0 x 9, PagesPosted 1.0 x 7 => 12;
    "receipts-unread": 9 min of ApproximateAgeOfOldestMessage 3600.0 x 1 => 0;
    "receipts-unread": 1 min of ApproximateAgeOfOldestMessage 3601.0 x 1 => 0;
    "receipts-unread": 2 min of ApproximateAgeOfOldestMessage 3601.0 x 1 => 3;
    "receipts-unread": 5 min of ApproximateAgeOfOldestMessage 3601.0 x 1 => 6;
    "receipts-handed-back": 2 min of ReceiptsHandedBack 9.0 x 9 => 0;
    "receipts-handed-back": 3 min of ReceiptsHandedBack 1.0 x 1 => 5;
    "delivery-errors": 1 min of Errors 1.0 x 1 => 15;
    "delivery-throttles": 1 min of Throttles 1.0 x 1 => 15;
    "mailbox-errors": 1 min of Errors 1.0 x 1 => 15;
    "mailbox-throttles": 1 min of Throttles 1.0 x 1 => 15;
};

/// Returns the edges of an alarm at which it is in alarm for longer or shorter.
pub(crate) fn missed(definitions: &Definitions, alarm: &str) -> Vec<String> {
    let in_alarm = |edge: &Edge| -> Option<usize> {
        let alarm = definitions.alarms.get(edge.alarm)?;
        let mut values = Values::default();
        for (name, value, count) in edge.written {
            let mut metrics = alarm.source.queries().into_iter().map(|query| &query.metric);
            let metric = metrics.find(|metric| metric.name == *name)?;
            for index in 0..edge.minutes * count {
                values.add(metric.clone(), FIRST + index / count, *value);
            }
        }
        let states = alarm.states(&values, 0, END).ok()?;
        Some(states.into_iter().filter(|state| *state == State::Alarm).count())
    };
    let edges = EDGES.iter().filter(|edge| edge.alarm == alarm);
    if edges.clone().count() == 0 && definitions.alarms.contains_key(alarm) {
        return vec![format!("{alarm} has no edge")];
    }
    let missed = edges.filter_map(|edge| {
        let (found, expected) = (in_alarm(edge), edge.in_alarm);
        (found != Some(expected)).then(|| {
            format!("{alarm}: {:?} in {} min: {found:?} min, not {expected}", edge.written, edge.minutes)
        })
    });
    missed.collect()
}
