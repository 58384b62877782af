//! Sends messages to clients of a WebSocket API through Streamer's outbound queue.
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use streamer_producer::{Message, Producer};
//!
//! let producer = Producer::connect("https://sqs.eu-central-1.amazonaws.com/123456789012/outbound").await;
//! producer.send(Message::connection("L0SM9cOFvHcCIhw=").request("req_123").response("hello")?).await?;
//! # Ok(())
//! # }
//! ```
//!
//! - [`Message`] names the audience; its [`MessageBuilder`] takes options, and then the content.
//! - [`Producer`] sends messages to the queue. `Ok` means that the queue has the message. The worker then delivers it
//!   at least once, drops it if its connection is gone or its expiry has passed, or moves it to the dead-letter
//!   queue.
//! - [`Progress`] sends the updates of one request at a limited rate, and then its end.
//!
//! # Answer a request
//!
//! The message carries the request's id, and the library's contents repeat it to the client. A Lambda that may be
//! retried derives the message's id from its input, so that a retry sends the same message.
//!
//! ```no_run
//! # use serde_json::json;
//! # use streamer_producer::{Message, Producer};
//! # async fn example(producer: Producer, connection: &str, request: &str) -> Result<(), Box<dyn std::error::Error>> {
//! let to = Message::connection(connection).request(request).id(format!("{request}:answer"));
//! producer.send(to.response(&json!({ "orders": 7 }))?).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Report progress
//!
//! API Gateway ends an integration after 29 s. Longer work may outlive the socket, too, so it addresses the user.
//!
//! ```no_run
//! # use serde_json::json;
//! # use streamer_producer::{Message, Producer};
//! # async fn example(producer: Producer) -> Result<(), Box<dyn std::error::Error>> {
//! use streamer_producer::Percent;
//!
//! let mut progress = producer.progress(Message::user("acme", "anna").request("req_123"))?;
//! for row in 0..100_000 {
//!     // Of the updates, at most 10 per second leave, always including the last.
//!     progress.update(Percent::of(row, 100_000), "writing the report").await?;
//! }
//! progress.complete(&json!({ "rows": 100_000 })).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Report an error
//!
//! An error has a code for programs and a message for people.
//!
//! ```no_run
//! # use streamer_producer::{Message, Producer};
//! # async fn example(producer: Producer, connection: &str) -> Result<(), Box<dyn std::error::Error>> {
//! let reply = Message::connection(connection).request("req_123");
//! producer.send(reply.error("invalid_request", "there is no such report")?).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Address many clients
//!
//! The audience is any number of connections, all connections of a user, or all connections of a tenant. A message that
//! loses its value soon has an expiry.
//!
//! ```no_run
//! # use serde_json::json;
//! # use streamer_producer::{Message, Producer};
//! # async fn example(producer: Producer, watching: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! let price = json!({ "type": "price", "cents": 1999 });
//! producer.send(Message::connections(watching).expires_in(Duration::from_secs(5)).payload(&price)?).await?;
//! producer.send(Message::user("acme", "anna").payload(&price)?).await?;
//! producer.send(Message::tenant("acme").payload(&price)?).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Send during other work, in a Lambda
//!
//! Lambda freezes a function when its handler returns, so a send that was not awaited may never leave. Begin the send
//! beside the work, and await both.
//!
//! ```no_run
//! # use streamer_producer::{Message, Producer};
//! # async fn example(producer: Producer, connection: &str) -> Result<(), Box<dyn std::error::Error>> {
//! # async fn work() {}
//! let acknowledge = producer.send(Message::connection(connection).acknowledgment(Some("in progress"))?);
//! let (acknowledged, result) = futures::join!(acknowledge, work());
//! if let Err(error) = acknowledged {
//!     // The work is done, with or without the acknowledgment.
//!     println!("failed to acknowledge: {error}");
//! }
//! # Ok(result)
//! # }
//! ```

mod batcher;
mod body;
mod buffer;
mod builder;
mod calls;
mod deadline;
mod entry;
mod error;
mod message;
mod pending;
mod producer;
mod progress;
mod queue;
mod times;

pub use aws_sdk_sqs;
pub use builder::MessageBuilder;
#[doc(hidden)]
pub use entry::tenant_group;
pub use error::{MessageError, ProgressError, SendAllError, SendError, Unsent};
pub use message::Message;
pub use producer::Producer;
pub use progress::{EndError, Progress};
pub use streamer_message::{
    ClientContent, ClientError, ConnectionId, DecodeError, InvalidId, InvalidKeep, MessageId, OutcomeCounts,
    Parts, PayloadError, Percent, PercentOutOfRange, Receipt, ReceiptError, ReceiptEvent, ReceiptOutcome,
    ReceiptTally, RequestId, TenantId, UserId, limits,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
