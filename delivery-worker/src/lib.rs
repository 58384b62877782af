//! The Lambda that takes messages off the outbound queue and posts them to connections.
//!
//! Data flows one way. Each arrow is a module:
//!
//! ```text
//! SqsEvent ─decode─▶ records ─keep, expand─▶ pairs ─plan─▶ lanes ─deliver─▶ completed pairs ─settle─▶ SqsBatchResponse
//!                                     └────▶ large audiences ───fan_out──────────▶┘
//! ```
//!
//! The core is pure, a function of values and an instant: [`mod@decode`], [`mod@plan`], [`mod@classify`], [`policy`],
//! [`backoff`], [`outgoing`], [`mod@settle`], [`receipts`], [`due_receipt`] and the state machines of [`admission`]. The shell around it does the
//! I/O: [`mod@keep`], [`mod@expand`], [`mod@fan_out`], [`mod@deliver`], [`streamer_queue`] and [`streamer_gateway`].
//! [`Worker::handle`] runs the stages in order.
//!
//! Every pair of a message and a connection completes with exactly one [`Outcome`](outcome::Outcome). The worker
//! acknowledges a message only when all its pairs have settled and SQS has confirmed every outgoing message about it, its receipt included.

pub mod admission;
pub mod backoff;
pub mod classify;
pub mod config;
pub mod decode;
mod delay;
pub mod deliver;
pub mod due_receipt;
pub mod expand;
pub mod fan_out;
mod handler;
pub mod keep;
pub mod outcome;
pub mod outgoing;
pub mod plan;
pub mod policy;
pub mod receipts;
mod report;
pub mod served;
pub mod settle;
pub mod source;
pub mod time;
mod worker;

pub use handler::UnnamedRecord;
pub use worker::Worker;
