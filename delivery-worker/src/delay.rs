//! Messages that a fault keeps from being delivered, for logs and metrics.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use crate::{
    decode::Record,
    outcome::{Cause, Completed, Outcome},
};

/// The try that shows a fault if it fails: on a standard queue it comes 7.5 s after the first one on average, so that
/// shorter disturbances and a slow client's full buffer do not count.
const LATE_TRY: u32 = 5;

/// Messages that a line of the log names.
const EXAMPLES: usize = 3;

/// The cause for a message that stays on the queue although no pair is handed back.
const UNCONFIRMED_DEAD_LETTER: &str = "the dead-letter queue did not confirm the message";

/// A message that stays on the queue because of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delayed {
    /// Time since any copy of it was first received.
    pub(crate) age: Duration,
    /// The fault.
    pub(crate) cause: String,
}

/// Pairs that are handed back for one cause, not for the first time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Retries<'a> {
    /// The number of pairs.
    pub(crate) pairs: usize,
    /// Maximum time since the first receive.
    pub(crate) max_age: Duration,
    /// The ids of some of their messages.
    pub(crate) examples: Vec<&'a str>,
}

/// Returns whether a pair counts as undelivered now. Each counts at most once: at its fifth try, or at its end if that
/// comes first.
pub(crate) fn is_undelivered(record: &Record, outcome: &Outcome) -> bool {
    match outcome {
        // An invocation that ran out of time has done other work.
        Outcome::HandedBack(Cause::Deadline) => false,
        Outcome::HandedBack(cause) => cause.is_fault() && record.attempts() == LATE_TRY,
        Outcome::Expired => record.attempts() < LATE_TRY && !has_waited_for_client(record),
        Outcome::Rejected(_) | Outcome::Poison(_) | Outcome::Exhausted(_) => record.attempts() < LATE_TRY,
        Outcome::Delivered
        | Outcome::Gone
        | Outcome::Superseded
        | Outcome::NoRecipient
        | Outcome::Expanded => false,
    }
}

/// Returns whether the last try waited for a client that was connecting, or could come back.
fn has_waited_for_client(record: &Record) -> bool {
    let waits = [Cause::Away, Cause::ConnectGrace].map(|cause| cause.to_string());
    record.retry().is_some_and(|retry| waits.contains(&retry.cause))
}

/// Returns the oldest message that stays on the queue because of a fault.
pub(crate) fn oldest(
    records: &[Record],
    completed: &[Completed],
    unacknowledged: &BTreeSet<usize>,
    now: SystemTime,
) -> Option<Delayed> {
    let mut causes: BTreeMap<usize, Option<&Cause>> = BTreeMap::new();
    for pair in completed {
        if let Outcome::HandedBack(cause) = &pair.outcome {
            let first = causes.entry(pair.index).or_default();
            *first = first.or(Some(cause).filter(|cause| cause.is_fault()));
        }
    }
    let unconfirmed = unacknowledged.iter().filter(|index| !causes.contains_key(index));
    let unconfirmed = unconfirmed.map(|index| (*index, UNCONFIRMED_DEAD_LETTER.to_owned()));
    let faults = causes.iter().filter_map(|(index, cause)| Some((*index, (*cause)?.to_string())));
    let delayed =
        faults.chain(unconfirmed).map(|(index, cause)| Delayed { age: age(&records[index], now), cause });
    delayed.max_by_key(|delayed| delayed.age)
}

/// Groups the pairs that are handed back again by cause.
pub(crate) fn retries<'a>(
    records: &'a [Record],
    completed: &[Completed],
    now: SystemTime,
) -> BTreeMap<String, Retries<'a>> {
    let mut by_cause: BTreeMap<String, Retries<'_>> = BTreeMap::new();
    for pair in completed {
        let record = &records[pair.index];
        let (Outcome::HandedBack(cause), true) = (&pair.outcome, record.attempts() > 1) else { continue };
        let retries = by_cause.entry(cause.to_string()).or_default();
        retries.pairs += 1;
        retries.max_age = retries.max_age.max(age(record, now));
        let id = record.content.as_ref().map(|message| message.envelope.id.as_str());
        if let Ok(id) = id
            && retries.examples.len() < EXAMPLES
            && !retries.examples.contains(&id)
        {
            retries.examples.push(id);
        }
    }
    by_cause
}

fn age(record: &Record, now: SystemTime) -> Duration {
    record.since().and_then(|since| now.duration_since(since).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use streamer_events::{Body, SqsRecord};

    use super::*;
    use crate::{decode::Poison, outcome::Rejection};

    /// Returns a message that was handed back `count` times, at first received at the epoch.
    fn record(id: &str, count: u32, cause: &str) -> Record {
        let retry = match count {
            0 => String::new(),
            _ => format!(r#","retry":{{"count":{count},"receives":0,"since":0,"cause":"{cause}"}}"#),
        };
        let body = format!(r#"{{"version":1,"id":"{id}","to":{{"connection":"c"}},"payload":1{retry}}}"#);
        let first = ("ApproximateFirstReceiveTimestamp".to_owned(), "60000".to_owned());
        let body = Body::Text(body);
        Record::read(SqsRecord { body, attributes: [first].into(), ..SqsRecord::default() })
    }

    fn pair(index: usize, outcome: Outcome) -> Completed {
        Completed::unposted(index, None, outcome)
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn pair_counts_once_as_undelivered() {
        let tries = |outcome: &Outcome, cause: &str| -> Vec<u32> {
            let counts = |count: &u32| is_undelivered(&record("m", *count, cause), outcome);
            (0..9).filter(counts).map(|count| count + 1).collect()
        };
        assert_eq!(tries(&Outcome::HandedBack(Cause::Status(429)), "429"), [5]);
        assert_eq!(tries(&Outcome::HandedBack(Cause::Behind), "429"), [5]);
        for normal in [Cause::Away, Cause::ConnectGrace, Cause::Elsewhere(String::new()), Cause::Deadline] {
            assert!(tries(&Outcome::HandedBack(normal), "429").is_empty());
        }
        let ends = [
            Outcome::Expired,
            Outcome::Rejected(Rejection::Audience),
            Outcome::Poison(Poison::NoBody),
            Outcome::Exhausted(Cause::Timeout),
        ];
        assert!(ends.iter().all(|end| tries(end, "503") == [1, 2, 3, 4]));
        assert_eq!(tries(&Outcome::Expired, "user away"), [1]);
        assert!(tries(&Outcome::Gone, "503").is_empty());
    }

    /// The age of a message is that of its first copy.
    #[test]
    fn oldest_message_with_fault_is_found() {
        let records = [record("young", 0, ""), record("old", 3, "429"), record("away", 9, "user away")];
        let completed = [
            pair(0, Outcome::HandedBack(Cause::Timeout)),
            pair(1, Outcome::HandedBack(Cause::Away)),
            pair(1, Outcome::HandedBack(Cause::Status(429))),
            pair(2, Outcome::HandedBack(Cause::Away)),
        ];
        let oldest = |completed, unacknowledged: &[usize]| {
            let unacknowledged = unacknowledged.iter().copied().collect();
            super::oldest(&records, completed, &unacknowledged, at(90))
                .map(|found| (found.age.as_secs(), found.cause))
        };
        assert_eq!(oldest(&completed, &[]), Some((90, "429".to_owned())));
        assert_eq!(oldest(&completed[..1], &[0]), Some((30, "timeout".to_owned())));
        assert_eq!(oldest(&completed[3..], &[2]), None, "a FIFO queue reports what waits");
        let rejected = [pair(0, Outcome::Rejected(Rejection::Audience))];
        assert_eq!(oldest(&rejected, &[]), None);
        assert_eq!(oldest(&rejected, &[0]), Some((30, UNCONFIRMED_DEAD_LETTER.to_owned())));
    }

    #[test]
    fn retries_are_grouped_by_cause() {
        let ids = ["a", "b", "c", "d"];
        let records: Vec<_> =
            ids.iter().map(|id| record(id, 1, "429")).chain([record("first", 0, "")]).collect();
        let throttled = |index| pair(index, Outcome::HandedBack(Cause::Status(429)));
        let mut completed: Vec<_> = [0, 0, 1, 2, 3, 4].map(throttled).into();
        completed.push(pair(3, Outcome::HandedBack(Cause::Timeout)));
        let grouped = retries(&records, &completed, at(7));
        let (of_429, max_age) = (["a", "b", "c"].into(), Duration::from_secs(7));
        assert_eq!(
            grouped,
            [
                ("429".to_owned(), Retries { pairs: 5, max_age, examples: of_429 }),
                ("timeout".to_owned(), Retries { pairs: 1, max_age, examples: ["d"].into() }),
            ]
            .into()
        );
    }
}
