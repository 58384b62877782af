//! Appends messages to a stream.

use std::time::{Duration, SystemTime};

use streamer_message::{Epoch, MessageId, Position};

use crate::{
    head::Head,
    mailbox::{Mailbox, MailboxError},
    stream::Stream,
    table::{DELETES, Put, Raise, StoredMessage, TTL_MARGIN, Table},
};

/// Numbers that a writer tries for one message.
const TRIES: u32 = 16;

/// Times that an append begins again, because the stream was removed or cut off meanwhile.
const RESTARTS: u32 = 3;

/// Messages above the maximum that a stream may have before the oldest are removed, as many as one call removes.
const SLACK: u64 = DELETES as u64;

/// How far the clocks of workers may be apart in the search for a message that an earlier attempt stored.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// A writer holds a message that has less than this left in the table before it goes on to the next number. It is three
/// times as long as Lambda's longest invocation: one for this writer, one for another whose view of `top` is old, and one
/// for their clocks.
const HOLD_BELOW: Duration = Duration::from_secs(45 * 60);

/// A message to append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewMessage<'a> {
    /// The message's id.
    pub id: &'a MessageId,
    /// The payload, JSON text of at most 127 KiB.
    pub body: &'a str,
    /// When the message expires.
    pub until: SystemTime,
    /// If an earlier attempt may have stored the message: when the first one began. The append then looks for the
    /// message's id first.
    pub tried_since: Option<SystemTime>,
}

/// One pass over the messages.
struct Pass {
    head: Head,
    /// The highest number that is known to be taken. Every number up to it is.
    reached: u64,
    /// Numbers of the first messages.
    seqs: Vec<u64>,
    /// Why the pass has no numbers for the rest.
    failure: Option<MailboxError>,
    /// Numbers that others took first.
    collisions: u64,
}

/// The result of an append.
#[derive(Debug, Default)]
pub struct Appended {
    /// The positions of the first messages, all of them unless there was a failure.
    pub positions: Vec<Position>,
    /// Why the other messages are not stored, or not known to be.
    pub failure: Option<MailboxError>,
    /// Numbers that other writers took first: each cost a write.
    pub collisions: u64,
}

impl<T: Table> Mailbox<T> {
    /// Appends messages in their order and removes the oldest messages beyond the maximum. Returns the position of each.
    /// After a failure, the positions are those of the messages before it; the others may be stored all the same, so a
    /// later attempt sets [`NewMessage::tried_since`].
    ///
    /// An append of `n` messages takes `n + 2` calls, and one more for each number that another writer took first.
    pub async fn append(&self, stream: &Stream, messages: &[NewMessage<'_>], now: SystemTime) -> Appended {
        let mut collisions = 0;
        for _ in 0..RESTARTS {
            match self.pass(stream, messages, now).await {
                Ok(Some((seqs, epoch, failure, more))) => {
                    collisions += more;
                    let positions = seqs.into_iter().map(|seq| self.position(&epoch, seq)).collect();
                    return match positions {
                        Ok(positions) => Appended { positions, failure, collisions },
                        Err(failure) => {
                            Appended { failure: Some(failure), collisions, ..Appended::default() }
                        }
                    };
                }
                Ok(None) => {}
                Err(failure) => {
                    return Appended { failure: Some(failure), collisions, ..Appended::default() };
                }
            }
        }
        Appended { failure: Some(MailboxError::Removed), collisions, ..Appended::default() }
    }

    /// Writes the messages, then raises `top`. `None` if the append must begin again.
    async fn pass(
        &self,
        stream: &Stream,
        messages: &[NewMessage<'_>],
        now: SystemTime,
    ) -> Result<Option<(Vec<u64>, Epoch, Option<MailboxError>, u64)>, MailboxError> {
        let head = self.head_or_new(stream, now).await?;
        let reached = head.top;
        let mut pass = Pass { head, reached, seqs: Vec::new(), failure: None, collisions: 0 };
        for message in messages {
            match self.write(stream, &mut pass, message, now).await {
                Ok(seq) => pass.seqs.push(seq),
                Err(failure) => {
                    pass.failure = Some(failure);
                    break;
                }
            }
        }
        let Pass { head, reached, seqs, failure, collisions } = pass;
        // Also after a failure, so that messages which others left beyond `top` become visible.
        let head = match reached > head.top {
            false => head,
            true => match self.table.raise_top(stream, &head.epoch, reached, Head::end_of_life(now)).await? {
                Raise::Raised(head) | Raise::Higher(head) => head,
                Raise::OtherEpoch => return Ok(None),
            },
        };
        if seqs.iter().any(|seq| *seq <= head.floor) {
            return Ok(None);
        }
        self.trim(stream, &head).await;
        Ok(Some((seqs, head.epoch, failure, collisions)))
    }

    /// Writes one message and returns its number.
    async fn write(
        &self,
        stream: &Stream,
        pass: &mut Pass,
        message: &NewMessage<'_>,
        now: SystemTime,
    ) -> Result<u64, MailboxError> {
        if let Some(since) = message.tried_since
            && let Some(seq) = self.find(stream, &pass.head, message.id, since).await?
            && seq <= pass.reached
        {
            return Ok(seq);
        }
        // The message may be beyond `reached`. Only a number that follows taken ones may be given out, so this goes on
        // from number to number until it finds the message. It may store a second copy if DynamoDB removed a message in
        // between.
        let (id, body) = (message.id.clone(), message.body.to_owned());
        let stored = StoredMessage { id, body, stored_at: now, until: message.until };
        for _ in 0..TRIES {
            let seq = pass.reached + 1;
            let put = self.table.put_message(stream, &pass.head.epoch, seq, &stored).await?;
            if let Put::Taken { expires_at, .. } = &put
                && !self.hold(stream, pass, seq, *expires_at, now).await?
            {
                continue;
            }
            pass.reached = seq;
            match put {
                Put::Stored => return Ok(seq),
                // An earlier attempt whose answer was lost.
                Put::Taken { id, .. } if id == *message.id => return Ok(seq),
                Put::Taken { .. } => pass.collisions += 1,
            }
        }
        Err(MailboxError::Contended)
    }

    /// Makes sure that a number which this writer passes is not free again while another writer may try it. Returns
    /// whether the number is still taken.
    async fn hold(
        &self,
        stream: &Stream,
        pass: &Pass,
        seq: u64,
        expires_at: SystemTime,
        now: SystemTime,
    ) -> Result<bool, MailboxError> {
        if expires_at >= now + HOLD_BELOW {
            return Ok(true);
        }
        Ok(self.table.hold_message(stream, &pass.head.epoch, seq, now + TTL_MARGIN).await?)
    }

    /// Returns the number of the message that an earlier attempt stored. It may be beyond `top`.
    async fn find(
        &self,
        stream: &Stream,
        head: &Head,
        id: &MessageId,
        since: SystemTime,
    ) -> Result<Option<u64>, MailboxError> {
        let (lowest, mut highest) = (head.floor + 1, u64::MAX);
        let earliest = since.checked_sub(CLOCK_TOLERANCE).unwrap_or(SystemTime::UNIX_EPOCH);
        while highest >= lowest {
            let (ids, read) = self.table.newest_ids(stream, &head.epoch, lowest..=highest).await?;
            if let Some(found) = ids.iter().find(|stored| stored.id == *id) {
                return Ok(Some(found.seq));
            }
            if ids.last().is_some_and(|oldest| oldest.stored_at < earliest) {
                return Ok(None);
            }
            highest = read.saturating_sub(1);
        }
        Ok(None)
    }

    /// Removes the oldest messages of a stream that has too many. A failure is only logged: the next append removes
    /// more, and DynamoDB removes each message when it has expired.
    async fn trim(&self, stream: &Stream, head: &Head) {
        let max = self.settings.max_messages;
        if head.top.saturating_sub(head.floor) <= max.saturating_add(SLACK) {
            return;
        }
        let floor = head.top - max;
        if let Err(error) = self.remove(stream, head, floor).await {
            tracing::warn!(%error, "failed to remove messages beyond the maximum of a stream");
        }
    }

    async fn remove(&self, stream: &Stream, head: &Head, floor: u64) -> Result<(), MailboxError> {
        // Readers see the new floor before a message is missing.
        if !self.table.raise_floor(stream, &head.epoch, floor).await? {
            return Ok(());
        }
        let keys: Vec<_> =
            (head.floor + 1..=floor).map(|seq| crate::stream::message_key(&head.epoch, seq)).collect();
        for keys in keys.chunks(DELETES) {
            // Keys that are not processed expire by themselves.
            drop(self.table.delete_items(stream, keys).await?);
        }
        Ok(())
    }
}
