//! From outcomes to what the queues are told: the letters that are written, what waits, and what is reported.
//!
//! A message is acknowledged only when all its pairs have settled and every letter that it needs was confirmed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, SystemTime},
};

use streamer_message::{Audience, ConnectionId};

use crate::{
    backoff,
    decode::Record,
    letter::{HandBack, Letter},
    outcome::{Cause, Ended, Outcome},
    plan::{Order, hand_back_behind},
    policy::Policy,
    queue::Wait,
};

/// What the queues are told of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settlement {
    /// What goes to the dead-letter queue.
    pub dead_letters: Vec<Letter>,
    /// What goes back to the queue: none on a FIFO queue, which would lose its order.
    pub handed_back: Vec<Letter>,
    /// What waits in the queue until it is delivered again: on a FIFO queue only.
    pub waits: Vec<Wait>,
    /// The places of the records that SQS is to deliver again in any case.
    pub reported: BTreeSet<usize>,
}

/// Waits for users who may be reconnecting, gives up what was tried for too long, and keeps a FIFO queue's order.
#[must_use]
pub fn review(policy: &Policy, records: &[Record], mut ended: Vec<Ended>, now: SystemTime) -> Vec<Ended> {
    if policy.order == Order::Connection {
        // On a FIFO queue the lane has done it.
        let by_place = by_place(&ended, |_| true);
        let away: Vec<_> =
            by_place.values().filter_map(|pairs| policy.still_away(records, pairs, now)).collect();
        ended.extend(away);
    }
    for pair in &mut ended {
        if let Outcome::HandedBack(cause) = &pair.outcome {
            pair.outcome = policy.back(&records[pair.place], cause.clone(), now);
        }
    }
    if policy.order == Order::Group {
        hand_back_behind(records, &mut ended);
    }
    ended
}

/// The pairs of each record that has one of which `wanted` is true.
fn by_place(ended: &[Ended], wanted: impl Fn(&Ended) -> bool) -> BTreeMap<usize, Vec<&Ended>> {
    let places: BTreeSet<_> = ended.iter().filter(|pair| wanted(pair)).map(|pair| pair.place).collect();
    let mut by_place: BTreeMap<usize, Vec<&Ended>> = BTreeMap::new();
    for pair in ended.iter().filter(|pair| places.contains(&pair.place)) {
        by_place.entry(pair.place).or_default().push(pair);
    }
    by_place
}

/// Decides what the queues are told of reviewed outcomes. `random` is from 0 up to 1.
#[must_use]
pub fn settle(
    policy: &Policy,
    records: &[Record],
    ended: &[Ended],
    now: SystemTime,
    random: impl FnMut() -> f64,
) -> Settlement {
    let unsettled = by_place(ended, |pair| !pair.outcome.is_settled());
    match policy.order {
        Order::Connection => on_a_standard_queue(records, &unsettled, now, random),
        Order::Group => on_a_fifo_queue(records, &unsettled, now, random),
    }
}

/// What is unfinished is sent again, but for what a panic left: that is reported as it is.
fn on_a_standard_queue(
    records: &[Record],
    unsettled: &BTreeMap<usize, Vec<&Ended>>,
    now: SystemTime,
    mut random: impl FnMut() -> f64,
) -> Settlement {
    let mut settlement = Settlement::default();
    for (place, pairs) in unsettled {
        let (record, causes) = (&records[*place], causes(pairs));
        if causes.contains(&&Cause::Panic) {
            settlement.reported.insert(*place);
            continue;
        }
        if !causes.is_empty() {
            let count = record.retry().map_or(0, |retry| retry.count);
            let back = HandBack {
                cause: first(&causes).to_string(),
                delay: delay(count, is_stuck(record, pairs), &causes, random()),
                done: done(record, pairs),
                after: pairs.iter().find_map(|pair| pair.after.clone()),
            };
            let unfinished = connections(pairs, |pair| handed_back(pair).is_some());
            match Letter::back(*place, record, unfinished, back, now) {
                Some(letter) => settlement.handed_back.push(letter),
                None => _ = settlement.reported.insert(*place),
            }
        }
        settlement.dead(*place, record, pairs, now);
    }
    settlement
}

/// What is unfinished stays and waits, all of a group alike. Behind a dead letter that is no time at all.
fn on_a_fifo_queue(
    records: &[Record],
    unsettled: &BTreeMap<usize, Vec<&Ended>>,
    now: SystemTime,
    mut random: impl FnMut() -> f64,
) -> Settlement {
    let mut settlement = Settlement::default();
    let mut waits: HashMap<Option<&str>, u32> = HashMap::new();
    for (place, pairs) in unsettled {
        let (record, causes) = (&records[*place], causes(pairs));
        let seconds = *waits.entry(record.group.as_deref()).or_insert_with(|| match causes.is_empty() {
            true => backoff::deadline_hand_back(random()),
            false => {
                let receives = record.receives.saturating_sub(1);
                delay(receives, receives > 0 && posts(pairs) == 0, &causes, random())
            }
        });
        if causes.is_empty() {
            settlement.dead(*place, record, pairs, now);
        } else {
            settlement.waits.push(Wait { receipt_handle: record.receipt_handle.clone(), seconds });
            settlement.reported.insert(*place);
        }
    }
    settlement
}

impl Settlement {
    /// Writes one dead letter for each reason that pairs have; where that cannot be, the record is reported.
    fn dead(&mut self, place: usize, record: &Record, pairs: &[&Ended], now: SystemTime) {
        let mut reasons: BTreeMap<&str, (String, Vec<ConnectionId>)> = BTreeMap::new();
        for pair in pairs {
            if let Some(detail) = pair.outcome.dead_letter() {
                let (_, unfinished) = reasons.entry(pair.outcome.name()).or_insert((detail, Vec::new()));
                unfinished.extend(pair.connection.clone());
            }
        }
        for (reason, (detail, unfinished)) in reasons {
            let after = pairs.iter().find_map(|pair| pair.after.clone());
            match Letter::dead(place, record, unfinished, after, reason, &detail, now) {
                Some(letter) => self.dead_letters.push(letter),
                None => _ = self.reported.insert(place),
            }
        }
    }
}

fn causes<'a>(pairs: &[&'a Ended]) -> Vec<&'a Cause> {
    pairs.iter().filter_map(|pair| handed_back(pair)).collect()
}

fn handed_back(pair: &Ended) -> Option<&Cause> {
    match &pair.outcome {
        Outcome::HandedBack(cause) => Some(cause),
        _ => None,
    }
}

fn connections(pairs: &[&Ended], wanted: impl Fn(&Ended) -> bool) -> Vec<ConnectionId> {
    let wanted = pairs.iter().filter(|pair| wanted(pair));
    wanted.filter_map(|pair| pair.connection.clone()).collect()
}

/// The cause that is not another one's consequence.
fn first<'a>(causes: &[&'a Cause]) -> &'a Cause {
    causes
        .iter()
        .find(|cause| ***cause != Cause::Behind)
        .or(causes.first())
        .copied()
        .unwrap_or(&Cause::Behind)
}

/// Whether a message found no time, as before, although nothing of it was posted.
fn is_stuck(record: &Record, pairs: &[&Ended]) -> bool {
    let before = record.retry().is_some_and(|retry| retry.cause.starts_with(&Cause::Deadline.to_string()));
    before && posts(pairs) == 0
}

fn posts(pairs: &[&Ended]) -> u32 {
    pairs.iter().map(|pair| pair.posts).sum()
}

/// Seconds to wait: up to 1 s where only time was short, longer and longer where it was so again without a post.
fn delay(count: u32, stuck: bool, causes: &[&Cause], random: f64) -> u32 {
    if !stuck && causes.iter().all(|cause| **cause == Cause::Deadline) {
        return backoff::deadline_hand_back(random);
    }
    let open = causes.iter().map(|cause| match cause {
        Cause::CircuitOpen(time) => *time,
        _ => Duration::ZERO,
    });
    backoff::hand_back(count, open.max().unwrap_or_default(), random)
}

/// The connections of a user that need nothing more. Other audiences name only those that do. Those that are gone
/// are not among them: where nobody has the message yet, the user is to be waited for.
fn done(record: &Record, pairs: &[&Ended]) -> Vec<ConnectionId> {
    match record.content.as_ref().map(|message| (&message.to, message.done())) {
        Ok((Audience::User { .. }, before)) => {
            let is_done = |pair: &Ended| handed_back(pair).is_none() && pair.outcome != Outcome::Gone;
            let now = connections(pairs, is_done);
            before.iter().cloned().chain(now).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use aws_lambda_events::sqs::SqsMessage;
    use streamer_message::{OutboundMessage, Retry};

    use super::*;

    const POLICY: Policy = Policy {
        order: Order::Connection,
        connect_grace: Duration::from_secs(5),
        away_grace: Duration::from_secs(30),
        max_age: Duration::from_secs(7800),
    };

    /// The note on the message that goes back for pairs with these causes, and its delay in seconds.
    fn back(causes: &[Cause], after: Option<&str>) -> (Retry, u32) {
        let retry = r#"{"count":50,"receives":0,"since":1,"cause":"429","after":"before"}"#;
        let to = r#"{"user":{"tenant":"acme","user":"anna"}}"#;
        let body = format!(r#"{{"version":1,"id":"m","to":{to},"payload":1,"retry":{retry}}}"#);
        let mut message = SqsMessage::default();
        (message.message_id, message.body) = (Some("record".to_owned()), Some(body));
        let record = Record::read(message).unwrap();
        let pair = |(id, cause): (usize, &Cause)| {
            let connection = id.to_string().as_str().try_into().unwrap();
            let after = after.map(|after| after.try_into().unwrap());
            let ended = Ended::unposted(0, Some(connection), Outcome::HandedBack(cause.clone()));
            Ended { after, ..ended }
        };
        let ended: Vec<_> = causes.iter().enumerate().map(pair).collect();
        let settled = settle(&POLICY, &[record], &ended, SystemTime::UNIX_EPOCH, || 1.0 - f64::EPSILON);
        let [letter] = &settled.handed_back[..] else { panic!("{settled:?}") };
        (OutboundMessage::decode(&letter.body).unwrap().retry.unwrap(), letter.delay)
    }

    #[test]
    fn only_deadlines_alone_shorten_the_delay() {
        assert_eq!(back(&[Cause::Deadline, Cause::Deadline], None).1, 1);
        assert_eq!(back(&[Cause::Deadline, Cause::Status(429)], None).1, 60);
    }

    #[test]
    fn the_first_cause_of_its_own_is_noted() {
        let noted = |causes: &[Cause]| back(causes, None).0.cause;
        assert_eq!(noted(&[Cause::Behind, Cause::Status(503), Cause::Timeout]), "503");
        assert_eq!(noted(&[Cause::Behind]), "behind a message that was handed back");
    }

    #[test]
    fn a_users_cursor_stays_until_it_moves() {
        let cursor = |after| back(&[Cause::Status(429)], after).0.after.unwrap().to_string();
        assert_eq!((cursor(None), cursor(Some("later"))), ("before".to_owned(), "later".to_owned()));
    }
}
