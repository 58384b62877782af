//! The dead-letter queue: lists dead letters by reason and cause, and sends them back to the outbound queue.
//!
//! - [`DeadLetter`]: one message of the queue, and the body that is sent back. [`Filter`]: selects dead letters.
//! - [`Tally`]: counts by reason and cause.
//! - [`DeadLetterQueue`]: receives dead letters, sends them back, and releases the others.
//!
//! SQS can list messages only by receiving them. A received dead letter is hidden from other consumers until it is
//! released or, if this process crashes, until its visibility timeout has passed.

mod dead_letter;
mod filter;
mod queue;
mod tally;

pub use dead_letter::{DeadLetter, Envelope};
pub use filter::Filter;
pub use queue::{DeadLetterQueue, Redriven};
pub use tally::{Tally, TallyEntry};
