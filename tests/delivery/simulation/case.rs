//! Random cases: the messages, the clients, and the faults around the workers.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use streamer_connections::TenantShards;
use streamer_tests::doubles::MailboxFault;

pub(super) const CONNECTIONS: [&str; 5] = ["a", "b", "c", "d", "e"];

#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) fifo: bool,
    /// Whether the workers' clock stops between invocations.
    pub(super) frozen: bool,
    /// The client of each connection.
    pub(super) clients: [Client; 5],
    pub(super) messages: Vec<Message>,
    /// Faults of the first posts.
    pub(super) post_faults: Vec<PostFault>,
    /// Faults of the first calls to the mailbox.
    pub(super) mailbox_faults: Vec<MailboxFault>,
    /// Faults of the first messages that workers send to a queue.
    pub(super) send_faults: Vec<SendFault>,
    /// For each of the first invocations, the number of calls before the worker crashes.
    pub(super) crashes: Vec<Option<usize>>,
    pub(super) seed: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) to: To,
    /// Whether the mailbox keeps the message, which is for the user.
    pub(super) keep: bool,
    /// One of two message groups.
    pub(super) group: bool,
    /// Whether a later message of the only request supersedes it. `seq` is the index of the message.
    pub(super) supersedable: bool,
    /// Whether its producer asks for a receipt.
    pub(super) receipt: bool,
}

#[derive(Debug, Clone)]
pub(super) enum To {
    /// Indices of connections, possibly repeated.
    Connections(Vec<usize>),
    /// The user of all connections.
    User,
    /// The tenant of all connections.
    Tenant,
    /// A body that is no message.
    Poison,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    Connected,
    Gone,
    /// API Gateway answers 410 for its first 3 seconds. It has not sent a sync, so it is no device.
    Connecting,
}

/// Fault of a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PostFault {
    None,
    /// API Gateway answers with this status, and the client gets nothing.
    Status(u16),
    /// The client gets the payload, but the answer is lost.
    AnswerLost,
    /// The client gets the payload, but the answer takes 7 s, longer than the worker waits.
    Slow,
    Panic,
}

/// Fault of a message that a worker sends to a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendFault {
    None,
    NotAccepted,
    /// The queue accepts the message, but its confirmation is lost.
    ConfirmationLost,
}

pub(super) fn case() -> impl Strategy<Value = Case> {
    let client =
        prop_oneof![6 => Just(Client::Connected), 1 => Just(Client::Gone), 1 => Just(Client::Connecting)];
    let to = prop_oneof![
        8 => prop::collection::vec(0..5_usize, 1..4).prop_map(To::Connections),
        4 => Just(To::User),
        2 => Just(To::Tenant),
        1 => Just(To::Poison),
    ];
    let message = (to, any::<bool>(), any::<bool>(), prop::bool::weighted(0.3), any::<bool>());
    let message = message.prop_map(|(to, keep, group, supersedable, receipt)| {
        let keep = keep && matches!(to, To::User);
        Message { to, keep, group, supersedable, receipt }
    });
    let post_fault = prop_oneof![
        4 => Just(PostFault::None),
        3 => prop::sample::select(vec![302, 403, 429, 500, 503]).prop_map(PostFault::Status),
        1 => Just(PostFault::AnswerLost),
        1 => Just(PostFault::Slow),
        1 => Just(PostFault::Status(413)),
    ];
    let post_fault = prop_oneof![30 => post_fault, 1 => Just(PostFault::Panic)];
    let send_fault = prop_oneof![
        4 => Just(SendFault::None),
        1 => Just(SendFault::NotAccepted),
        1 => Just(SendFault::ConfirmationLost),
    ];
    let mailbox_fault = prop_oneof![
        6 => Just(MailboxFault::None),
        1 => Just(MailboxFault::Refused),
        1 => Just(MailboxFault::AnswerLost),
        2 => Just(MailboxFault::Conflict),
    ];
    let faults = (
        prop::collection::vec(post_fault, 0..40),
        prop::collection::vec(mailbox_fault, 0..40),
        prop::collection::vec(send_fault, 0..12),
        prop::collection::vec(prop::option::of(0..80_usize), 0..6),
    );
    (
        prop::bool::weighted(0.3),
        any::<bool>(),
        prop::array::uniform5(client),
        prop::collection::vec(message, 1..13),
        faults,
        any::<u64>(),
    )
        .prop_map(|(fifo, frozen, clients, mut messages, faults, seed)| {
            // A worker of a FIFO queue rejects messages for a tenant.
            let to_tenants = messages.iter_mut().filter(|message| fifo && matches!(message.to, To::Tenant));
            to_tenants.for_each(|message| message.to = To::User);
            let (post_faults, mailbox_faults, send_faults, crashes) = faults;
            Case { fifo, frozen, clients, messages, post_faults, mailbox_faults, send_faults, crashes, seed }
        })
}

impl Message {
    /// Returns the body of the message at `index`, which is also its id, its `seq` and its payload.
    pub(super) fn body(&self, index: usize) -> String {
        let to = match &self.to {
            To::Connections(connections) => {
                let connections: Vec<_> = connections.iter().map(|index| CONNECTIONS[*index]).collect();
                json!({ "connections": connections })
            }
            To::User => json!({ "user": { "tenant": "acme", "user": "anna" } }),
            To::Tenant => json!({ "tenant": "acme" }),
            To::Poison => return format!("poison {index}"),
        };
        let mut body = json!({
            "version": 1,
            "id": index.to_string(),
            "to": to,
            "payload": index,
            "request": { "id": "r", "seq": index },
            "supersedable": self.supersedable,
        });
        if self.keep {
            body["keep"] = json!(604_800);
        }
        if self.receipt {
            body["receipt"] = true.into();
        }
        body.to_string()
    }

    /// Returns the indices of its recipients.
    pub(super) fn recipients(&self) -> BTreeSet<usize> {
        match &self.to {
            To::Connections(connections) => connections.iter().copied().collect(),
            To::User | To::Tenant => (0..5).collect(),
            To::Poison => BTreeSet::new(),
        }
    }
}

impl Case {
    /// Whether the message `later` may supersede `message` for a connection. A message for a user waits for an absent
    /// user, so only another one may supersede it.
    pub(super) fn may_supersede(&self, later: usize, message: usize, connection: usize) -> bool {
        let (message, later) = (&self.messages[message], &self.messages[later]);
        let waits_longer = matches!(message.to, To::User) && !matches!(later.to, To::User);
        message.supersedable && !message.keep && !waits_longer && later.recipients().contains(&connection)
    }

    /// Whether messages may become dead letters that are not poison: a post was rejected or panicked.
    pub(super) fn allows_dead_letters(&self) -> bool {
        self.post_faults.contains(&PostFault::Status(413)) || self.post_faults.contains(&PostFault::Panic)
    }

    /// Whether no fault can make a worker repeat a post that arrived.
    pub(super) fn allows_no_duplicates(&self) -> bool {
        let repeats =
            |fault: &PostFault| matches!(fault, PostFault::AnswerLost | PostFault::Slow | PostFault::Panic);
        !self.fifo
            && self.crashes.iter().all(Option::is_none)
            && self.send_faults.iter().all(|fault| *fault == SendFault::None)
            && !self.post_faults.iter().any(repeats)
    }
}

/// Whether a body on a queue is that message, and still for that connection.
pub(super) fn addresses(body: &str, message: usize, connection: &str) -> bool {
    let Ok(body) = serde_json::from_str::<Value>(body) else { return false };
    let (to, done) = (&body["to"], &body["retry"]["done"]);
    let among = |ids: &Value| ids.as_array().is_some_and(|ids| ids.contains(&json!(connection)));
    let shard = TenantShards::DEFAULT.of(&connection.try_into().unwrap());
    let addressed = to["connection"] == connection
        || (to["tenant"] == "acme" && (to["shard"].is_null() || to["shard"] == shard))
        || among(&to["connections"])
        || (to["user"].is_object() && !among(done));
    body["payload"] == message && addressed
}
