//! Opens connections to one host: HTTP/2 if the host accepts it (ALPN), else HTTP/1.1.
//!
//! The first 256 posts of a cold environment cost two handshakes over HTTP/2 if the host allows 128 streams, and 50 to
//! 110 over HTTP/1.1, so HTTP/2 is offered first.

use std::{fmt, io, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use rustls::{ClientConfig, pki_types::ServerName};
use streamer_environment::aws::chain;
use tokio::{sync::Notify, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{
    connection::Failure,
    dial::{dial, timed_out},
    http1::{Http1, Stream},
    http2::Http2,
};

/// Maximum time for the TLS handshake and the HTTP/2 handshake that follows it.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum number of attempts to open a connection for a post.
const MAX_CONNECT_ATTEMPTS: usize = 2;

/// The protocols that ALPN offers, in order of preference.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Opens connections to one host.
pub(crate) struct Opener {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// A connection that was opened.
pub(crate) enum Opened {
    /// For one post at a time.
    Http1(Box<Http1>),
    /// For many posts, with the future that drives it.
    Http2(Arc<Http2>, BoxFuture<'static, ()>),
}

impl fmt::Debug for Opener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        formatter.debug_struct("Opener").field("host", host).field("port", port).finish_non_exhaustive()
    }
}

impl Opener {
    /// Builds an opener, which uses TLS if a configuration is given. Returns `None` if no certificate can name `host`.
    pub(crate) fn new(host: &str, port: u16, tls: Option<ClientConfig>) -> Option<Self> {
        // Only a URL has brackets around an IPv6 address.
        let host = host.trim_matches(['[', ']']).to_owned();
        let tls = match tls {
            None => None,
            Some(mut config) => {
                config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
                Some((TlsConnector::from(Arc::new(config)), ServerName::try_from(host.clone()).ok()?))
            }
        };
        Some(Self { host, port, tls })
    }

    /// Returns whether the host may choose HTTP/2.
    pub(crate) fn offers_http2(&self) -> bool {
        self.tls.is_some()
    }

    /// Opens a connection. Makes a second attempt if the first takes too long. `changed` is notified when a post on an
    /// HTTP/2 connection ends.
    ///
    /// # Errors
    /// [`Failure::Broken`] with the error of the last attempt.
    pub(crate) async fn open(&self, changed: &Arc<Notify>) -> Result<Opened, Failure> {
        let mut attempts = 1;
        loop {
            match self.try_open(changed).await {
                Err(error) if error.kind() == io::ErrorKind::TimedOut && attempts < MAX_CONNECT_ATTEMPTS => {
                    attempts += 1;
                }
                opened => {
                    let failed =
                        |error| Failure::Broken(format!("{}:{}: {}", self.host, self.port, chain(&error)));
                    return opened.map_err(failed);
                }
            }
        }
    }

    async fn try_open(&self, changed: &Arc<Notify>) -> io::Result<Opened> {
        let stream = dial(&self.host, self.port).await?;
        let Some((connector, name)) = &self.tls else {
            return Ok(Opened::Http1(Box::new(Http1::new(Stream::Plain(stream)))));
        };
        let handshake = async {
            let stream = connector.connect(name.clone(), stream).await?;
            if stream.get_ref().1.alpn_protocol() == Some(PROTOCOLS[0]) {
                let (http2, driving) = Http2::start(stream, Arc::clone(changed)).await?;
                return Ok(Opened::Http2(http2, driving.boxed()));
            }
            Ok(Opened::Http1(Box::new(Http1::new(Stream::Tls(Box::new(stream))))))
        };
        timeout(HANDSHAKE_TIMEOUT, handshake).await.map_err(|_| timed_out("no TLS handshake within 2 s"))?
    }
}
