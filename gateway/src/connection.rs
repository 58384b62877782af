//! A connection for posts, and the consequences of its loss.

use std::{fmt, io};

use streamer_environment::aws::chain;

use crate::{
    http1::Http1,
    http2::{self, Place},
    post::{PostRequest, PostResponse},
};

/// A connection for one post.
pub enum Connection {
    /// An HTTP/1.1 connection, used by one post at a time.
    Http1(Box<Http1>),
    /// A place on an HTTP/2 connection that posts share.
    Http2(Place),
}

/// The fault that prevented a response.
#[derive(Debug)]
pub enum Fault {
    /// An error of HTTP/1.1.
    Http1(io::Error),
    /// An error of HTTP/2.
    Http2(h2::Error),
    /// An HTTP/2 connection was lost before the post was sent.
    Unsent(h2::Error),
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
    /// Sends a post, and returns the response and whether an HTTP/1.1 connection can be reused.
    ///
    /// # Errors
    /// [`Fault`]. Ask [`may_repeat`](Self::may_repeat) whether to send the post again.
    pub async fn send(&mut self, post: &PostRequest<'_>) -> Result<(PostResponse, bool), Fault> {
        match self {
            Self::Http1(connection) => connection.send(post).await.map_err(Fault::Http1),
            Self::Http2(place) => Ok((place.send(post).await?, true)),
        }
    }

    /// Returns whether the post may be sent again: the connection answered a post before and was lost, or the host has
    /// not processed the post.
    pub fn may_repeat(&self, fault: &Fault) -> bool {
        match (fault, self) {
            (Fault::Http1(error), Self::Http1(connection)) => {
                use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
                connection.idle_since.is_some()
                    && matches!(
                        error.kind(),
                        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
                    )
            }
            (Fault::Unsent(_), _) => true,
            (Fault::Http2(error), Self::Http2(place)) => {
                http2::is_unprocessed(error) || (place.has_worked() && http2::is_lost(error))
            }
            (Fault::Http1(_) | Fault::Http2(_) | Fault::Silent, _) => false,
        }
    }

    /// Returns whether no further post should use the connection. If the host refuses or resets a single stream, the
    /// others go on.
    pub fn is_lost(&self, fault: &Fault) -> bool {
        match fault {
            Fault::Http2(error) => http2::is_lost(error),
            Fault::Http1(_) | Fault::Unsent(_) | Fault::Silent => true,
        }
    }

    /// Returns the failure that the post reports. If a shared connection had worked, only the first post reports its
    /// loss, so that one lost connection counts as one failure. If it never worked, every post reports a failure.
    pub fn failure(&self, fault: &Fault) -> Failure {
        let is_reported = match self {
            Self::Http1(_) => false,
            Self::Http2(place) => self.is_lost(fault) && place.has_worked() && place.report_loss(),
        };
        match fault {
            _ if is_reported => Failure::Lost(fault.to_string()),
            Fault::Silent => Failure::Timeout,
            Fault::Http1(_) | Fault::Http2(_) | Fault::Unsent(_) => Failure::Broken(fault.to_string()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error: &dyn std::error::Error = match self {
            Self::Http1(error) => error,
            Self::Http2(error) | Self::Unsent(error) => error,
            Self::Silent => {
                return formatter.write_str("no post on the connection was answered for 4 s");
            }
        };
        formatter.write_str(&chain(error))
    }
}
