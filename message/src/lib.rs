//! The contract between producers, the delivery worker and clients.
//!
//! - [`OutboundMessage`]: what lies on the queue. A producer [encodes](OutboundMessage::encode) it, the
//!   worker [decodes](OutboundMessage::decode) it. Its [`Payload`] is bytes that nobody touches on the way.
//! - [`Audience`]: whom a message is for.
//! - [`ClientMessage`]: the messages that the library builds for clients; a payload may be any other JSON.
//! - [`limits`]: every limit, with the AWS page that it comes from.
//! - [`pack`]: fills batches by count and by bytes.
//!
//! `schema/` holds the JSON Schemas of both, generated from these types, for producers and clients in
//! other languages. Nothing here does I/O or reads a clock, but for [`MessageId::generate`].

mod audience;
mod client;
pub mod dead_letter;
mod fields;
mod id;
pub mod limits;
mod number;
mod outbound;
mod pack;
mod payload;
#[cfg(test)]
mod schema;
pub mod sqs;

pub use audience::{Audience, Connections, InvalidAudience};
pub use client::{ClientContent, ClientError, ClientMessage, Percent, PercentOutOfRange};
pub use id::{ConnectionId, InvalidId, MessageId, RequestId, TenantId, UserId};
pub use outbound::{DecodeError, OutboundMessage, Request, Retry, UnknownFields, Version};
pub use pack::{Limit, pack};
pub use payload::{Payload, PayloadError};
