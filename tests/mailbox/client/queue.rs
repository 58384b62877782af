//! The messages that are held until their turn, and the line to the handler.

use std::collections::{BTreeMap, VecDeque};

use streamer_message::{
    MessageId,
    frame::{AckFrame, ClientFrame},
    limits::ACK_IDS,
};

use super::wire::{Effect, Message, Stored};

/// Ids that are stored with the position.
const IDS: usize = 128;

/// Messages that wait for their turn or for the handler.
const MAX_MESSAGES: usize = 1000;

/// Bytes of these messages.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Messages that arrived before their turn, by number.
#[derive(Debug, Default)]
pub(super) struct Held {
    messages: BTreeMap<u64, Message>,
    bytes: usize,
}

/// An entry of the line to the handler.
#[derive(Debug)]
pub(super) enum Entry {
    Message(Message),
    /// A message with the id of an earlier one.
    Repeated(u64),
    Gap {
        /// `None` for a gap of unknown size.
        range: Option<(u64, u64)>,
        reason: String,
        /// The position after it.
        epoch: String,
        seq: u64,
    },
    CaughtUp(u64),
}

/// Messages and gaps in the order of the stream, the ids of handled messages, and the position to store.
#[derive(Debug, Default)]
pub(super) struct Line {
    entries: VecDeque<Entry>,
    is_handling: bool,
    bytes: usize,
    stored: Stored,
    /// The ids of handled messages that are not acknowledged yet.
    acks: Vec<String>,
}

fn bytes(message: &Message) -> usize {
    message.id.len() + message.payload.to_string().len()
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn insert(&mut self, message: Message) {
        let added = bytes(&message);
        if self.messages.insert(message.seq, message).is_none() {
            self.bytes += added;
        }
    }

    pub(super) fn take(&mut self, seq: u64) -> Option<Message> {
        let message = self.messages.remove(&seq)?;
        self.bytes -= bytes(&message);
        Some(message)
    }

    /// Returns the first number that is held.
    pub(super) fn first(&self) -> Option<u64> {
        self.messages.keys().next().copied()
    }

    /// Drops messages up to `seq`.
    pub(super) fn drop_through(&mut self, seq: u64) {
        while self.first().is_some_and(|first| first <= seq) {
            self.first().and_then(|first| self.take(first));
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Line {
    pub(super) fn new(stored: Stored) -> Self {
        Self { stored, ..Self::default() }
    }

    /// Returns whether one more message may wait.
    pub(super) fn has_room_for(&self, message: &Message, held: &Held) -> bool {
        self.has_room(held) && self.bytes + held.bytes + bytes(message) <= MAX_BYTES
    }

    /// Returns whether more messages may wait.
    pub(super) fn has_room(&self, held: &Held) -> bool {
        self.entries.len() + held.messages.len() + self.acks.len() < MAX_MESSAGES
            && self.bytes + held.bytes < MAX_BYTES
    }

    /// Adds the next message of the stream.
    pub(super) fn push(&mut self, message: Message) {
        let waits =
            self.entries.iter().any(|entry| matches!(entry, Entry::Message(other) if other.id == message.id));
        if waits || self.stored.ids.contains(&message.id) {
            self.entries.push_back(Entry::Repeated(message.seq));
            return;
        }
        self.bytes += bytes(&message);
        self.entries.push_back(Entry::Message(message));
    }

    pub(super) fn push_other(&mut self, entry: Entry) {
        self.entries.push_back(entry);
    }

    /// Removes the entry that tells that the client is caught up. Returns whether the line had one.
    pub(super) fn forget_caught_up(&mut self) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| !matches!(entry, Entry::CaughtUp(_)));
        self.entries.len() < before
    }

    /// Sets the position of a client that had none. It is stored, so that messages that expire from now on are told as a
    /// gap.
    pub(super) fn begin(&mut self, epoch: &str, seq: u64, effects: &mut Vec<Effect>) {
        (self.stored.epoch, self.stored.seq) = (epoch.to_owned(), seq);
        effects.push(Effect::Store(self.stored.clone()));
    }

    /// Completes the message that was delivered last. Only one that `succeeded` is acknowledged.
    pub(super) fn handled(&mut self, succeeded: bool, effects: &mut Vec<Effect>) {
        if !std::mem::take(&mut self.is_handling) {
            return;
        }
        if let Some(Entry::Message(message)) = self.entries.pop_front() {
            self.bytes -= bytes(&message);
            self.stored.seq = message.seq;
            self.acks.extend((message.ack && succeeded).then(|| message.id.clone()));
            self.stored.ids.push(message.id);
            let excess = self.stored.ids.len().saturating_sub(IDS);
            self.stored.ids.drain(..excess);
            effects.push(Effect::Store(self.stored.clone()));
        }
        self.advance(effects);
    }

    /// Returns whether an acknowledgment is due.
    pub(super) fn has_acks(&self) -> bool {
        !self.acks.is_empty()
    }

    /// Acknowledges handled messages.
    pub(super) fn acknowledge(&mut self, effects: &mut Vec<Effect>) {
        let ids: Vec<_> = self.acks.drain(..).filter_map(|id| MessageId::try_from(id).ok()).collect();
        for ids in ids.chunks(ACK_IDS) {
            // Serializing these types cannot fail.
            let text =
                serde_json::to_string(&ClientFrame::Ack(AckFrame::new(ids.to_vec()))).unwrap_or_default();
            effects.push(Effect::Send { text });
        }
    }

    /// Moves on to the next message that the handler has to handle.
    pub(super) fn advance(&mut self, effects: &mut Vec<Effect>) {
        while !self.is_handling {
            match self.entries.pop_front() {
                None => return,
                Some(Entry::Message(message)) => {
                    let Message { seq, id, payload, .. } = message.clone();
                    effects.push(Effect::Deliver { epoch: self.stored.epoch.clone(), seq, id, payload });
                    self.entries.push_front(Entry::Message(message));
                    self.is_handling = true;
                }
                Some(Entry::Repeated(seq)) => self.stored.seq = seq,
                Some(Entry::Gap { range, reason, epoch, seq }) => {
                    effects.push(Effect::Gap { epoch: epoch.clone(), range, reason });
                    (self.stored.epoch, self.stored.seq) = (epoch, seq);
                    effects.push(Effect::Store(self.stored.clone()));
                }
                Some(Entry::CaughtUp(top)) => {
                    effects.push(Effect::CaughtUp { epoch: self.stored.epoch.clone(), top });
                }
            }
        }
    }
}
