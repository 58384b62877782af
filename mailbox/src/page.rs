//! Reads a stream page by page.

use std::{ops::RangeInclusive, time::SystemTime};

use streamer_message::{
    Epoch,
    frame::{Missing, MissingReason, Reset, Start},
};

use crate::{
    head::Head,
    mailbox::{Mailbox, MailboxError},
    stream::Stream,
    table::{StoredMessage, Table},
};

/// Messages that the first call for a page reads. Further calls read as many as the sizes of these suggest, and four
/// times as many as the call before if all have expired.
const FIRST_READ: usize = 4;

/// Times that a page is read, because the stream was erased meanwhile.
const RESTARTS: u32 = 3;

/// Maximum number of messages that one call reads.
const MAX_READ: usize = 100;

/// Bytes of a message on a page besides its id and its payload: `{"seq":1000000000000,"id":"","payload":},`.
const MESSAGE_BYTES: usize = 48;

/// Bytes of a missing range on a page: `{"from":1000000000000,"to":1000000000000,"reason":"too_large"},`.
const MISSING_BYTES: usize = 64;

/// The bounds of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimits {
    /// Maximum size of its messages and of its missing ranges in bytes, give or take two ranges. A single message may be
    /// larger.
    pub bytes: usize,
    /// Maximum size of the payload of one message in bytes. The page reports a larger one as missing.
    pub payload_bytes: usize,
    /// Maximum number of calls for its messages. Each reads up to 1 MB.
    pub reads: usize,
}

/// Everything in a stream after `after`, up to and including `through`: each number is in `messages` or in `missing`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The epoch, as clients see it.
    pub epoch: Epoch,
    /// The number before the first one of the page.
    pub after: u64,
    /// The last number of the page.
    pub through: u64,
    /// The number of the newest message when the page was read.
    pub top: u64,
    /// The messages that have not expired, in order.
    pub messages: Vec<(u64, StoredMessage)>,
    /// The other numbers, in order.
    pub missing: Vec<Missing>,
    /// Why the page does not begin at the client's position.
    pub reset: Option<Reset>,
}

impl<T: Table> Mailbox<T> {
    /// Returns the page after `start`. A stream that does not exist begins here, so that a client has a position before
    /// its first message.
    ///
    /// A client without a position, or with one of another epoch, has no claim to messages that are gone already: its
    /// page begins with the oldest message that is left.
    ///
    /// # Errors
    /// [`MailboxError::Table`] if a call fails, and [`MailboxError::Removed`] if the stream is erased again and again.
    pub async fn page(
        &self,
        stream: &Stream,
        start: &Start,
        limits: PageLimits,
        now: SystemTime,
    ) -> Result<Page, MailboxError> {
        for _ in 0..RESTARTS {
            if let Some(page) = self.read(stream, start, limits, now).await? {
                return Ok(page);
            }
        }
        Err(MailboxError::Removed)
    }

    /// Returns the page after `start`; `None` if the stream was erased meanwhile.
    async fn read(
        &self,
        stream: &Stream,
        start: &Start,
        limits: PageLimits,
        now: SystemTime,
    ) -> Result<Option<Page>, MailboxError> {
        let head = self.head_or_new(stream, now).await?;
        if head.is_old(now) {
            self.table.renew_head(stream, &head.epoch, Head::end_of_life(now)).await?;
        }
        let epoch = self.public_epoch(&head.epoch)?;
        let (after, reset) = match start {
            Start::After(position) if position.epoch != epoch => (None, Some(Reset::Epoch)),
            Start::After(position) if position.seq > head.top => (None, Some(Reset::Ahead)),
            Start::After(position) => (Some(position.seq), None),
            Start::Oldest => (None, None),
            Start::Now => (Some(head.top), None),
        };
        let mut builder = Builder::new(&head, after, limits, now);
        let mut has_read = false;
        for _ in 0..limits.reads.max(1) {
            let Some((range, limit)) = builder.next_read() else { break };
            let (messages, read) = self.table.messages(stream, &head.epoch, range, limit).await?;
            builder.add(messages, read);
            has_read = true;
        }
        if has_read {
            // Messages may have been removed meanwhile, and a writer with an old view may have stored others at their
            // numbers. `floor` was raised before that.
            match self.table.head(stream).await? {
                Some(later) if later.epoch == head.epoch => builder.raise_floor(later.floor),
                _ => return Ok(None),
            }
        }
        Ok(Some(builder.finish(epoch, reset)))
    }
}

/// A page under construction.
struct Builder {
    now: SystemTime,
    top: u64,
    floor: u64,
    /// Whether the client is told which messages before the first one are missing.
    has_claim: bool,
    limits: PageLimits,
    /// Whether numbers before the first message are left out.
    skips: bool,
    after: u64,
    through: u64,
    bytes: usize,
    messages: Vec<(u64, StoredMessage)>,
    missing: Vec<Missing>,
    is_full: bool,
    /// Messages that the next call reads if none is on the page yet.
    blind_read: usize,
}

impl Builder {
    /// Begins a page behind a client's position. Without one, the page begins with the first message.
    fn new(head: &Head, after: Option<u64>, limits: PageLimits, now: SystemTime) -> Self {
        let start = after.unwrap_or(head.floor);
        Self {
            now,
            top: head.top,
            floor: head.floor,
            has_claim: after.is_some(),
            limits,
            skips: after.is_none(),
            after: start,
            through: start,
            bytes: 0,
            messages: Vec::new(),
            missing: Vec::new(),
            is_full: false,
            blind_read: FIRST_READ,
        }
    }

    /// Returns the numbers that the next call reads, and how many messages at most.
    fn next_read(&self) -> Option<(RangeInclusive<u64>, usize)> {
        let done = self.is_full || self.through >= self.top;
        // Messages at or below the floor are removed, or will be.
        let range = self.through.max(self.floor.min(self.top)) + 1..=self.top;
        let limit = match self.messages.len() {
            0 => self.blind_read,
            count => {
                let average = (self.bytes / count).max(1);
                (self.limits.bytes.saturating_sub(self.bytes) / average + 1).clamp(1, MAX_READ)
            }
        };
        (!done).then_some((range, limit))
    }

    /// Adds messages of a call that has read all numbers up to `read`.
    fn add(&mut self, messages: Vec<(u64, StoredMessage)>, read: u64) {
        for (seq, message) in messages {
            if message.until <= self.now {
                continue;
            }
            if message.body.len() > self.limits.payload_bytes {
                // It may add two ranges.
                if !self.missing.is_empty() && self.bytes + 2 * MISSING_BYTES > self.limits.bytes {
                    self.is_full = true;
                    return;
                }
                self.advance(seq - 1);
                self.pass(seq, MissingReason::TooLarge);
                continue;
            }
            let bytes = MESSAGE_BYTES + message.id.as_str().len() + message.body.len();
            let has_gap = !self.skips && self.through + 1 < seq;
            let is_alone = self.messages.is_empty() && self.missing.is_empty() && !has_gap;
            self.advance(seq - 1);
            if !is_alone && self.bytes + bytes > self.limits.bytes {
                self.is_full = true;
                return;
            }
            self.skips = false;
            self.bytes += bytes;
            self.through = seq;
            self.messages.push((seq, message));
        }
        self.advance(read.min(self.top));
        self.blind_read = (self.blind_read * 4).min(MAX_READ);
    }

    /// Moves on to `seq`, past numbers without a message.
    fn advance(&mut self, seq: u64) {
        self.pass(seq.min(self.floor), MissingReason::Overflow);
        self.pass(seq, MissingReason::Expired);
    }

    /// Moves on to `to`, past numbers that are missing for a reason.
    fn pass(&mut self, to: u64, reason: MissingReason) {
        let from = self.through + 1;
        if to < from {
            return;
        }
        self.through = to;
        if self.skips {
            self.after = to;
            return;
        }
        match self.missing.last_mut() {
            Some(last) if last.reason == reason && last.to + 1 == from => last.to = to,
            _ => {
                self.bytes += MISSING_BYTES;
                self.missing.push(Missing { from, to, reason });
            }
        }
    }

    /// Leaves out the numbers up to `floor`.
    fn raise_floor(&mut self, floor: u64) {
        let floor = floor.min(self.through);
        if floor <= self.floor || floor <= self.after {
            return;
        }
        self.messages.retain(|(seq, _)| *seq > floor);
        for missing in &mut self.missing {
            missing.from = missing.from.max(floor + 1);
        }
        if self.has_claim {
            let overflow = Missing { from: self.after + 1, to: floor, reason: MissingReason::Overflow };
            self.missing.insert(0, overflow);
        } else {
            self.after = self.messages.first().map_or(self.through, |(seq, _)| seq - 1);
        }
        let after = self.after;
        self.missing.retain(|missing| missing.from <= missing.to && missing.from > after);
    }

    fn finish(self, epoch: Epoch, reset: Option<Reset>) -> Page {
        let Self { after, through, top, messages, missing, .. } = self;
        Page { epoch, after, through, top, messages, missing, reset }
    }
}
