//! How long the worker has patience, and with what.

use std::{
    borrow::Borrow,
    time::{Duration, SystemTime},
};

use streamer_message::Audience;

use crate::{
    decode::Record,
    outcome::{Cause, Ended, Outcome},
    plan::Order,
};

/// Receives after which a message is suspected of killing workers.
const RECEIVES: u32 = 10;

/// How long the worker has patience, and with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// What the queue keeps in order.
    pub order: Order,
    /// How young a connection may be for a 410 to mean that it is not there yet.
    pub connect_grace: Duration,
    /// How long after a message's first receipt its user may be reconnecting.
    pub away_grace: Duration,
    /// How long after a message's first receipt it is tried.
    pub max_age: Duration,
}

impl Policy {
    /// How a message ends whose audience has no live connection at the worker's endpoint. A user's client that
    /// reconnects is absent for seconds, and the index lags, so the audience is empty only past the away grace. Where it
    /// is connected `elsewhere`, the message waits for a worker that knows that endpoint, and is not dropped when those
    /// connections have ended.
    #[must_use]
    pub fn unreached(&self, record: &Record, elsewhere: Option<String>, now: SystemTime) -> Outcome {
        // A connection here has it: the others are not this worker's.
        let is_reached = !record.done().is_empty();
        if let Some(endpoint) = elsewhere.filter(|_| !is_reached) {
            return Outcome::HandedBack(Cause::Elsewhere(endpoint));
        }
        let message = record.content.as_ref().ok();
        let is_for_a_user = message.is_some_and(|message| matches!(message.to, Audience::User { .. }));
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

    /// What a user's message still waits for, by how all its pairs ended: where every connection that was found is
    /// gone, the client that had it may be reconnecting.
    #[must_use]
    pub fn still_away(
        &self,
        records: &[Record],
        pairs: &[impl Borrow<Ended>],
        now: SystemTime,
    ) -> Option<Ended> {
        let place = pairs.first()?.borrow().place;
        let message = records[place].content.as_ref().ok()?;
        let reached =
            !message.done().is_empty() || pairs.iter().any(|pair| pair.borrow().outcome != Outcome::Gone);
        let (Audience::User { .. }, false) = (&message.to, reached) else { return None };
        match self.unreached(&records[place], None, now) {
            away @ Outcome::HandedBack(_) => Some(Ended::unposted(place, None, away)),
            _ => None,
        }
    }

    /// Whether a message has been tried for too long.
    #[must_use]
    pub fn is_too_old(&self, record: &Record, now: SystemTime) -> bool {
        age(record, now) >= self.max_age
    }

    /// How a message ends that would be handed back: on a standard queue not so once it is too old, or
    /// suspected of killing workers.
    #[must_use]
    pub fn back(&self, record: &Record, cause: Cause, now: SystemTime) -> Outcome {
        let given_up = self.is_too_old(record, now) || record.suspicious_receives() >= RECEIVES;
        match self.order {
            Order::Connection if given_up => Outcome::Exhausted(cause),
            Order::Connection | Order::Group => Outcome::HandedBack(cause),
        }
    }
}

fn age(record: &Record, now: SystemTime) -> Duration {
    record.since().and_then(|since| now.duration_since(since).ok()).unwrap_or_default()
}
