//! A post as the gateway sends it, and the response to it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::sign::Signature;

/// Maximum number of bytes that are read of a response's body.
pub const MAX_BODY_BYTES: usize = 4 * 1024;

/// Maximum time for a response's body after its head. The status decides, so a slow body is not worth the wait.
pub const BODY_TIMEOUT: Duration = Duration::from_millis(250);

/// A signed post, independent of the HTTP version.
pub struct PostRequest<'a> {
    /// The scheme and the authority.
    pub origin: &'a str,
    /// The authority.
    pub host: &'a str,
    /// The path.
    pub path: &'a str,
    /// The signature's headers.
    pub signature: &'a Signature,
    /// The body.
    pub payload: &'a Bytes,
}

/// The parts of a response that matter.
#[derive(Debug)]
pub struct PostResponse {
    /// The HTTP status.
    pub status: u16,
    /// The body, as far as it was read.
    pub message: String,
    /// The service's time if the status is 403: this machine's clock may have been wrong when the post was signed.
    pub date: Option<SystemTime>,
}
