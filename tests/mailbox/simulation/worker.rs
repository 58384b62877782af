//! The delivery worker, as far as it concerns kept messages: append, then devices, then posts.

use std::{rc::Rc, time::SystemTime};

use streamer_mailbox::{Appended, Mailbox, NewMessage, Put, Raise, StoredMessage, Table};
use streamer_message::{MessageId, Payload, Position, StreamName, frame::ServerFrame};
use streamer_tests::mailbox::{Defect, MemoryTable};

use super::{
    mutants::Mutant,
    world::{World, number, pause},
};
use crate::stream;

/// A message that a worker has received.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// Its index on the queue.
    pub(crate) index: usize,
    pub(crate) id: MessageId,
    pub(crate) until: SystemTime,
    pub(crate) tried_since: Option<SystemTime>,
}

/// Handles a batch. Returns whether all messages are acknowledged.
pub(crate) async fn work(world: Rc<World>, batch: Vec<Received>) -> bool {
    let defect = match world.mutant {
        Some(Mutant::LaggingDevices) => Some(Defect::LaggingDevices),
        Some(Mutant::FloorNotChecked) => Some(Defect::HiddenFloor),
        Some(Mutant::TopNotRaised) => Some(Defect::TopNotRaised),
        Some(Mutant::NumberNotHeld) => Some(Defect::NotHeld),
        _ => None,
    };
    let mailbox = world.mailbox(defect);
    let now = world.now();
    let new = |message| to_append(&world, message);
    let live: Vec<_> = batch.iter().filter(|message| message.until > now).collect();
    let messages: Vec<_> = live.iter().map(|message| new(message)).collect();
    if messages.is_empty() {
        return true;
    }
    let appended = append(&world, &mailbox, &messages, now).await;
    if appended.positions.is_empty() {
        return false;
    }
    let Ok(devices) = mailbox.devices(&stream(), world.now()).await else { return false };
    for (position, message) in appended.positions.iter().zip(live) {
        let frame = frame(position, &message.id);
        for device in &devices {
            pause().await;
            if !world.post(number(&device.connection), &frame) {
                // The connection is gone.
                drop(mailbox.unregister(&stream(), &device.connection).await);
            }
        }
    }
    pause().await;
    appended.failure.is_none()
}

fn to_append<'a>(world: &World, message: &'a Received) -> NewMessage<'a> {
    let tried_since = message.tried_since.filter(|_| world.mutant != Some(Mutant::AppendsAgain));
    NewMessage { id: &message.id, body: "1", until: message.until, ack: false, tried_since }
}

fn frame(position: &Position, id: &MessageId) -> String {
    let (epoch, payload) = (&position.epoch, Payload::new(&1).unwrap());
    let frame =
        ServerFrame::Message { stream: StreamName::User, epoch, seq: position.seq, id, ack: false, payload };
    serde_json::to_string(&frame).unwrap()
}

async fn append(
    world: &World,
    mailbox: &Mailbox<MemoryTable>,
    messages: &[NewMessage<'_>],
    now: SystemTime,
) -> Appended {
    let numbering = match world.mutant {
        Some(mutant @ (Mutant::ReserveThenPut | Mutant::RaiseBeforePut | Mutant::OrderById)) => mutant,
        _ => return mailbox.append(&stream(), messages, now).await,
    };
    // Makes the head.
    let mut appended = mailbox.append(&stream(), &[], now).await;
    for message in messages {
        match numbered(world, numbering, message, now).await {
            Some(position) => appended.positions.push(position),
            None => {
                appended.failure = Some(streamer_mailbox::MailboxError::Contended);
                break;
            }
        }
    }
    appended
}

/// Appends a message in a wrong way. `None` if a call fails.
async fn numbered(
    world: &World,
    numbering: Mutant,
    message: &NewMessage<'_>,
    now: SystemTime,
) -> Option<Position> {
    let (table, stream) = (world.table.yielding(), stream());
    let (id, body) = (message.id.clone(), message.body.to_owned());
    let stored = StoredMessage { id, body, stored_at: now, until: message.until, ack: false };
    let head = table.head(&stream).await.ok()??;
    let position = |seq| Position { epoch: format!("{}.0", head.epoch).try_into().unwrap(), seq };
    if message.tried_since.is_some() {
        let (ids, _) = table.newest_ids(&stream, &head.epoch, 1..=u64::MAX).await.ok()?;
        if let Some(found) = ids.iter().find(|found| found.id == *message.id) {
            return Some(position(found.seq));
        }
    }
    let expires_at = head.expires_at;
    let raise = async |seq| table.raise_top(&stream, &head.epoch, seq, expires_at).await.ok();
    if numbering == Mutant::OrderById {
        let seq = time_of(message.id);
        table.put_message(&stream, &head.epoch, seq, &stored).await.ok()?;
        raise(seq).await?;
        return Some(position(seq));
    }
    let mut seq = head.top + 1;
    loop {
        let raised = raise(seq).await?;
        let is_reserved = matches!(raised, Raise::Raised(_)) || numbering == Mutant::RaiseBeforePut;
        if raised == Raise::OtherEpoch {
            return None;
        }
        if is_reserved && table.put_message(&stream, &head.epoch, seq, &stored).await.ok()? == Put::Stored {
            return Some(position(seq));
        }
        seq += 1;
    }
}

/// Returns the number that an id with its producer's time has.
fn time_of(id: &MessageId) -> u64 {
    id.as_str().rsplit_once('-').unwrap().1.parse().unwrap()
}
