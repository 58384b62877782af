//! Connections to one host: HTTP/1.1, or HTTP/2 where the host prefers it (ALPN).
//!
//! With HTTP/1.1 each post has a connection to itself, and idle ones are kept for the next; with HTTP/2 all
//! posts share one. A kept connection that the host has closed meanwhile, and an HTTP/2 GOAWAY, are no fault:
//! the post is sent again on another one, and at last on a fresh one.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, task::JoinSet, time::Instant};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Answered, Post,
    http1::{Http1, Stream},
    http2::{self, Http2},
};

/// A kept connection is not used after so long: API Gateway and what lies before it close idle ones.
const IDLE: Duration = Duration::from_secs(50);

/// Connections to one host.
pub struct Pool {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    most_idle: usize,
    kept: Mutex<Kept>,
    /// Whoever connects first finds out the protocol, so that HTTP/2 needs one connection only.
    first: tokio::sync::Mutex<bool>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Idle HTTP/1.1 connections, the one used last at the end.
    idle: Vec<(Box<Http1>, Instant)>,
    shared: Option<Http2>,
    /// The tasks that drive HTTP/2 connections.
    driving: JoinSet<()>,
}

/// A connection that can take a post.
#[derive(Debug)]
enum Connection {
    /// This post's alone.
    Http1(Box<Http1>),
    /// Shared by all.
    Http2(Http2),
}

/// What kept an answer from arriving.
#[derive(Debug)]
enum Fault {
    Http1(io::Error),
    Http2(hyper::Error),
}

/// Why there is no answer.
#[derive(Debug)]
pub struct Failure(pub String);

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        formatter.debug_struct("Pool").field("host", host).field("port", port).finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool for a host, with TLS or without it, and with at most `most_idle` idle connections. `None` where
    /// `host` is no name that a certificate can have.
    #[must_use]
    pub fn new(host: &str, port: u16, tls: Option<ClientConfig>, most_idle: usize) -> Option<Self> {
        // An IPv6 address stands in brackets in a URL, and nowhere else.
        let host = host.trim_matches(['[', ']']).to_owned();
        let tls = match tls {
            None => None,
            Some(mut config) => {
                config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
                Some((TlsConnector::from(Arc::new(config)), ServerName::try_from(host.clone()).ok()?))
            }
        };
        let first = tokio::sync::Mutex::new(false);
        Some(Self { host, port, tls, most_idle, kept: Mutex::default(), first })
    }

    /// Sends a post, and returns the answer.
    ///
    /// # Errors
    /// [`Failure`]: whether the host has seen the post is then not known.
    pub async fn send(&self, post: &Post<'_>) -> Result<Answered, Failure> {
        while let Some(mut kept) = self.take() {
            match send_on(&mut kept, post).await {
                Ok((answered, again)) => return Ok(self.keep(kept, again, answered)),
                Err(fault) if fault.is_closed() => self.forget(&kept),
                Err(fault) => return Err(Failure(fault.to_string())),
            }
        }
        // Boxed, since it is rare and large: a post's future is moved about, and holds all that it awaits.
        let mut fresh = Box::pin(self.connect()).await?;
        let (answered, again) =
            send_on(&mut fresh, post).await.map_err(|fault| Failure(fault.to_string()))?;
        Ok(self.keep(fresh, again, answered))
    }

    /// Keeps a connection for the next post, if it takes another one.
    fn keep(&self, connection: Connection, again: bool, answered: Answered) -> Answered {
        if let (Connection::Http1(connection), true) = (connection, again) {
            let mut kept = self.kept();
            if kept.idle.len() < self.most_idle {
                kept.idle.push((connection, Instant::now()));
            }
        }
        answered
    }

    fn take(&self) -> Option<Connection> {
        let mut kept = self.kept();
        if let Some(shared) = &kept.shared {
            return Some(Connection::Http2(shared.clone()));
        }
        let (connection, since) = kept.idle.pop()?;
        if since.elapsed() < IDLE {
            return Some(Connection::Http1(connection));
        }
        // Those below it have been idle for longer.
        kept.idle.clear();
        None
    }

    /// Lets no other post take a shared connection that has been closed.
    fn forget(&self, connection: &Connection) {
        if matches!(connection, Connection::Http2(_)) {
            self.kept().shared.take_if(|shared| shared.is_closed());
        }
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let mut known = self.first.lock().await;
        if !*known {
            let connection = self.open().await?;
            *known = true;
            return Ok(connection);
        }
        // With HTTP/2 the lock makes whoever needs a new connection wait for the one that is being opened.
        let shared = self.kept().shared.clone();
        if let Some(shared) = shared {
            return Ok(Connection::Http2(shared));
        }
        drop(known);
        self.open().await
    }

    async fn open(&self) -> Result<Connection, Failure> {
        let failed = |error: io::Error| Failure(format!("{}:{}: {error}", self.host, self.port));
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let Some((connector, name)) = &self.tls else {
            return Ok(Connection::Http1(Box::new(Http1::new(Stream::Plain(stream)))));
        };
        let stream = connector.connect(name.clone(), stream).await.map_err(failed)?;
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => self.share(stream).await,
            _ => Ok(Connection::Http1(Box::new(Http1::new(Stream::Tls(Box::new(stream)))))),
        }
    }

    /// Shares an HTTP/2 connection. Its errors reach the posts that are on it.
    async fn share(&self, stream: TlsStream<TcpStream>) -> Result<Connection, Failure> {
        let handshake =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (shared, connection) = handshake.map_err(|error| Failure(Fault::Http2(error).to_string()))?;
        let mut kept = self.kept();
        while kept.driving.try_join_next().is_some() {}
        kept.driving.spawn(async move { _ = connection.await });
        kept.shared = Some(shared.clone());
        Ok(Connection::Http2(shared))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends a post on a connection, and returns the answer, and whether the connection takes another post.
async fn send_on(connection: &mut Connection, post: &Post<'_>) -> Result<(Answered, bool), Fault> {
    match connection {
        Connection::Http1(connection) => connection.send(post).await.map_err(Fault::Http1),
        Connection::Http2(shared) => {
            let answered = Box::pin(http2::send(shared, post)).await.map_err(Fault::Http2)?;
            Ok((answered, true))
        }
    }
}

impl Fault {
    /// Whether the host has closed the connection, as it may at any time.
    fn is_closed(&self) -> bool {
        let closed = |error: &io::Error| {
            use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
            matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
        };
        match self {
            Self::Http1(error) => closed(error),
            Self::Http2(error) => {
                let goaway = |error: &h2::Error| error.is_go_away() || error.is_io();
                let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
                error.is_canceled() || error.is_closed() || source.is_some_and(goaway)
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error: &dyn std::error::Error = match self {
            Self::Http1(error) => error,
            Self::Http2(error) => error,
        };
        write!(formatter, "{error}")?;
        let mut source = error.source();
        while let Some(error) = source {
            write!(formatter, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
