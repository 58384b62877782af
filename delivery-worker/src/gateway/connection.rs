//! A connection that can take a post, and what its loss means.

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

use super::{
    Answered, Post,
    http1::Http1,
    http2::{self, Http2},
};

/// How long posts on an HTTP/2 connection may wait while none of them is answered. It is less than a post may take.
const SILENCE: Duration = Duration::from_secs(4);

/// A connection that can take a post.
pub enum Connection {
    /// This post's alone.
    Http1(Box<Http1>),
    /// Shared by all.
    Http2(Shared),
}

/// An HTTP/2 connection. Cheap to clone.
#[derive(Clone)]
pub struct Shared {
    http2: Http2,
    state: Arc<State>,
}

/// The history of an HTTP/2 connection.
#[derive(Default)]
struct State {
    /// Posts that were answered on it.
    answers: AtomicUsize,
    /// Whether a post has reported its loss.
    reported: AtomicBool,
}

/// The fault that kept an answer from arriving.
#[derive(Debug)]
pub enum Fault {
    /// Of HTTP/1.1.
    Http1(io::Error),
    /// Of HTTP/2.
    Http2(hyper::Error),
    /// No post on the connection was answered for 4 s.
    Silent,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// No connection, or one that broke.
    Broken(String),
    /// The host did not answer.
    Timeout,
    /// A shared connection that had worked was lost, as another post on it has reported.
    Lost(String),
}

impl Connection {
    /// Sends a post, and returns the answer, and whether the connection takes another post.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn send(&mut self, post: &Post<'_>) -> Result<(Answered, bool), Fault> {
        match self {
            Self::Http1(connection) => connection.send(post).await.map_err(Fault::Http1),
            Self::Http2(shared) => Ok((Box::pin(shared.send(post)).await?, true)),
        }
    }

    /// Whether the post may go out again: the connection was lost, as any may at any time, or the host has not
    /// processed the post (REFUSED_STREAM, RFC 9113, section 8.7). `used` says whether others have used it before.
    pub fn may_repeat(&self, fault: &Fault, used: bool) -> bool {
        match (fault, self) {
            (Fault::Http1(error), _) => {
                use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
                used && matches!(
                    error.kind(),
                    BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
                )
            }
            (Fault::Http2(error), Self::Http2(shared)) => {
                is_refused(error) || ((used || shared.has_worked()) && is_lost(error))
            }
            (Fault::Http2(_) | Fault::Silent, _) => false,
        }
    }

    /// Returns the failure that the post reports. Of a shared connection that had worked, the first post reports the loss, so that one lost
    /// connection counts as one failure; one that has never worked is every post's own failure.
    pub fn failure(&self, fault: &Fault) -> Failure {
        let is_known = match self {
            Self::Http1(_) => false,
            Self::Http2(shared) => shared.has_worked() && shared.state.reported.swap(true, Ordering::Relaxed),
        };
        match fault {
            _ if is_known => Failure::Lost(fault.to_string()),
            Fault::Silent => Failure::Timeout,
            Fault::Http1(_) | Fault::Http2(_) => Failure::Broken(fault.to_string()),
        }
    }
}

impl Shared {
    /// A fresh connection.
    pub fn new(http2: Http2) -> Self {
        Self { http2, state: Arc::default() }
    }

    /// Whether both are the same connection.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }

    /// Whether the connection is known to be closed.
    pub fn is_closed(&self) -> bool {
        self.http2.is_closed()
    }

    fn has_worked(&self) -> bool {
        self.state.answers.load(Ordering::Relaxed) > 0
    }

    /// Sends a post, and leaves a connection on which no post is answered.
    async fn send(&mut self, post: &Post<'_>) -> Result<Answered, Fault> {
        let Self { http2, state } = self;
        let mut answer = Box::pin(http2::send(http2, post));
        loop {
            let before = state.answers.load(Ordering::Relaxed);
            match timeout(SILENCE, &mut answer).await {
                Ok(answered) => {
                    state.answers.fetch_add(usize::from(answered.is_ok()), Ordering::Relaxed);
                    return answered.map_err(Fault::Http2);
                }
                Err(_) if state.answers.load(Ordering::Relaxed) == before => return Err(Fault::Silent),
                Err(_) => {}
            }
        }
    }
}

/// Whether the host says that it has not processed the post.
fn is_refused(error: &hyper::Error) -> bool {
    source_of(error).and_then(h2::Error::reason) == Some(h2::Reason::REFUSED_STREAM)
}

/// Whether the whole connection was lost: closed with GOAWAY or without it, reset, or silent to a ping. Hyper takes it for
/// the user's fault where the post still waited for a stream; a post has no body that could fail, so it is nothing else.
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
                return formatter.write_str("the connection answers no post: it was replaced");
            }
        };
        formatter.write_str(&chain(error))
    }
}
