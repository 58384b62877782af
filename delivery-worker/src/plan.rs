//! Arranges pairs into lanes.

use std::{collections::HashMap, time::SystemTime};

use streamer_message::{Audience, ConnectionId};
use streamer_queue::QueueKind;

use crate::{
    decode::{Pair, Record},
    outcome::{Cause, Completed, Outcome},
};

/// Pairs that keep their order. A lane posts one message at a time. Lanes run concurrently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane<'a> {
    /// In order of arrival, so that the pairs of one message are adjacent.
    pub pairs: Vec<Pair<'a>>,
}

/// The lanes of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned<'a> {
    /// The lanes, in the order of their first messages.
    pub lanes: Vec<Lane<'a>>,
    /// Pairs that later messages supersede.
    pub superseded: Vec<Completed>,
}

/// Arranges pairs, given in order of arrival, into lanes and takes out superseded ones.
///
/// On a standard queue the messages of one request are sorted by `seq`, and together keep the positions at which they
/// arrived. On a FIFO queue every message keeps its position.
#[must_use]
pub fn plan<'a>(
    kind: QueueKind,
    records: &'a [Record],
    pairs: Vec<Pair<'a>>,
    deadline: SystemTime,
) -> Planned<'a> {
    let (pairs, superseded) = supersede(pairs, deadline);
    let mut lanes = lanes(kind, records, pairs);
    match kind {
        QueueKind::Standard => lanes.iter_mut().for_each(|lane| sort_requests(&mut lane.pairs)),
        QueueKind::Fifo => {}
    }
    Planned { lanes, superseded }
}

/// Takes out supersedable pairs for which the batch holds a later message of the same request and connection that can
/// itself be delivered: it was not rejected and does not expire before the deadline.
///
/// Of two supersedable messages, the one with the higher `seq` is later. A message that is not supersedable, such as an
/// acknowledgment, must also have arrived later: it may come from a producer whose clock is ahead.
fn supersede<'a>(mut pairs: Vec<Pair<'a>>, deadline: SystemTime) -> (Vec<Pair<'a>>, Vec<Completed>) {
    if !pairs.iter().any(may_be_superseded) {
        return (pairs, Vec::new());
    }
    let mut latest = Latest::default();
    pairs
        .iter()
        .filter(|pair| pair.message.envelope.supersedable)
        .for_each(|pair| latest.note(pair, deadline));
    let is_kept = |pair: &Pair<'a>| match may_be_superseded(pair) {
        true => !latest.supersedes(pair),
        false => {
            latest.note(pair, deadline);
            true
        }
    };
    // The loop visits the last arrival first.
    pairs.reverse();
    let (mut kept, superseded): (Vec<_>, Vec<_>) = pairs.into_iter().partition(is_kept);
    kept.reverse();
    (kept, superseded.iter().rev().map(|pair| pair.unposted(Outcome::Superseded)).collect())
}

/// The highest `seq` for each request and connection, of all messages and of those for users alone: a message that can
/// wait for a user is superseded only by one that can wait, too.
#[derive(Default)]
struct Latest<'a>(HashMap<(&'a str, ConnectionId, bool), u64>);

impl<'a> Latest<'a> {
    fn note(&mut self, pair: &Pair<'a>, deadline: SystemTime) {
        let Some(request) =
            pair.message.envelope.request.as_ref().filter(|_| !pair.message.is_expired(deadline))
        else {
            return;
        };
        for for_user in if is_for_user(pair) { &[false, true][..] } else { &[false] } {
            let key = (request.id.as_str(), pair.connection.clone(), *for_user);
            let latest = self.0.entry(key).or_default();
            *latest = request.seq.max(*latest);
        }
    }

    fn supersedes(&self, pair: &Pair<'a>) -> bool {
        pair.message.envelope.request.as_ref().is_some_and(|request| {
            let key = (request.id.as_str(), pair.connection.clone(), is_for_user(pair));
            self.0.get(&key).is_some_and(|latest| request.seq < *latest)
        })
    }
}

/// Returns whether a later message may replace it. A kept message has its place in the stream.
fn may_be_superseded(pair: &Pair<'_>) -> bool {
    pair.message.envelope.supersedable && pair.message.envelope.keep.is_none()
}

fn is_for_user(pair: &Pair<'_>) -> bool {
    matches!(pair.message.envelope.to, Audience::User { .. })
}

/// Sorts the messages of each request by `seq`, within the positions that they occupy together.
fn sort_requests(pairs: &mut [Pair<'_>]) {
    if pairs.len() < 2 {
        return;
    }
    let mut indexes: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, pair) in pairs.iter().enumerate() {
        if let Some(request) = &pair.message.envelope.request {
            indexes.entry(request.id.as_str()).or_default().push(index);
        }
    }
    for indexes in indexes.into_values().filter(|indexes| indexes.len() > 1) {
        let mut same_request: Vec<_> = indexes.iter().map(|index| pairs[*index].clone()).collect();
        same_request.sort_by_key(|pair| pair.message.envelope.request.as_ref().map(|request| request.seq));
        for (index, pair) in indexes.into_iter().zip(same_request) {
            pairs[index] = pair;
        }
    }
}

/// Builds one lane for each connection, or for each message group on a FIFO queue.
fn lanes<'a>(kind: QueueKind, records: &'a [Record], pairs: Vec<Pair<'a>>) -> Vec<Lane<'a>> {
    let mut lanes: Vec<Lane<'a>> = Vec::new();
    let mut by_connection: HashMap<ConnectionId, usize> = HashMap::new();
    let mut by_group: HashMap<Option<&str>, usize> = HashMap::new();
    for pair in pairs {
        let next = lanes.len();
        let lane = match kind {
            QueueKind::Standard => *by_connection.entry(pair.connection.clone()).or_insert(next),
            QueueKind::Fifo => *by_group.entry(group(records, pair.index)).or_insert(next),
        };
        match lanes.get_mut(lane) {
            Some(lane) => lane.pairs.push(pair),
            None => lanes.push(Lane { pairs: vec![pair] }),
        }
    }
    lanes
}

/// Takes out, and hands back, the pairs behind a message of the same group on a FIFO queue that completed unsettled
/// without a connection.
pub fn withhold_behind(records: &[Record], pairs: &mut Vec<Pair<'_>>, completed: &mut Vec<Completed>) {
    let first = first_unsettled(records, completed);
    pairs.retain(|pair| {
        let behind = is_behind(records, &first, pair.index);
        if behind {
            completed.push(pair.unposted(Outcome::HandedBack(Cause::Behind)));
        }
        !behind
    });
}

/// Hands back every message behind the first one of its group on a FIFO queue that did not settle.
pub fn hand_back_behind(records: &[Record], completed: &mut [Completed]) {
    let first = first_unsettled(records, completed);
    for pair in completed {
        // The successor of a superseded message is handed back, too, or was delivered.
        let stays = matches!(pair.outcome, Outcome::HandedBack(_) | Outcome::Superseded);
        if is_behind(records, &first, pair.index) && !stays {
            pair.outcome = Outcome::HandedBack(Cause::Behind);
        }
    }
}

fn group(records: &[Record], index: usize) -> Option<&str> {
    records[index].group.as_deref()
}

/// Returns, for each group, the index of the first message that did not settle.
fn first_unsettled<'a>(records: &'a [Record], completed: &[Completed]) -> HashMap<Option<&'a str>, usize> {
    let mut first = HashMap::new();
    for pair in completed.iter().filter(|pair| !pair.outcome.is_settled()) {
        let index = first.entry(group(records, pair.index)).or_insert(pair.index);
        *index = pair.index.min(*index);
    }
    first
}

fn is_behind(records: &[Record], first: &HashMap<Option<&str>, usize>, index: usize) -> bool {
    first.get(&group(records, index)).is_some_and(|first| index > *first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use streamer_events::{Body, SqsRecord};

    use super::*;
    use crate::decode::Message;

    fn record(group: &str) -> Record {
        with(group, "")
    }

    /// Returns a record with more fields in its body.
    fn with(group: &str, more: &str) -> Record {
        let text = format!(r#"{{"version":1,"id":"m","payload":1,"to":{{"connection":"c"}}{more}}}"#);
        let attributes = [("MessageGroupId".to_owned(), group.to_owned())].into();
        Record::read(SqsRecord { body: Body::Text(text), attributes, ..SqsRecord::default() })
    }

    fn message(record: &Record) -> &Message {
        record.content.as_ref().unwrap()
    }

    fn pairs<'a>(records: &'a [Record], pairs: &[(usize, &str)]) -> Vec<Pair<'a>> {
        let pair = |(index, connection): &(usize, &str)| Pair {
            index: *index,
            message: message(&records[*index]),
            connection: (*connection).try_into().unwrap(),
        };
        pairs.iter().map(pair).collect()
    }

    fn lanes(kind: QueueKind, records: &[Record], given: &[(usize, &str)]) -> Vec<Vec<(usize, String)>> {
        let seen = |pair: &Pair<'_>| (pair.index, pair.connection.to_string());
        let planned = plan(kind, records, pairs(records, given), SystemTime::UNIX_EPOCH);
        assert!(planned.superseded.is_empty());
        planned.lanes.iter().map(|lane| lane.pairs.iter().map(seen).collect()).collect()
    }

    const GIVEN: [(usize, &str); 5] = [(0, "a"), (1, "b"), (1, "a"), (2, "b"), (3, "c")];

    #[test]
    fn lane_keeps_order_of_arrival() {
        let records = ["g", "h", "g", "h"].map(record);
        let lane =
            |lane: &[(usize, &str)]| lane.iter().map(|(index, id)| (*index, (*id).to_owned())).collect();
        let expected: Vec<Vec<_>> =
            vec![lane(&[(0, "a"), (1, "a")]), lane(&[(1, "b"), (2, "b")]), lane(&[(3, "c")])];
        assert_eq!(lanes(QueueKind::Standard, &records, &GIVEN), expected);
    }

    #[test]
    fn fifo_lane_holds_a_whole_group() {
        let records = ["g", "h", "g", "h"].map(record);
        let lane =
            |lane: &[(usize, &str)]| lane.iter().map(|(index, id)| (*index, (*id).to_owned())).collect();
        let expected: Vec<Vec<_>> = vec![lane(&[(0, "a"), (2, "b")]), lane(&[(1, "b"), (1, "a"), (3, "c")])];
        assert_eq!(lanes(QueueKind::Fifo, &records, &GIVEN), expected);
    }

    #[test]
    fn group_is_withheld_behind_unsettled_message() {
        let records = ["g", "h", "g", "g"].map(record);
        let mut completed = vec![Completed::unposted(2, None, Outcome::HandedBack(Cause::Away))];
        let mut pairs = pairs(&records, &[(0, "a"), (1, "b"), (3, "c")]);
        withhold_behind(&records, &mut pairs, &mut completed);
        assert_eq!(pairs.iter().map(|pair| pair.index).collect::<Vec<_>>(), [0, 1]);
        assert_eq!((completed[1].index, &completed[1].outcome), (3, &Outcome::HandedBack(Cause::Behind)));
    }

    #[test]
    fn group_is_handed_back_behind_unsettled_message() {
        let records = ["g", "g", "h", "g"].map(record);
        let mut completed = [
            Completed::unposted(0, None, Outcome::Expired),
            Completed::unposted(1, None, Outcome::HandedBack(Cause::Timeout)),
            Completed::unposted(2, None, Outcome::NoRecipient),
            Completed::unposted(3, None, Outcome::NoRecipient),
        ];
        hand_back_behind(&records, &mut completed);
        let outcomes = completed.map(|pair| pair.outcome);
        let expected = [
            Outcome::Expired,
            Outcome::HandedBack(Cause::Timeout),
            Outcome::NoRecipient,
            Outcome::HandedBack(Cause::Behind),
        ];
        assert_eq!(outcomes, expected);
    }

    fn of_request(request: &str, seq: u64, more: &str) -> Record {
        with("g", &format!(r#","request":{{"id":"{request}","seq":{seq}}}{more}"#))
    }

    /// Returns the indexes of one connection's lane and of the superseded messages.
    fn planned(kind: QueueKind, records: &[Record]) -> (Vec<usize>, Vec<usize>) {
        let given: Vec<_> = (0..records.len()).map(|index| (index, "a")).collect();
        let deadline = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(DEADLINE_MILLIS);
        let Planned { lanes, superseded } = plan(kind, records, pairs(records, &given), deadline);
        let lane = lanes.first().map(|lane| lane.pairs.iter().map(|pair| pair.index).collect());
        (lane.unwrap_or_default(), superseded.iter().map(|completed| completed.index).collect())
    }

    #[test]
    fn request_messages_are_sorted_by_seq() {
        let records = [
            of_request("r", 9, ""),
            record("g"),
            of_request("s", 2, ""),
            of_request("r", 3, ""),
            of_request("s", 1, ""),
            of_request("r", 7, ""),
        ];
        assert_eq!(planned(QueueKind::Standard, &records).0, [3, 1, 4, 5, 2, 0]);
        assert_eq!(planned(QueueKind::Fifo, &records).0, [0, 1, 2, 3, 4, 5], "a FIFO queue keeps its order");
    }

    /// The deadline of [`planned`], in milliseconds since the epoch.
    const DEADLINE_MILLIS: u64 = 1_764_000_001_000;

    const SUPERSEDABLE: &str = r#","supersedable":true"#;

    #[test]
    fn later_message_supersedes_progress() {
        let records = [
            of_request("r", 1, SUPERSEDABLE),
            of_request("r", 3, SUPERSEDABLE),
            of_request("r", 2, ""),
            of_request("s", 1, SUPERSEDABLE),
            of_request("r", 4, ""),
            of_request("r", 5, SUPERSEDABLE),
        ];
        for kind in [QueueKind::Standard, QueueKind::Fifo] {
            assert_eq!(planned(kind, &records), (vec![2, 3, 4, 5], vec![0, 1]), "{kind:?}");
        }
    }

    /// It has its place in the stream, and replaces others as before.
    #[test]
    fn kept_message_is_not_superseded() {
        let user = |seq: u64, keep: &str| {
            let text = of_request("r", seq, &format!("{SUPERSEDABLE}{keep}"));
            let to = r#"{"user":{"tenant":"t","user":"u"}}"#;
            let text = text.text().replace(r#"{"connection":"c"}"#, to);
            Record::read(SqsRecord { body: Body::Text(text), ..SqsRecord::default() })
        };
        let records = [user(1, ""), user(2, r#","keep":60"#), user(3, r#","keep":60"#), user(4, "")];
        assert_eq!(planned(QueueKind::Standard, &records), (vec![1, 2, 3], vec![0]));
    }

    #[test]
    fn clock_ahead_supersedes_no_later_message() {
        let acknowledgment_first = [of_request("r", 9, ""), of_request("r", 5, SUPERSEDABLE)];
        assert_eq!(planned(QueueKind::Standard, &acknowledgment_first), (vec![1, 0], vec![]));
        let progress_first = [of_request("r", 9, SUPERSEDABLE), of_request("r", 5, SUPERSEDABLE)];
        assert_eq!(
            planned(QueueKind::Standard, &progress_first),
            (vec![0], vec![1]),
            "the higher seq is later"
        );
    }

    #[test]
    fn expiring_successor_supersedes_nothing() {
        let records = |expires: u64| {
            [of_request("r", 1, SUPERSEDABLE), of_request("r", 2, &format!(r#","expires_at":{expires}"#))]
        };
        assert_eq!(planned(QueueKind::Standard, &records(DEADLINE_MILLIS)), (vec![0, 1], vec![]));
        assert_eq!(planned(QueueKind::Standard, &records(DEADLINE_MILLIS + 1)), (vec![1], vec![0]));
    }

    #[test]
    fn user_message_supersedes_user_message_only() {
        let user = |seq: u64| {
            let more = format!(r#","request":{{"id":"r","seq":{seq}}}{SUPERSEDABLE}"#);
            let text = with("g", &more)
                .text()
                .replace(r#"{"connection":"c"}"#, r#"{"user":{"tenant":"t","user":"u"}}"#);
            Record::read(SqsRecord { body: Body::Text(text), ..SqsRecord::default() })
        };
        let connection = |seq: u64| of_request("r", seq, SUPERSEDABLE);
        assert_eq!(planned(QueueKind::Standard, &[user(1), connection(2)]), (vec![0, 1], vec![]));
        assert_eq!(planned(QueueKind::Standard, &[connection(1), user(2)]), (vec![1], vec![0]));
        assert_eq!(planned(QueueKind::Standard, &[user(1), connection(3), user(2)]), (vec![2, 1], vec![0]));
    }

    #[test]
    fn copies_and_other_connections_supersede_nothing() {
        let records =
            [of_request("r", 1, SUPERSEDABLE), of_request("r", 2, ""), of_request("r", 1, SUPERSEDABLE)];
        let given = pairs(&records, &[(0, "a"), (1, "b"), (2, "a")]);
        let planned = plan(QueueKind::Standard, &records, given, SystemTime::UNIX_EPOCH);
        assert!(planned.superseded.is_empty());
    }

    proptest! {
        #[test]
        fn requests_keep_order_and_superseded_have_successors(
            messages in prop::collection::vec((0..3_u8, 0..9_u64, any::<bool>(), any::<bool>(), 0..3_usize), 1..12),
        ) {
            let record = |(request, seq, supersedable, expires, _): &(u8, u64, bool, bool, usize)| {
                let more = [(*supersedable, SUPERSEDABLE), (*expires, r#","expires_at":1764000000500"#)];
                let more: String = more.iter().filter(|(is, _)| *is).map(|(_, more)| *more).collect();
                of_request(&request.to_string(), *seq, &more)
            };
            let records: Vec<_> = messages.iter().map(record).collect();
            let names = ["a", "b", "c"];
            let given: Vec<_> = messages.iter().enumerate().map(|(index, message)| (index, names[message.4])).collect();
            let deadline = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(DEADLINE_MILLIS);
            let Planned { lanes, superseded } = plan(QueueKind::Standard, &records, pairs(&records, &given), deadline);

            let key = |index: usize| (messages[index].0, messages[index].4);
            let mut kept: Vec<_> = lanes.iter().flat_map(|lane| lane.pairs.iter().map(|pair| pair.index)).collect();
            for lane in &lanes {
                for (position, pair) in lane.pairs.iter().enumerate() {
                    let mut later = lane.pairs[position..].iter().filter(|other| key(other.index) == key(pair.index));
                    prop_assert!(later.all(|other| messages[other.index].1 >= messages[pair.index].1));
                }
            }
            for completed in &superseded {
                let higher = |index: usize| {
                    key(index) == key(completed.index) && messages[index].1 > messages[completed.index].1 && !messages[index].3
                };
                let direct = |index: usize| higher(index) && (messages[index].2 || index > completed.index);
                prop_assert!(messages[completed.index].2 && kept.iter().any(|index| higher(*index)));
                // The direct successor may itself be superseded by the one that is kept.
                prop_assert!((0..messages.len()).any(direct), "{} has no successor", completed.index);
            }
            for index in kept.iter().filter(|index| messages[**index].2) {
                let would = |other: usize| {
                    key(other) == key(*index) && messages[other].1 > messages[*index].1 && !messages[other].3
                        && (messages[other].2 || other > *index)
                };
                prop_assert!(!(0..messages.len()).any(would), "{} is superseded", index);
            }
            kept.extend(superseded.iter().map(|completed| completed.index));
            kept.sort_unstable();
            prop_assert!(kept.into_iter().eq(0..messages.len()));
        }
    }
}
