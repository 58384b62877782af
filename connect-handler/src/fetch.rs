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

use crate::{jwks::Fetch, keys::KeySet};

/// Bytes of an answer, at most.
const BYTES: usize = 256 * 1024;

/// Where an issuer's configuration stands (OpenID Connect Discovery 1.0, section 4).
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// A URL that keys may come from: HTTPS, or HTTP on this machine.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyUrl {
    url: String,
    is_loopback: bool,
}

/// Where the set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// At this URL.
    Url(KeyUrl),
    /// Where the configuration of the issuer says.
    Issuer(KeyUrl),
}

/// Fetches a set over HTTP. It trusts the system's certificate authorities: an issuer is not Amazon.
#[derive(Debug)]
pub struct HttpFetch {
    source: Source,
}

/// What an issuer's configuration says, of which only this counts here.
#[derive(Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
}

impl KeyUrl {
    /// Takes a URL as it is: HTTPS, or HTTP with a loopback host.
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
        // Credentials in a URL end up in logs.
        let bare = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        (allowed && bare).then(|| Self { url: url.to_owned(), is_loopback: loopback })
    }

    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.url
    }
}

impl HttpFetch {
    /// Fetches from `source`.
    #[must_use]
    pub fn new(source: Source) -> Self {
        Self { source }
    }

    async fn get(url: &KeyUrl) -> Result<Vec<u8>, String> {
        // A new one each time: a connection that is kept would not survive the hour until the next.
        let connector = Connector::builder().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build();
        let mut request = HttpRequest::new(SdkBody::empty());
        request.set_uri(url.as_str()).map_err(|error| chain(&error))?;
        request.headers_mut().insert("accept", "application/json");
        let response = connector.call(request).await.map_err(|error| chain(&error))?;
        // A redirection is no answer: who may answer is configured.
        if response.status().as_u16() != 200 {
            return Err(format!("status {}", response.status().as_u16()));
        }
        let (mut body, mut bytes) = (response.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| format!("the answer broke off: {error}"))?;
            bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            if bytes.len() > BYTES {
                return Err(format!("the answer has more than {BYTES} bytes"));
            }
        }
        Ok(bytes)
    }

    async fn discover(issuer: &KeyUrl) -> Result<KeyUrl, String> {
        let at = format!("{}{DISCOVERY}", issuer.as_str().trim_end_matches('/'));
        let at = KeyUrl { url: at, is_loopback: issuer.is_loopback };
        let json = Self::get(&at).await.map_err(|error| format!("{DISCOVERY}: {error}"))?;
        let found: Configuration = serde_json::from_slice(&json)
            .map_err(|_| format!("{DISCOVERY} is no configuration of an issuer"))?;
        if found.issuer != issuer.as_str() {
            return Err(format!("{DISCOVERY} is that of another issuer"));
        }
        // What an issuer says does not make anybody ask this machine, unless the issuer is on it.
        let found = KeyUrl::new(&found.jwks_uri).filter(|found| issuer.is_loopback || !found.is_loopback);
        found.ok_or_else(|| format!("the jwks_uri of {DISCOVERY} is no https URL"))
    }
}

impl Fetch for HttpFetch {
    async fn fetch(&self) -> Result<KeySet, String> {
        let url = match &self.source {
            Source::Url(url) => url.clone(),
            Source::Issuer(issuer) => Self::discover(issuer).await?,
        };
        KeySet::from_json(&Self::get(&url).await?).map_err(|error| error.to_string())
    }
}

/// Without path and query, which may be confidential.
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
    fn keys_come_over_https_or_from_this_machine() {
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
