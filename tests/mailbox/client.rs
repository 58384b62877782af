//! The reference of the rules for clients in `docs/reference/clients.md`: a pure core of events in and effects out.
//!
//! The application keeps [`Stored`], opens and closes sockets, and runs the handler. The core has one stream, that of
//! the user.

mod queue;
mod tests;
mod vectors;
mod wire;

pub(crate) use self::wire::{Effect, Event, Stored};

use streamer_message::{
    Epoch, Position,
    frame::{ClientFrame, Start, StreamRequest, SyncFrame},
};

use self::{
    queue::{Entry, Held, Line},
    wire::{Frame, Message, Page},
};

/// Time for which a hole may stay before the client asks for a page.
const HOLE_MILLIS: u64 = 300;

/// Time for which the client waits for a page.
const PAGE_MILLIS: u64 = 5000;

/// The longest delay before the next sync after one without a page.
const MAX_DELAY_MILLIS: u64 = 30_000;

/// Syncs without a page after which the client reconnects.
const MAX_SYNCS: u32 = 3;

/// The state of one stream.
#[derive(Debug)]
pub(crate) struct Client {
    /// The position of the last message that is in the line to the handler.
    pub(crate) position: Option<(String, u64)>,
    held: Held,
    line: Line,
    is_open: bool,
    /// Whether a page has come for the hello on the newest socket.
    is_registered: bool,
    is_caught_up: bool,
    /// The number of the last sync.
    n: u64,
    sync: Sync,
    /// Syncs without a page since the last page, over all sockets.
    failed: u32,
    /// Whether the client knows of messages that it could not hold.
    is_behind: bool,
    /// Since when a message is missing before those that are held, or the client is behind.
    hole_since: Option<u64>,
    /// The time of the last event.
    now: u64,
}

/// The state of syncs on the newest socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    None,
    /// A page is awaited until this time.
    Awaited(u64),
    /// The next sync is due at this time.
    Delayed(u64),
}

impl Client {
    /// Creates a client that continues at what it has stored.
    pub(crate) fn new(stored: Option<Stored>) -> Self {
        let position = stored.as_ref().map(|stored| (stored.epoch.clone(), stored.seq));
        Self {
            position,
            held: Held::default(),
            line: Line::new(stored.unwrap_or_default()),
            is_open: false,
            is_registered: false,
            is_caught_up: false,
            n: 0,
            sync: Sync::None,
            failed: 0,
            is_behind: false,
            hole_since: None,
            now: 0,
        }
    }

    /// Handles an event at `now`.
    pub(crate) fn handle(&mut self, event: &Event, now: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.now = now;
        match event {
            Event::Opened => {
                (self.is_open, self.is_registered) = (true, false);
                self.end_caught_up();
                self.ask(now, &mut effects);
            }
            Event::Closed => {
                self.is_open = false;
                self.end_caught_up();
                (self.sync, self.hole_since) = (Sync::None, None);
            }
            Event::Frame { text } => match Frame::parse(text) {
                Frame::Message { epoch, message } => self.live(&epoch, message, now, &mut effects),
                Frame::Page(page) => self.page(page, now, &mut effects),
                Frame::Other => {}
            },
            Event::Handled => self.line.handled(true, &mut effects),
            Event::Failed => self.line.handled(false, &mut effects),
            Event::Idle if self.sync == Sync::None => self.ask(now, &mut effects),
            Event::Idle => {}
            Event::Woken => self.woken(now, &mut effects),
        }
        self.line.advance(&mut effects);
        effects
    }

    /// Returns when [`Event::Woken`] is due.
    pub(crate) fn wake_at(&self) -> Option<u64> {
        match self.sync {
            _ if self.is_open && self.line.has_acks() => Some(self.now),
            Sync::Awaited(at) | Sync::Delayed(at) => Some(at),
            Sync::None => self.hole_since.map(|since| since + HOLE_MILLIS),
        }
    }

    fn woken(&mut self, now: u64, effects: &mut Vec<Effect>) {
        self.line.acknowledge(effects);
        match self.sync {
            Sync::Awaited(until) if until <= now => {
                self.failed += 1;
                if self.failed.is_multiple_of(MAX_SYNCS) {
                    self.sync = Sync::None;
                    effects.push(Effect::Reconnect);
                } else {
                    let doubled = 1000 << (self.failed - 1).min(5);
                    self.sync = Sync::Delayed(now + MAX_DELAY_MILLIS.min(doubled));
                }
            }
            Sync::Delayed(at) if at <= now => self.ask(now, effects),
            Sync::None if self.hole_since.is_some_and(|since| since + HOLE_MILLIS <= now) => {
                match self.line.has_room(&self.held) || !self.held.is_empty() {
                    true => self.ask(now, effects),
                    // The handler is slow.
                    false => self.hole_since = Some(now),
                }
            }
            _ => {}
        }
    }

    /// Sends a sync.
    fn ask(&mut self, now: u64, effects: &mut Vec<Effect>) {
        if !self.is_open {
            return;
        }
        self.n += 1;
        let start = match &self.position {
            Some((epoch, seq)) => match Epoch::new(epoch.clone()) {
                Ok(epoch) => Start::After(Position { epoch, seq: *seq }),
                Err(_) => Start::Oldest,
            },
            None => Start::Oldest,
        };
        let frame = SyncFrame::new(self.n, !self.is_registered, StreamRequest::user(start));
        // Serializing these types cannot fail.
        let text = serde_json::to_string(&ClientFrame::Sync(frame)).unwrap_or_default();
        effects.push(Effect::Send { text });
        self.sync = Sync::Awaited(now + PAGE_MILLIS);
        (self.is_behind, self.hole_since) = (false, None);
    }

    fn live(&mut self, epoch: &str, message: Message, now: u64, effects: &mut Vec<Effect>) {
        match &self.position {
            Some((own, position)) if own == epoch && message.seq <= *position => {}
            Some((own, _)) if own == epoch && self.line.has_room_for(&message, &self.held) => {
                self.held.insert(message);
                self.take_held(now);
            }
            // There is no room, or only a page says where the stream begins. The page may have been read already.
            _ => self.fall_behind(now),
        }
        if self.sync == Sync::None && self.position.as_ref().is_some_and(|(own, _)| own != epoch) {
            self.ask(now, effects);
        }
    }

    /// Notes that a page has to bring a message.
    fn fall_behind(&mut self, now: u64) {
        self.is_behind = true;
        self.hole_since.get_or_insert(now);
    }

    /// Moves messages whose turn has come to the line, and notes whether a hole is before the others.
    fn take_held(&mut self, now: u64) {
        let Some((_, position)) = &mut self.position else { return };
        while let Some(message) = self.held.take(*position + 1) {
            *position = message.seq;
            self.line.push(message);
        }
        self.held.drop_through(*position);
        if !self.held.is_empty() {
            self.hole_since.get_or_insert(now);
        } else if !self.is_behind {
            self.hole_since = None;
        }
    }

    fn page(&mut self, page: Page, now: u64, effects: &mut Vec<Effect>) {
        let is_answer = page.n == self.n && self.sync != Sync::None;
        match (&self.position, &page.reset) {
            (_, Some(_)) | (None, _) if !is_answer => return,
            (Some(_), Some(reason)) => self.reset(&page, reason.clone()),
            (None, _) => {
                self.line.begin(&page.epoch, page.after, effects);
                self.position = Some((page.epoch.clone(), page.after));
            }
            (Some((epoch, position)), None) if *epoch != page.epoch || page.after > *position => return,
            (Some(_), None) => {}
        }
        let (through, top, is_new_stream) = (page.through, page.top, page.reset.is_some());
        self.take_page(page);
        self.take_held(now);
        let position = self.position.as_ref().map_or(0, |(_, seq)| *seq);
        // A page with a hole is an answer that never came.
        if is_answer && position >= through {
            self.answered(is_new_stream, effects);
            if is_new_stream {
                self.ask(now, effects);
            } else if through < top {
                match self.line.has_room(&self.held) {
                    true => self.ask(now, effects),
                    false => self.fall_behind(now),
                }
            } else if !self.is_caught_up {
                self.is_caught_up = true;
                self.line.push_other(Entry::CaughtUp(top));
            }
        }
    }

    /// Ends the sync. A new stream may not have the connection's registration, so the next sync is a hello again.
    fn answered(&mut self, is_new_stream: bool, effects: &mut Vec<Effect>) {
        (self.sync, self.failed) = (Sync::None, 0);
        // The client is not caught up with an older page while a newer one is in the line.
        if self.line.forget_caught_up() {
            self.is_caught_up = false;
        }
        if !self.is_registered {
            effects.push(Effect::Registered);
        }
        self.is_registered = !is_new_stream;
    }

    fn end_caught_up(&mut self) {
        self.is_caught_up = false;
        self.line.forget_caught_up();
    }

    /// Begins at another position.
    fn reset(&mut self, page: &Page, reason: String) {
        let (epoch, seq) = (page.epoch.clone(), page.after);
        self.held.clear();
        self.end_caught_up();
        self.line.push_other(Entry::Gap { range: None, reason, epoch: epoch.clone(), seq });
        self.position = Some((epoch, seq));
    }

    /// Takes the messages and the gaps of a page in their order.
    fn take_page(&mut self, page: Page) {
        let Some((epoch, position)) = &mut self.position else { return };
        for message in page.messages {
            if message.seq > *position {
                self.held.insert(message);
            }
        }
        while *position < page.through {
            let next = *position + 1;
            if let Some(message) = self.held.take(next) {
                *position = next;
                self.line.push(message);
                continue;
            }
            let covering = |missing: &&wire::Missing| missing.from <= next && next <= missing.to;
            let Some(missing) = page.missing.iter().find(covering) else { return };
            self.held.drop_through(*position);
            let to = self.held.first().map_or(missing.to, |first| missing.to.min(first - 1));
            *position = to;
            self.line.push_other(Entry::Gap {
                range: Some((next, to)),
                reason: missing.reason.clone(),
                epoch: epoch.clone(),
                seq: to,
            });
        }
    }
}
