//! Connections to one host: HTTP/1.1, or HTTP/2 where the host prefers it (ALPN).
//!
//! With HTTP/1.1 each post has a connection to itself, and idle ones are kept for the next; with HTTP/2 all
//! posts share one. A kept connection that the host has closed meanwhile, and an HTTP/2 GOAWAY, are no fault:
//! the post goes out again on a fresh one, unless a part of its answer has arrived.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, pki_types::ServerName};
use streamer_environment::aws::chain;
use tokio::{net::TcpStream, task::JoinSet, time::Instant};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Answered, Post,
    http1::{Http1, Stream},
    http2::{self, Http2},
};

/// A kept connection is not used after so long: API Gateway and what lies before it close idle ones.
const IDLE: Duration = Duration::from_secs(50);

/// How long an HTTP/2 connection with posts on it may be silent before it is asked whether it lives, and how long
/// it may take to say so. Both together are less than a post may take.
const PING: Duration = Duration::from_secs(2);

/// How often a post goes out again because the connection under it had been closed.
const AGAIN: usize = 2;

/// Connections to one host.
pub struct Pool {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    most_idle: usize,
    kept: Mutex<Kept>,
    /// Whether the host is known to speak HTTP/1.1. Unless it is, whoever opens a connection holds the lock: of
    /// HTTP/2 one is enough.
    http1: tokio::sync::Mutex<bool>,
}

#[derive(Default)]
struct Kept {
    /// Idle HTTP/1.1 connections, the one used last at the end.
    idle: Vec<(Box<Http1>, Instant)>,
    shared: Option<Http2>,
    /// The tasks that drive HTTP/2 connections.
    driving: JoinSet<()>,
}

/// A connection that can take a post.
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
        let (kept, http1) = (Mutex::default(), tokio::sync::Mutex::default());
        Some(Self { host, port, tls, most_idle, kept, http1 })
    }

    /// Sends a post, and returns the answer.
    ///
    /// # Errors
    /// [`Failure`]: whether the host has seen the post is then not known.
    pub async fn send(&self, post: &Post<'_>) -> Result<Answered, Failure> {
        let kept = self.take().map(|kept| (kept, true));
        // Boxed, since it is rare and large: a post's future is moved about, and holds all that it awaits.
        let (mut connection, mut used) = match kept {
            Some(kept) => kept,
            None => Box::pin(self.connect()).await?,
        };
        let mut again = 0;
        loop {
            match send_on(&mut connection, post).await {
                Ok((answered, keep)) => return Ok(self.keep(connection, keep, answered)),
                Err(fault) if fault.is_closed() && used && again < AGAIN => {
                    again += 1;
                    (connection, used) = Box::pin(self.connect()).await?;
                }
                Err(fault) => return Err(Failure(fault.to_string())),
            }
        }
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

    /// A connection that others have used, and that has not been closed as far as is known.
    fn take(&self) -> Option<Connection> {
        if let Some(shared) = self.shared() {
            return Some(Connection::Http2(shared));
        }
        loop {
            let (mut connection, since) = self.kept().idle.pop()?;
            if since.elapsed() >= IDLE {
                // Those below it have been idle for longer.
                self.kept().idle.clear();
                return None;
            }
            if connection.is_idle() {
                return Some(Connection::Http1(connection));
            }
        }
    }

    /// The shared connection, unless it has been closed.
    fn shared(&self) -> Option<Http2> {
        let mut kept = self.kept();
        kept.shared.take_if(|shared| shared.is_closed());
        kept.shared.clone()
    }

    /// A connection, and whether others have used it: with HTTP/2, whoever waits for one that is being opened
    /// shares it.
    async fn connect(&self) -> Result<(Connection, bool), Failure> {
        let mut http1 = self.http1.lock().await;
        if let Some(shared) = self.shared() {
            return Ok((Connection::Http2(shared), true));
        }
        if *http1 {
            drop(http1);
            return Ok((self.open().await?, false));
        }
        let connection = self.open().await?;
        *http1 = matches!(connection, Connection::Http1(_));
        Ok((connection, false))
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
        // A connection that has gone silent is noticed before the posts on it are given up.
        let handshake = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .handshake(TokioIo::new(stream))
            .await;
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
        formatter.write_str(&chain(error))
    }
}
