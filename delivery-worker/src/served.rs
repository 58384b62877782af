//! Remembers, between invocations of an execution environment, which connections already have a FIFO queue's message.
//!
//! A message that stays on a FIFO queue cannot carry a note. Without this memory, an audience too large for one
//! invocation would start over in each, and never complete.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use streamer_message::ConnectionId;

/// Maximum number of remembered records. The oldest is forgotten first.
const RECORDS: usize = 1000;

/// Maximum number of remembered connections of all records: about 10 MB.
const CONNECTIONS: usize = 100_000;

/// The connections that already have a record's message. A forgotten record is delivered to all its connections again.
#[derive(Debug, Default)]
pub struct Served(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// Connections by record id, the oldest first.
    records: VecDeque<(String, HashSet<ConnectionId>)>,
    connections: usize,
}

impl Served {
    /// Removes and returns the connections that have a record's message.
    pub fn take(&self, record: &str) -> HashSet<ConnectionId> {
        let mut memory = self.locked();
        let found = memory.records.iter().position(|(id, _)| id == record);
        let (_, connections) = found.and_then(|at| memory.records.remove(at)).unwrap_or_default();
        memory.connections -= connections.len();
        connections
    }

    /// Remembers the connections that have a record's message. Call [`take`](Self::take) before.
    pub fn remember(&self, record: &str, connections: HashSet<ConnectionId>) {
        if connections.is_empty() {
            return;
        }
        let mut memory = self.locked();
        memory.connections += connections.len();
        memory.records.push_back((record.to_owned(), connections));
        while memory.records.len() > RECORDS || memory.connections > CONNECTIONS {
            let Some((_, forgotten)) = memory.records.pop_front() else { break };
            memory.connections -= forgotten.len();
        }
    }

    fn locked(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(number: usize) -> HashSet<ConnectionId> {
        (0..number).map(|id| id.to_string().as_str().try_into().unwrap()).collect()
    }

    #[test]
    fn record_is_remembered_until_taken() {
        let served = Served::default();
        served.remember("a", connections(2));
        served.remember("b", connections(1));
        served.remember("c", connections(0));
        assert_eq!((served.take("a"), served.take("a")), (connections(2), connections(0)));
        assert_eq!(served.take("b").len(), 1);
        let memory = served.locked();
        assert_eq!((memory.connections, memory.records.len()), (0, 0));
    }

    #[test]
    fn oldest_records_are_forgotten_first() {
        let served = Served::default();
        (0..=RECORDS).for_each(|id| served.remember(&id.to_string(), connections(1)));
        assert_eq!((served.take("0").len(), served.take("1").len()), (0, 1));
        served.remember("large", connections(CONNECTIONS - 1));
        served.remember("one", connections(1));
        assert_eq!(
            (served.take("2").len(), served.take("large").len(), served.take("one").len()),
            (0, CONNECTIONS - 1, 1)
        );
        served.remember("too large", connections(CONNECTIONS + 1));
        assert_eq!((served.take("too large").len(), served.locked().connections), (0, 0));
    }
}
