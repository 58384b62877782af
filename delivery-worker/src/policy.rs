//! When to retry and when to give up.

use std::{
    borrow::Borrow,
    time::{Duration, SystemTime},
};

use streamer_message::Audience;
use streamer_queue::QueueKind;

use crate::{
    decode::Record,
    outcome::{Cause, Completed, Outcome},
};

/// Receives after which a message is suspected of crashing workers.
const SUSPICIOUS_RECEIVES: u32 = 10;

/// When to retry and when to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The kind of the outbound queue.
    pub queue_kind: QueueKind,
    /// Age up to which a 410 means that a connection is not established yet.
    pub connect_grace: Duration,
    /// Time after a message's first receive during which its user may be reconnecting.
    pub away_grace: Duration,
    /// Time after a message's first receive during which it is retried.
    pub max_age: Duration,
}

impl Policy {
    /// Returns the outcome of a message whose audience has no live connection at the worker's endpoint.
    ///
    /// A stored message waits for no client. One whose user has devices elsewhere waits for the away grace, for a worker
    /// that knows their endpoint.
    ///
    /// A client that reconnects is absent for seconds, and the index lags. A user therefore counts as absent only after
    /// the away grace. A message for an audience that is connected `elsewhere` waits for a worker that knows that
    /// endpoint. It is not dropped when those connections close.
    #[must_use]
    pub fn unreached(&self, record: &Record, elsewhere: Option<String>, now: SystemTime) -> Outcome {
        // Once a connection of this endpoint has the message, those of other endpoints are not this worker's task.
        let is_reached = !record.done().is_empty();
        let message = record.content.as_ref().ok();
        if let Some(stored) = message.and_then(|message| message.stored.as_ref()) {
            let waits = !is_reached && age(record, now) < self.away_grace;
            let elsewhere = stored.elsewhere.clone().filter(|_| waits);
            return elsewhere
                .map_or(Outcome::Kept, |endpoint| Outcome::HandedBack(Cause::Elsewhere(endpoint)));
        }
        if let Some(endpoint) = elsewhere.filter(|_| !is_reached) {
            return Outcome::HandedBack(Cause::Elsewhere(endpoint));
        }
        let is_for_a_user =
            message.is_some_and(|message| matches!(message.envelope.to, Audience::User { .. }));
        let may_be_away = is_for_a_user && age(record, now) < self.away_grace;
        let was_elsewhere =
            record.retry().filter(|_| !is_reached).and_then(|retry| Cause::elsewhere(&retry.cause));
        match (was_elsewhere, may_be_away) {
            (Some(cause), true) => Outcome::HandedBack(cause),
            (Some(cause), false) => Outcome::Exhausted(cause),
            (None, true) => Outcome::HandedBack(Cause::Away),
            (None, false) => Outcome::NoRecipient,
        }
    }

    /// Returns how long a message has waited for its user, and how long it may still wait: until the away grace ends or
    /// the message expires. `None` for other audiences, and once it does not wait.
    #[must_use]
    pub fn wait_for_user(&self, record: &Record, now: SystemTime) -> Option<(Duration, Duration)> {
        let message = record.content.as_ref().ok()?;
        let Audience::User { .. } = message.envelope.to else { return None };
        let waited = age(record, now);
        let until_expiry = message.expires_at.map(|expiry| expiry.duration_since(now).unwrap_or_default());
        let left = self.away_grace.saturating_sub(waited).min(until_expiry.unwrap_or(Duration::MAX));
        (!left.is_zero()).then_some((waited, left))
    }

    /// Hands a user's message back when all connections that were found are gone: the client may be reconnecting. A
    /// stored message is kept for it.
    ///
    /// `pairs` are all completed pairs of one message.
    #[must_use]
    pub fn still_away(
        &self,
        records: &[Record],
        pairs: &[impl Borrow<Completed>],
        now: SystemTime,
    ) -> Option<Completed> {
        let index = pairs.first()?.borrow().index;
        let message = records[index].content.as_ref().ok()?;
        let reached =
            !message.done().is_empty() || pairs.iter().any(|pair| pair.borrow().outcome != Outcome::Gone);
        let (Audience::User { .. }, false) = (&message.envelope.to, reached) else { return None };
        match self.unreached(&records[index], None, now) {
            away @ (Outcome::HandedBack(_) | Outcome::Kept) => Some(Completed::unposted(index, None, away)),
            _ => None,
        }
    }

    /// Returns whether a connection that the message names may be younger than the connect grace.
    #[must_use]
    pub fn may_be_connecting(&self, record: &Record, now: SystemTime) -> bool {
        age(record, now) < self.connect_grace
    }

    /// Returns whether a message is past `max_age`.
    #[must_use]
    pub fn is_too_old(&self, record: &Record, now: SystemTime) -> bool {
        age(record, now) >= self.max_age
    }

    /// Returns the outcome of a pair that would be handed back. A standard queue's message that is too old, or
    /// suspected of crashing workers, is exhausted instead. One that is stored and too old is kept, on any queue.
    #[must_use]
    pub fn hand_back_or_exhaust(&self, record: &Record, cause: Cause, now: SystemTime) -> Outcome {
        match (self.gives_up(record, now), record.position()) {
            (true, Some(_)) => Outcome::Kept,
            (true, None) if self.queue_kind == QueueKind::Standard => Outcome::Exhausted(cause),
            (_, _) => Outcome::HandedBack(cause),
        }
    }

    /// Returns whether a message is too old or, on a standard queue, suspected of crashing workers.
    #[must_use]
    pub fn gives_up(&self, record: &Record, now: SystemTime) -> bool {
        let is_standard = self.queue_kind == QueueKind::Standard;
        let is_suspicious = is_standard && record.suspicious_receives() >= SUSPICIOUS_RECEIVES;
        is_suspicious || self.is_too_old(record, now)
    }
}

fn age(record: &Record, now: SystemTime) -> Duration {
    record.since().and_then(|since| now.duration_since(since).ok()).unwrap_or_default()
}
