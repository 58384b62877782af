//! Stores the messages that are to be kept, before they are posted.
//!
//! The messages of one user are appended to the user's stream together, in order of arrival. Only after that the worker
//! reads the user's devices: in this order, each device gets a message by a post or by its next sync.
//!
//! A batch without such messages makes no call.

mod calls;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use streamer_mailbox::{DynamoTable, Mailbox, Stream};
use streamer_message::{Audience, ConnectionId, Position};
use streamer_queue::QueueKind;

pub(crate) use self::calls::no_answer;
use self::calls::{Append, Devices, Share, append, devices};
use crate::{
    Worker,
    decode::{Message, Record, Stored},
    outcome::{Cause, Outcome, Rejection},
    time::Time,
};

/// Streams that are read or written concurrently.
const STREAMS: usize = 16;

/// For each message that is to be kept and has not expired, by the index of its record: the devices to post to, or the
/// outcome of a message that is not posted.
pub type KeptDevices = HashMap<usize, Result<Vec<ConnectionId>, Outcome>>;

/// A batch whose messages are stored.
#[derive(Debug, Default)]
pub struct Kept {
    /// The devices of each message.
    pub devices: KeptDevices,
    /// The appends, for metrics.
    pub appends: Appends,
}

/// Numbers of an invocation's appends.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Appends {
    /// The duration of each.
    pub latencies: Vec<Duration>,
    /// Numbers in streams that other workers took first.
    pub collisions: u64,
}

/// Removes a position of another generation: the table was restored from a backup, which may lack the message. It is
/// searched for, or stored again, and every device gets its new number.
fn forget_old_position(mailbox: &Mailbox<DynamoTable>, record: &mut Record) {
    let Ok(message) = &mut record.content else { return };
    let Some(retry) = &mut message.envelope.retry else { return };
    if retry.kept.as_ref().is_some_and(|position| !mailbox.is_current(position)) {
        retry.kept = None;
        retry.done.clear();
        if let Some(receipt) = &mut message.envelope.receipt {
            receipt.settled.clear();
            receipt.gone.clear();
        }
    }
}

/// Stores each message that is to be kept, unless an earlier worker has done so, and finds the devices to post it to.
/// Sets [`Message::stored`].
pub async fn keep<G>(worker: &Worker<G>, records: &mut [Record], time: &Time) -> Kept {
    let mut kept = Kept::default();
    let valid = kept.admit(worker, records, time.now());
    let Some(mailbox) = worker.mailbox.as_ref().filter(|_| !valid.is_empty()) else { return kept };
    valid.iter().for_each(|index| forget_old_position(mailbox, &mut records[*index]));
    let time = &Share::half_of(time);
    let positions = kept.store(worker, mailbox, records, valid, time).await;

    let streams = by_stream(records, positions.keys().copied()).into_iter();
    let read = streams.map(|(stream, indexes)| async move {
        let devices = devices(worker, mailbox, &stream, time).await;
        (indexes, devices)
    });
    let found: Vec<_> = stream::iter(read).buffer_unordered(STREAMS).collect().await;
    for (indexes, devices) in found {
        for index in indexes {
            let (Ok(message), Some(position)) = (&mut records[index].content, positions.get(&index)) else {
                continue;
            };
            let (unserved, elsewhere) = match &devices {
                Ok(Devices { here, elsewhere }) => (Ok(unserved(here, message)), elsewhere.clone()),
                Err(cause) => (Err(Outcome::HandedBack(cause.clone())), None),
            };
            let is_posted = unserved.as_ref().is_ok_and(|devices| !devices.is_empty());
            let frame = if is_posted { message.frame(position) } else { Bytes::new() };
            message.stored = Some(Stored { position: position.clone(), frame, elsewhere });
            kept.devices.insert(index, unserved);
        }
    }
    kept
}

impl Kept {
    /// Returns the messages that are to be kept and have not expired, in order of arrival. Rejects those that cannot be
    /// kept.
    fn admit<G>(&mut self, worker: &Worker<G>, records: &[Record], now: SystemTime) -> Vec<usize> {
        let (mut valid, limit) = (Vec::new(), worker.payloads.kept_bytes());
        for (index, record) in records.iter().enumerate() {
            let Ok(message) = &record.content else { continue };
            if message.envelope.keep.is_none() || message.is_expired(now) {
                continue;
            }
            let rejection = match (message.payload.len(), &worker.mailbox) {
                (bytes, _) if bytes > limit => Rejection::KeptPayload { bytes, limit },
                (_, None) => Rejection::NoMailbox,
                _ => {
                    valid.push(index);
                    continue;
                }
            };
            self.devices.insert(index, Err(Outcome::Rejected(rejection)));
        }
        valid
    }

    /// Appends the messages that no earlier worker has stored. Returns the positions of all that are stored, and hands
    /// the others back.
    async fn store<G>(
        &mut self,
        worker: &Worker<G>,
        mailbox: &Mailbox<DynamoTable>,
        records: &[Record],
        valid: Vec<usize>,
        time: &Share<'_>,
    ) -> BTreeMap<usize, Position> {
        let mut positions = BTreeMap::new();
        let mut waiting = Vec::new();
        for index in valid {
            match records[index].position() {
                Some(position) => _ = positions.insert(index, position.clone()),
                None => waiting.push(index),
            }
        }
        while !waiting.is_empty() {
            let (now, later) = next_round(worker.policy.queue_kind, records, &waiting);
            let appends = by_stream(records, now).into_iter().map(|(stream, indexes)| async move {
                let append = append(mailbox, &stream, records, &indexes, time).await;
                (indexes, append)
            });
            let appends: Vec<_> = stream::iter(appends).buffer_unordered(STREAMS).collect().await;
            let mut failed_groups = HashSet::new();
            for (indexes, Append { stored, rest, collisions, latency }) in appends {
                self.appends.latencies.extend(latency);
                self.appends.collisions += collisions;
                let (first, failed) = indexes.split_at(stored.len());
                positions.extend(first.iter().copied().zip(stored));
                if let Err(cause) = rest {
                    failed_groups.extend(failed.iter().map(|index| &records[*index].group));
                    failed.iter().for_each(|index| self.hand_back(*index, cause.clone()));
                }
            }
            // On a FIFO queue, nothing is stored behind a message of its group that could not be.
            let (behind, next): (Vec<_>, Vec<_>) =
                later.into_iter().partition(|index| failed_groups.contains(&records[*index].group));
            behind.into_iter().for_each(|index| self.hand_back(index, Cause::Behind));
            waiting = next;
        }
        positions
    }

    fn hand_back(&mut self, index: usize, cause: Cause) {
        self.devices.insert(index, Err(Outcome::HandedBack(cause)));
    }
}

/// Splits messages into those that can be stored at once, and the rest. On a FIFO queue, the messages of a group are
/// stored in order: those up to the first one for another user at once.
fn next_round(kind: QueueKind, records: &[Record], waiting: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let mut turns: HashMap<&Option<String>, (&Audience, bool)> = HashMap::new();
    waiting.iter().copied().partition(|index| {
        let record = &records[*index];
        let Ok(message) = &record.content else { return true };
        let to = &message.envelope.to;
        let (user, is_open) = turns.entry(&record.group).or_insert((to, true));
        *is_open &= *user == to;
        kind == QueueKind::Standard || *is_open
    })
}

/// Groups messages by the stream of their user, in order of arrival.
fn by_stream(records: &[Record], indexes: impl IntoIterator<Item = usize>) -> Vec<(Stream, Vec<usize>)> {
    let mut streams: Vec<(Stream, Vec<usize>)> = Vec::new();
    let mut positions: HashMap<&Audience, usize> = HashMap::new();
    for index in indexes {
        let Ok(message) = &records[index].content else { continue };
        let Some(stream) = message.stream() else { continue };
        let position = *positions.entry(&message.envelope.to).or_insert(streams.len());
        match streams.get_mut(position) {
            Some((_, indexes)) => indexes.push(index),
            None => streams.push((stream, vec![index])),
        }
    }
    streams
}

/// Returns the devices that no earlier worker has posted the message to.
fn unserved(devices: &[ConnectionId], message: &Message) -> Vec<ConnectionId> {
    devices.iter().filter(|id| !message.done().contains(id)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use streamer_events::{Body, SqsRecord};

    use super::*;

    /// Returns a message for a user, kept for a minute.
    fn record(group: &str, user: &str, more: &str) -> Record {
        let to = format!(r#"{{"user":{{"tenant":"acme","user":"{user}"}}}}"#);
        let body = format!(r#"{{"version":1,"id":"m","to":{to},"payload":[ 1.0],"keep":60{more}}}"#);
        let attributes = [("MessageGroupId".to_owned(), group.to_owned())].into();
        Record::read(SqsRecord { body: Body::Text(body), attributes, ..SqsRecord::default() })
    }

    #[test]
    fn groups_of_a_fifo_queue_are_stored_in_order() {
        let records = [("g", "anna"), ("g", "bob"), ("h", "bob"), ("g", "anna"), ("h", "bob")];
        let records = records.map(|(group, user)| record(group, user, ""));
        let (mut rounds, mut waiting) = (Vec::new(), vec![0, 1, 2, 3, 4]);
        while !waiting.is_empty() {
            let (now, later) = next_round(QueueKind::Fifo, &records, &waiting);
            rounds.push(now);
            waiting = later;
        }
        assert_eq!(rounds, [vec![0, 2, 4], vec![1], vec![3]]);
        let (now, later) = next_round(QueueKind::Standard, &records, &[0, 1, 2, 3, 4]);
        assert_eq!((now.len(), later.len()), (5, 0));
        let streams = by_stream(&records, now).into_iter();
        let streams: Vec<_> = streams.map(|(stream, indexes)| (stream.user.to_string(), indexes)).collect();
        assert_eq!(streams, [("anna".to_owned(), vec![0, 3]), ("bob".to_owned(), vec![1, 2, 4])]);
    }
}
