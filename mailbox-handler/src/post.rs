//! Posts a page, and retries transient failures.

use std::time::Duration;

use bytes::Bytes;
use streamer_gateway::{Gateway, PostResult};
use streamer_message::ConnectionId;
use tokio::time::{sleep, timeout};

use crate::time::Time;

/// Maximum number of posts of one page.
const MAX_POSTS: u32 = 3;

/// Window before the first retry. It doubles with each further one.
const RETRY_WINDOW: Duration = Duration::from_millis(100);

/// The end of a page's posts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Posted {
    /// API Gateway accepted the page.
    Accepted,
    /// The connection no longer exists.
    Gone,
    /// API Gateway answered every post with 429: the client does not read its messages, or the account's quota is used
    /// up.
    Throttled,
}

/// Why API Gateway did not accept a page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PostError {
    /// API Gateway answered with this status.
    #[error("status {0}")]
    Status(u16),
    /// API Gateway did not answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The connection to API Gateway could not be opened, or broke.
    #[error("{0}")]
    Connection(String),
}

/// Posts a page up to three times while the invocation's time lasts. A client that gets no page asks again, so a page
/// that arrives twice does no harm.
///
/// # Errors
/// [`PostError`] of the last post.
pub(crate) async fn post<G: Gateway>(
    gateway: &G,
    connection: &ConnectionId,
    page: Bytes,
    time: &Time,
) -> Result<Posted, PostError> {
    let mut posts = 0;
    loop {
        let post = timeout(time.post_timeout(), gateway.post(connection, page.clone()));
        posts += 1;
        let failure = match post.await.unwrap_or(PostResult::Timeout) {
            PostResult::Status { status: 200..=299, .. } => return Ok(Posted::Accepted),
            PostResult::Status { status: 410, .. } => return Ok(Posted::Gone),
            PostResult::Status { status: status @ (429 | 500..=599), .. } => PostError::Status(status),
            PostResult::Status { status, .. } => return Err(PostError::Status(status)),
            PostResult::Timeout => PostError::Timeout,
            PostResult::Broken(error) | PostResult::ConnectionLost(error) => PostError::Connection(error),
        };
        let pause = retry_pause(posts, fastrand::f64());
        if posts < MAX_POSTS && pause < time.remaining() {
            sleep(pause).await;
            continue;
        }
        return match failure {
            PostError::Status(429) => Ok(Posted::Throttled),
            failure => Err(failure),
        };
    }
}

/// Returns the pause after `posts` posts: up to 100 ms after the first, and up to twice as long after each further one.
/// `random` is from 0 (inclusive) to 1 (exclusive).
fn retry_pause(posts: u32, random: f64) -> Duration {
    RETRY_WINDOW.saturating_mul(2_u32.saturating_pow(posts.saturating_sub(1))).mul_f64(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_window_doubles_from_100_ms() {
        let pauses =
            [(1, 0.0), (1, 0.5), (2, 0.5), (3, 0.5)].map(|(posts, random)| retry_pause(posts, random));
        assert_eq!(pauses.map(|pause| pause.as_millis()), [0, 50, 100, 200]);
    }
}
