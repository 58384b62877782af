//! Decides from the outcomes of a batch what is written to the queues.
//!
//! The worker acknowledges a message only when all its pairs have settled and SQS has confirmed every outgoing message
//! about it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::SystemTime,
};

use streamer_message::{Audience, ConnectionId};
use streamer_queue::{Outgoing, QueueKind, VisibilityChange};

use crate::{
    backoff::{self, Tries},
    decode::Record,
    outcome::{Cause, Completed, Outcome},
    outgoing::{self, DeadLetter, HandBack, Unfinished},
    plan::hand_back_behind,
    policy::Policy,
    receipts::{Account, Accounts},
};

/// Everything that a batch writes to the queues.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settlement {
    /// Messages for the dead-letter queue.
    pub dead_letters: Vec<Outgoing>,
    /// Messages for the queue that the batch came from. On a FIFO queue, where messages would lose their order, only
    /// receipts.
    pub handed_back: Vec<Outgoing>,
    /// Records that stay on a FIFO queue, and when SQS delivers them again.
    pub visibility_changes: Vec<VisibilityChange>,
    /// The indexes of the records that SQS must deliver again in any case.
    pub reported: BTreeSet<usize>,
}

/// Applies the policy to a batch's outcomes: hands back for users who may be reconnecting, exhausts messages that were
/// retried for too long, and keeps a FIFO queue's order.
#[must_use]
pub fn review(
    policy: &Policy,
    records: &[Record],
    mut completed: Vec<Completed>,
    now: SystemTime,
) -> Vec<Completed> {
    if policy.queue_kind == QueueKind::Standard {
        // On a FIFO queue the lane has done this.
        let by_record = by_record(&completed, |_| true);
        let away: Vec<_> =
            by_record.values().filter_map(|pairs| policy.still_away(records, pairs, now)).collect();
        completed.extend(away);
    }
    for pair in &mut completed {
        if let Outcome::HandedBack(cause) = &pair.outcome {
            pair.outcome = policy.hand_back_or_exhaust(&records[pair.index], cause.clone(), now);
        }
    }
    if policy.queue_kind == QueueKind::Fifo {
        hand_back_behind(records, &mut completed);
    }
    completed
}

/// Groups all pairs by record, for each record with at least one pair that `is_wanted`.
fn by_record(
    completed: &[Completed],
    is_wanted: impl Fn(&Completed) -> bool,
) -> BTreeMap<usize, Vec<&Completed>> {
    let wanted: BTreeSet<_> =
        completed.iter().filter(|pair| is_wanted(pair)).map(|pair| pair.index).collect();
    let mut by_record: BTreeMap<usize, Vec<&Completed>> = BTreeMap::new();
    for pair in completed.iter().filter(|pair| wanted.contains(&pair.index)) {
        by_record.entry(pair.index).or_default().push(pair);
    }
    by_record
}

/// Decides from reviewed outcomes what is written to the queues. `random` returns values from 0 up to, not including,
/// 1.
#[must_use]
pub fn settle(
    policy: &Policy,
    records: &[Record],
    completed: &[Completed],
    accounts: &Accounts,
    now: SystemTime,
    random: impl FnMut() -> f64,
) -> Settlement {
    let unsettled = by_record(completed, |pair| !pair.outcome.is_settled());
    match policy.queue_kind {
        QueueKind::Standard => settle_standard(policy, records, &unsettled, accounts, now, random),
        QueueKind::Fifo => settle_fifo(policy, records, &unsettled, accounts, now, random),
    }
}

/// Hands unfinished messages back. A record that panicked the worker is reported unchanged.
fn settle_standard(
    policy: &Policy,
    records: &[Record],
    unsettled: &BTreeMap<usize, Vec<&Completed>>,
    accounts: &Accounts,
    now: SystemTime,
    mut random: impl FnMut() -> f64,
) -> Settlement {
    let mut settlement = Settlement::default();
    for (index, pairs) in unsettled {
        let (record, causes) = (&records[*index], causes(pairs));
        if causes.contains(&&Cause::Panic) {
            settlement.reported.insert(*index);
            continue;
        }
        if !causes.is_empty() {
            let tries = policy.tries(record.retry().map_or(0, |retry| retry.count), record, now);
            let random = random();
            let why = HandBack {
                cause: root_cause(&causes).to_string(),
                delay: delay_for_user(policy, record, &causes, now, random)
                    .unwrap_or_else(|| delay(tries, is_stuck(record, pairs), &causes, random)),
                done: done(record, pairs),
                receipt: accounts.get(index).map(Account::notes_of_hand_back),
            };
            let unfinished = Unfinished {
                connections: connections(pairs, |pair| handed_back(pair).is_some()),
                after: pairs.iter().find_map(|pair| pair.after.clone()),
            };
            match outgoing::hand_back(*index, record, unfinished, why, now) {
                Some(message) => settlement.handed_back.push(message),
                None => _ = settlement.reported.insert(*index),
            }
        }
        settlement.add_dead_letters(*index, record, pairs, accounts.get(index), now);
    }
    settlement
}

/// Leaves unfinished records on the queue, hidden for the same time within a message group: without delay behind a
/// dead letter.
fn settle_fifo(
    policy: &Policy,
    records: &[Record],
    unsettled: &BTreeMap<usize, Vec<&Completed>>,
    accounts: &Accounts,
    now: SystemTime,
    mut random: impl FnMut() -> f64,
) -> Settlement {
    let mut settlement = Settlement::default();
    let mut group_seconds: HashMap<Option<&str>, u32> = HashMap::new();
    for (index, pairs) in unsettled {
        let (record, causes) = (&records[*index], causes(pairs));
        let seconds =
            *group_seconds.entry(record.group.as_deref()).or_insert_with(|| match causes.is_empty() {
                true => backoff::deadline_hand_back(random()),
                false => {
                    let random = random();
                    let tries = policy.tries(record.receives.saturating_sub(1), record, now);
                    delay_for_user(policy, record, &causes, now, random).unwrap_or_else(|| {
                        delay(tries, tries.count > 0 && !have_progressed(pairs), &causes, random)
                    })
                }
            });
        if causes.is_empty() {
            settlement.add_dead_letters(*index, record, pairs, accounts.get(index), now);
        } else {
            let change = |receipt_handle| VisibilityChange { receipt_handle, seconds };
            settlement.visibility_changes.extend(record.receipt_handle.clone().map(change));
            settlement.reported.insert(*index);
        }
    }
    settlement
}

impl Settlement {
    /// Adds one dead letter for each reason among a record's pairs.
    fn add_dead_letters(
        &mut self,
        index: usize,
        record: &Record,
        pairs: &[&Completed],
        account: Option<&Account>,
        now: SystemTime,
    ) {
        let mut reasons: BTreeMap<&str, (&Outcome, String, Vec<ConnectionId>)> = BTreeMap::new();
        for pair in pairs {
            if let Some(detail) = pair.outcome.dead_letter_detail() {
                let reason = (&pair.outcome, detail, Vec::new());
                let (_, _, unfinished) = reasons.entry(pair.outcome.name()).or_insert(reason);
                unfinished.extend(pair.connection.clone());
            }
        }
        for (reason, (outcome, detail, connections)) in reasons {
            let after = pairs.iter().find_map(|pair| pair.after.clone());
            let why = DeadLetter { reason, detail: &detail };
            let receipt = account.map(|account| account.notes_of_dead_letter(outcome, connections.len()));
            let unfinished = Unfinished { connections, after };
            let letter = outgoing::dead_letter(index, record, unfinished, why, receipt.as_ref(), now);
            self.dead_letters.push(letter);
        }
    }
}

fn causes<'a>(pairs: &[&'a Completed]) -> Vec<&'a Cause> {
    pairs.iter().filter_map(|pair| handed_back(pair)).collect()
}

fn handed_back(pair: &Completed) -> Option<&Cause> {
    match &pair.outcome {
        Outcome::HandedBack(cause) => Some(cause),
        _ => None,
    }
}

fn connections(pairs: &[&Completed], is_wanted: impl Fn(&Completed) -> bool) -> Vec<ConnectionId> {
    let wanted = pairs.iter().filter(|pair| is_wanted(pair));
    wanted.filter_map(|pair| pair.connection.clone()).collect()
}

/// Returns the first cause that is not the consequence of another.
fn root_cause<'a>(causes: &[&'a Cause]) -> &'a Cause {
    causes
        .iter()
        .find(|cause| ***cause != Cause::Behind)
        .or(causes.first())
        .copied()
        .unwrap_or(&Cause::Behind)
}

/// Returns whether a message ran out of time repeatedly, without progress this time.
fn is_stuck(record: &Record, pairs: &[&Completed]) -> bool {
    let before = record.retry().is_some_and(|retry| retry.cause.starts_with(&Cause::Deadline.to_string()));
    before && !have_progressed(pairs)
}

/// Returns whether a message was posted, or its fan-out has sent parts or come further.
fn have_progressed(pairs: &[&Completed]) -> bool {
    pairs.iter().any(|pair| pair.posts > 0 || pair.parts.is_some() || pair.after.is_some())
}

/// Returns the delay in seconds: up to 1 s if only the invocation's time was short, and exponential backoff otherwise
/// or if the message is stuck.
fn delay(tries: Tries, stuck: bool, causes: &[&Cause], random: f64) -> u32 {
    if !stuck && causes.iter().all(|cause| **cause == Cause::Deadline) {
        return backoff::deadline_hand_back(random);
    }
    let open = causes.iter().filter_map(|cause| match cause {
        Cause::CircuitOpen(open) => Some(*open),
        _ => None,
    });
    backoff::hand_back(tries, open.max_by_key(|open| open.wait).unwrap_or_default(), random)
}

/// Returns the delay in seconds of a message that only waits for its user to connect to this endpoint. `None` if it was
/// handed back for another cause, or is past the away grace.
fn delay_for_user(
    policy: &Policy,
    record: &Record,
    causes: &[&Cause],
    now: SystemTime,
    random: f64,
) -> Option<u32> {
    if !causes.iter().all(|cause| matches!(cause, Cause::Away | Cause::Elsewhere(_))) {
        return None;
    }
    Some(backoff::away(policy.wait_for_user(record, now)?, random))
}

/// Returns a user's connections that need no further post. Other audiences name only their unfinished connections. Gone
/// connections are left out: while no connection has the message, the worker waits for the user.
fn done(record: &Record, pairs: &[&Completed]) -> Vec<ConnectionId> {
    match record.content.as_ref().map(|message| (&message.envelope.to, message.done())) {
        Ok((Audience::User { .. }, before)) => {
            let is_done = |pair: &Completed| handed_back(pair).is_none() && pair.outcome != Outcome::Gone;
            let now = connections(pairs, is_done);
            before.iter().cloned().chain(now).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use streamer_events::{Body, SqsRecord};
    use streamer_message::{OutboundMessage, Retry};

    use super::*;
    use crate::admission::OpenCircuit;

    const POLICY: Policy = Policy {
        queue_kind: QueueKind::Standard,
        connect_grace: Duration::from_secs(5),
        away_grace: Duration::from_secs(30),
        max_age: Duration::from_secs(7800),
    };

    /// Returns the `retry` of a message that is handed back for these causes, and its delay in seconds.
    fn handed_back_for(causes: &[Cause], after: Option<&str>) -> (Retry, u32) {
        let retry = r#"{"count":50,"receives":0,"since":1,"cause":"429","after":"before"}"#;
        let to = r#"{"user":{"tenant":"acme","user":"anna"}}"#;
        let body = format!(r#"{{"version":1,"id":"m","to":{to},"payload":1,"retry":{retry}}}"#);
        let record = Record::read(SqsRecord { body: Body::Text(body), ..SqsRecord::default() });
        let pair = |(id, cause): (usize, &Cause)| {
            let connection = id.to_string().as_str().try_into().unwrap();
            let after = after.map(|after| after.try_into().unwrap());
            let completed = Completed::unposted(0, Some(connection), Outcome::HandedBack(cause.clone()));
            Completed { after, ..completed }
        };
        let completed: Vec<_> = causes.iter().enumerate().map(pair).collect();
        let settled =
            settle(&POLICY, &[record], &completed, &Accounts::new(), SystemTime::UNIX_EPOCH, || {
                1.0 - f64::EPSILON
            });
        let [message] = &settled.handed_back[..] else { panic!("{settled:?}") };
        (OutboundMessage::decode(&message.body).unwrap().retry.unwrap(), message.delay)
    }

    #[test]
    fn only_deadlines_alone_shorten_delay() {
        assert_eq!(handed_back_for(&[Cause::Deadline, Cause::Deadline], None).1, 1);
        assert_eq!(handed_back_for(&[Cause::Deadline, Cause::Status(429)], None).1, 60);
    }

    #[test]
    fn longest_open_circuit_sets_the_delay() {
        let open = |wait| {
            let (wait, age) = (Duration::from_secs(wait), Duration::from_secs(3600));
            Cause::CircuitOpen(OpenCircuit { wait, age })
        };
        assert_eq!(handed_back_for(&[open(3), open(20), open(7)], None).1, 110);
    }

    #[test]
    fn first_root_cause_is_noted() {
        let noted = |causes: &[Cause]| handed_back_for(causes, None).0.cause;
        assert_eq!(noted(&[Cause::Behind, Cause::Status(503), Cause::Timeout]), "503");
        assert_eq!(noted(&[Cause::Behind]), "behind a message that was handed back");
    }

    #[test]
    fn user_cursor_is_kept() {
        let cursor = |after| handed_back_for(&[Cause::Status(429)], after).0.after.unwrap().to_string();
        assert_eq!((cursor(None), cursor(Some("later"))), ("before".to_owned(), "later".to_owned()));
    }
}
