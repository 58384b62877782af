//! Connections to one host: HTTP/1.1, or HTTP/2 where the host prefers it (ALPN).
//!
//! With HTTP/1.1 each post has a connection to itself, and idle ones are kept for the next; with HTTP/2 all
//! posts share one. A kept connection that the host has closed meanwhile, and an HTTP/2 GOAWAY, are no fault:
//! the request is sent again on another one, and at last on a fresh one.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};
use tokio_rustls::TlsConnector;

/// A kept connection is not used after so long: API Gateway and what lies before it close idle ones.
const IDLE: Duration = Duration::from_secs(50);

type Body = Full<Bytes>;

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
    idle: Vec<(http1::SendRequest<Body>, Instant)>,
    shared: Option<http2::SendRequest<Body>>,
    /// The tasks that drive connections.
    driving: JoinSet<()>,
}

/// A connection that can take a request.
#[derive(Debug)]
pub enum Sender {
    /// To be put back when the answer has been read.
    Http1(http1::SendRequest<Body>),
    /// Shared by all.
    Http2(http2::SendRequest<Body>),
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

    /// Sends the request that `make` makes, with a path for its URI, and returns the answer's head, and the
    /// connection to put back.
    ///
    /// # Errors
    /// [`Failure`]: whether the host has seen the request is then not known.
    pub async fn send(
        &self,
        origin: &str,
        make: impl Fn() -> Request<Body>,
    ) -> Result<(Response<Incoming>, Sender), Failure> {
        while let Some(mut kept) = self.take() {
            match send(&mut kept, make(), origin).await {
                Ok(response) => return Ok((response, kept)),
                Err(error) if is_closed(&error) => self.forget(&kept),
                Err(error) => return Err(failure(&error)),
            }
        }
        // Boxed, since it is rare and large: a post's future is moved about, and holds all that it awaits.
        let mut fresh = Box::pin(self.connect()).await?;
        let response = send(&mut fresh, make(), origin).await.map_err(|error| failure(&error))?;
        Ok((response, fresh))
    }

    /// Keeps a connection for the next request.
    pub fn put_back(&self, sender: Sender) {
        if let Sender::Http1(sender) = sender {
            let mut kept = self.kept();
            if kept.idle.len() < self.most_idle {
                kept.idle.push((sender, Instant::now()));
            }
        }
    }

    fn take(&self) -> Option<Sender> {
        let mut kept = self.kept();
        if let Some(shared) = &kept.shared {
            return Some(Sender::Http2(shared.clone()));
        }
        let (sender, since) = kept.idle.pop()?;
        if since.elapsed() < IDLE {
            return Some(Sender::Http1(sender));
        }
        // Those below it have been idle for longer.
        kept.idle.clear();
        None
    }

    /// Lets no other request take a shared connection that has been closed.
    fn forget(&self, sender: &Sender) {
        if matches!(sender, Sender::Http2(_)) {
            self.kept().shared.take_if(|shared| shared.is_closed());
        }
    }

    async fn connect(&self) -> Result<Sender, Failure> {
        let mut known = self.first.lock().await;
        if !*known {
            let sender = self.open().await?;
            *known = true;
            return Ok(sender);
        }
        // With HTTP/2 the lock makes whoever needs a new connection wait for the one that is being opened.
        let shared = self.kept().shared.clone();
        if let Some(shared) = shared {
            return Ok(Sender::Http2(shared));
        }
        drop(known);
        self.open().await
    }

    async fn open(&self) -> Result<Sender, Failure> {
        let failed = |error: io::Error| Failure(format!("{}:{}: {error}", self.host, self.port));
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let Some((connector, name)) = &self.tls else { return self.http1(stream).await };
        let stream = connector.connect(name.clone(), stream).await.map_err(failed)?;
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => self.http2(stream).await,
            _ => self.http1(stream).await,
        }
    }

    async fn http1(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Sender, Failure> {
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| failure(&error))?;
        self.drive(connection);
        Ok(Sender::Http1(sender))
    }

    async fn http2(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Sender, Failure> {
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| failure(&error))?;
        self.drive(connection);
        self.kept().shared = Some(sender.clone());
        Ok(Sender::Http2(sender))
    }

    /// A connection's errors reach the requests that are on it.
    fn drive(&self, connection: impl Future<Output = hyper::Result<()>> + Send + 'static) {
        let mut kept = self.kept();
        while kept.driving.try_join_next().is_some() {}
        kept.driving.spawn(async move { _ = connection.await });
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn send(
    sender: &mut Sender,
    mut request: Request<Body>,
    origin: &str,
) -> hyper::Result<Response<Incoming>> {
    match sender {
        Sender::Http1(sender) => {
            sender.ready().await?;
            sender.send_request(request).await
        }
        Sender::Http2(sender) => {
            // HTTP/2 takes the host from the URI (RFC 9113, section 8.3.1).
            request.headers_mut().remove(http::header::HOST);
            let absolute = format!("{origin}{}", request.uri()).parse::<Uri>();
            *request.uri_mut() = absolute.unwrap_or_default();
            sender.ready().await?;
            sender.send_request(request).await
        }
    }
}

/// Whether the host has closed the connection, as it may at any time.
fn is_closed(error: &hyper::Error) -> bool {
    if error.is_canceled() || error.is_closed() || error.is_incomplete_message() {
        return true;
    }
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.downcast_ref::<h2::Error>().is_some_and(|error| error.is_go_away() || error.is_io()) {
            return true;
        }
        let closed = |error: &io::Error| {
            use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
            matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
        };
        if error.downcast_ref::<io::Error>().is_some_and(closed) {
            return true;
        }
        source = error.source();
    }
    false
}

fn failure(error: &hyper::Error) -> Failure {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    Failure(text)
}
