//! A standard queue of SQS, with delays and visibility timeouts.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use streamer_events::{Body, SqsEvent, SqsRecord};
use streamer_tests::event::EPOCH_MILLIS;
use tokio::sync::Notify;

use super::Clock;
use crate::{model::VISIBILITY, random::Random};

/// A standard queue. All clones are the same queue.
#[derive(Clone)]
pub struct Queue {
    clock: Clock,
    /// Its ARN, which its records name.
    arn: &'static str,
    /// Whether a message is there at once, as on an emulator.
    is_instant: bool,
    state: Arc<Mutex<State>>,
    /// Wakes the mapping when a message arrives or an invocation ends.
    pub changed: Arc<Notify>,
}

struct State {
    random: Random,
    next: u64,
    messages: HashMap<u64, Message>,
    /// Hidden messages by the time at which they become visible. An entry whose time differs from the message's is old.
    hidden: BinaryHeap<Reverse<(u64, u64)>>,
    visible: VecDeque<u64>,
    counts: Counts,
}

struct Message {
    body: String,
    sent_at: u64,
    visible_at: u64,
    first_received_at: u64,
    receives: u32,
}

/// Requests and messages of a queue.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Calls that send or hide messages.
    pub calls: u64,
    /// Receives that return messages, each of which is followed by a call that deletes them.
    pub receives: u64,
    /// Messages that were sent.
    pub sent: u64,
    /// Messages that workers handed back.
    pub handed_back: u64,
}

impl Queue {
    /// Creates an empty queue.
    #[must_use]
    pub fn new(clock: Clock, arn: &'static str, seed: u64, is_instant: bool) -> Self {
        let state = State {
            random: Random::of(seed),
            next: 0,
            messages: HashMap::new(),
            hidden: BinaryHeap::new(),
            visible: VecDeque::new(),
            counts: Counts::default(),
        };
        Self { clock, arn, is_instant, state: Arc::new(Mutex::new(state)), changed: Arc::default() }
    }

    /// Puts a message on the queue. It reaches a poller after `delay` seconds and the queue's latency.
    pub fn send(&self, body: String, delay: u64) {
        let now = self.clock.millis();
        let mut state = self.locked();
        let latency = if self.is_instant { 0 } else { state.random.queue_latency().round() as u64 };
        let visible_at = now + delay * 1000 + latency;
        let id = state.next;
        state.next += 1;
        state.counts.sent += 1;
        state.counts.handed_back += u64::from(body.contains(r#""retry":{"#));
        state.hidden.push(Reverse((visible_at, id)));
        state
            .messages
            .insert(id, Message { body, sent_at: now, visible_at, first_received_at: 0, receives: 0 });
        drop(state);
        self.changed.notify_one();
    }

    /// Counts a call.
    pub fn count_call(&self) {
        self.locked().counts.calls += 1;
    }

    /// Hides a received message for so many seconds from now.
    pub fn hide(&self, receipt: &str, seconds: u64) {
        let at = self.clock.millis() + seconds * 1000;
        let Ok(id) = receipt.parse() else { return };
        let mut state = self.locked();
        if let Some(message) = state.messages.get_mut(&id) {
            message.visible_at = at;
            state.hidden.push(Reverse((at, id)));
        }
    }

    /// Returns the number of visible messages.
    #[must_use]
    pub fn visible(&self) -> usize {
        let now = self.clock.millis();
        let mut state = self.locked();
        while let Some(Reverse((at, id))) = state.hidden.peek().copied().filter(|Reverse((at, _))| *at <= now)
        {
            state.hidden.pop();
            if state.messages.get(&id).is_some_and(|message| message.visible_at == at) {
                state.visible.push_back(id);
            }
        }
        state.visible.len()
    }

    /// Returns when the next message becomes visible, if one is hidden.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        self.locked().hidden.peek().map(|Reverse((at, _))| *at)
    }

    /// Returns the number of messages on the queue, received or not.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.locked().messages.len()
    }

    /// Returns when the oldest visible message became visible.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        let state = self.locked();
        state.messages.get(state.visible.front()?).map(|message| message.visible_at)
    }

    /// Receives up to `most` visible messages as the event of an invocation.
    #[must_use]
    pub fn receive(&self, most: usize) -> SqsEvent {
        let now = self.clock.millis();
        let hidden_until = now + VISIBILITY.as_millis() as u64;
        let mut state = self.locked();
        let mut event = SqsEvent::default();
        for _ in 0..most.min(state.visible.len()) {
            let Some(id) = state.visible.pop_front() else { break };
            let Some(message) = state.messages.get_mut(&id) else { continue };
            message.receives += 1;
            if message.receives == 1 {
                message.first_received_at = now;
            }
            message.visible_at = hidden_until;
            event.records.push(record(id, message, self.arn));
            state.hidden.push(Reverse((hidden_until, id)));
        }
        state.counts.receives += 1;
        event
    }

    /// Deletes a batch except the reported records.
    pub fn acknowledge(&self, ids: &[String], reported: &BTreeSet<String>) {
        let mut state = self.locked();
        for id in ids.iter().filter(|id| !reported.contains(*id)) {
            if let Ok(id) = id.parse::<u64>() {
                state.messages.remove(&id);
            }
        }
    }

    /// Returns the requests and messages so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.locked().counts
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn record(id: u64, message: &Message, arn: &str) -> SqsRecord {
    let attributes = [
        ("ApproximateReceiveCount", message.receives.to_string()),
        ("ApproximateFirstReceiveTimestamp", (EPOCH_MILLIS + message.first_received_at).to_string()),
        ("SentTimestamp", (EPOCH_MILLIS + message.sent_at).to_string()),
    ];
    SqsRecord {
        message_id: Some(id.to_string()),
        receipt_handle: Some(id.to_string()),
        queue_arn: Some(arn.to_owned()),
        body: Body::Text(message.body.clone()),
        attributes: attributes.map(|(name, value)| (name.to_owned(), value)).into(),
    }
}
