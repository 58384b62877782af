//! Connections to a host, with or without TLS.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Uri;
use rustls::pki_types::ServerName;
use streamer_environment::{aws::chain, tls};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Time to resolve a host, to connect to one of its addresses, or for a TLS handshake.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A stream of bytes in both directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A server, as a URL names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// The host, without brackets.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
    /// Whether the scheme is https or wss.
    pub(super) has_tls: bool,
}

/// An open connection.
pub(super) struct Opened {
    /// The stream.
    pub(super) stream: Box<dyn Duplex>,
    /// The result of the TLS handshake, if there was one.
    pub(super) tls: Option<Handshake>,
    /// Time that the TCP handshake took.
    pub(super) connect_time: Duration,
}

/// The result of a TLS handshake.
#[derive(Debug, Clone)]
pub(super) struct Handshake {
    /// The version, such as `TLSv1_3`.
    pub(super) version: String,
    /// The protocol that ALPN chose.
    pub(super) protocol: Option<String>,
    /// Time that it took.
    pub(super) time: Duration,
}

impl Server {
    /// Parses a URL with the scheme http, https, ws or wss.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let (has_tls, default_port) = match uri.scheme_str()? {
            "https" | "wss" => (true, 443),
            "http" | "ws" => (false, 80),
            _ => return None,
        };
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Self { host, port: uri.port_u16().unwrap_or(default_port), has_tls })
    }

    /// Resolves the host.
    ///
    /// # Errors
    /// When the resolver does not know it, or does not answer in time.
    pub(super) async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let mut addresses: Vec<_> =
            timeout(TIMEOUT, lookup_host((self.host.as_str(), self.port))).await??.collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok(addresses)
    }

    /// Connects to one of the addresses, and offers these protocols in a TLS handshake.
    ///
    /// # Errors
    /// The reason as text.
    pub(super) async fn open(&self, protocols: &[&str]) -> Result<Opened, String> {
        let began = Instant::now();
        let connect = TcpStream::connect((self.host.as_str(), self.port));
        let stream = match timeout(TIMEOUT, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("no connection within {} s", TIMEOUT.as_secs())),
        };
        _ = stream.set_nodelay(true);
        let connect_time = began.elapsed();
        if !self.has_tls {
            return Ok(Opened { stream: Box::new(stream), tls: None, connect_time });
        }
        let mut config = tls::client_config().map_err(|error| error.to_string())?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?;
        let began = Instant::now();
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let stream = match timeout(TIMEOUT, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(format!("the TLS handshake failed: {}", chain(&error))),
            Err(_) => return Err(format!("no TLS handshake within {} s", TIMEOUT.as_secs())),
        };
        let connection = stream.get_ref().1;
        let text = |protocol: &[u8]| String::from_utf8_lossy(protocol).into_owned();
        let tls = Handshake {
            version: connection.protocol_version().map_or_else(String::new, |version| format!("{version:?}")),
            protocol: connection.alpn_protocol().map(text),
            time: began.elapsed(),
        };
        Ok(Opened { stream: Box::new(stream), tls: Some(tls), connect_time })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheme_decides_port_and_tls() {
        let server = |url| Server::parse(url).map(|server| (server.host, server.port, server.has_tls));
        assert_eq!(server("wss://a.example/live"), Some(("a.example".to_owned(), 443, true)));
        assert_eq!(server("http://[::1]:8080/x"), Some(("::1".to_owned(), 8080, false)));
        assert_eq!(server("ftp://a.example"), None);
        assert_eq!(server("/live"), None);
    }
}
