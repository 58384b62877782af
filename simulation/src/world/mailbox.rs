//! The mailbox's table: a stream for each user, which has synced, and a device unless the user is away.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use streamer_tests::{
    doubles::{MailboxCall, MailboxDouble, MailboxFault},
    event::EPOCH_MILLIS,
    worker::ENDPOINT,
};

use super::{Clock, Cpu, TENANT, gateway::nature};
use crate::model::{KEY_WRITES, QUERY, QUERY_CPU, WRITE};

/// The beginning of the names of users.
pub const USER: &str = "user-";

/// The table of all streams. Their heads and devices are generated, and bodies are not held.
#[derive(Clone)]
pub struct Streams {
    clock: Clock,
    table: MailboxDouble,
    partitions: Arc<Mutex<Partitions>>,
    away: f64,
}

/// The writes of each stream in the current second.
#[derive(Debug, Default)]
struct Partitions {
    second: u64,
    written: HashMap<String, u64>,
    throttled: u64,
}

/// Messages that are stored, and the use of the table.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Messages in the table.
    pub appended: u64,
    /// Messages in the table that have another's id: a message that was appended twice.
    pub copies: u64,
    /// Messages in the table for users who are away.
    pub waiting: u64,
    /// Calls that DynamoDB refused, because a stream's partition had used up its writes.
    pub throttled: u64,
    /// Read units.
    pub reads: u64,
    /// Write units.
    pub writes: u64,
}

impl Streams {
    /// Creates the streams, of whose users this share is away.
    #[must_use]
    pub fn new(clock: Clock, away: f64) -> Self {
        let generate = move |stream: &str| items(stream, away);
        let table = MailboxDouble::default().forgetting().generating(generate);
        Self { clock, table, partitions: Arc::default(), away }
    }

    /// Returns the table as an environment with this CPU calls it.
    #[must_use]
    pub fn of(&self, cpu: &Cpu) -> MailboxDouble {
        let (clock, cpu, partitions) = (self.clock, cpu.clone(), Arc::clone(&self.partitions));
        self.table.through(move |call| {
            let now = clock.millis();
            let latency = if call.writes > 0 { WRITE } else { QUERY };
            let answered = cpu.charge(QUERY_CPU) + latency.as_secs_f64() * 1000.0;
            let latency = Duration::from_millis((answered - now as f64).round() as u64);
            let mut partitions = partitions.lock().unwrap_or_else(PoisonError::into_inner);
            match partitions.admit(now / 1000, call) {
                true => (latency, MailboxFault::None),
                false => (latency, MailboxFault::Error("ThrottlingException")),
            }
        })
    }

    /// Returns the messages that are stored, and the use of the table.
    #[must_use]
    pub fn kept(&self) -> Kept {
        let (stored, usage) = (self.table.stored(), self.table.usage());
        let waiting = stored.iter().filter(|(stream, _)| is_away(user(stream), self.away)).count();
        let mut ids: Vec<_> = stored.iter().map(|(_, id)| id).collect();
        ids.sort_unstable();
        ids.dedup();
        Kept {
            appended: stored.len() as u64,
            copies: (stored.len() - ids.len()) as u64,
            waiting: waiting as u64,
            throttled: self.partitions.lock().unwrap_or_else(PoisonError::into_inner).throttled,
            reads: usage.reads as u64,
            writes: usage.writes as u64,
        }
    }
}

impl Partitions {
    /// Returns whether the partition of a call's stream has write units left in a second.
    fn admit(&mut self, second: u64, call: &MailboxCall) -> bool {
        if second != self.second {
            (self.second, self.written) = (second, HashMap::new());
        }
        let written = self.written.entry(call.stream.clone()).or_default();
        if *written + call.writes as u64 > KEY_WRITES {
            self.throttled += 1;
            return false;
        }
        *written += call.writes as u64;
        true
    }
}

/// Returns whether a user is away.
#[must_use]
pub fn is_away(user: &str, share: f64) -> bool {
    nature(user) < share
}

/// Returns the user of a stream.
fn user(stream: &str) -> &str {
    stream.strip_prefix("u#").and_then(|stream| stream.strip_prefix(TENANT)).map_or("", |user| &user[1..])
}

/// Returns the head of a stream, and the device of a user who is not away.
fn items(stream: &str, away: f64) -> Vec<Value> {
    let user = user(stream);
    let expires_at = (EPOCH_MILLIS / 1000 + 7800).to_string();
    let head_expires_at = (EPOCH_MILLIS / 1000 + 60 * 24 * 3600).to_string();
    let head = json!({
        "stream": { "S": stream },
        "item": { "S": "h" },
        "epoch": { "S": "Simulation1" },
        "top": { "N": "0" },
        "floor": { "N": "0" },
        "expires_at": { "N": head_expires_at },
    });
    let device = || {
        json!({
            "stream": { "S": stream },
            "item": { "S": format!("c#device-{user}") },
            "endpoint": { "S": ENDPOINT },
            "expires_at": { "N": expires_at },
        })
    };
    std::iter::once(head).chain((!is_away(user, away)).then(device)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(stream: &str) -> MailboxCall {
        let (operation, stream) = ("PutItem".to_owned(), stream.to_owned());
        MailboxCall { operation, message: None, stream, writes: 1 }
    }

    #[test]
    fn partition_takes_1000_writes_a_second() {
        let mut partitions = Partitions::default();
        let mut admitted = |second, stream: &str| {
            (0..1500).filter(|_| partitions.admit(second, &put(stream))).count() as u64
        };
        assert_eq!((admitted(1, "u#acme#a"), admitted(1, "u#acme#b")), (KEY_WRITES, KEY_WRITES));
        assert_eq!(admitted(2, "u#acme#a"), KEY_WRITES);
        assert_eq!(partitions.throttled, 1500);
    }

    #[test]
    fn only_present_users_have_devices() {
        let users = (0..1000).map(|number| format!("{USER}{number}"));
        let devices = users.map(|user| items(&format!("u#{TENANT}#{user}"), 0.1).len() - 1).sum::<usize>();
        assert!((870..930).contains(&devices), "{devices} of 1000");
    }
}
