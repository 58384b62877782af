//! The operations on the mailbox's table, one for each call to DynamoDB.

use std::{
    ops::RangeInclusive,
    time::{Duration, SystemTime},
};

use streamer_environment::failure::FailureKind;
use streamer_message::{ConnectionId, Epoch, MessageId};

use crate::{
    config::MAILBOX_TABLE,
    head::Head,
    stream::{Device, Stream},
};

/// Time for which an expired message stays in the table, so that its number is not free while a writer with an old view
/// of `top` may still be running. Lambda's longest invocation takes 15 minutes.
///
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/configuration-timeout.html>.
pub(crate) const TTL_MARGIN: Duration = Duration::from_secs(3600);

/// Maximum number of items that one call removes.
///
/// Source: <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html>.
pub(crate) const DELETES: usize = 25;

/// A message in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// The message's id.
    pub id: MessageId,
    /// The payload as JSON text.
    pub body: String,
    /// When it was stored, by the worker's clock.
    pub stored_at: SystemTime,
    /// When it expires. Readers drop it from then on.
    pub until: SystemTime,
    /// Whether clients acknowledge that they have handled the message.
    pub ack: bool,
}

/// A message in the table without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredId {
    /// The number.
    pub seq: u64,
    /// The message's id.
    pub id: MessageId,
    /// When it was stored, by the worker's clock.
    pub stored_at: SystemTime,
}

impl StoredMessage {
    /// Returns when DynamoDB may remove the message: an hour after it has expired, and at least an hour after it was
    /// stored.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.until.max(self.stored_at) + TTL_MARGIN
    }
}

/// The result of a conditional write of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// The message is stored.
    Stored,
    /// The number is taken.
    Taken {
        /// The id of the message that has the number.
        id: MessageId,
        /// When DynamoDB may remove that message, which frees the number.
        expires_at: SystemTime,
    },
}

/// The result of a conditional write of `top` or `floor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Raise {
    /// It has the new value.
    Raised(Head),
    /// It was as high or higher.
    Higher(Head),
    /// The stream has another epoch, or no head.
    OtherEpoch,
}

/// The result of a conditional write of a new head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FreshHead {
    /// The head is new.
    Created,
    /// The stream has this head already.
    Exists(Head),
}

/// Why an operation on the table failed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// DynamoDB refused the call or did not answer.
    #[error(
        "{operation} on table {table} failed: {cause}; {}",
        kind.remedy_for_table(MAILBOX_TABLE.name, operation)
    )]
    Call {
        /// The operation, as DynamoDB names it.
        operation: &'static str,
        /// The table's name.
        table: String,
        /// The kind of the failure.
        kind: FailureKind,
        /// DynamoDB's error, or the error of a call without a response.
        cause: String,
    },
    /// An item cannot be parsed.
    #[error("an item of the mailbox has no valid attribute `{0}`: remove the stream with `streamer forget`")]
    Item(&'static str),
}

/// The mailbox's table: DynamoDB, or memory for simulations. Each method is one call, reads consistently, and may have
/// taken effect even if it fails.
pub trait Table: Send + Sync {
    /// Returns the head of a stream.
    fn head(&self, stream: &Stream) -> impl Future<Output = Result<Option<Head>, TableError>> + Send;

    /// Writes the head of a stream that has none.
    fn create_head(
        &self,
        stream: &Stream,
        head: &Head,
    ) -> impl Future<Output = Result<FreshHead, TableError>> + Send;

    /// Writes a message at a number that is free.
    fn put_message(
        &self,
        stream: &Stream,
        epoch: &Epoch,
        seq: u64,
        message: &StoredMessage,
    ) -> impl Future<Output = Result<Put, TableError>> + Send;

    /// Keeps a message in the table until `expires_at`, or longer if it has more time left. Returns whether the number
    /// still has the message with this id.
    fn hold_message(
        &self,
        stream: &Stream,
        epoch: &Epoch,
        seq: u64,
        id: &MessageId,
        expires_at: SystemTime,
    ) -> impl Future<Output = Result<bool, TableError>> + Send;

    /// Raises `top` to `seq`, and the end of the head's life to `expires_at`, if `top` is lower and the epoch is the
    /// same.
    fn raise_top(
        &self,
        stream: &Stream,
        epoch: &Epoch,
        seq: u64,
        expires_at: SystemTime,
    ) -> impl Future<Output = Result<Raise, TableError>> + Send;

    /// Raises `floor` to `seq` if it is lower and the epoch is the same.
    fn raise_floor(
        &self,
        stream: &Stream,
        epoch: &Epoch,
        seq: u64,
    ) -> impl Future<Output = Result<Raise, TableError>> + Send;

    /// Removes the head if its epoch is the same. Returns whether it did.
    fn delete_head(
        &self,
        stream: &Stream,
        epoch: &Epoch,
    ) -> impl Future<Output = Result<bool, TableError>> + Send;

    /// Sets the end of the head's life if the epoch is the same.
    fn renew_head(
        &self,
        stream: &Stream,
        epoch: &Epoch,
        expires_at: SystemTime,
    ) -> impl Future<Output = Result<(), TableError>> + Send;

    /// Returns messages with these numbers in ascending order, as many as one call reads (1 MB) and at most `limit`. The
    /// second value is the number up to which the call has read.
    fn messages(
        &self,
        stream: &Stream,
        epoch: &Epoch,
        range: RangeInclusive<u64>,
        limit: usize,
    ) -> impl Future<Output = Result<(Vec<(u64, StoredMessage)>, u64), TableError>> + Send;

    /// Returns messages with these numbers in descending order, without their payloads, as many as one call reads. The
    /// second value is the number down to which the call has read.
    fn newest_ids(
        &self,
        stream: &Stream,
        epoch: &Epoch,
        range: RangeInclusive<u64>,
    ) -> impl Future<Output = Result<(Vec<StoredId>, u64), TableError>> + Send;

    /// Writes a device.
    fn put_device(
        &self,
        stream: &Stream,
        device: &Device,
    ) -> impl Future<Output = Result<(), TableError>> + Send;

    /// Removes a device.
    fn delete_device(
        &self,
        stream: &Stream,
        connection: &ConnectionId,
    ) -> impl Future<Output = Result<(), TableError>> + Send;

    /// Returns the devices after `after`, as many as one call reads, and the connection after which there may be more.
    fn devices(
        &self,
        stream: &Stream,
        after: Option<&ConnectionId>,
    ) -> impl Future<Output = Result<(Vec<Device>, Option<ConnectionId>), TableError>> + Send;

    /// Returns range keys of a stream's items after `after`, as many as one call reads, and the key after which there
    /// may be more.
    fn item_keys(
        &self,
        stream: &Stream,
        after: Option<&str>,
    ) -> impl Future<Output = Result<(Vec<String>, Option<String>), TableError>> + Send;

    /// Removes up to 25 items. Returns the keys that DynamoDB has not processed.
    fn delete_items(
        &self,
        stream: &Stream,
        keys: &[String],
    ) -> impl Future<Output = Result<Vec<String>, TableError>> + Send;
}
