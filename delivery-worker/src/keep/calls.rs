//! Calls to the mailbox, within the part of an invocation's time that is for them.

use std::time::{Duration, SystemTime};

use streamer_connections::Location;
use streamer_mailbox::{Appended, Device, DynamoTable, Mailbox, NewMessage, Stream};
use streamer_message::{ConnectionId, Keep, Position};
use tokio::time::{Instant, timeout};

use crate::{Worker, decode::Record, outcome::Cause, time::Time};

/// Maximum duration of an append, which makes several calls, as a multiple of that of one call.
const APPEND_CALLS: u32 = 3;

/// The result of an append.
pub(super) struct Append {
    /// The positions of the first messages.
    pub(super) stored: Vec<Position>,
    /// Why the others are not stored, or not known to be.
    pub(super) rest: Result<(), Cause>,
    /// Numbers that other workers took first.
    pub(super) collisions: u64,
    /// The duration, if it began.
    pub(super) latency: Option<Duration>,
}

/// A user's devices, as this worker sees them.
pub(super) struct Devices {
    /// Those at the worker's endpoint.
    pub(super) here: Vec<ConnectionId>,
    /// An endpoint at which the user has devices, and which is neither the worker's nor another cell's.
    pub(super) elsewhere: Option<String>,
}

/// The part of an invocation's time in which it stores messages: half of what is left, so that a slow mailbox leaves
/// time to the batch's other messages.
pub(super) struct Share<'a> {
    whole: &'a Time,
    until: Instant,
}

impl<'a> Share<'a> {
    pub(super) fn half_of(whole: &'a Time) -> Self {
        Self { whole, until: Instant::now() + whole.remaining() / 2 }
    }

    /// Returns the cause for which messages are handed back once the time is over.
    fn end(&self) -> Option<Cause> {
        if self.whole.remaining().is_zero() {
            return Some(Cause::Deadline);
        }
        let is_over = Instant::now() >= self.until;
        is_over.then(|| Cause::Mailbox("the mailbox took half of the invocation's time".to_owned()))
    }

    /// Returns how long so many calls, one after another, may take.
    fn calls_timeout(&self, calls: u32) -> Duration {
        self.whole.calls_timeout(calls).min(self.until.saturating_duration_since(Instant::now()))
    }
}

/// Appends messages to a stream.
pub(super) async fn append(
    mailbox: &Mailbox<DynamoTable>,
    stream: &Stream,
    records: &[Record],
    indexes: &[usize],
    time: &Share<'_>,
) -> Append {
    if let Some(cause) = time.end() {
        return Append { stored: Vec::new(), rest: Err(cause), collisions: 0, latency: None };
    }
    let now = time.whole.now();
    let messages: Vec<_> = indexes.iter().filter_map(|index| new_message(&records[*index], now)).collect();
    let (began, limit) = (Instant::now(), time.calls_timeout(APPEND_CALLS));
    let (appended, rest) = match timeout(limit, mailbox.append(stream, &messages, now)).await {
        Ok(mut appended) => {
            let failure = appended.failure.take();
            (appended, failure.map_or(Ok(()), |failure| Err(Cause::Mailbox(failure.to_string()))))
        }
        // Messages may be stored all the same.
        Err(_) => (Appended::default(), Err(no_answer("append", limit, time.whole))),
    };
    let Appended { positions, collisions, .. } = appended;
    let (latency, stored) = (began.elapsed(), positions.len());
    let duration_ms = latency.as_millis() as u64;
    tracing::debug!(messages = messages.len(), stored, collisions, duration_ms, "appended to a stream");
    if let Err(cause) = &rest {
        let messages = messages.len() - stored;
        tracing::warn!(messages, collisions, %cause, "failed to store messages");
    }
    Append { stored: positions, rest, collisions, latency: Some(latency) }
}

/// Returns a message as the mailbox stores it. If an earlier attempt may have stored it, the mailbox looks for it.
fn new_message(record: &Record, now: SystemTime) -> Option<NewMessage<'_>> {
    let message = record.content.as_ref().ok()?;
    let kept_until = now + message.envelope.keep.map(Keep::duration)?;
    let may_be_stored = record.receives > 1 || record.retry().is_some();
    Some(NewMessage {
        id: &message.envelope.id,
        body: message.payload_text(),
        until: message.expires_at.map_or(kept_until, |expires_at| expires_at.min(kept_until)),
        ack: message.envelope.receipt.is_some(),
        tried_since: may_be_stored.then(|| record.since().unwrap_or(SystemTime::UNIX_EPOCH)),
    })
}

/// Reads the devices of a user.
pub(super) async fn devices<G>(
    worker: &Worker<G>,
    mailbox: &Mailbox<DynamoTable>,
    stream: &Stream,
    time: &Share<'_>,
) -> Result<Devices, Cause> {
    if let Some(cause) = time.end() {
        return Err(cause);
    }
    let limit = time.calls_timeout(1);
    let devices = match timeout(limit, mailbox.devices(stream, time.whole.now())).await {
        Ok(devices) => devices.map_err(|error| Cause::Mailbox(error.to_string())),
        Err(_) => Err(no_answer("Query", limit, time.whole)),
    };
    let (here, elsewhere): (Vec<_>, Vec<_>) = devices
        .inspect_err(|cause| tracing::warn!(%cause, "failed to read the devices of a user"))?
        .into_iter()
        .partition(|device| worker.endpoints.include(&device.endpoint));
    // A device in another cell reads the message with its next sync: no worker of this queue posts to it.
    let unknown = |device: &Device| worker.endpoints.locate(&device.endpoint) == Location::Elsewhere;
    Ok(Devices {
        here: here.into_iter().map(|device| device.connection).collect(),
        elsewhere: elsewhere.into_iter().find(unknown).map(|device| device.endpoint),
    })
}

/// Returns the cause of a hand-back for which `call` just took longer than `limit`.
pub(crate) fn no_answer(call: &str, limit: Duration, time: &Time) -> Cause {
    match time.is_past_cutoff() {
        true => Cause::Deadline,
        false => Cause::Mailbox(format!("{call} on the mailbox: no answer within {} s", limit.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use streamer_events::{Body, SqsRecord};

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    /// Returns a message for a user, kept for a minute.
    fn record(more: &str) -> Record {
        let to = r#"{"user":{"tenant":"acme","user":"anna"}}"#;
        let body = format!(r#"{{"version":1,"id":"m","to":{to},"payload":1,"keep":60{more}}}"#);
        Record::read(SqsRecord { body: Body::Text(body), ..SqsRecord::default() })
    }

    #[test]
    fn only_later_attempts_search() {
        let millis = |millis| NOW + Duration::from_millis(millis);
        let since = |record: &Record| new_message(record, NOW).unwrap().tried_since;
        let mut first = record("");
        first.first_received_at = Some(millis(7));
        assert_eq!(since(&first), None);
        first.receives = 2;
        assert_eq!(since(&first), Some(millis(7)));
        first.first_received_at = None;
        assert_eq!(since(&first), Some(NOW), "the whole stream");
        let retry = r#","retry":{"count":1,"receives":0,"since":9,"cause":"503"}"#;
        assert_eq!(since(&record(retry)), Some(millis(9)));
    }

    #[test]
    fn earlier_expiry_counts() {
        let until = |more| {
            let until = new_message(&record(more), NOW + Duration::from_secs(1_764_000_000)).unwrap().until;
            until.duration_since(NOW).unwrap().as_secs()
        };
        assert_eq!(until(""), 1_764_000_060);
        assert_eq!(until(r#","expires_at":1764000059000"#), 1_764_000_059);
        assert_eq!(until(r#","expires_at":1764000061000"#), 1_764_000_060);
    }
}
