//! Connections to one host: HTTP/1.1, or HTTP/2 if the host prefers it (ALPN).
//!
//! With HTTP/1.1 each post has its own connection, and the pool keeps idle ones. With HTTP/2 all posts share one.
//!
//! The pool replaces a lost connection and repeats the posts on it: an HTTP/1.1 connection that the host closed
//! while it was idle, and an HTTP/2 connection that was closed in any way or does not answer a ping. It does not
//! repeat a post after the first byte of the response.

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

use crate::{
    clock::Clock,
    connection::{Connection, Failure, SharedConnection},
    dial::{dial, timed_out},
    http1::{Http1, Stream},
    post::{PostRequest, PostResponse},
};

/// Maximum idle time of a connection that is reused. API Gateway and the proxies before it close idle connections.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Maximum time for the TLS handshake and the HTTP/2 handshake that follows it.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum number of attempts to open a connection for a post.
const MAX_CONNECT_ATTEMPTS: usize = 2;

/// Time without a frame after which an HTTP/2 connection with posts on it is pinged, and maximum time for the reply.
/// Together they leave time to repeat a post, which may take 5 s.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum number of times that a post is repeated because its connection was lost.
const MAX_REPEATS: usize = 2;

/// Connections to one host.
pub struct Pool {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    max_idle: usize,
    state: Mutex<State>,
    /// Whether the host is known to use HTTP/1.1. Until then a post that opens a connection holds the lock, because
    /// one HTTP/2 connection is enough.
    uses_http1: tokio::sync::Mutex<bool>,
}

#[derive(Default)]
struct State {
    clock: Clock,
    /// Idle HTTP/1.1 connections with the time of their latest post, in order of that time.
    idle: Vec<(Box<Http1>, Instant)>,
    /// The HTTP/2 connection with the time of its latest post.
    shared: Option<(SharedConnection, Instant)>,
    /// The tasks that drive HTTP/2 connections.
    drivers: JoinSet<()>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        formatter.debug_struct("Pool").field("host", host).field("port", port).finish_non_exhaustive()
    }
}

impl Pool {
    /// Builds a pool for a host, which keeps at most `max_idle` idle connections and uses TLS if a configuration is
    /// given. Returns `None` if no certificate can name `host`.
    #[must_use]
    pub fn new(host: &str, port: u16, tls: Option<ClientConfig>, max_idle: usize) -> Option<Self> {
        // Only a URL has brackets around an IPv6 address.
        let host = host.trim_matches(['[', ']']).to_owned();
        let tls = match tls {
            None => None,
            Some(mut config) => {
                config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
                Some((TlsConnector::from(Arc::new(config)), ServerName::try_from(host.clone()).ok()?))
            }
        };
        let (state, uses_http1) = (Mutex::default(), tokio::sync::Mutex::default());
        Some(Self { host, port, tls, max_idle, state, uses_http1 })
    }

    /// Sends a post at `wall`, and returns the response.
    ///
    /// # Errors
    /// [`Failure`]. The host may have processed the post, so only the delivery policy decides about a retry.
    pub async fn send(&self, post: &PostRequest<'_>, wall: SystemTime) -> Result<PostResponse, Failure> {
        let reused = self.reuse(wall).map(|connection| (connection, true));
        // Boxed because it is rare and large: a post's future is moved, and contains all futures that it awaits.
        let (mut connection, mut was_used) = match reused {
            Some(reused) => reused,
            None => Box::pin(self.connect()).await?,
        };
        let mut repeats = 0;
        loop {
            match connection.send(post).await {
                Ok((response, is_reusable)) => {
                    if is_reusable {
                        self.keep(connection);
                    }
                    return Ok(response);
                }
                Err(fault) if repeats < MAX_REPEATS && connection.may_repeat(&fault, was_used) => {
                    self.retire(&connection);
                    repeats += 1;
                    (connection, was_used) = Box::pin(self.connect()).await?;
                }
                Err(fault) => {
                    self.retire(&connection);
                    return Err(connection.failure(&fault));
                }
            }
        }
    }

    /// Keeps an HTTP/1.1 connection for the next post. At `max_idle` idle connections it is closed instead.
    fn keep(&self, connection: Connection) {
        if let Connection::Http1(connection) = connection {
            let mut state = self.state();
            if state.idle.len() < self.max_idle {
                let now = state.now();
                state.idle.push((connection, now));
            }
        }
    }

    /// Stops sharing a connection. Posts that are on it may still be answered.
    fn retire(&self, connection: &Connection) {
        if let Connection::Http2(lost) = connection {
            self.state().shared.take_if(|(shared, _)| shared.is(lost));
        }
    }

    /// Returns a connection that earlier posts have used and that is not known to be closed.
    fn reuse(&self, wall: SystemTime) -> Option<Connection> {
        let shared = {
            let mut state = self.state();
            state.clock.resume(wall, Instant::now());
            state.shared()
        };
        if let Some(shared) = shared {
            return Some(Connection::Http2(shared));
        }
        loop {
            let mut state = self.state();
            let (mut connection, since) = state.idle.pop()?;
            if state.now().saturating_duration_since(since) >= IDLE_TIMEOUT {
                // The remaining ones have been idle for longer.
                state.idle.clear();
                return None;
            }
            drop(state);
            if connection.is_idle() {
                return Some(Connection::Http1(connection));
            }
        }
    }

    /// Returns a connection, and whether other posts have used it: with HTTP/2, posts that wait while a connection is
    /// opened share it.
    async fn connect(&self) -> Result<(Connection, bool), Failure> {
        let mut uses_http1 = self.uses_http1.lock().await;
        if let Some(shared) = self.state().shared() {
            return Ok((Connection::Http2(shared), true));
        }
        if *uses_http1 {
            drop(uses_http1);
            return Ok((self.open().await?, false));
        }
        let connection = self.open().await?;
        *uses_http1 = matches!(connection, Connection::Http1(_));
        Ok((connection, false))
    }

    /// Opens a connection. Makes a second attempt if the first takes too long.
    async fn open(&self) -> Result<Connection, Failure> {
        let mut attempts = 1;
        loop {
            match self.try_open().await {
                Err(error) if error.kind() == io::ErrorKind::TimedOut && attempts < MAX_CONNECT_ATTEMPTS => {
                    attempts += 1;
                }
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
        timeout(HANDSHAKE_TIMEOUT, handshake).await.map_err(|_| timed_out("no TLS handshake within 2 s"))?
    }

    /// Shares an HTTP/2 connection. The posts on it receive its errors.
    async fn share(
        &self,
        stream: TokioIo<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>,
    ) -> io::Result<Connection> {
        // Pings find a silent connection before the posts on it time out.
        let (http2, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_TIMEOUT)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(stream)
            .await
            .map_err(|error| io::Error::other(chain(&error)))?;
        let shared = SharedConnection::new(http2);
        let mut state = self.state();
        while state.drivers.try_join_next().is_some() {}
        state.drivers.spawn(async move { _ = connection.await });
        let now = state.now();
        state.shared = Some((shared.clone(), now));
        Ok(Connection::Http2(shared))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns the shared connection, unless it was closed or has been idle for too long.
    fn shared(&mut self) -> Option<SharedConnection> {
        let now = self.now();
        self.shared.take_if(|(shared, since)| {
            shared.is_closed() || now.saturating_duration_since(*since) >= IDLE_TIMEOUT
        });
        let (shared, since) = self.shared.as_mut()?;
        *since = now;
        Some(shared.clone())
    }

    fn now(&self) -> Instant {
        self.clock.at(Instant::now())
    }
}
