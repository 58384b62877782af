//! Appends messages to a stream.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime},
};

use streamer_message::{Epoch, MessageId, Position};

use crate::{
    head::Head,
    mailbox::{Mailbox, MailboxError},
    stream::{Stream, message_key},
    table::{Put, Raise, StoredMessage, TTL_MARGIN, Table},
};

/// Numbers that a writer tries for one message.
const TRIES: u32 = 16;

/// Times that an append begins again, because the stream was removed or cut off meanwhile.
const RESTARTS: u32 = 3;

/// How far the clocks of workers may be apart in the search for a message that an earlier attempt stored.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// Calls that remove the same messages, because DynamoDB may process only a part of them.
const REMOVALS: usize = 2;

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
    /// Whether clients acknowledge that they have handled the message.
    pub ack: bool,
    /// If an earlier attempt may have stored the message: when the first one began. The append then looks for the
    /// message's id first.
    pub tried_since: Option<SystemTime>,
}

/// One pass over the messages.
struct Pass<'a> {
    head: Head,
    /// The numbers of messages that earlier attempts stored. They may be beyond `reached`.
    found: HashMap<&'a MessageId, u64>,
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
        let mut messages = messages.to_vec();
        for _ in 0..RESTARTS {
            match self.pass(stream, &messages, now).await {
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
                // The pass may have stored some of the messages where readers find them.
                Ok(None) => {
                    messages.iter_mut().for_each(|message| _ = message.tried_since.get_or_insert(now))
                }
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
        let found = self.find(stream, &head, messages).await?;
        let reached = head.top;
        let mut pass = Pass { head, found, reached, seqs: Vec::new(), failure: None, collisions: 0 };
        for message in messages {
            match self.write(stream, &mut pass, message, now).await {
                Ok(seq) => pass.seqs.push(seq),
                Err(failure) => {
                    pass.failure = Some(failure);
                    break;
                }
            }
        }
        let Pass { head, reached, seqs, failure, collisions, .. } = pass;
        // Also after a failure, so that messages which others left beyond `top` become visible.
        let head = match reached > head.top {
            false => head,
            true => match self.table.raise_top(stream, &head.epoch, reached, Head::end_of_life(now)).await? {
                Raise::Raised(head) | Raise::Higher(head) => head,
                Raise::OtherEpoch => {
                    self.remove_orphans(stream, &head, reached).await;
                    return Ok(None);
                }
            },
        };
        if seqs.iter().any(|seq| *seq <= head.floor) {
            return Ok(None);
        }
        self.trim(stream, &head, seqs.len()).await;
        Ok(Some((seqs, head.epoch, failure, collisions)))
    }

    /// Writes one message and returns its number.
    async fn write<'a>(
        &self,
        stream: &Stream,
        pass: &mut Pass<'a>,
        message: &NewMessage<'a>,
        now: SystemTime,
    ) -> Result<u64, MailboxError> {
        if message.tried_since.is_some()
            && let Some(seq) = pass.found.get(message.id)
            && *seq <= pass.reached
        {
            return Ok(*seq);
        }
        // The message may be beyond `reached`. Only a number that follows taken ones may be given out, so this goes on
        // from number to number until it finds the message. It may store a second copy if DynamoDB removed a message in
        // between.
        let (id, body) = (message.id.clone(), message.body.to_owned());
        let stored = StoredMessage { id, body, stored_at: now, until: message.until, ack: message.ack };
        for _ in 0..TRIES {
            let seq = pass.reached + 1;
            let put = self.table.put_message(stream, &pass.head.epoch, seq, &stored).await?;
            if let Put::Taken { id, expires_at } = &put
                && !self.hold(stream, pass, (seq, id), *expires_at, now).await?
            {
                continue;
            }
            pass.reached = seq;
            match put {
                // Also of an earlier attempt whose answer was lost.
                Put::Taken { id, .. } if id != *message.id => pass.collisions += 1,
                _ => {
                    // The batch may have another copy of the message.
                    pass.found.insert(message.id, seq);
                    return Ok(seq);
                }
            }
        }
        Err(MailboxError::Contended)
    }

    /// Makes sure that a number which this writer passes is not free again while another writer may try it. Returns
    /// whether the number still has the message.
    async fn hold(
        &self,
        stream: &Stream,
        pass: &Pass<'_>,
        (seq, id): (u64, &MessageId),
        expires_at: SystemTime,
        now: SystemTime,
    ) -> Result<bool, MailboxError> {
        if expires_at >= now + HOLD_BELOW {
            return Ok(true);
        }
        Ok(self.table.hold_message(stream, &pass.head.epoch, seq, id, now + TTL_MARGIN).await?)
    }

    /// Returns the numbers of the messages that earlier attempts stored. They may be beyond `top`. One search finds all.
    async fn find<'a>(
        &self,
        stream: &Stream,
        head: &Head,
        messages: &[NewMessage<'a>],
    ) -> Result<HashMap<&'a MessageId, u64>, MailboxError> {
        let mut found = HashMap::new();
        let tried = messages.iter().filter_map(|message| Some((message.id, message.tried_since?)));
        let (mut wanted, times): (HashSet<_>, Vec<_>) = tried.unzip();
        let earliest = times.into_iter().min().and_then(|since| since.checked_sub(CLOCK_TOLERANCE));
        let earliest = earliest.unwrap_or(SystemTime::UNIX_EPOCH);
        let (lowest, mut highest) = (head.floor + 1, u64::MAX);
        while highest >= lowest && !wanted.is_empty() {
            let (ids, read) = self.table.newest_ids(stream, &head.epoch, lowest..=highest).await?;
            for stored in &ids {
                if let Some(id) = wanted.take(&stored.id) {
                    found.insert(id, stored.seq);
                }
            }
            if ids.last().is_some_and(|oldest| oldest.stored_at < earliest) {
                break;
            }
            highest = read.saturating_sub(1);
        }
        Ok(found)
    }

    /// Removes the messages of a pass over a stream that was erased meanwhile: the erasure may have ended before they
    /// were stored. No other stream has the epoch. A failure is only logged: the messages are on no page, and expire.
    async fn remove_orphans(&self, stream: &Stream, head: &Head, reached: u64) {
        // The answer of the last write may have been lost.
        let keys: Vec<_> = (head.top + 1..=reached + 1).map(|seq| message_key(&head.epoch, seq)).collect();
        match self.remove_keys(stream, &keys, REMOVALS).await {
            Ok(removed) if removed == keys.len() => {}
            Ok(_) => {
                tracing::warn!("failed to remove messages that were stored during an erasure: run it again")
            }
            Err(error) => {
                tracing::warn!(%error, "failed to remove messages that were stored during an erasure: run it again");
            }
        }
    }
}
