//! The receipts queue: lists receipts, and waits for those of some messages.
//!
//! - [`Listing`]: goes through the queue, once or until it is stopped. [`ReceiptLines`]: receipts for people.
//! - [`Wait`]: waits for the receipts of messages that were sent, and adds them up.

mod line;
mod listing;
mod wait;

use std::time::Duration;

use aws_sdk_sqs::Client;

use crate::queue::HeldQueue;

pub use line::ReceiptLines;
pub(crate) use line::counts;
pub use listing::{End, Listing, Options, Others, Totals};
pub use wait::{Outcome, Wait};

/// Returns the receipts queue at `url`, from which received messages are hidden for at most `visibility_timeout`.
#[must_use]
pub fn queue(client: Client, url: String, visibility_timeout: Duration) -> HeldQueue {
    HeldQueue::new(client, "receipts queue", url, visibility_timeout)
}
