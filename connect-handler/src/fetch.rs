//! Fetches a JWK set over HTTPS, from its URL or by OpenID Connect discovery.

use std::fmt;

use aws_smithy_http_client::{
    Connector,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{http::HttpConnector, orchestrator::HttpRequest};
use aws_smithy_types::body::SdkBody;
use http::Uri;
use http_body_util::BodyExt as _;
use serde::Deserialize;
use streamer_environment::aws::chain;

use crate::{issuer::IssuerName, jwks::Fetch, keys::KeySet};

/// Maximum bytes of a response.
const MAX_BYTES: usize = 256 * 1024;

/// Path of an issuer's configuration (OpenID Connect Discovery 1.0, section 4).
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// A URL that keys may be fetched from: HTTPS, or HTTP with a loopback host.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyUrl {
    url: String,
    is_loopback: bool,
}

/// The location of a JWK set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The URL of the set.
    Url(KeyUrl),
    /// An issuer, whose configuration at this URL names the URL of the set.
    Issuer(IssuerName, KeyUrl),
}

/// Fetches a JWK set over HTTP. It trusts the system's certificate authorities, since an issuer is not an AWS endpoint.
#[derive(Debug)]
pub struct HttpFetch {
    source: Source,
}

/// The members of an issuer's configuration that discovery uses.
#[derive(Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
}

impl KeyUrl {
    /// Accepts an HTTPS URL, or an HTTP URL with a loopback host, both without credentials. Returns `None` for others.
    #[must_use]
    pub fn new(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let host = uri.host().filter(|host| !host.is_empty())?;
        let loopback = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        let allowed = match uri.scheme_str()? {
            "https" => true,
            "http" => loopback,
            _ => false,
        };
        // Credentials in a URL would end up in logs.
        let no_credentials = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        (allowed && no_credentials).then(|| Self { url: url.to_owned(), is_loopback: loopback })
    }

    /// Returns the URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.url
    }
}

impl HttpFetch {
    /// Creates a fetcher for `source`.
    #[must_use]
    pub fn new(source: Source) -> Self {
        Self { source }
    }

    async fn get(url: &KeyUrl) -> Result<Vec<u8>, String> {
        // A new client each time: a kept connection would not survive the hour until the next fetch.
        let connector = Connector::builder().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build();
        let mut request = HttpRequest::new(SdkBody::empty());
        request.set_uri(url.as_str()).map_err(|error| chain(&error))?;
        request.headers_mut().insert("accept", "application/json");
        let response = connector.call(request).await.map_err(|error| chain(&error))?;
        // Redirects are not followed: keys come only from the configured host.
        if response.status().as_u16() != 200 {
            return Err(format!("the response has status {}", response.status().as_u16()));
        }
        let (mut body, mut bytes) = (response.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| format!("the response was cut off: {error}"))?;
            bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            if bytes.len() > MAX_BYTES {
                return Err(format!("the response has more than {MAX_BYTES} bytes"));
            }
        }
        Ok(bytes)
    }

    async fn discover(issuer: &IssuerName, base: &KeyUrl) -> Result<KeyUrl, String> {
        let url = format!("{}{DISCOVERY}", base.as_str().trim_end_matches('/'));
        let url = KeyUrl { url, is_loopback: base.is_loopback };
        let json = Self::get(&url).await.map_err(|error| format!("{DISCOVERY}: {error}"))?;
        let found: Configuration = serde_json::from_slice(&json)
            .map_err(|_| format!("{DISCOVERY} is not an OpenID Connect configuration"))?;
        if found.issuer != issuer.as_str() {
            return Err(format!("{DISCOVERY} names another issuer than JWT_ISSUER"));
        }
        // A remote issuer must not direct requests to this machine.
        let found = KeyUrl::new(&found.jwks_uri).filter(|found| base.is_loopback || !found.is_loopback);
        found.ok_or_else(|| format!("the jwks_uri in {DISCOVERY} is not an https URL"))
    }
}

impl Fetch for HttpFetch {
    async fn fetch(&self) -> Result<KeySet, String> {
        let url = match &self.source {
            Source::Url(url) => url.clone(),
            Source::Issuer(issuer, base) => Self::discover(issuer, base).await?,
        };
        KeySet::from_json(&Self::get(&url).await?).map_err(|error| error.to_string())
    }
}

/// Omits path and query, which may be confidential.
impl fmt::Debug for KeyUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
        formatter.debug_tuple("KeyUrl").field(&host).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_urls_are_https_or_loopback() {
        for url in [
            "https://auth.example.com/keys?v=1",
            "http://127.0.0.1:9/keys",
            "http://localhost/",
            "http://[::1]:9/",
        ] {
            assert!(KeyUrl::new(url).is_some(), "{url}");
        }
        for url in [
            "http://auth.example.com/keys",
            "http://127.0.0.1.example.com/",
            "http://localhost.example.com/",
            "https://user:password@auth.example.com/",
            "http://127.0.0.1@example.com/",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "auth.example.com",
            "https://",
            "",
        ] {
            assert!(KeyUrl::new(url).is_none(), "{url}");
        }
    }
}
