//! Frames of the mailbox, which Streamer and its clients exchange besides payloads.
//!
//! - [`ClientFrame`]: from a client. Its route key is its `type`, such as `streamer.sync`.
//! - [`ServerFrame`]: to a client. A payload whose `type` begins with `streamer.` would be mistaken for one.

mod client;
mod server;

pub use client::{AckFrame, Beginning, ClientFrame, InvalidFrame, Start, StreamRequest, SyncFrame};
pub use server::{Missing, MissingReason, PageFrame, PageMessage, Reset, ServerFrame};
