//! Erases a stream.

use crate::{
    mailbox::{Mailbox, MailboxError},
    stream::{DEVICES, HEAD, MESSAGES, Stream, messages_of},
    table::{Table, TableError},
};

/// Rounds over a stream to which others write meanwhile.
const ROUNDS: usize = 8;

/// The result of an erasure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// The number of items, the head included.
    pub items: usize,
}

impl<T: Table> Mailbox<T> {
    /// Removes all items of a stream, readable or not, and the head last. Messages that are appended meanwhile are
    /// removed too, or begin a new stream, with another epoch.
    ///
    /// # Errors
    /// [`MailboxError::Table`] if a call fails, and [`MailboxError::Removed`] if others write faster than this removes.
    /// Run it again.
    pub async fn erase(&self, stream: &Stream) -> Result<Erased, MailboxError> {
        let mut erased = Erased::default();
        match self.table.head(stream).await {
            Ok(Some(head)) => {
                let messages = messages_of(&head.epoch);
                let is_old = |key: &str| key.starts_with(DEVICES) || key.starts_with(&messages);
                erased.items += self.remove_items(stream, is_old).await?;
                // A new stream may have begun, because another erasure runs.
                erased.items += usize::from(self.table.delete_head(stream, &head.epoch).await?);
            }
            Ok(None) => erased.items += self.remove_items(stream, |key| key.starts_with(DEVICES)).await?,
            // No worker appends to a stream whose head cannot be read, so no other stream has begun.
            Err(TableError::Item(_)) => {
                erased.items += self.remove_items(stream, |key| key != HEAD).await?;
                erased.items += self.remove_items(stream, |key| key == HEAD).await?;
            }
            Err(error) => return Err(error.into()),
        }
        // Messages that a worker wrote before it saw that the head is gone, and those of earlier epochs.
        for _ in 0..ROUNDS {
            match self.remove_old_epochs(stream).await? {
                0 => return Ok(erased),
                items => erased.items += items,
            }
        }
        Err(MailboxError::Removed)
    }

    /// Removes the messages of all epochs except the current one.
    async fn remove_old_epochs(&self, stream: &Stream) -> Result<usize, MailboxError> {
        let (mut removed, mut after) = (0, None::<String>);
        loop {
            let (mut keys, next) = self.table.item_keys(stream, after.as_deref()).await?;
            keys.retain(|key| key.starts_with(MESSAGES));
            if !keys.is_empty() {
                // A message is written after its head, so the epoch of each of these is current now, or gone for good.
                let head = self.table.head(stream).await?;
                let current = head.map(|head| messages_of(&head.epoch));
                keys.retain(|key| current.as_ref().is_none_or(|current| !key.starts_with(current)));
                removed += self.remove_all(stream, &keys).await?;
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(removed),
            }
        }
    }

    async fn remove_items(
        &self,
        stream: &Stream,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<usize, MailboxError> {
        let (mut removed, mut after) = (0, None::<String>);
        loop {
            let (mut keys, next) = self.table.item_keys(stream, after.as_deref()).await?;
            keys.retain(|key| is_wanted(key));
            removed += self.remove_all(stream, &keys).await?;
            match next {
                Some(next) => after = Some(next),
                None => return Ok(removed),
            }
        }
    }

    async fn remove_all(&self, stream: &Stream, keys: &[String]) -> Result<usize, MailboxError> {
        let removed = self.remove_keys(stream, keys, ROUNDS).await?;
        if removed < keys.len() { Err(MailboxError::Removed) } else { Ok(removed) }
    }
}
