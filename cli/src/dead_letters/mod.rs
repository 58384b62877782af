//! The dead-letter queue: lists dead letters by reason and cause, sends them back to the outbound queue, or drops them.
//!
//! - [`DeadLetter`]: one message of the queue, and the body that is sent back. [`Filter`]: selects dead letters.
//! - [`Run`]: goes through the queue once, with its [`Totals`]. [`Tally`]: counts by reason and cause.
//! - [`DeadLetterQueue`]: receives dead letters, sends them back or deletes them ([`Handled`]), and releases the others.
//!
//! SQS can list messages only by receiving them. A received dead letter is hidden from other consumers until it is
//! released or, if this process crashes, until its visibility timeout has passed.

mod dead_letter;
mod filter;
mod outcome;
mod queue;
mod run;
mod send_back;
mod tally;

pub use dead_letter::{DeadLetter, Envelope};
pub use filter::Filter;
pub use outcome::{Handled, Outcome};
pub use queue::DeadLetterQueue;
pub use run::{Action, Run, Totals};
pub use tally::{Tally, TallyEntry};
