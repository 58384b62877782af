//! The events that Streamer's Lambdas receive, reduced to the fields that they use.
//!
//! - [`SqsEvent`]: a batch of an SQS event source mapping. A record that cannot be read affects no other.
//! - [`WebSocketEvent`]: `$connect`, `$disconnect` or a message of a WebSocket API.
//!
//! AWS, a console's test event, a bridge and an emulator write these events differently. So a field that is not used
//! may be missing or have any value, and a used field of another type counts as missing.

mod object;
mod sqs;
mod websocket;

pub use sqs::{Body, SqsEvent, SqsRecord};
pub use websocket::WebSocketEvent;
