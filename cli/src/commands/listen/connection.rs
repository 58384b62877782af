//! One WebSocket connection, over TCP or TLS.

use std::{fmt, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use streamer_environment::tls;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{
        self, ClientRequestBuilder, Message, Utf8Bytes,
        http::{Response, Uri},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use crate::screen::sanitize;

/// Time that an opening handshake may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Time that a closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum characters of a response that are shown.
const MAX_REASON: usize = 200;

/// A connected client.
pub(super) struct Connection {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The server's closing handshake, with its code and reason if it has them.
    close: Option<Option<CloseFrame>>,
}

/// An event of a connection.
pub(super) enum Received {
    /// A text frame.
    Text(String),
    /// A binary frame, with its number of bytes.
    Binary(usize),
    /// The connection has ended. The text says why.
    Closed(String),
}

/// A failure to connect.
#[derive(Debug)]
pub(super) enum NotConnected {
    /// The server answered the handshake with another status.
    Refused { status: u16, reason: Option<String> },
    /// The URL or the server's certificate is invalid.
    Invalid(anyhow::Error),
    /// The server could not be reached.
    Unreachable(anyhow::Error),
}

impl NotConnected {
    /// Returns whether another try would end in the same way.
    pub(super) fn is_final(&self) -> bool {
        match self {
            // 408 and 429 ask for another try, and 5xx may pass.
            Self::Refused { status, .. } => *status < 500 && ![408, 429].contains(status),
            Self::Invalid(_) => true,
            Self::Unreachable(_) => false,
        }
    }

    fn of(error: tungstenite::Error) -> Self {
        use tungstenite::Error;
        match error {
            Error::Http(response) => {
                Self::Refused { status: response.status().as_u16(), reason: reason(&response) }
            }
            // rustls reports a certificate that it does not trust in this way.
            Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                Self::Invalid(anyhow!(error).context("the TLS handshake failed"))
            }
            Error::Io(error) => Self::Unreachable(error.into()),
            error => Self::Invalid(error.into()),
        }
    }
}

impl fmt::Display for NotConnected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { status, reason: Some(reason) } => {
                write!(formatter, "the handshake was refused with status {status}: {reason}")
            }
            Self::Refused { status, reason: None } => {
                write!(formatter, "the handshake was refused with status {status}")
            }
            Self::Invalid(error) | Self::Unreachable(error) => write!(formatter, "cannot connect: {error:#}"),
        }
    }
}

/// Returns the reason in a response's body: a text, or the text that a JSON object has for `error` or `message`.
fn reason(response: &Response<Option<Vec<u8>>>) -> Option<String> {
    let body = String::from_utf8_lossy(response.body().as_ref()?).into_owned();
    let object: Option<Value> = serde_json::from_str(&body).ok();
    let field = |name| object.as_ref()?.get(name)?.as_str();
    let text = ["error", "message"].into_iter().find_map(field).unwrap_or(&body).trim();
    (!text.is_empty()).then(|| sanitize(text).chars().take(MAX_REASON).collect())
}

impl Connection {
    /// Connects with a token in the header `Authorization`.
    pub(super) async fn open(url: &str, token: &str, user_agent: &str) -> Result<Self, NotConnected> {
        let uri: Uri = url.parse().context("the URL is malformed").map_err(NotConnected::Invalid)?;
        let connector = match uri.scheme_str() {
            Some("wss") => Connector::Rustls(Arc::new(
                tls::client_config().map_err(|e| NotConnected::Invalid(e.into()))?,
            )),
            _ => Connector::Plain,
        };
        let request = ClientRequestBuilder::new(uri)
            .with_header("Authorization", format!("Bearer {token}"))
            .with_header("User-Agent", user_agent);
        let opening = connect_async_tls_with_config(request, None, false, Some(connector));
        match timeout(OPEN_TIMEOUT, opening).await {
            Ok(Ok((socket, _))) => Ok(Self { socket, close: None }),
            Ok(Err(error)) => Err(NotConnected::of(error)),
            Err(_) => {
                let seconds = OPEN_TIMEOUT.as_secs();
                Err(NotConnected::Unreachable(anyhow!("no answer to the handshake within {seconds} s")))
            }
        }
    }

    /// Waits for the next event. Dropping the future loses none.
    pub(super) async fn next(&mut self) -> Received {
        loop {
            let next = self.socket.next();
            let next = match &self.close {
                // The server has to end the TCP connection now.
                Some(_) => timeout(CLOSE_TIMEOUT, next).await.unwrap_or_default(),
                None => next.await,
            };
            match next {
                Some(Ok(Message::Text(text))) => return Received::Text(text.as_str().to_owned()),
                Some(Ok(Message::Binary(bytes))) => return Received::Binary(bytes.len()),
                Some(Ok(Message::Close(frame))) => self.close = Some(frame),
                Some(Ok(_)) => {}
                Some(Err(error)) if self.close.is_none() => return Received::Closed(error.to_string()),
                Some(Err(_)) | None => return Received::Closed(describe(self.close.as_ref())),
            }
        }
    }

    /// Sends a text frame.
    pub(super) async fn send(&mut self, text: String) -> Result<(), tungstenite::Error> {
        self.socket.send(Message::text(text)).await
    }

    /// Sends a ping.
    pub(super) async fn ping(&mut self) -> Result<(), tungstenite::Error> {
        self.socket.send(Message::Ping(Vec::new().into())).await
    }

    /// Closes the connection with a closing handshake.
    pub(super) async fn close(mut self) {
        let closing = async {
            let normal = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
            self.socket.close(Some(normal)).await?;
            while let Some(Ok(_)) = self.socket.next().await {}
            Ok::<_, tungstenite::Error>(())
        };
        // The process ends in any case.
        _ = timeout(CLOSE_TIMEOUT, closing).await;
    }
}

fn describe(close: Option<&Option<CloseFrame>>) -> String {
    match close {
        None => "the server ended the connection without a closing handshake".to_owned(),
        Some(None) => "the server closed the connection without a code".to_owned(),
        Some(Some(CloseFrame { code, reason })) => {
            let (code, reason) = (u16::from(*code), sanitize(reason.as_str()));
            let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
            format!("the server closed the connection with code {code}{reason}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, body: &str) -> NotConnected {
        let response = Response::builder().status(status).body(Some(body.as_bytes().to_vec())).unwrap();
        NotConnected::of(tungstenite::Error::Http(Box::new(response)))
    }

    #[test]
    fn refusal_shows_status_and_reason() {
        for (body, text) in [
            (r#"{"error":"token_expired"}"#, "the handshake was refused with status 401: token_expired"),
            (r#"{"message":"Unauthorized"}"#, "the handshake was refused with status 401: Unauthorized"),
            ("not\u{1b}now\n", "the handshake was refused with status 401: not\u{fffd}now"),
            ("", "the handshake was refused with status 401"),
        ] {
            assert_eq!(refused(401, body).to_string(), text);
        }
    }

    #[test]
    fn only_passing_failures_are_tried_again() {
        let is_final = |status| refused(status, "").is_final();
        assert_eq!([401, 403, 404, 200, 301].map(is_final), [true; 5]);
        assert_eq!([408, 429, 500, 502, 503].map(is_final), [false; 5]);
        let io = |kind: std::io::ErrorKind| NotConnected::of(tungstenite::Error::Io(kind.into()));
        assert!(!io(std::io::ErrorKind::ConnectionRefused).is_final());
        assert!(io(std::io::ErrorKind::InvalidData).is_final(), "a certificate that is not trusted");
    }
}
