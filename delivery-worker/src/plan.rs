//! From pairs to lanes.

use std::collections::HashMap;

use streamer_message::ConnectionId;

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
    /// The order of the queue at `url`: a FIFO queue's name ends with `.fifo`.
    ///
    /// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html>.
    #[must_use]
    pub fn of_queue(url: &str) -> Self {
        if url.ends_with(".fifo") { Self::Group } else { Self::Connection }
    }
}

/// Puts pairs, which stand in order of arrival, into lanes: one for each connection, or on a FIFO queue one for
/// each group, whatever its connections. The lanes stand in the order of their first messages.
#[must_use]
pub fn plan<'a>(order: Order, records: &'a [Record], pairs: Vec<Pair<'a>>) -> Vec<Lane<'a>> {
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
            ended.push(Ended::unposted(
                pair.place,
                Some(pair.connection.clone()),
                Outcome::HandedBack(Cause::Behind),
            ));
        }
        !behind
    });
}

/// Hands back whatever stands in its group of a FIFO queue behind the first message that did not settle.
pub fn hand_back_behind(records: &[Record], ended: &mut [Ended]) {
    let first = first_unsettled(records, ended);
    for pair in ended {
        let handed_back = matches!(pair.outcome, Outcome::HandedBack(_));
        if is_behind(records, &first, pair.place) && !handed_back {
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

    use super::*;
    use crate::decode::Message;

    fn record(group: &str) -> Record {
        let mut record = SqsMessage::default();
        record.message_id = Some("record".to_owned());
        record.body = Some(r#"{"version":1,"id":"m","payload":1,"to":{"connection":"c"}}"#.to_owned());
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
        let lanes = plan(order, records, pairs(records, given));
        lanes.iter().map(|lane| lane.pairs.iter().map(seen).collect()).collect()
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
}
