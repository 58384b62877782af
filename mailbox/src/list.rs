//! Lists a stream for people.

use std::time::SystemTime;

use streamer_message::{Epoch, MessageId};

use crate::{
    mailbox::{Mailbox, MailboxError},
    stream::{Device, Stream},
    table::{StoredMessage, Table},
};

/// Messages that one call reads.
const READ: usize = 100;

/// A stream as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The epoch, as clients see it.
    pub epoch: Epoch,
    /// The number of the newest message.
    pub top: u64,
    /// The messages up to this number were removed because the stream had too many.
    pub floor: u64,
    /// The messages that have not expired, in order.
    pub messages: Vec<KeptMessage>,
    /// The devices that receive new messages live.
    pub devices: Vec<Device>,
}

/// A message that is kept, without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptMessage {
    /// The number in the stream.
    pub seq: u64,
    /// The message's id.
    pub id: MessageId,
    /// When it was stored.
    pub stored_at: SystemTime,
    /// When it expires.
    pub until: SystemTime,
    /// The size of the payload in bytes.
    pub bytes: usize,
}

impl<T: Table> Mailbox<T> {
    /// Returns a whole stream without its payloads; `None` if it does not exist.
    ///
    /// # Errors
    /// [`MailboxError::Table`] if a call fails or an item cannot be parsed.
    pub async fn list(&self, stream: &Stream, now: SystemTime) -> Result<Option<Listing>, MailboxError> {
        let Some(head) = self.table.head(stream).await? else { return Ok(None) };
        let (mut messages, mut read) = (Vec::new(), head.floor);
        while read < head.top {
            let (page, through) = self.table.messages(stream, &head.epoch, read + 1..=head.top, READ).await?;
            messages.extend(page.into_iter().filter(|(_, message)| message.until > now).map(
                |(seq, message)| {
                    let StoredMessage { id, body, stored_at, until, .. } = message;
                    KeptMessage { seq, id, stored_at, until, bytes: body.len() }
                },
            ));
            read = through;
        }
        let devices = self.devices(stream, now).await?;
        let epoch = self.public_epoch(&head.epoch)?;
        Ok(Some(Listing { epoch, top: head.top, floor: head.floor, messages, devices }))
    }

    /// Returns the message with a number and its payload; `None` if it has expired, was removed or is not there yet.
    ///
    /// # Errors
    /// [`MailboxError::Table`] if a call fails or an item cannot be parsed.
    pub async fn message(
        &self,
        stream: &Stream,
        seq: u64,
        now: SystemTime,
    ) -> Result<Option<StoredMessage>, MailboxError> {
        let head = self.table.head(stream).await?.filter(|head| (head.floor + 1..=head.top).contains(&seq));
        let Some(head) = head else { return Ok(None) };
        let (messages, _) = self.table.messages(stream, &head.epoch, seq..=seq, 1).await?;
        let mut messages = messages.into_iter().map(|(_, message)| message);
        Ok(messages.next().filter(|message| message.until > now))
    }
}
