//! Messages that a fault keeps from being delivered, for logs and metrics.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use crate::{
    decode::Record,
    due_receipt::UNCONFIRMED_RECEIPT,
    outcome::{Cause, Completed, Outcome},
};

/// The try that shows a fault if it fails. It comes 61 s after the first one on average, so that shorter disturbances
/// and a client whose buffer is full for a minute do not count.
const LATE_TRY: u32 = 8;

/// Messages that a line of the log names.
const EXAMPLES: usize = 3;

/// First tries of an invocation that have a line each, of those for one cause.
const MAX_LINES: usize = 10;

/// The cause for a message that stays on the queue although no pair is handed back.
const UNCONFIRMED_DEAD_LETTER: &str = "the dead-letter queue did not confirm the message";

/// Messages that stay on the queue because of one fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Delayed {
    /// The number of messages.
    pub(crate) messages: usize,
    /// Maximum time since any copy of one of them was first received.
    pub(crate) max_age: Duration,
}

/// Pairs that are handed back for one cause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HandBacks<'a> {
    /// The number of pairs.
    pub(crate) pairs: usize,
    /// The indexes of their messages.
    pub(crate) messages: BTreeSet<usize>,
    /// Maximum time since the first receive.
    pub(crate) max_age: Duration,
    /// The ids of some of their messages.
    pub(crate) examples: Vec<&'a str>,
}

/// The try at which a pair is handed back, as far as the log tells tries apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Try {
    /// The first one of its message.
    First,
    /// A later one. The log has the message's ids from the first.
    Later,
}

impl Try {
    fn of(record: &Record) -> Self {
        if record.attempts() > 1 { Self::Later } else { Self::First }
    }
}

/// The lines that pairs share because they are handed back for the same cause.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SharedLines<'a>(BTreeMap<(Try, String), HandBacks<'a>>);

impl<'a> SharedLines<'a> {
    /// Groups the pairs that are handed back. Later tries always share a line. First tries share one if more than ten are
    /// handed back for the same cause; fewer have a line each.
    pub(crate) fn of(records: &'a [Record], completed: &[Completed], now: SystemTime) -> Self {
        let mut groups: BTreeMap<(Try, String), HandBacks<'_>> = BTreeMap::new();
        for pair in completed {
            let Outcome::HandedBack(cause) = &pair.outcome else { continue };
            let record = &records[pair.index];
            let group = groups.entry((Try::of(record), cause.to_string())).or_default();
            group.pairs += 1;
            group.messages.insert(pair.index);
            group.max_age = group.max_age.max(age(record, now));
            let id = record.content.as_ref().map(|message| message.envelope.id.as_str());
            if let Ok(id) = id
                && group.examples.len() < EXAMPLES
                && !group.examples.contains(&id)
            {
                group.examples.push(id);
            }
        }
        groups.retain(|(on, _), group| *on == Try::Later || group.pairs > MAX_LINES);
        Self(groups)
    }

    /// Returns whether a pair of this record, handed back for this cause, has no line of its own.
    pub(crate) fn have(&self, record: &Record, cause: &Cause) -> bool {
        self.0.contains_key(&(Try::of(record), cause.to_string()))
    }

    /// Returns the lines, in a stable order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Try, &str, &HandBacks<'a>)> {
        self.0.iter().map(|((on, cause), group)| (*on, cause.as_str(), group))
    }
}

/// Returns whether a pair counts as undelivered now. Each counts at most once: at its eighth try if it stays on the
/// queue, or at its end if that comes at this try or before. An end that is not acknowledged comes again.
///
/// Messages behind another one of their group do not count: a FIFO queue keeps them back for a fault of that one.
pub(crate) fn is_undelivered(record: &Record, outcome: &Outcome, is_acknowledged: bool) -> bool {
    let ends_by_fault = match outcome {
        // An invocation that ran out of time has done other work.
        Outcome::HandedBack(Cause::Deadline | Cause::Behind) => return false,
        Outcome::HandedBack(cause) => return cause.is_fault() && record.attempts() == LATE_TRY,
        Outcome::Expired => !has_waited_for_client(record),
        Outcome::Rejected(_) | Outcome::Poison(_) | Outcome::Exhausted(_) => true,
        Outcome::Delivered
        | Outcome::Gone
        | Outcome::Superseded
        | Outcome::NoRecipient
        | Outcome::Kept
        | Outcome::Expanded => false,
    };
    let counts_now =
        if is_acknowledged { record.attempts() <= LATE_TRY } else { record.attempts() == LATE_TRY };
    ends_by_fault && counts_now
}

/// Returns whether the last try waited for a client that was connecting, or could come back.
fn has_waited_for_client(record: &Record) -> bool {
    let waits = [Cause::Away, Cause::ConnectGrace].map(|cause| cause.to_string());
    record.retry().is_some_and(|retry| waits.contains(&retry.cause))
}

/// Groups the messages that stay on the queue because of a fault by cause.
pub(crate) fn delayed(
    records: &[Record],
    completed: &[Completed],
    unacknowledged: &BTreeSet<usize>,
    now: SystemTime,
) -> BTreeMap<String, Delayed> {
    let mut causes: BTreeMap<usize, Option<&Cause>> = BTreeMap::new();
    for pair in completed {
        if let Outcome::HandedBack(cause) = &pair.outcome {
            let first = causes.entry(pair.index).or_default();
            *first = first.or(Some(cause).filter(|cause| cause.is_fault()));
        }
    }
    let dead: BTreeSet<_> =
        completed.iter().filter(|pair| !pair.outcome.is_settled()).map(|pair| pair.index).collect();
    // A receipt that waits on a FIFO queue delays no message.
    let waits = |index: &usize| records[*index].due.is_some() || causes.contains_key(index);
    let unconfirmed = unacknowledged.iter().filter(|index| !waits(index)).map(|index| {
        let cause = if dead.contains(index) { UNCONFIRMED_DEAD_LETTER } else { UNCONFIRMED_RECEIPT };
        (*index, cause.to_owned())
    });
    let faults = causes.iter().filter_map(|(index, cause)| Some((*index, (*cause)?.to_string())));
    let mut by_cause: BTreeMap<String, Delayed> = BTreeMap::new();
    for (index, cause) in faults.chain(unconfirmed) {
        let delayed = by_cause.entry(cause).or_default();
        delayed.messages += 1;
        delayed.max_age = delayed.max_age.max(age(&records[index], now));
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

    /// Returns the tries, of nine, at which the outcome counts.
    fn counted(outcome: &Outcome, cause: &str, is_acknowledged: bool) -> Vec<u32> {
        let counts = |count: &u32| is_undelivered(&record("m", *count, cause), outcome, is_acknowledged);
        (0..9).filter(counts).map(|count| count + 1).collect()
    }

    #[test]
    fn pair_counts_once_as_undelivered() {
        for is_acknowledged in [true, false] {
            let tries = |cause| counted(&Outcome::HandedBack(cause), "429", is_acknowledged);
            assert_eq!(tries(Cause::Status(429)), [8]);
            for other in [
                Cause::Away,
                Cause::ConnectGrace,
                Cause::Elsewhere(String::new()),
                Cause::Deadline,
                Cause::Behind,
            ] {
                assert!(tries(other).is_empty());
            }
        }
        let ends = [
            Outcome::Expired,
            Outcome::Rejected(Rejection::Audience),
            Outcome::Poison(Poison::NoBody),
            Outcome::Exhausted(Cause::Timeout),
        ];
        assert!(ends.iter().all(|end| counted(end, "503", true) == [1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(counted(&Outcome::Expired, "user away", true), [1]);
        assert!(counted(&Outcome::Gone, "503", true).is_empty());
    }

    /// SQS delivers the message again, and it ends again.
    #[test]
    fn unacknowledged_end_counts_once() {
        let (rejected, gone) = (Outcome::Rejected(Rejection::Audience), Outcome::Gone);
        assert_eq!(counted(&rejected, "503", false), [8]);
        assert!(counted(&gone, "503", false).is_empty());
    }

    /// The age of a message is that of its first copy.
    #[test]
    fn delayed_messages_are_grouped_by_cause() {
        let records = [record("young", 0, ""), record("old", 3, "429"), record("away", 9, "user away")];
        let completed = [
            pair(0, Outcome::HandedBack(Cause::Timeout)),
            pair(1, Outcome::HandedBack(Cause::Away)),
            pair(1, Outcome::HandedBack(Cause::Status(429))),
            pair(2, Outcome::HandedBack(Cause::Away)),
        ];
        let delayed = |completed, unacknowledged: &[usize]| -> Vec<_> {
            let unacknowledged = unacknowledged.iter().copied().collect();
            let found = super::delayed(&records, completed, &unacknowledged, at(90)).into_iter();
            found.map(|(cause, delayed)| (cause, delayed.messages, delayed.max_age.as_secs())).collect()
        };
        let [of_429, timeout] = [("429".to_owned(), 1, 90), ("timeout".to_owned(), 1, 30)];
        assert_eq!(delayed(&completed, &[]), [of_429, timeout.clone()]);
        assert_eq!(delayed(&completed[..1], &[0]), [timeout]);
        assert_eq!(delayed(&completed[3..], &[2]), [], "a FIFO queue reports messages that wait");
        let rejected = [0, 1].map(|index| pair(index, Outcome::Rejected(Rejection::Audience)));
        assert_eq!(delayed(&rejected, &[]), []);
        assert_eq!(delayed(&rejected, &[0, 1]), [(UNCONFIRMED_DEAD_LETTER.to_owned(), 2, 90)]);
        let delivered = [pair(0, Outcome::Delivered)];
        assert_eq!(delayed(&delivered, &[0]), [(UNCONFIRMED_RECEIPT.to_owned(), 1, 30)]);
    }

    /// Returns try, cause, pairs, messages, seconds and examples of each shared line.
    fn shared(records: &[Record], completed: &[Completed]) -> Vec<(Try, String, [usize; 2], u64, String)> {
        let lines = SharedLines::of(records, completed, at(7));
        let line = |(on, cause, group): (Try, &str, &HandBacks<'_>)| {
            let numbers = [group.pairs, group.messages.len()];
            (on, cause.to_owned(), numbers, group.max_age.as_secs(), group.examples.join(" "))
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn later_tries_share_lines_by_cause() {
        let ids = ["a", "b", "c", "d"];
        let records: Vec<_> =
            ids.iter().map(|id| record(id, 1, "429")).chain([record("first", 0, "")]).collect();
        let throttled = |index| pair(index, Outcome::HandedBack(Cause::Status(429)));
        let mut completed: Vec<_> = [0, 0, 1, 2, 3, 4].map(throttled).into();
        completed.push(pair(3, Outcome::HandedBack(Cause::Timeout)));
        assert_eq!(
            shared(&records, &completed),
            [
                (Try::Later, "429".to_owned(), [5, 4], 7, "a b c".to_owned()),
                (Try::Later, "timeout".to_owned(), [1, 1], 7, "d".to_owned()),
            ]
        );
        let lines = SharedLines::of(&records, &completed, at(7));
        let have = |index: usize, cause| lines.have(&records[index], &cause);
        assert!(have(0, Cause::Status(429)) && have(3, Cause::Timeout));
        assert!(!have(4, Cause::Status(429)), "the first try has a line of its own");
    }

    #[test]
    fn eleven_first_tries_share_a_line() {
        let records = [record("a", 0, ""), record("b", 0, "")];
        let of = |number: usize| -> Vec<_> {
            (0..number).map(|pairs| pair(pairs % 2, Outcome::HandedBack(Cause::Timeout))).collect()
        };
        assert_eq!(shared(&records, &of(10)), []);
        assert_eq!(
            shared(&records, &of(11)),
            [(Try::First, "timeout".to_owned(), [11, 2], 0, "a b".to_owned())]
        );
    }
}
