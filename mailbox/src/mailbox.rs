//! The operations on streams.

use std::time::SystemTime;

use streamer_message::{ConnectionId, Epoch, Position};

use crate::{
    head::Head,
    stream::{Device, Stream},
    table::{DELETES, FreshHead, Table, TableError},
};

/// Messages that are kept for one user by default.
pub const DEFAULT_MAX_MESSAGES: u64 = 1000;

/// Devices of one user that receive messages live. Those beyond learn of a message with their next sync.
const MAX_DEVICES: usize = 1000;

/// The settings of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// A part of every epoch that clients see. It changes when the table was restored from a backup, whose numbers would
    /// otherwise be used twice: 1 to 8 letters and digits.
    pub generation: String,
    /// Messages that are kept for one user. The oldest are removed beyond it.
    pub max_messages: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { generation: "0".to_owned(), max_messages: DEFAULT_MAX_MESSAGES }
    }
}

/// The streams of all users. Cheap to clone with a table that is.
#[derive(Debug, Clone)]
pub struct Mailbox<T> {
    pub(crate) table: T,
    pub(crate) settings: Settings,
}

/// Why an operation on a stream failed. A later attempt may succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MailboxError {
    /// A call to the table failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Other writers took every number that the writer tried.
    #[error(
        "other workers append to the stream of this user at the same time: fewer messages a second can be kept for one user"
    )]
    Contended,
    /// The stream was erased or removed again and again during the operation.
    #[error(
        "others removed or appended to the stream of this user during the operation: a kept message is handed back and \
         tried again; run `streamer forget` again"
    )]
    Removed,
}

impl<T: Table> Mailbox<T> {
    /// Creates a mailbox over a table.
    #[must_use]
    pub fn new(table: T, settings: Settings) -> Self {
        Self { table, settings }
    }

    /// Registers a device, so that the worker posts new messages to it. To lose nothing, a client's sync registers its
    /// device before it reads a page.
    ///
    /// # Errors
    /// [`MailboxError::Table`] if the call fails. The device may be registered all the same.
    pub async fn register(&self, stream: &Stream, device: &Device) -> Result<(), MailboxError> {
        Ok(self.table.put_device(stream, device).await?)
    }

    /// Removes a device, whose connection is gone.
    ///
    /// # Errors
    /// [`MailboxError::Table`] if the call fails. The device may be removed all the same.
    pub async fn unregister(&self, stream: &Stream, connection: &ConnectionId) -> Result<(), MailboxError> {
        Ok(self.table.delete_device(stream, connection).await?)
    }

    /// Returns the devices whose connections have not reached their maximum age: up to 1 000. To reach each device that
    /// a page does not serve, a worker reads them after the append.
    ///
    /// # Errors
    /// [`MailboxError::Table`] if a call fails or a device cannot be parsed.
    pub async fn devices(&self, stream: &Stream, now: SystemTime) -> Result<Vec<Device>, MailboxError> {
        let (mut devices, mut after) = (Vec::new(), None);
        loop {
            let (page, next) = self.table.devices(stream, after.as_ref()).await?;
            devices.extend(page.into_iter().filter(|device| device.expires_at > now));
            let is_over = devices.len() > MAX_DEVICES || (devices.len() == MAX_DEVICES && next.is_some());
            if is_over {
                tracing::warn!(
                    devices = MAX_DEVICES,
                    "a user has more devices than are served live: the others learn of messages by their syncs"
                );
                devices.truncate(MAX_DEVICES);
            }
            match next {
                Some(next) if !is_over => after = Some(next),
                _ => return Ok(devices),
            }
        }
    }

    /// Returns the head of a stream, and makes it if the stream has none.
    pub(crate) async fn head_or_new(&self, stream: &Stream, now: SystemTime) -> Result<Head, MailboxError> {
        if let Some(head) = self.table.head(stream).await? {
            return Ok(head);
        }
        let head = Head::begin(now).map_err(|_| TableError::Item("epoch"))?;
        match self.table.create_head(stream, &head).await? {
            FreshHead::Created => Ok(head),
            FreshHead::Exists(head) => Ok(head),
        }
    }

    /// Removes items, and calls at most `calls` times for each 25 of them. Returns the number of those that DynamoDB has
    /// processed.
    pub(crate) async fn remove_keys(
        &self,
        stream: &Stream,
        keys: &[String],
        calls: usize,
    ) -> Result<usize, MailboxError> {
        let mut removed = 0;
        for chunk in keys.chunks(DELETES) {
            let mut left = chunk.to_vec();
            for _ in 0..calls {
                let unprocessed = self.table.delete_items(stream, &left).await?;
                removed += left.len() - unprocessed.len();
                left = unprocessed;
                if left.is_empty() {
                    break;
                }
            }
        }
        Ok(removed)
    }

    /// Returns an epoch as clients see it: `{epoch}.{generation}`.
    pub(crate) fn public_epoch(&self, epoch: &Epoch) -> Result<Epoch, MailboxError> {
        let public = Epoch::new(format!("{epoch}.{}", self.settings.generation));
        Ok(public.map_err(|_| TableError::Item("epoch"))?)
    }

    /// Returns whether a position belongs to this generation. A position of another one says nothing about the table,
    /// which was restored from a backup.
    #[must_use]
    pub fn is_current(&self, position: &Position) -> bool {
        let generation = position.epoch.as_str().rsplit_once('.').map(|(_, generation)| generation);
        generation == Some(self.settings.generation.as_str())
    }

    pub(crate) fn position(&self, epoch: &Epoch, seq: u64) -> Result<Position, MailboxError> {
        Ok(Position { epoch: self.public_epoch(epoch)?, seq })
    }
}
