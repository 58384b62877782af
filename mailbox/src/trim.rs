//! Removes the oldest messages of a stream that has too many.

use crate::{
    head::Head,
    mailbox::{Mailbox, MailboxError},
    stream::{Stream, message_key},
    table::{DELETES, Raise, Table},
};

/// Messages above the maximum that a stream may have before the oldest are removed, as many as one call removes.
const SLACK: u64 = DELETES as u64;

/// Messages that an append removes at most, besides as many as it has stored. A stream whose maximum was lowered by
/// thousands becomes shorter with each append, and no append takes long.
const STEP: u64 = 4 * SLACK;

/// Calls that remove the same messages, because DynamoDB may process only a part of them.
const CALLS: usize = 2;

impl<T: Table> Mailbox<T> {
    /// Removes the oldest messages of a stream that has too many, after an append of `stored` messages. A failure is only
    /// logged: without the new floor, the next append removes the messages. With it, they are on no page, and those that
    /// are left expire.
    pub(crate) async fn trim(&self, stream: &Stream, head: &Head, stored: usize) {
        let max = self.settings.max_messages;
        if head.top.saturating_sub(head.floor) <= max.saturating_add(SLACK) {
            return;
        }
        let floor = (head.top - max).min(head.floor + STEP + stored as u64);
        if let Err(error) = self.remove(stream, head, floor).await {
            tracing::warn!(%error, "failed to remove messages beyond the maximum of a stream");
        }
    }

    async fn remove(&self, stream: &Stream, head: &Head, floor: u64) -> Result<(), MailboxError> {
        // Readers see the new floor before a message is missing.
        match self.table.raise_floor(stream, &head.epoch, floor).await? {
            Raise::Raised(_) => {}
            // The SDK repeated the call after a lost answer, or another worker removes the same messages.
            Raise::Higher(later) if later.floor == floor => {}
            Raise::Higher(_) | Raise::OtherEpoch => return Ok(()),
        }
        let keys: Vec<_> = (head.floor + 1..=floor).map(|seq| message_key(&head.epoch, seq)).collect();
        let removed = self.remove_keys(stream, &keys, CALLS).await?;
        if removed < keys.len() {
            let left = keys.len() - removed;
            tracing::warn!(
                left,
                "DynamoDB did not remove all messages beyond the maximum of a stream: they expire"
            );
        }
        Ok(())
    }
}
