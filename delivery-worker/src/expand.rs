//! From audiences to connections.

use streamer_message::{Audience, ConnectionId};

use crate::{
    decode::Message,
    outcome::{Cause, Ended, Outcome},
};

/// A message and one of the connections that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The message's place in the batch.
    pub message: usize,
    /// The connection.
    pub connection: ConnectionId,
}

/// What a batch's audiences come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// In order of arrival.
    pub pairs: Vec<Pair>,
    /// Messages whose audience is not served.
    pub unserved: Vec<Ended>,
}

/// Names each connection of each message once.
#[must_use]
pub fn expand(messages: &[Message]) -> Expanded {
    let mut expanded = Expanded::default();
    for (index, message) in messages.iter().enumerate() {
        let mut pair = |connection: &ConnectionId| {
            expanded.pairs.push(Pair { message: index, connection: connection.clone() });
        };
        match &message.to {
            Audience::Connection(connection) => pair(connection),
            Audience::Connections(connections) => {
                let ids = connections.as_slice();
                let first = |(place, id): &(usize, &ConnectionId)| !ids[..*place].contains(id);
                ids.iter().enumerate().filter(first).for_each(|(_, id)| pair(id));
            }
            Audience::User { .. } | Audience::Tenant(_) | Audience::Shard { .. } => {
                expanded.unserved.push(Ended {
                    message: index,
                    connection: None,
                    outcome: Outcome::HandedBack(Cause::Audience),
                    latency: None,
                });
            }
        }
    }
    expanded
}
