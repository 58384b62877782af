//! Erases a stream.

use crate::{
    mailbox::{Mailbox, MailboxError},
    stream::{HEAD, Stream, messages_of},
    table::{DELETES, Table, TableError},
};

/// Rounds over a stream to which others write meanwhile.
const ROUNDS: usize = 8;

/// What an erasure has removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// The number of items, the head included.
    pub items: usize,
}

impl<T: Table> Mailbox<T> {
    /// Removes all items of a stream, readable or not, and the head last. Messages that are appended meanwhile are removed too, or begin a
    /// new stream, with another epoch.
    ///
    /// # Errors
    /// [`MailboxError::Table`] if a call fails, and [`MailboxError::Removed`] if others write faster than this removes.
    /// Run it again.
    pub async fn erase(&self, stream: &Stream) -> Result<Erased, MailboxError> {
        let mut erased = Erased::default();
        let head = match self.table.head(stream).await {
            // A head that cannot be read goes with the other items.
            Err(TableError::Item(_)) => None,
            head => head?,
        };
        let Some(head) = head else {
            erased.items = self.remove_items(stream, |_| true).await?;
            return Ok(erased);
        };
        erased.items += self.remove_items(stream, |key| key != HEAD).await?;
        erased.items += self.remove_items(stream, |key| key == HEAD).await?;
        // Messages of the old epoch that a worker wrote before it saw that the head is gone.
        let old = messages_of(&head.epoch);
        for _ in 0..ROUNDS {
            match self.remove_items(stream, |key| key.starts_with(&old)).await? {
                0 => return Ok(erased),
                items => erased.items += items,
            }
        }
        Err(MailboxError::Removed)
    }

    async fn remove_items(
        &self,
        stream: &Stream,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<usize, MailboxError> {
        let (mut removed, mut after) = (0, None::<String>);
        loop {
            let (keys, next) = self.table.item_keys(stream, after.as_deref()).await?;
            let wanted: Vec<_> = keys.into_iter().filter(|key| is_wanted(key)).collect();
            for chunk in wanted.chunks(DELETES) {
                let mut left = chunk.to_vec();
                for _ in 0..ROUNDS {
                    let unprocessed = self.table.delete_items(stream, &left).await?;
                    removed += left.len() - unprocessed.len();
                    left = unprocessed;
                    if left.is_empty() {
                        break;
                    }
                }
                if !left.is_empty() {
                    return Err(MailboxError::Removed);
                }
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(removed),
            }
        }
    }
}
