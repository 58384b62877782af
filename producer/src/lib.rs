//! Publishes messages to connected clients: one line, and the producer moves on.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let queue = streamer_tests::doubles::QueueDouble::taking();
//! use streamer_producer::{Message, Producer};
//!
//! # let producer = Producer::new(&queue.client(), "https://sqs.eu-central-1.amazonaws.com/123456789012/outbound");
//! # if false {
//! let producer = Producer::connect("https://sqs.eu-central-1.amazonaws.com/123456789012/outbound").await;
//! # }
//!
//! producer.send(Message::connection("L0SM9cOFvHcCIhw=").request("req_123").response("hello")?).await?;
//! # assert_eq!(queue.entries().len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! - [`Message`]: whom it is for, then its options, then what it says.
//! - [`Producer`]: puts messages on the queue. `Ok` means that the queue has the message; from there on it is the
//!   worker's affair: it is delivered at least once, unless its connection is gone or its expiry has passed, or
//!   ends in the dead-letter queue.
//! - [`Progress`]: the updates of one request, at a bounded rate, and its end.
//!
//! # A request and its response
//!
//! The message carries the request's id, and the library's messages repeat it to the client. A Lambda that may be
//! retried derives the message's id from its input: its second try is then the same message.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use serde_json::json;
//! # use streamer_producer::{Message, Producer};
//! # let queue = streamer_tests::doubles::QueueDouble::taking();
//! # let producer = Producer::new(&queue.client(), "https://sqs.example.com/outbound");
//! # let (connection, request) = ("L0SM9cOFvHcCIhw=", "req_123");
//! let to = Message::connection(connection).request(request).id(format!("{request}:answer"));
//! producer.send(to.response(&json!({ "orders": 7 }))?).await?;
//! # assert_eq!(queue.entries().len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Progress, and the end of long work
//!
//! Work that outlives API Gateway's 29 s may outlive the socket, too, so it speaks to the user.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use serde_json::json;
//! # use streamer_producer::{Message, Producer};
//! use streamer_producer::Percent;
//! # let queue = streamer_tests::doubles::QueueDouble::taking();
//! # let producer = Producer::new(&queue.client(), "https://sqs.example.com/outbound");
//!
//! let mut progress = producer.progress(Message::user("acme", "anna").request("req_123"))?;
//! for row in 0..100_000 {
//!     // As often as it likes: at most 10 updates a second leave, the latest of them and always the last.
//!     progress.update(Percent::of(row, 100_000), "writing the report").await?;
//! }
//! progress.complete(&json!({ "rows": 100_000 })).await?;
//! # assert!((2..100_000).contains(&queue.entries().len()));
//! # Ok(())
//! # }
//! ```
//!
//! # An error
//!
//! A code for programs, a message for people.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use streamer_producer::{Message, Producer};
//! # let queue = streamer_tests::doubles::QueueDouble::taking();
//! # let producer = Producer::new(&queue.client(), "https://sqs.example.com/outbound");
//! # let connection = "L0SM9cOFvHcCIhw=";
//! let reply = Message::connection(connection).request("req_123");
//! producer.send(reply.error("invalid_request", "there is no such report")?).await?;
//! # assert_eq!(queue.entries().len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # To many
//!
//! Any number of connections, whatever connections a user has, or all of a tenant. What is worthless after a while
//! expires.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use serde_json::json;
//! # use streamer_producer::{Message, Producer};
//! # let queue = streamer_tests::doubles::QueueDouble::taking();
//! # let producer = Producer::new(&queue.client(), "https://sqs.example.com/outbound");
//! # let watching = (0..250).map(|number| format!("c{number}"));
//! use std::time::Duration;
//!
//! let price = json!({ "type": "price", "cents": 1999 });
//! producer.send(Message::connections(watching).expires_in(Duration::from_secs(5)).payload(&price)?).await?;
//! producer.send(Message::user("acme", "anna").payload(&price)?).await?;
//! producer.send(Message::tenant("acme").payload(&price)?).await?;
//! # assert_eq!(queue.entries().len(), 5);
//! # Ok(())
//! # }
//! ```
//!
//! # Fire and forget, from a Lambda
//!
//! A Lambda is frozen when its handler returns, so what it has not awaited may never leave. It starts what it wants
//! to say beside its work, and awaits it at the end, when it has long happened.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use streamer_producer::{Message, Producer};
//! # let queue = streamer_tests::doubles::QueueDouble::taking();
//! # let producer = Producer::new(&queue.client(), "https://sqs.example.com/outbound");
//! # let connection = "L0SM9cOFvHcCIhw=";
//! # async fn work() {}
//! let on_it = producer.send(Message::connection(connection).acknowledgment(Some("on it"))?);
//! let (told, done) = futures::join!(on_it, work());
//! if let Err(error) = told {
//!     // The work counts, whoever was told of it.
//!     println!("not told: {error}");
//! }
//! # assert_eq!((queue.entries().len(), done), (1, ()));
//! # Ok(())
//! # }
//! ```

mod buffer;
mod claim;
mod entry;
mod message;
mod outbox;
mod producer;
mod progress;
mod queue;

pub use entry::tenant_group;
pub use message::{Message, MessageBuilder, MessageError};
pub use producer::{Producer, SendAllError, SendError, Unsent};
pub use progress::{EndError, Progress, ProgressError};
pub use streamer_message::{
    ClientContent, ClientError, ConnectionId, InvalidId, MessageId, PayloadError, Percent, PercentOutOfRange,
    RequestId, TenantId, UserId, limits,
};

/// Compiles the guide's router.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/router.md")]
struct RouterGuide;
