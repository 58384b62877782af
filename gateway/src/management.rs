//! The management API of one endpoint.

use std::{fmt, time::SystemTime};

use aws_config::SdkConfig;
use bytes::Bytes;
use http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::ClientConfig;
use streamer_environment::tls;
use streamer_message::ConnectionId;

use crate::{
    Gateway, PostResult,
    connection::Failure,
    pool::Pool,
    post::{PostRequest, PostResponse},
    sign::Signer,
    skew::Skew,
};

/// All characters except RFC 3986's unreserved ones, as Signature Version 4 requires.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The same set for whole paths.
const RESERVED_IN_PATHS: &AsciiSet = &RESERVED.remove(b'/');

/// API Gateway's `PostToConnection` at one management endpoint.
pub struct ManagementApi {
    pool: Pool,
    signer: Signer,
    /// The scheme and the authority, which HTTP/2 needs.
    origin: String,
    /// The path up to the connection id, as it is sent.
    path: String,
    /// The path up to the connection id, as it is signed.
    canonical_path: String,
    host: String,
    skew: Skew,
}

/// A management endpoint to which posts cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEndpoint {
    /// The endpoint is not an `http` or `https` URL.
    #[error("the management endpoint is not an http or https URL with a host: correct the URL")]
    Url,
    /// There is no Region to sign posts for.
    #[error("no Region is configured: set AWS_REGION, as Lambda does")]
    Region,
    /// There are no credentials to sign posts with.
    #[error("no credentials are configured: run with a role, as Lambda does")]
    Credentials,
    /// TLS cannot be set up.
    #[error("failed to set up TLS")]
    Tls(#[from] rustls::Error),
}

/// Omits payloads and credentials.
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
    /// Builds a client of the management endpoint `endpoint`, such as
    /// `https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/production`. It keeps at most `max_idle` idle
    /// connections, and uses the Region and the credentials of `aws`.
    ///
    /// # Errors
    /// [`InvalidEndpoint`], which names the setting to correct.
    pub fn new(aws: &SdkConfig, endpoint: &str, max_idle: usize) -> Result<Self, InvalidEndpoint> {
        Self::build(aws, endpoint, max_idle, tls::client_config)
    }

    /// Builds a client with the caller's TLS configuration.
    ///
    /// # Errors
    /// [`InvalidEndpoint`], which names the setting to correct.
    pub fn with_tls(
        aws: &SdkConfig,
        endpoint: &str,
        max_idle: usize,
        tls: ClientConfig,
    ) -> Result<Self, InvalidEndpoint> {
        Self::build(aws, endpoint, max_idle, || Ok(tls))
    }

    fn build(
        aws: &SdkConfig,
        endpoint: &str,
        max_idle: usize,
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
            pool: Pool::new(host, port, tls, max_idle).ok_or(InvalidEndpoint::Url)?,
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
        // Signature Version 4 signs the path encoded twice, and HTTP sends it encoded once.
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
            let signature = match self.signer.sign(&canonical, &payload, at).await {
                Ok(signature) => signature,
                Err(error) => return PostResult::Broken(error),
            };
            let (origin, host) = (&self.origin, &self.host);
            let (path, signature, payload) = (&path, &signature, &payload);
            let post = PostRequest { origin, host, path, signature, payload };
            match self.pool.send(&post, wall).await {
                Ok(PostResponse { date: Some(date), .. }) if !repeated && self.skew.learn(date, wall, at) => {
                    repeated = true;
                }
                Ok(PostResponse { status, message, .. }) => return PostResult::Status { status, message },
                Err(Failure::Broken(error)) => return PostResult::Broken(error),
                Err(Failure::Timeout) => return PostResult::Timeout,
                Err(Failure::Lost(error)) => return PostResult::ConnectionLost(error),
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "signatures need the real wall clock, also in tests")]
fn now() -> SystemTime {
    SystemTime::now()
}
