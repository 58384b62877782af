//! The contract between producers, the delivery worker and clients.
//!
//! - [`OutboundMessage`]: a message on the outbound queue. A producer [encodes](OutboundMessage::encode) it, and the
//!   worker [decodes](OutboundMessage::decode) it. Its [`Payload`] reaches the client unchanged.
//! - [`Audience`]: the recipients of a message.
//! - [`ClientMessage`]: the payloads that the library builds. A payload may be any other JSON.
//! - [`dead_letter`]: the attributes and reasons of messages on the dead-letter queue.
//! - [`limits`]: every limit, with the AWS page that it comes from.
//!
//! The directory `schema/` holds the JSON Schemas of [`OutboundMessage`] and [`ClientMessage`], generated from these
//! types, for producers and clients in other languages. Nothing here does I/O, and only [`MessageId::generate`] reads a
//! clock.

mod audience;
mod client;
pub mod dead_letter;
mod envelope;
mod error;
mod fields;
mod id;
pub mod limits;
mod number;
mod outbound;
mod pack;
mod payload;
#[cfg(test)]
mod schema;
#[doc(hidden)]
pub mod sqs;
mod time;
mod wrapped;

pub use audience::{Audience, Connections, InvalidAudience};
pub use client::{ClientContent, ClientError, ClientMessage, Percent, PercentOutOfRange};
#[doc(hidden)]
pub use envelope::{Envelope, Texts};
pub use error::DecodeError;
pub use fields::UnknownFields;
pub use id::{ConnectionId, InvalidId, MessageId, RequestId, TenantId, UserId};
#[doc(hidden)]
pub use outbound::Retry;
pub use outbound::{OutboundMessage, Request, Version};
#[doc(hidden)]
pub use pack::{Limit, pack};
pub use payload::{Payload, PayloadError};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
