//! The contract between producers, the delivery worker and clients.
//!
//! - [`OutboundMessage`]: a message on the outbound queue. A producer [encodes](OutboundMessage::encode) it, and the
//!   worker [decodes](OutboundMessage::decode) it. Its [`Payload`] reaches the client unchanged.
//! - [`Audience`]: the recipients of a message.
//! - [`ClientMessage`]: the payloads that the library builds. A payload may be any other JSON.
//! - [`Keep`]: how long the mailbox keeps a message for a user who is away, and [`Position`]: a kept message's place in
//!   the user's stream.
//! - [`Receipt`]: the outcome of a message, for a producer that asked for it. [`ReceiptEvent`] carries it, and
//!   [`ReceiptTally`] adds up the receipts of a large audience.
//! - [`frame`]: the frames that clients and the mailbox exchange.
//! - [`dead_letter`]: the attributes and reasons of messages on the dead-letter queue.
//! - [`limits`]: every limit, with the AWS page that it comes from.
//!
//! The directory `schema/` holds the JSON Schemas of [`OutboundMessage`], [`ClientMessage`] and the frames, generated
//! from these types, for producers and clients in other languages. Nothing here does I/O, and only [`MessageId::generate`] reads a
//! clock.

mod audience;
mod client;
pub mod dead_letter;
mod envelope;
mod error;
mod fields;
pub mod frame;
mod id;
mod keep;
pub mod limits;
mod number;
mod outbound;
mod pack;
mod payload;
mod position;
mod receipt;
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
pub use id::{ConnectionId, Epoch, InvalidId, MessageId, RequestId, TenantId, UserId};
pub use keep::{InvalidKeep, Keep};
#[doc(hidden)]
pub use outbound::Retry;
pub use outbound::{OutboundMessage, Request, Version};
#[doc(hidden)]
pub use pack::{Limit, pack};
pub use payload::{Payload, PayloadError};
pub use position::{Position, StreamName};
pub use receipt::{
    OutcomeCounts, Parts, Receipt, ReceiptError, ReceiptEvent, ReceiptOutcome, ReceiptRequest, ReceiptTally,
};
#[doc(hidden)]
pub use receipt::{encode as encode_receipt, is_part_name};
#[doc(hidden)]
pub use time::EARLIEST as EARLIEST_TIME;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
