//! Signed posts to the management endpoint, byte by byte.

use std::time::{Duration, Instant, SystemTime};

use aws_config::SdkConfig;
use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use streamer_gateway::sign::{CONTENT_TYPE, Signature, Signer, X_AMZ_DATE, X_AMZ_SECURITY_TOKEN};
use tokio::{io::AsyncWriteExt as _, time::timeout};

use super::{
    answer::Answer,
    net::{Duplex, Server},
};

/// HTTP/1.1's name in ALPN.
pub(super) const HTTP1: &str = "http/1.1";

/// HTTP/2's name in ALPN.
pub(super) const HTTP2: &str = "h2";

/// Maximum time to write a post, and of a whole post over HTTP/2.
const POST_TIMEOUT: Duration = Duration::from_secs(10);

/// RFC 3986's reserved characters, as Signature Version 4 encodes them.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The same set for whole paths.
const RESERVED_IN_PATHS: &AsciiSet = &RESERVED.remove(b'/');

/// Posts to connections of one management endpoint.
pub(super) struct Probe {
    /// The endpoint's server.
    pub(super) server: Server,
    origin: String,
    authority: String,
    path: String,
    signer: Signer,
}

/// A connection over HTTP/1.1.
pub(super) struct Wire {
    stream: Box<dyn Duplex>,
    buffer: Vec<u8>,
}

fn no_answer() -> String {
    format!("no answer within {} s", POST_TIMEOUT.as_secs())
}

/// A post as it is sent.
struct Prepared {
    path: String,
    signature: Signature,
    payload: Bytes,
}

impl Probe {
    /// Creates a probe of an endpoint. Returns `None` if it is not an http or https URL, or there is no Region or
    /// provider of credentials.
    pub(super) fn new(config: &SdkConfig, endpoint: &str) -> Option<Self> {
        let server = Server::parse(endpoint)?;
        let uri: Uri = endpoint.parse().ok()?;
        let (scheme, authority) = (uri.scheme_str()?, uri.authority()?.as_str().to_owned());
        let signer = Signer::new(config.credentials_provider()?, config.region()?.as_ref(), &authority);
        let path = format!("{}/@connections/", uri.path().trim_end_matches('/'));
        (scheme == "http" || scheme == "https").then(|| Self {
            server,
            origin: format!("{scheme}://{authority}"),
            authority,
            path,
            signer,
        })
    }

    /// Opens a connection over HTTP/1.1.
    ///
    /// # Errors
    /// The reason as text.
    pub(super) async fn open(&self) -> Result<Wire, String> {
        let opened = self.server.open(&[HTTP1]).await?;
        Ok(Wire { stream: opened.stream, buffer: Vec::new() })
    }

    /// Posts over a connection, and returns the answer and the time until its end.
    ///
    /// # Errors
    /// The reason as text.
    pub(super) async fn post(
        &self,
        wire: &mut Wire,
        connection: &str,
        payload: impl Into<Bytes>,
    ) -> Result<(Answer, Duration), String> {
        let Prepared { path, signature, payload } = self.prepare(connection, payload.into()).await?;
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {}\r\n",
            self.authority,
            payload.len()
        )
        .into_bytes();
        let mut header = |name: &str, value: &[u8]| {
            request.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        };
        header(X_AMZ_DATE.as_str(), signature.date.as_bytes());
        if let Some(token) = &signature.token {
            header(X_AMZ_SECURITY_TOKEN.as_str(), token.as_bytes());
        }
        header("authorization", &signature.authorization);
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(&payload);
        let began = Instant::now();
        // A server may answer and close before it has read a payload that is too large.
        let written = match timeout(POST_TIMEOUT, wire.stream.write_all(&request)).await {
            Ok(written) => written,
            Err(_) => return Err(format!("the request was not read within {} s", POST_TIMEOUT.as_secs())),
        };
        match (Answer::read(&mut wire.stream, &mut wire.buffer).await, written) {
            (Ok(answer), _) => Ok((answer, began.elapsed())),
            (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error.to_string()),
        }
    }

    /// Posts over a connection of its own.
    ///
    /// # Errors
    /// The reason as text.
    pub(super) async fn post_once(
        &self,
        connection: &str,
        payload: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let mut wire = self.open().await?;
        Ok(self.post(&mut wire, connection, payload).await?.0)
    }

    /// Posts over HTTP/2, and returns the status and the time until the end of the answer.
    ///
    /// # Errors
    /// The reason as text.
    pub(super) async fn post_http2(
        &self,
        connection: &str,
        payload: Bytes,
    ) -> Result<(u16, Duration), String> {
        let Prepared { path, signature, payload } = self.prepare(connection, payload).await?;
        let opened = self.server.open(&[HTTP2]).await?;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(opened.stream));
        let handshake = timeout(POST_TIMEOUT, handshake).await.map_err(|_| no_answer())?;
        let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
        let driver = tokio::spawn(connection);
        let request = http::Request::post(format!("{}{path}", self.origin))
            .header("content-type", CONTENT_TYPE)
            .header(X_AMZ_DATE, signature.date)
            .header("authorization", signature.authorization);
        let request = signature
            .token
            .into_iter()
            .fold(request, |request, token| request.header(X_AMZ_SECURITY_TOKEN, token));
        let request = request.body(Full::new(payload)).map_err(|error| error.to_string())?;
        let began = Instant::now();
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let status = response.status().as_u16();
            response.into_body().collect().await.map_err(|error| error.to_string())?;
            Ok((status, began.elapsed()))
        };
        let answered = timeout(POST_TIMEOUT, exchange).await;
        driver.abort();
        answered.unwrap_or_else(|_| Err(no_answer()))
    }

    async fn prepare(&self, connection: &str, payload: Bytes) -> Result<Prepared, String> {
        let path = format!("{}{}", self.path, utf8_percent_encode(connection, RESERVED));
        // Signature Version 4 signs the path encoded twice, and HTTP sends it encoded once.
        let canonical = utf8_percent_encode(&path, RESERVED_IN_PATHS).to_string();
        let signature = self.signer.sign(&canonical, &payload, SystemTime::now()).await?;
        Ok(Prepared { path, signature, payload })
    }
}
