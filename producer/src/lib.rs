//! Publishes messages to connected clients: one line, and the producer moves on.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use streamer_producer::{Message, Producer};
//!
//! let producer = Producer::connect("https://sqs.eu-central-1.amazonaws.com/123456789012/outbound").await;
//!
//! producer.send(Message::connection("L0SM9cOFvHcCIhw=").request("req_123").response("hello")?).await?;
//! # Ok(())
//! # }
//! ```
//!
//! - [`Message`]: whom it is for, then its options, then what it says.
//! - [`Producer`]: puts messages on the queue. `Ok` means that the queue has the message; from there on it is the
//!   worker's affair: it is delivered at least once, unless its connection is gone or its expiry has passed, or
//!   ends in the dead-letter queue.

mod message;
mod producer;

pub use message::{Message, MessageBuilder, MessageError};
pub use producer::{Producer, SendAllError, SendError, Unsent};
pub use streamer_message::{ClientContent, ClientError, ConnectionId, MessageId, Percent, RequestId};

/// The README's router compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
