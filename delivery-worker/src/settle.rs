//! From outcomes to what the queues are told: the letters that are written, what waits, and what is reported.
//!
//! A message is acknowledged only when all its pairs have settled and every letter that it needs was confirmed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::SystemTime,
};

use streamer_message::ConnectionId;

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

/// Gives up what was tried for too long, and keeps a FIFO queue's order.
pub fn review(policy: &Policy, records: &[Record], ended: &mut [Ended], now: SystemTime) {
    for pair in ended.iter_mut() {
        if let Outcome::HandedBack(cause) = &pair.outcome {
            pair.outcome = policy.back(&records[pair.place], cause.clone(), now);
        }
    }
    match policy.order {
        Order::Group => hand_back_behind(records, ended),
        Order::Connection => {}
    }
}

/// Decides what the queues are told of reviewed outcomes. `random` is from 0 up to 1.
#[must_use]
pub fn settle(
    policy: &Policy,
    records: &[Record],
    ended: &[Ended],
    now: SystemTime,
    mut random: impl FnMut() -> f64,
) -> Settlement {
    let unsettled = ended.iter().filter(|pair| !pair.outcome.is_settled()).map(|pair| pair.place);
    let unsettled: BTreeSet<_> = unsettled.collect();
    let mut pairs_of: BTreeMap<usize, Vec<&Ended>> = BTreeMap::new();
    for pair in ended.iter().filter(|pair| unsettled.contains(&pair.place)) {
        pairs_of.entry(pair.place).or_default().push(pair);
    }

    let mut settlement = Settlement::default();
    let mut waits_of_groups: HashMap<Option<&str>, u32> = HashMap::new();
    for (place, pairs) in pairs_of {
        let record = &records[place];
        let causes: Vec<_> = pairs.iter().filter_map(|pair| handed_back(pair)).collect();
        match policy.order {
            Order::Group => {
                let seconds = || match causes.is_empty() {
                    // Behind a dead letter, which is not worth a delay.
                    true => backoff::short_of_time(random()),
                    false => delay(record.receives.saturating_sub(1), &causes, random()),
                };
                let seconds = *waits_of_groups.entry(record.group.as_deref()).or_insert_with(seconds);
                if !causes.is_empty() {
                    settlement.waits.push(Wait { receipt_handle: record.receipt_handle.clone(), seconds });
                    settlement.reported.insert(place);
                    continue;
                }
            }
            Order::Connection if causes.contains(&&Cause::Panic) => {
                settlement.reported.insert(place);
                continue;
            }
            Order::Connection if !causes.is_empty() => {
                let count = record.retry().map_or(0, |retry| retry.count);
                let back = HandBack {
                    cause: first(&causes).to_string(),
                    delay: delay(count, &causes, random()),
                    done: done(record, &pairs),
                };
                let unfinished = connections(&pairs, |pair| handed_back(pair).is_some());
                settlement.take(place, Letter::back(place, record, unfinished, back, now), |all| {
                    &mut all.handed_back
                });
            }
            Order::Connection => {}
        }
        for (reason, detail) in reasons(&pairs) {
            let unfinished = connections(&pairs, |pair| {
                pair.outcome.name() == reason && pair.outcome.dead_letter().is_some()
            });
            let letter = Letter::dead(place, record, unfinished, reason, &detail, now);
            settlement.take(place, letter, |all| &mut all.dead_letters);
        }
    }
    settlement
}

impl Settlement {
    /// Takes a letter; where it could not be written, the record is reported.
    fn take(&mut self, place: usize, letter: Option<Letter>, to: impl FnOnce(&mut Self) -> &mut Vec<Letter>) {
        match letter {
            Some(letter) => to(self).push(letter),
            None => _ = self.reported.insert(place),
        }
    }
}

fn handed_back(pair: &Ended) -> Option<&Cause> {
    match &pair.outcome {
        Outcome::HandedBack(cause) => Some(cause),
        _ => None,
    }
}

/// Each reason for a dead letter once, with the detail of the first pair that has it.
fn reasons(pairs: &[&Ended]) -> BTreeMap<&'static str, String> {
    let mut reasons = BTreeMap::new();
    for pair in pairs {
        if let Some(detail) = pair.outcome.dead_letter() {
            reasons.entry(pair.outcome.name()).or_insert(detail);
        }
    }
    reasons
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

fn delay(count: u32, causes: &[&Cause], random: f64) -> u32 {
    match causes.iter().all(|cause| **cause == Cause::Deadline) {
        true => backoff::short_of_time(random),
        false => backoff::on_the_queue(count, random),
    }
}

/// The connections of a user that need nothing more. Other audiences name only those that do.
fn done(record: &Record, pairs: &[&Ended]) -> Vec<ConnectionId> {
    match record.content.as_ref().map(|message| (&message.to, message.done())) {
        Ok((streamer_message::Audience::User { .. }, before)) => {
            let now = connections(pairs, |pair| handed_back(pair).is_none());
            before.iter().cloned().chain(now).collect()
        }
        _ => Vec::new(),
    }
}
