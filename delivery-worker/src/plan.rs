//! From pairs to lanes.

use std::collections::HashMap;

use streamer_message::ConnectionId;

use crate::expand::Pair;

/// The messages for one connection, in order of arrival. A lane posts one at a time; lanes run side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// The connection.
    pub connection: ConnectionId,
    /// The messages' places in the batch.
    pub messages: Vec<usize>,
}

/// Puts the pairs of each connection into one lane. The lanes stand in the order of their first messages.
#[must_use]
pub fn plan(pairs: Vec<Pair>) -> Vec<Lane> {
    let mut lanes: Vec<Lane> = Vec::new();
    let mut places: HashMap<ConnectionId, usize> = HashMap::new();
    for Pair { message, connection } in pairs {
        let place = *places.entry(connection.clone()).or_insert(lanes.len());
        match lanes.get_mut(place) {
            Some(lane) => lane.messages.push(message),
            None => lanes.push(Lane { connection, messages: vec![message] }),
        }
    }
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(message: usize, connection: &str) -> Pair {
        Pair { message, connection: connection.try_into().unwrap() }
    }

    #[test]
    fn a_lane_holds_all_messages_for_its_connection_in_order_of_arrival() {
        let lanes = plan(vec![pair(0, "a"), pair(1, "b"), pair(1, "a"), pair(2, "b"), pair(3, "c")]);
        let seen: Vec<_> =
            lanes.iter().map(|lane| (lane.connection.as_str(), lane.messages.as_slice())).collect();
        assert_eq!(seen, [("a", &[0, 1][..]), ("b", &[1, 2]), ("c", &[3])]);
    }
}
