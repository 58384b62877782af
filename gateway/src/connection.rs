//! A connection for posts, and the consequences of its loss.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use streamer_environment::aws::chain;
use tokio::time::timeout;

use crate::{
    http1::Http1,
    http2::{self, Http2},
    post::{PostRequest, PostResponse},
};

/// Maximum time for which a post waits on an HTTP/2 connection on which no post is answered. It is shorter than the
/// 5 s of a post.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(4);

/// A connection for posts.
pub enum Connection {
    /// An HTTP/1.1 connection, used by one post at a time.
    Http1(Box<Http1>),
    /// An HTTP/2 connection, shared by all posts.
    Http2(SharedConnection),
}

/// An HTTP/2 connection. Cheap to clone.
#[derive(Clone)]
pub struct SharedConnection {
    http2: Http2,
    history: Arc<History>,
}

/// The history of an HTTP/2 connection.
#[derive(Default)]
struct History {
    /// Number of posts that were answered.
    answers: AtomicUsize,
    /// Whether a post has reported the loss of the connection.
    is_loss_reported: AtomicBool,
}

/// The fault that prevented a response.
#[derive(Debug)]
pub enum Fault {
    /// An error of HTTP/1.1.
    Http1(io::Error),
    /// An error of HTTP/2.
    Http2(hyper::Error),
    /// No post on the connection was answered for 4 s.
    Silent,
}

/// The failure that a post without a response reports.
#[derive(Debug)]
pub enum Failure {
    /// The connection could not be opened, or broke.
    Broken(String),
    /// The host did not answer.
    Timeout,
    /// A shared connection that had worked was lost, and another post on it has reported the loss.
    Lost(String),
}

impl Connection {
    /// Sends a post, and returns the response and whether the connection can be reused.
    ///
    /// # Errors
    /// [`Fault`]. Ask [`may_repeat`](Self::may_repeat) whether to send the post again.
    pub async fn send(&mut self, post: &PostRequest<'_>) -> Result<(PostResponse, bool), Fault> {
        match self {
            Self::Http1(connection) => connection.send(post).await.map_err(Fault::Http1),
            Self::Http2(shared) => Ok((Box::pin(shared.send(post)).await?, true)),
        }
    }

    /// Returns whether the post may be sent again on another connection: this one worked before and was lost, or the
    /// host has not processed the post (REFUSED_STREAM, RFC 9113, section 8.7). `was_used` is true if other
    /// posts have used the connection.
    pub fn may_repeat(&self, fault: &Fault, was_used: bool) -> bool {
        match (fault, self) {
            (Fault::Http1(error), _) => {
                use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
                was_used
                    && matches!(
                        error.kind(),
                        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
                    )
            }
            (Fault::Http2(error), Self::Http2(shared)) => {
                is_refused(error) || ((was_used || shared.has_worked()) && is_lost(error))
            }
            (Fault::Http2(_) | Fault::Silent, _) => false,
        }
    }

    /// Returns the failure that the post reports. If a shared connection had worked, only the first post reports its
    /// loss, so that one lost connection counts as one failure. If it never worked, every post reports a failure.
    pub fn failure(&self, fault: &Fault) -> Failure {
        let is_reported = match self {
            Self::Http1(_) => false,
            Self::Http2(shared) => shared.has_worked() && shared.report_loss(),
        };
        match fault {
            _ if is_reported => Failure::Lost(fault.to_string()),
            Fault::Silent => Failure::Timeout,
            Fault::Http1(_) | Fault::Http2(_) => Failure::Broken(fault.to_string()),
        }
    }
}

impl SharedConnection {
    /// Wraps a new connection.
    pub fn new(http2: Http2) -> Self {
        Self { http2, history: Arc::default() }
    }

    /// Returns whether both are the same connection.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.history, &other.history)
    }

    /// Returns whether the connection is known to be closed.
    pub fn is_closed(&self) -> bool {
        self.http2.is_closed()
    }

    fn has_worked(&self) -> bool {
        self.history.answers.load(Ordering::Relaxed) > 0
    }

    /// Marks the loss of the connection as reported, and returns whether it was before.
    fn report_loss(&self) -> bool {
        self.history.is_loss_reported.swap(true, Ordering::Relaxed)
    }

    /// Sends a post, and gives up when no post on the connection is answered.
    async fn send(&mut self, post: &PostRequest<'_>) -> Result<PostResponse, Fault> {
        let Self { http2, history } = self;
        let mut sending = Box::pin(http2::send(http2, post));
        loop {
            let before = history.answers.load(Ordering::Relaxed);
            match timeout(SILENCE_TIMEOUT, &mut sending).await {
                Ok(response) => {
                    history.answers.fetch_add(usize::from(response.is_ok()), Ordering::Relaxed);
                    return response.map_err(Fault::Http2);
                }
                Err(_) if history.answers.load(Ordering::Relaxed) == before => return Err(Fault::Silent),
                Err(_) => {}
            }
        }
    }
}

/// Returns whether the host states that it has not processed the post.
fn is_refused(error: &hyper::Error) -> bool {
    source_of(error).and_then(h2::Error::reason) == Some(h2::Reason::REFUSED_STREAM)
}

/// Returns whether the whole connection was lost: closed with or without GOAWAY, reset, or silent to a ping.
///
/// Hyper reports a user error if the post was still waiting for a stream. A post's body cannot fail, so a user error
/// has no other cause here.
fn is_lost(error: &hyper::Error) -> bool {
    let closed = error.is_canceled() || error.is_closed() || error.is_timeout() || error.is_user();
    closed || source_of::<io::Error>(error).is_some() || source_of(error).is_some_and(h2::Error::is_go_away)
}

fn source_of<E: std::error::Error + 'static>(error: &hyper::Error) -> Option<&E> {
    std::error::Error::source(error).and_then(|source| source.downcast_ref())
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error: &dyn std::error::Error = match self {
            Self::Http1(error) => error,
            Self::Http2(error) => error,
            Self::Silent => {
                return formatter.write_str("no post on the connection was answered for 4 s");
            }
        };
        formatter.write_str(&chain(error))
    }
}
