//! The client for API Gateway's `PostToConnection`, which the functions that post share.
//!
//! - [`Gateway`] posts a payload to a connection and returns a [`PostResult`]. The caller limits the time, gives the
//!   result its meaning and decides about retries.
//! - [`ManagementApi`] is the gateway over the network, for one management endpoint.
//! - [`pool`] keeps connections, limits how many it opens at once, and replaces lost ones. [`http1`] and [`http2`] send
//!   a [`post`] on a [`connection`].
//! - [`sign`] signs each post by AWS Signature Version 4, corrected by the skew of this machine's clock.
//! - [`PayloadLimit`] bounds the payloads that the functions post.
//! - [`clock`] measures ages across a freeze of the execution environment.
//!
//! The client supports this one call, because the orchestration of a general client dominates the cost of a post. The
//! parts that all requests share are prepared once.

mod chunked;
pub mod clock;
pub mod connection;
mod dial;
pub mod http1;
pub mod http2;
mod management;
mod open;
mod payload_limit;
pub mod pool;
pub mod post;
pub mod sign;
mod skew;

use bytes::Bytes;
use streamer_message::ConnectionId;

pub use management::{InvalidEndpoint, ManagementApi};
pub use payload_limit::{MAX_PAYLOAD_BYTES, PayloadLimit};

/// Posts payloads to connections: over the network, or in memory for tests in virtual time.
pub trait Gateway: Send + Sync {
    /// Posts once. The caller limits the time.
    fn post(&self, connection: &ConnectionId, payload: Bytes) -> impl Future<Output = PostResult> + Send;
}

/// The result of a post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostResult {
    /// API Gateway answered.
    Status {
        /// The HTTP status.
        status: u16,
        /// The body, with replacement characters for bytes that are not UTF-8.
        message: String,
    },
    /// API Gateway did not answer in time.
    Timeout,
    /// The connection to API Gateway could not be opened, or broke.
    Broken(String),
    /// A connection that many posts share was lost during this post. Another post has reported the loss.
    ConnectionLost(String),
}
