//! The mailbox: messages that are kept for users who are away.
//!
//! Each user of a tenant has a [`Stream`]. The messages in it have numbers from 1 on, without holes, and every device
//! of the user sees them in this order. The parts of a stream are items of one DynamoDB partition:
//!
//! - the head: the epoch of the stream, `top` (every number up to it has been stored) and `floor` (the numbers up to it
//!   were removed, because the stream had too many messages);
//! - the messages;
//! - the devices: connections that want new messages live.
//!
//! [`Mailbox`] has the operations. The delivery worker [appends](Mailbox::append) messages and then reads the
//! [devices](Mailbox::devices); a client's sync [registers](Mailbox::register) its device and then reads a
//! [page](Mailbox::page). All reads are consistent.
//!
//! # Why nothing is lost
//!
//! *Append.* A message is written at `top + 1` on the condition that the number is free, and only then `top` is raised:
//! the order of Michael and Scott's queue. A worker that is killed between the two leaves a message beyond `top`, which
//! no reader sees. The next writer finds the number taken, goes on to the next, and raises `top` past both. So there is
//! never a hole at or below `top`.
//!
//! *Live or page.* The worker writes `top`, then reads the devices. The handler writes the device, then reads `top`. If
//! the page lacks a message, then `top` was raised after the handler read it, so the worker read the devices after the
//! device was written, and posts the message. Both may happen, and the message has the same number both times.
//!
//! *Removed numbers.* A number becomes free again when its message is removed, and a writer whose view of `top` is old may
//! then store at a number that readers have passed. Two rules prevent it. The stream had too many messages: `floor` is
//! raised before they are removed, and a writer that finds `top` higher than its own number compares the number with
//! `floor`. A reader that has read the head before compares `floor` once more after it has read the messages. The message
//! has expired: DynamoDB removes it at the earliest an hour after that, which no invocation
//! outlasts. A message that a killed worker left beyond `top` may be older than that, so a writer that passes it makes
//! its item stay for another hour.

mod append;
mod config;
mod dynamo;
mod erase;
mod head;
mod item;
mod list;
mod mailbox;
mod page;
pub mod schema;
mod stream;
mod table;

pub use append::{Appended, NewMessage};
pub use config::{
    MAILBOX_GENERATION, MAILBOX_MAX_MESSAGES, MAILBOX_TABLE, generation, mailbox_table, max_messages,
    required_mailbox_table,
};
pub use dynamo::DynamoTable;
pub use erase::Erased;
pub use head::Head;
pub use list::{KeptMessage, Listing};
pub use mailbox::{DEFAULT_MAX_MESSAGES, Mailbox, MailboxError, Settings};
pub use page::{Page, PageLimits};
pub use stream::{Device, Stream};
pub use table::{Body, DELETES, FreshHead, Put, Raise, StoredId, StoredMessage, Table, TableError};
