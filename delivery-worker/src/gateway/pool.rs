//! Connections to one host: HTTP/1.1, or HTTP/2 where the host prefers it (ALPN).
//!
//! With HTTP/1.1 each post has a connection to itself, and idle ones are kept for the next; with HTTP/2 all posts share
//! one. The pool replaces connections that are lost and repeats the posts that were on them: an HTTP/1.1 connection that
//! the host has closed while it was idle, and an HTTP/2 connection that was closed in whichever way or that answers no
//! ping. A post of which a part of the answer has arrived is not repeated.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, pki_types::ServerName};
use streamer_environment::aws::chain;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

use super::{
    Answered, Post,
    connection::{Connection, Failure, Shared},
    dial::{dial, timed_out},
    http1::{Http1, Stream},
};
use crate::admission::clock::Clock;

/// A kept connection is not used after so long: API Gateway and what lies before it close idle ones.
const IDLE: Duration = Duration::from_secs(50);

/// How long a TLS handshake may take, and the one of HTTP/2 behind it.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// How often a connection is tried to be opened for a post.
const OPENINGS: usize = 2;

/// How long an HTTP/2 connection with posts on it may be silent before it is asked whether it lives, and how long
/// it may take to say so. Both leave time for a repeated post: a post may take 5 s.
const PING: Duration = Duration::from_secs(1);

/// How often a post goes out again because the connection under it was lost.
const AGAIN: usize = 2;

/// Connections to one host.
pub struct Pool {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    most_idle: usize,
    kept: Mutex<Kept>,
    /// Whether the host is known to speak HTTP/1.1. Unless it is, the post that opens a connection holds the lock: of
    /// HTTP/2 one is enough.
    http1: tokio::sync::Mutex<bool>,
}

#[derive(Default)]
struct Kept {
    clock: Clock,
    /// Idle HTTP/1.1 connections, the one used last at the end.
    idle: Vec<(Box<Http1>, Instant)>,
    shared: Option<(Shared, Instant)>,
    /// The tasks that drive HTTP/2 connections.
    driving: JoinSet<()>,
}

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

    /// Sends a post at `wall`, and returns the answer.
    ///
    /// # Errors
    /// [`Failure`]: whether the host has seen the post is then not known.
    pub async fn send(&self, post: &Post<'_>, wall: SystemTime) -> Result<Answered, Failure> {
        let kept = self.take(wall).map(|kept| (kept, true));
        // Boxed, since it is rare and large: a post's future is moved about, and holds all that it awaits.
        let (mut connection, mut used) = match kept {
            Some(kept) => kept,
            None => Box::pin(self.connect()).await?,
        };
        let mut again = 0;
        loop {
            match connection.send(post).await {
                Ok((answered, keep)) => return Ok(self.keep(connection, keep, answered)),
                Err(fault) if again < AGAIN && connection.may_repeat(&fault, used) => {
                    self.retire(&connection);
                    again += 1;
                    (connection, used) = Box::pin(self.connect()).await?;
                }
                Err(fault) => {
                    self.retire(&connection);
                    return Err(connection.failure(&fault));
                }
            }
        }
    }

    /// Keeps a connection for the next post, if it takes another one.
    fn keep(&self, connection: Connection, again: bool, answered: Answered) -> Answered {
        if let (Connection::Http1(connection), true) = (connection, again) {
            let mut kept = self.kept();
            if kept.idle.len() < self.most_idle {
                let now = kept.now();
                kept.idle.push((connection, now));
            }
        }
        answered
    }

    /// Shares a connection no longer. Posts that are on it may yet be answered.
    fn retire(&self, connection: &Connection) {
        if let Connection::Http2(lost) = connection {
            self.kept().shared.take_if(|(shared, _)| shared.is(lost));
        }
    }

    /// A connection that others have used, and that has not been closed as far as is known.
    fn take(&self, wall: SystemTime) -> Option<Connection> {
        let shared = {
            let mut kept = self.kept();
            kept.clock.resume(wall, Instant::now());
            kept.shared()
        };
        if let Some(shared) = shared {
            return Some(Connection::Http2(shared));
        }
        loop {
            let mut kept = self.kept();
            let (mut connection, since) = kept.idle.pop()?;
            if kept.now().saturating_duration_since(since) >= IDLE {
                // Those below it have been idle for longer.
                kept.idle.clear();
                return None;
            }
            drop(kept);
            if connection.is_idle() {
                return Some(Connection::Http1(connection));
            }
        }
    }

    /// A connection, and whether others have used it: with HTTP/2, posts that wait for one that is being opened share
    /// it. One that takes too long to open is tried once more.
    async fn connect(&self) -> Result<(Connection, bool), Failure> {
        let mut http1 = self.http1.lock().await;
        if let Some(shared) = self.kept().shared() {
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
        let mut opening = 1;
        loop {
            match self.try_open().await {
                Err(error) if error.kind() == io::ErrorKind::TimedOut && opening < OPENINGS => opening += 1,
                opened => {
                    let failed = |error| Failure::Broken(format!("{}:{}: {error}", self.host, self.port));
                    return opened.map_err(failed);
                }
            }
        }
    }

    async fn try_open(&self) -> io::Result<Connection> {
        let stream = dial(&self.host, self.port).await?;
        let Some((connector, name)) = &self.tls else {
            return Ok(Connection::Http1(Box::new(Http1::new(Stream::Plain(stream)))));
        };
        let handshake = async {
            let stream = connector.connect(name.clone(), stream).await?;
            match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => self.share(TokioIo::new(stream)).await,
                _ => Ok(Connection::Http1(Box::new(Http1::new(Stream::Tls(Box::new(stream)))))),
            }
        };
        timeout(HANDSHAKE, handshake).await.map_err(|_| timed_out("no TLS handshake within 2 s"))?
    }

    /// Shares an HTTP/2 connection. Its errors reach the posts that are on it.
    async fn share(
        &self,
        stream: TokioIo<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>,
    ) -> io::Result<Connection> {
        // A connection that has gone silent is noticed before the posts on it are given up.
        let (http2, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .handshake(stream)
            .await
            .map_err(|error| io::Error::other(chain(&error)))?;
        let shared = Shared::new(http2);
        let mut kept = self.kept();
        while kept.driving.try_join_next().is_some() {}
        kept.driving.spawn(async move { _ = connection.await });
        let now = kept.now();
        kept.shared = Some((shared.clone(), now));
        Ok(Connection::Http2(shared))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// The shared connection, unless it has been closed or was not used for too long.
    fn shared(&mut self) -> Option<Shared> {
        let now = self.now();
        self.shared
            .take_if(|(shared, since)| shared.is_closed() || now.saturating_duration_since(*since) >= IDLE);
        let (shared, since) = self.shared.as_mut()?;
        *since = now;
        Some(shared.clone())
    }

    fn now(&self) -> Instant {
        self.clock.at(Instant::now())
    }
}
