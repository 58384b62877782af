//! From pairs to lanes.

use std::{collections::HashMap, time::SystemTime};

use streamer_message::{Audience, ConnectionId, sqs::is_fifo};

use crate::{
    decode::Record,
    expand::Pair,
    outcome::{Cause, Ended, Outcome},
};

/// What a queue keeps in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// A standard queue keeps none; within a batch, the messages for one connection keep theirs.
    Connection,
    /// A FIFO queue keeps that of each message group.
    Group,
}

/// Pairs that keep their order. A lane runs one message at a time; lanes run side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane<'a> {
    /// In order of arrival, so that the pairs of one message stand together.
    pub pairs: Vec<Pair<'a>>,
}

impl Order {
    /// The order of the queue at `url`: see [`is_fifo`].
    #[must_use]
    pub fn of_queue(url: &str) -> Self {
        if is_fifo(url) { Self::Group } else { Self::Connection }
    }
}

/// What is to be posted, and what is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned<'a> {
    /// In the order of their first messages.
    pub lanes: Vec<Lane<'a>>,
    /// Pairs that later ones make worthless.
    pub superseded: Vec<Ended>,
}

/// Puts pairs, which stand in order of arrival, into lanes, and leaves out what is superseded. On a standard queue
/// the messages of one request take the places that they arrived in, in order of `seq`; on a FIFO queue all keep
/// the places that they arrived in.
#[must_use]
pub fn plan<'a>(
    order: Order,
    records: &'a [Record],
    pairs: Vec<Pair<'a>>,
    deadline: SystemTime,
) -> Planned<'a> {
    let (pairs, superseded) = supersede(pairs, deadline);
    let mut lanes = lanes(order, records, pairs);
    match order {
        Order::Connection => lanes.iter_mut().for_each(|lane| sort_requests(&mut lane.pairs)),
        Order::Group => {}
    }
    Planned { lanes, superseded }
}

/// Takes out the pairs that may be dropped for a later message of the same request and for the same connection
/// which can itself be delivered: it was not rejected, and does not expire before the deadline. `seq` says which is later
/// of two supersedable messages. One that is not, such as an acknowledgment, may come from a producer whose clock is
/// ahead: it has to have arrived later, too.
fn supersede<'a>(mut pairs: Vec<Pair<'a>>, deadline: SystemTime) -> (Vec<Pair<'a>>, Vec<Ended>) {
    if !pairs.iter().any(|pair| pair.message.supersedable) {
        return (pairs, Vec::new());
    }
    let mut latest = Latest::default();
    pairs.iter().filter(|pair| pair.message.supersedable).for_each(|pair| latest.note(pair, deadline));
    let is_kept = |pair: &Pair<'a>| match pair.message.supersedable {
        true => !latest.supersedes(pair),
        false => {
            latest.note(pair, deadline);
            true
        }
    };
    // From the last to arrive to the first.
    pairs.reverse();
    let (mut kept, superseded): (Vec<_>, Vec<_>) = pairs.into_iter().partition(is_kept);
    kept.reverse();
    (kept, superseded.iter().rev().map(|pair| pair.unposted(Outcome::Superseded)).collect())
}

/// The highest `seq` for each request and connection: of all messages, and of those for users, since what waits for a
/// user is not made worthless by what does not.
#[derive(Default)]
struct Latest<'a>(HashMap<(&'a str, ConnectionId, bool), u64>);

impl<'a> Latest<'a> {
    fn note(&mut self, pair: &Pair<'a>, deadline: SystemTime) {
        let Some(request) = pair.message.request.as_ref().filter(|_| !pair.message.is_expired(deadline))
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
        pair.message.request.as_ref().is_some_and(|request| {
            let key = (request.id.as_str(), pair.connection.clone(), is_for_user(pair));
            self.0.get(&key).is_some_and(|latest| request.seq < *latest)
        })
    }
}

fn is_for_user(pair: &Pair<'_>) -> bool {
    matches!(pair.message.to, Audience::User { .. })
}

/// Puts the messages of each request, in order of `seq`, into the places that they have.
fn sort_requests(pairs: &mut [Pair<'_>]) {
    if pairs.len() < 2 {
        return;
    }
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, pair) in pairs.iter().enumerate() {
        if let Some(request) = &pair.message.request {
            places.entry(request.id.as_str()).or_default().push(place);
        }
    }
    for places in places.into_values().filter(|places| places.len() > 1) {
        let mut of_request: Vec<_> = places.iter().map(|place| pairs[*place].clone()).collect();
        of_request.sort_by_key(|pair| pair.message.request.as_ref().map(|request| request.seq));
        for (place, pair) in places.into_iter().zip(of_request) {
            pairs[place] = pair;
        }
    }
}

/// One lane for each connection, or on a FIFO queue one for each group, whatever its connections.
fn lanes<'a>(order: Order, records: &'a [Record], pairs: Vec<Pair<'a>>) -> Vec<Lane<'a>> {
    let mut lanes: Vec<Lane<'a>> = Vec::new();
    let mut of_connections: HashMap<ConnectionId, usize> = HashMap::new();
    let mut of_groups: HashMap<Option<&str>, usize> = HashMap::new();
    for pair in pairs {
        let next = lanes.len();
        let lane = match order {
            Order::Connection => *of_connections.entry(pair.connection.clone()).or_insert(next),
            Order::Group => *of_groups.entry(group(records, pair.place)).or_insert(next),
        };
        match lanes.get_mut(lane) {
            Some(lane) => lane.pairs.push(pair),
            None => lanes.push(Lane { pairs: vec![pair] }),
        }
    }
    lanes
}

/// What must not be posted, since it stands in its group of a FIFO queue behind a message that ended before it
/// came to a connection, and not well: its pairs are taken out and end.
pub fn hold_behind(records: &[Record], pairs: &mut Vec<Pair<'_>>, ended: &mut Vec<Ended>) {
    let first = first_unsettled(records, ended);
    pairs.retain(|pair| {
        let behind = is_behind(records, &first, pair.place);
        if behind {
            ended.push(pair.unposted(Outcome::HandedBack(Cause::Behind)));
        }
        !behind
    });
}

/// Hands back whatever stands in its group of a FIFO queue behind the first message that did not settle.
pub fn hand_back_behind(records: &[Record], ended: &mut [Ended]) {
    let first = first_unsettled(records, ended);
    for pair in ended {
        // The successor of what is superseded goes back, too, or has arrived.
        let stays = matches!(pair.outcome, Outcome::HandedBack(_) | Outcome::Superseded);
        if is_behind(records, &first, pair.place) && !stays {
            pair.outcome = Outcome::HandedBack(Cause::Behind);
        }
    }
}

fn group(records: &[Record], place: usize) -> Option<&str> {
    records[place].group.as_deref()
}

/// For each group the place of the first message that did not settle.
fn first_unsettled<'a>(records: &'a [Record], ended: &[Ended]) -> HashMap<Option<&'a str>, usize> {
    let mut first = HashMap::new();
    for pair in ended.iter().filter(|pair| !pair.outcome.is_settled()) {
        let place = first.entry(group(records, pair.place)).or_insert(pair.place);
        *place = pair.place.min(*place);
    }
    first
}

fn is_behind(records: &[Record], first: &HashMap<Option<&str>, usize>, place: usize) -> bool {
    first.get(&group(records, place)).is_some_and(|first| place > *first)
}

#[cfg(test)]
mod tests {
    use aws_lambda_events::sqs::SqsMessage;
    use proptest::prelude::*;

    use super::*;
    use crate::decode::Message;

    fn record(group: &str) -> Record {
        with(group, "")
    }

    /// A record whose body has more fields.
    fn with(group: &str, more: &str) -> Record {
        let mut record = SqsMessage::default();
        record.message_id = Some("record".to_owned());
        record.body =
            Some(format!(r#"{{"version":1,"id":"m","payload":1,"to":{{"connection":"c"}}{more}}}"#));
        record.attributes = [("MessageGroupId".to_owned(), group.to_owned())].into();
        Record::read(record).unwrap()
    }

    fn message(record: &Record) -> &Message {
        record.content.as_ref().unwrap()
    }

    fn pairs<'a>(records: &'a [Record], pairs: &[(usize, &str)]) -> Vec<Pair<'a>> {
        let pair = |(place, connection): &(usize, &str)| Pair {
            place: *place,
            message: message(&records[*place]),
            connection: (*connection).try_into().unwrap(),
        };
        pairs.iter().map(pair).collect()
    }

    fn lanes(order: Order, records: &[Record], given: &[(usize, &str)]) -> Vec<Vec<(usize, String)>> {
        let seen = |pair: &Pair<'_>| (pair.place, pair.connection.to_string());
        let planned = plan(order, records, pairs(records, given), SystemTime::UNIX_EPOCH);
        assert!(planned.superseded.is_empty());
        planned.lanes.iter().map(|lane| lane.pairs.iter().map(seen).collect()).collect()
    }

    const GIVEN: [(usize, &str); 5] = [(0, "a"), (1, "b"), (1, "a"), (2, "b"), (3, "c")];

    #[test]
    fn a_lane_holds_all_messages_for_its_connection_in_order_of_arrival() {
        let records = ["g", "h", "g", "h"].map(record);
        let lane =
            |lane: &[(usize, &str)]| lane.iter().map(|(place, id)| (*place, (*id).to_owned())).collect();
        let expected: Vec<Vec<_>> =
            vec![lane(&[(0, "a"), (1, "a")]), lane(&[(1, "b"), (2, "b")]), lane(&[(3, "c")])];
        assert_eq!(lanes(Order::Connection, &records, &GIVEN), expected);
    }

    #[test]
    fn on_a_fifo_queue_a_lane_holds_all_messages_of_its_group_whatever_their_connections() {
        let records = ["g", "h", "g", "h"].map(record);
        let lane =
            |lane: &[(usize, &str)]| lane.iter().map(|(place, id)| (*place, (*id).to_owned())).collect();
        let expected: Vec<Vec<_>> = vec![lane(&[(0, "a"), (2, "b")]), lane(&[(1, "b"), (1, "a"), (3, "c")])];
        assert_eq!(lanes(Order::Group, &records, &GIVEN), expected);
    }

    #[test]
    fn a_queue_is_fifo_by_its_name() {
        assert_eq!(Order::of_queue("https://sqs.example.com/1/outbound.fifo"), Order::Group);
        assert_eq!(Order::of_queue("https://sqs.example.com/1/outbound"), Order::Connection);
    }

    #[test]
    fn behind_what_did_not_settle_nothing_of_its_group_is_posted() {
        let records = ["g", "h", "g", "g"].map(record);
        let mut ended = vec![Ended::unposted(2, None, Outcome::HandedBack(Cause::Away))];
        let mut pairs = pairs(&records, &[(0, "a"), (1, "b"), (3, "c")]);
        hold_behind(&records, &mut pairs, &mut ended);
        assert_eq!(pairs.iter().map(|pair| pair.place).collect::<Vec<_>>(), [0, 1]);
        assert_eq!((ended[1].place, &ended[1].outcome), (3, &Outcome::HandedBack(Cause::Behind)));
    }

    #[test]
    fn behind_what_did_not_settle_everything_of_its_group_is_handed_back() {
        let records = ["g", "g", "h", "g"].map(record);
        let mut ended = [
            Ended::unposted(0, None, Outcome::Expired),
            Ended::unposted(1, None, Outcome::HandedBack(Cause::Timeout)),
            Ended::unposted(2, None, Outcome::NoRecipient),
            Ended::unposted(3, None, Outcome::NoRecipient),
        ];
        hand_back_behind(&records, &mut ended);
        let outcomes = ended.map(|pair| pair.outcome);
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

    /// The places of a lane for one connection, and those of what was superseded.
    fn planned(order: Order, records: &[Record]) -> (Vec<usize>, Vec<usize>) {
        let given: Vec<_> = (0..records.len()).map(|place| (place, "a")).collect();
        let deadline = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1000);
        let Planned { lanes, superseded } = plan(order, records, pairs(records, &given), deadline);
        let lane = lanes.first().map(|lane| lane.pairs.iter().map(|pair| pair.place).collect());
        (lane.unwrap_or_default(), superseded.iter().map(|ended| ended.place).collect())
    }

    #[test]
    fn the_messages_of_a_request_take_their_places_in_order_of_seq() {
        let records = [
            of_request("r", 9, ""),
            record("g"),
            of_request("s", 2, ""),
            of_request("r", 3, ""),
            of_request("s", 1, ""),
            of_request("r", 7, ""),
        ];
        assert_eq!(planned(Order::Connection, &records).0, [3, 1, 4, 5, 2, 0]);
        assert_eq!(planned(Order::Group, &records).0, [0, 1, 2, 3, 4, 5], "a FIFO queue's order is kept");
    }

    const SUPERSEDABLE: &str = r#","supersedable":true"#;

    #[test]
    fn a_supersedable_message_is_left_out_for_a_later_one_of_its_request() {
        let records = [
            of_request("r", 1, SUPERSEDABLE),
            of_request("r", 3, SUPERSEDABLE),
            of_request("r", 2, ""),
            of_request("s", 1, SUPERSEDABLE),
            of_request("r", 4, ""),
            of_request("r", 5, SUPERSEDABLE),
        ];
        for order in [Order::Connection, Order::Group] {
            assert_eq!(planned(order, &records), (vec![2, 3, 4, 5], vec![0, 1]), "{order:?}");
        }
    }

    #[test]
    fn message_of_a_clock_ahead_supersedes_no_later_one() {
        let acknowledgment_first = [of_request("r", 9, ""), of_request("r", 5, SUPERSEDABLE)];
        assert_eq!(planned(Order::Connection, &acknowledgment_first), (vec![1, 0], vec![]));
        let progress_first = [of_request("r", 9, SUPERSEDABLE), of_request("r", 5, SUPERSEDABLE)];
        assert_eq!(planned(Order::Connection, &progress_first), (vec![0], vec![1]), "seq tells");
    }

    #[test]
    fn it_is_kept_where_the_later_one_expires_before_the_deadline() {
        let records = |expires: u64| {
            [of_request("r", 1, SUPERSEDABLE), of_request("r", 2, &format!(r#","expires_at":{expires}"#))]
        };
        assert_eq!(planned(Order::Connection, &records(1000)), (vec![0, 1], vec![]));
        assert_eq!(planned(Order::Connection, &records(1001)), (vec![1], vec![0]));
    }

    #[test]
    fn what_waits_for_a_user_is_superseded_only_by_what_does_so_too() {
        let user = |seq: u64| {
            let more = format!(r#","request":{{"id":"r","seq":{seq}}}{SUPERSEDABLE}"#);
            let text = with("g", &more)
                .text()
                .replace(r#"{"connection":"c"}"#, r#"{"user":{"tenant":"t","user":"u"}}"#);
            let mut record = SqsMessage::default();
            (record.message_id, record.body) = (Some("record".to_owned()), Some(text));
            Record::read(record).unwrap()
        };
        let connection = |seq: u64| of_request("r", seq, SUPERSEDABLE);
        assert_eq!(planned(Order::Connection, &[user(1), connection(2)]), (vec![0, 1], vec![]));
        assert_eq!(planned(Order::Connection, &[connection(1), user(2)]), (vec![1], vec![0]));
        assert_eq!(planned(Order::Connection, &[user(1), connection(3), user(2)]), (vec![2, 1], vec![0]));
    }

    #[test]
    fn it_is_kept_for_another_connection_and_beside_its_own_copy() {
        let records =
            [of_request("r", 1, SUPERSEDABLE), of_request("r", 2, ""), of_request("r", 1, SUPERSEDABLE)];
        let given = pairs(&records, &[(0, "a"), (1, "b"), (2, "a")]);
        let planned = plan(Order::Connection, &records, given, SystemTime::UNIX_EPOCH);
        assert!(planned.superseded.is_empty());
    }

    proptest! {
        #[test]
        fn no_request_is_out_of_order_and_what_is_left_out_has_a_successor_that_is_not(
            messages in prop::collection::vec((0..3_u8, 0..9_u64, any::<bool>(), any::<bool>(), 0..3_usize), 1..12),
        ) {
            let record = |(request, seq, supersedable, expires, _): &(u8, u64, bool, bool, usize)| {
                let more = [(*supersedable, SUPERSEDABLE), (*expires, r#","expires_at":500"#)];
                let more: String = more.iter().filter(|(is, _)| *is).map(|(_, more)| *more).collect();
                of_request(&request.to_string(), *seq, &more)
            };
            let records: Vec<_> = messages.iter().map(record).collect();
            let names = ["a", "b", "c"];
            let given: Vec<_> = messages.iter().enumerate().map(|(place, message)| (place, names[message.4])).collect();
            let deadline = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1000);
            let Planned { lanes, superseded } = plan(Order::Connection, &records, pairs(&records, &given), deadline);

            let key = |place: usize| (messages[place].0, messages[place].4);
            let mut kept: Vec<_> = lanes.iter().flat_map(|lane| lane.pairs.iter().map(|pair| pair.place)).collect();
            for lane in &lanes {
                for (index, pair) in lane.pairs.iter().enumerate() {
                    let mut later = lane.pairs[index..].iter().filter(|other| key(other.place) == key(pair.place));
                    prop_assert!(later.all(|other| messages[other.place].1 >= messages[pair.place].1));
                }
            }
            for ended in &superseded {
                let higher = |place: usize| {
                    key(place) == key(ended.place) && messages[place].1 > messages[ended.place].1 && !messages[place].3
                };
                let direct = |place: usize| higher(place) && (messages[place].2 || place > ended.place);
                prop_assert!(messages[ended.place].2 && kept.iter().any(|place| higher(*place)));
                // It may itself be left out for the one that is kept.
                prop_assert!((0..messages.len()).any(direct), "{} is left out for none", ended.place);
            }
            for place in kept.iter().filter(|place| messages[**place].2) {
                let would = |other: usize| {
                    key(other) == key(*place) && messages[other].1 > messages[*place].1 && !messages[other].3
                        && (messages[other].2 || other > *place)
                };
                prop_assert!(!(0..messages.len()).any(would), "{} is worthless", place);
            }
            kept.extend(superseded.iter().map(|ended| ended.place));
            kept.sort_unstable();
            prop_assert!(kept.into_iter().eq(0..messages.len()));
        }
    }
}
