//! The dead letters of a deployment: what is in the dead-letter queue, why, and the way back.
//!
//! - [`Letter`]: one of them, and what it is sent back as. [`Meant`]: which ones somebody means.
//! - [`Tally`]: what there is, by reason and cause.
//! - [`DeadLetterQueue`]: takes letters, sends them back, and lets go of the others.
//!
//! SQS shows a message only to whoever takes it. So to look is to take: a letter that was looked at is hidden from
//! everybody else until it is let go of, or for a while where this process dies.

mod letter;
mod queue;
mod tally;

pub use letter::{Letter, Meant, Source};
pub use queue::{DeadLetterQueue, SentBack};
pub use tally::{Kind, Tally};
