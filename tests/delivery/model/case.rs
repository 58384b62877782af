//! Random cases: a batch, and the behaviour of the systems around the worker.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use streamer_gateway::PostResult;
use streamer_tests::{event::EPOCH_MILLIS, gateway::status};

pub(super) const CONNECTIONS: [&str; 4] = ["a", "b", "c", "d"];

/// The maximum age of a message, in milliseconds: 2 h 10 min.
const MAX_AGE: u64 = 7_800_000;

/// Receives that may each have crashed a worker, after which a message is exhausted.
const MAX_CRASHES: u32 = 10;

#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) fifo: bool,
    pub(super) messages: Vec<Message>,
    /// Milliseconds until each answer, and the answer. The gateway repeats the list.
    pub(super) answers: Vec<(u64, Kind)>,
    pub(super) rows: Rows,
    pub(super) table_fails: bool,
    pub(super) mailbox_fails: bool,
    /// Time left to the invocation.
    pub(super) lambda_millis: u64,
    pub(super) seed: u64,
}

/// The row of each connection: whether it exists, and whether it is within the connect grace, where it stays.
pub(super) type Rows = [Option<bool>; 4];

#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) to: To,
    /// Whether the mailbox keeps the message, which is for a user.
    pub(super) keep: bool,
    /// Whether the payload is over 128 KiB.
    pub(super) oversized: bool,
    /// Milliseconds to the expiry.
    pub(super) expires_in: Option<i64>,
    /// Milliseconds since the first receive.
    pub(super) age: u64,
    /// Earlier hand-backs, and the receives of earlier copies that may each have crashed a worker.
    pub(super) retry: Option<(u32, u32)>,
    /// Receive count of this copy.
    pub(super) receives: u32,
    /// One of two message groups.
    pub(super) group: bool,
    /// `seq` in the only request, and whether the message is supersedable.
    pub(super) request: Option<(u64, bool)>,
    /// Whether the outbound queue accepts its hand-back.
    pub(super) hand_back_accepted: bool,
    /// Whether the dead-letter queue accepts its dead letters.
    pub(super) dead_letter_accepted: bool,
}

#[derive(Debug, Clone)]
pub(super) enum To {
    /// Indices of connections, possibly repeated.
    Connections(Vec<usize>),
    /// The user `anna`, whose connections are those with a row.
    User,
    /// A user without connections.
    AbsentUser,
    /// An invalid audience.
    Poison,
}

/// Kind of answer to a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Status(u16),
    /// A 400 that blames the connection id.
    InvalidConnectionId,
    Broken,
    Timeout,
    Panic,
}

fn to() -> impl Strategy<Value = To> {
    prop_oneof![
        8 => prop::collection::vec(0..4_usize, 1..5).prop_map(To::Connections),
        4 => Just(To::User),
        1 => Just(To::AbsentUser),
        1 => Just(To::Poison),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let history = (
        prop::option::weighted(0.2, -10..8000_i64),
        prop_oneof![6 => Just(0_u64), 1 => Just(60_000), 1 => Just(9_000_000)],
        prop::option::weighted(0.3, (0..70_u32, 0..10_u32)),
        prop_oneof![5 => Just(1_u32), 1 => 1..12_u32],
    );
    let request = prop::option::weighted(0.4, (0..6_u64, any::<bool>()));
    let queues = (prop::bool::weighted(0.85), prop::bool::weighted(0.85));
    ((to(), any::<bool>()), prop::bool::weighted(0.05), history, any::<bool>(), request, queues).prop_map(
        |((to, keep), oversized, (expires_in, age, retry, receives), group, request, accepted)| {
            let (hand_back_accepted, dead_letter_accepted) = accepted;
            Message {
                keep: keep && matches!(to, To::User | To::AbsentUser),
                to,
                oversized,
                expires_in,
                age,
                retry,
                receives,
                group,
                request,
                hand_back_accepted,
                dead_letter_accepted,
            }
        },
    )
}

fn answer() -> impl Strategy<Value = (u64, Kind)> {
    let kind = prop_oneof![
        8 => Just(Kind::Status(200)),
        2 => prop::sample::select(vec![500, 502, 503, 504]).prop_map(Kind::Status),
        2 => prop::sample::select(vec![302, 403, 404, 429]).prop_map(Kind::Status),
        2 => Just(Kind::Status(410)),
        1 => prop::sample::select(vec![400, 413]).prop_map(Kind::Status),
        1 => Just(Kind::InvalidConnectionId),
        1 => Just(Kind::Broken),
        1 => Just(Kind::Timeout),
    ];
    let kind = prop_oneof![60 => kind, 1 => Just(Kind::Panic)];
    (prop_oneof![4 => Just(0_u64), 2 => 1..50_u64, 1 => 50..6000_u64], kind)
}

pub(super) fn case() -> impl Strategy<Value = Case> {
    let row = prop_oneof![1 => Just(None), 3 => Just(Some(false)), 1 => Just(Some(true))];
    let surroundings = (
        prop::array::uniform4(row),
        (prop::bool::weighted(0.1), prop::bool::weighted(0.1)),
        prop_oneof![3 => Just(30_000_u64), 1 => (0..500_u64).prop_map(|sixteenth| 16 * sixteenth)],
        any::<u64>(),
    );
    let traffic = (prop::collection::vec(message(), 1..11), prop::collection::vec(answer(), 40));
    (prop::bool::weighted(0.3), traffic, surroundings).prop_map(
        |(fifo, (messages, answers), surroundings)| {
            let (rows, (table_fails, mailbox_fails), lambda_millis, seed) = surroundings;
            Case { fifo, messages, answers, rows, table_fails, mailbox_fails, lambda_millis, seed }
        },
    )
}

impl Message {
    /// Returns the body of the message at `index`, which is also its id and its payload.
    pub(super) fn body(&self, index: usize) -> Value {
        let to = match &self.to {
            To::Connections(connections) => {
                let connections: Vec<_> = connections.iter().map(|index| CONNECTIONS[*index]).collect();
                json!({ "connections": connections })
            }
            To::User => json!({ "user": { "tenant": "acme", "user": "anna" } }),
            To::AbsentUser => json!({ "user": { "tenant": "acme", "user": "absent" } }),
            To::Poison => json!("invalid"),
        };
        let payload = if self.oversized { "x".repeat(128 * 1024) } else { index.to_string() };
        let mut body =
            json!({ "version": 1, "id": index.to_string(), "to": to, "payload": payload, "note": [1.0] });
        if self.keep {
            body["keep"] = json!(3600);
        }
        if let Some(expires_in) = self.expires_in {
            body["expires_at"] = json!(EPOCH_MILLIS as i64 + expires_in);
        }
        if let Some((seq, supersedable)) = self.request {
            body["request"] = json!({ "id": "r", "seq": seq });
            if supersedable {
                body["supersedable"] = json!(true);
            }
        }
        if let Some((count, receives)) = self.retry {
            let since = EPOCH_MILLIS - self.age;
            body["retry"] =
                json!({ "count": count, "receives": receives, "since": since, "cause": "before" });
        }
        body
    }

    pub(super) fn is_past_max_age(&self) -> bool {
        self.age >= MAX_AGE
    }

    pub(super) fn is_expired(&self) -> bool {
        self.expires_in.is_some_and(|millis| millis <= 0)
    }

    /// Whether the message becomes a dead letter on a standard queue instead of a hand-back.
    pub(super) fn is_exhausted(&self) -> bool {
        let earlier = self.retry.map_or(0, |(_, receives)| receives);
        self.is_past_max_age() || earlier + self.receives >= MAX_CRASHES
    }
}

impl Kind {
    /// Returns the answer.
    ///
    /// # Panics
    /// For [`Kind::Panic`], as the case demands.
    pub(super) fn answer(self) -> PostResult {
        match self {
            Self::Status(code) => status(code),
            Self::InvalidConnectionId => {
                PostResult::Status { status: 400, message: "Invalid connectionId: x".to_owned() }
            }
            Self::Broken => PostResult::Broken("reset".to_owned()),
            Self::Timeout => PostResult::Timeout,
            Self::Panic => panic!("scripted panic"),
        }
    }
}

impl Case {
    /// Whether the mailbox has the message after the invocation.
    pub(super) fn is_stored(&self, message: &Message) -> bool {
        let is_valid = message.keep && !message.oversized && !message.is_expired();
        is_valid && !self.mailbox_fails && self.lambda_millis > 0
    }

    /// Whether a message that is handed back is kept instead: it is stored, and was retried for too long.
    pub(super) fn is_kept(&self, message: &Message) -> bool {
        let gives_up = if self.fifo { message.is_past_max_age() } else { message.is_exhausted() };
        self.is_stored(message) && gives_up
    }

    /// Returns the time that the next answer takes, and the answer.
    pub(super) fn nth_answer(&self, nth: usize) -> (Duration, PostResult) {
        let (millis, kind) = self.answers[nth % self.answers.len()];
        (Duration::from_millis(millis), kind.answer())
    }
}
