//! The way to API Gateway.
//!
//! [`ManagementApi`] is a client for one call, `PostToConnection`, since a post's cost is a client's
//! orchestration: [`pool`] keeps connections, [`http1`] and [`http2`] speak on them, [`sign`] signs. What never
//! changes of a request is prepared once.

pub mod connection;
mod dial;
pub mod http1;
pub mod http2;
pub mod pool;
pub mod sign;
mod skew;

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use aws_config::SdkConfig;
use bytes::Bytes;
use http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::ClientConfig;
use streamer_environment::tls;
use streamer_message::ConnectionId;

use self::{
    connection::Failure,
    pool::Pool,
    sign::{Signed, Signer},
    skew::Skew,
};
use crate::classify::PostResult;

/// Everything but RFC 3986's unreserved characters, as Signature Version 4 wants it.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The same, for whole paths.
const RESERVED_IN_PATHS: &AsciiSet = &RESERVED.remove(b'/');

/// Bytes of an answer's body that are read, at most.
const BODY_BYTES: usize = 4 * 1024;

/// How long an answer's body may take after its head. The status decides, so it is not waited for in vain.
const BODY_TIME: Duration = Duration::from_millis(250);

/// Posts payloads to connections: over the wire, or in memory where tests run in virtual time.
pub trait Gateway: Send + Sync {
    /// Posts once. The caller bounds the time that it may take.
    fn post(&self, connection: &ConnectionId, payload: Bytes) -> impl Future<Output = PostResult> + Send;
}

/// API Gateway's `PostToConnection`, at one management endpoint.
pub struct ManagementApi {
    pool: Pool,
    signer: Signer,
    /// The scheme and the authority, which HTTP/2 wants.
    origin: String,
    /// The path up to the connection id, as it is sent, and as it is signed.
    path: String,
    canonical_path: String,
    host: String,
    skew: Skew,
}

/// A signed post, whatever the version of HTTP that it goes out with.
pub struct Post<'a> {
    /// The scheme and the authority.
    pub origin: &'a str,
    /// The authority.
    pub host: &'a str,
    /// The path.
    pub path: &'a str,
    /// What the signature adds.
    pub signed: &'a Signed,
    /// The body.
    pub payload: &'a Bytes,
}

/// What was read of an answer.
#[derive(Debug)]
pub struct Answered {
    /// Its status.
    pub status: u16,
    /// Its body, as far as that was read.
    pub message: String,
    /// The service's time, of a 403: the post may have been signed by a clock that is wrong.
    pub date: Option<SystemTime>,
}

/// A management endpoint that cannot be posted to.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEndpoint {
    /// No `http` or `https` URL.
    #[error("the management endpoint is no http or https URL with a host")]
    Url,
    /// Posts are signed for a Region.
    #[error("no Region is configured: set AWS_REGION, as Lambda does")]
    Region,
    /// Posts are signed with credentials.
    #[error("no credentials are configured: Lambda gives a function those of its role")]
    Credentials,
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Without payloads and credentials.
impl fmt::Debug for ManagementApi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, path, .. } = self;
        formatter
            .debug_struct("ManagementApi")
            .field("origin", origin)
            .field("path", path)
            .finish_non_exhaustive()
    }
}

impl ManagementApi {
    /// Posts to the management endpoint `endpoint`, such as
    /// `https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/production`, with at most `connections` idle
    /// connections, and with the Region and the credentials of `aws`.
    ///
    /// # Errors
    /// [`InvalidEndpoint`].
    pub fn new(aws: &SdkConfig, endpoint: &str, connections: usize) -> Result<Self, InvalidEndpoint> {
        Self::build(aws, endpoint, connections, tls::client_config)
    }

    /// The same, with a TLS configuration of the caller's.
    ///
    /// # Errors
    /// [`InvalidEndpoint`].
    pub fn with_tls(
        aws: &SdkConfig,
        endpoint: &str,
        connections: usize,
        tls: ClientConfig,
    ) -> Result<Self, InvalidEndpoint> {
        Self::build(aws, endpoint, connections, || Ok(tls))
    }

    fn build(
        aws: &SdkConfig,
        endpoint: &str,
        connections: usize,
        tls: impl FnOnce() -> Result<ClientConfig, rustls::Error>,
    ) -> Result<Self, InvalidEndpoint> {
        let uri: Uri = endpoint.parse().map_err(|_| InvalidEndpoint::Url)?;
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(InvalidEndpoint::Url);
        };
        let (tls, default_port) = match scheme {
            "https" => (Some(tls()?), 443),
            "http" => (None, 80),
            _ => return Err(InvalidEndpoint::Url),
        };
        let port = uri.port_u16().unwrap_or(default_port);
        let authority = if port == default_port { host.to_owned() } else { format!("{host}:{port}") };
        let path = format!("{}/@connections/", uri.path().trim_end_matches('/'));
        let region = aws.region().ok_or(InvalidEndpoint::Region)?.as_ref();
        let credentials = aws.credentials_provider().ok_or(InvalidEndpoint::Credentials)?;
        Ok(Self {
            pool: Pool::new(host, port, tls, connections).ok_or(InvalidEndpoint::Url)?,
            signer: Signer::new(credentials, region, &authority),
            origin: format!("{scheme}://{authority}"),
            canonical_path: utf8_percent_encode(&path, RESERVED_IN_PATHS).to_string(),
            path,
            host: authority,
            skew: Skew::default(),
        })
    }
}

impl Gateway for ManagementApi {
    async fn post(&self, connection: &ConnectionId, payload: Bytes) -> PostResult {
        // The path is encoded once where it is sent, and twice where it is signed.
        let (mut path, mut canonical) = (self.path.clone(), self.canonical_path.clone());
        for piece in utf8_percent_encode(connection.as_str(), RESERVED) {
            path.push_str(piece);
            match piece.strip_prefix('%') {
                Some(digits) => canonical.extend(["%25", digits]),
                None => canonical.push_str(piece),
            }
        }
        let mut repeated = false;
        loop {
            let wall = now();
            let at = self.skew.correct(wall);
            let signed = match self.signer.sign(&canonical, &payload, at).await {
                Ok(signed) => signed,
                Err(error) => return PostResult::Broken(error),
            };
            let (origin, host) = (&self.origin, &self.host);
            let post = Post { origin, host, path: &path, signed: &signed, payload: &payload };
            match self.pool.send(&post, wall).await {
                Ok(Answered { date: Some(date), .. }) if !repeated && self.skew.learn(date, wall, at) => {
                    repeated = true;
                }
                Ok(Answered { status, message, .. }) => return PostResult::Status { status, message },
                Err(Failure::Broken(error)) => return PostResult::Broken(error),
                Err(Failure::Timeout) => return PostResult::Timeout,
                Err(Failure::Lost(error)) => return PostResult::ConnectionLost(error),
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a signature holds the wall clock's time, also in tests")]
fn now() -> SystemTime {
    SystemTime::now()
}
