//! Sends messages to SQS queues until a deadline.
//!
//! [`Queue`] makes the calls, in batches, and retries only the entries that SQS has not confirmed. The caller learns
//! which messages are not confirmed, and decides what that means for the record that they are about.

mod backoff;
mod kind;
mod outgoing;
mod queue;
mod receipts;

pub use kind::QueueKind;
pub use outgoing::Outgoing;
pub use queue::{Queue, VisibilityChange};
pub use receipts::{RECEIPTS_QUEUE_URL, ReceiptsQueue, SentReceipts, receipts_queue_url};
