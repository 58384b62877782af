//! A WebSocket client, in the role of a browser or a device.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        self, ClientRequestBuilder, Message,
        http::Uri,
        protocol::frame::coding::{Data, OpCode},
    },
};

/// Time that an opening or closing handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// A connected client.
#[derive(Debug)]
pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// A received text frame.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The text.
    pub text: String,
    /// The time of arrival.
    pub at: SystemTime,
}

/// A failure to connect.
#[derive(Debug)]
pub enum NotConnected {
    /// The server refused the handshake with this HTTP status.
    Refused(u16),
    /// The handshake failed for another reason.
    Failed(anyhow::Error),
}

impl Frame {
    /// Parses the text as JSON.
    ///
    /// # Errors
    /// When the text is not JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("not JSON: {}", self.text))
    }
}

impl std::fmt::Display for NotConnected {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(status) => write!(formatter, "the handshake was refused with status {status}"),
            Self::Failed(error) => write!(formatter, "the handshake failed: {error:#}"),
        }
    }
}

impl std::error::Error for NotConnected {}

impl Socket {
    /// Connects with a token in the header `Authorization`, or without one.
    ///
    /// # Errors
    /// [`NotConnected`].
    pub async fn connect(url: &str, token: Option<&str>) -> Result<Self, NotConnected> {
        let uri: Uri = url.parse().map_err(|error| NotConnected::Failed(anyhow::Error::new(error)))?;
        let request = ClientRequestBuilder::new(uri);
        let request = match token {
            Some(token) => request.with_header("Authorization", format!("Bearer {token}")),
            None => request,
        };
        match timeout(HANDSHAKE_TIMEOUT, connect_async(request)).await {
            Ok(Ok((socket, _))) => Ok(Self(socket)),
            Ok(Err(tungstenite::Error::Http(response))) => {
                Err(NotConnected::Refused(response.status().as_u16()))
            }
            Ok(Err(error)) => Err(NotConnected::Failed(error.into())),
            Err(late) => Err(NotConnected::Failed(late.into())),
        }
    }

    /// Sends a text frame with JSON.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn send(&mut self, json: &Value) -> anyhow::Result<()> {
        self.send_text(&json.to_string()).await
    }

    /// Sends a text frame.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn send_text(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(self.0.send(Message::text(text)).await?)
    }

    /// Sends a text message in several frames.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn send_fragments(&mut self, fragments: &[&str]) -> anyhow::Result<()> {
        let mut opcode = OpCode::Data(Data::Text);
        for (index, fragment) in fragments.iter().enumerate() {
            let is_last = index + 1 == fragments.len();
            let frame = tungstenite::protocol::frame::Frame::message(fragment.to_string(), opcode, is_last);
            self.0.send(Message::Frame(frame)).await?;
            opcode = OpCode::Data(Data::Continue);
        }
        Ok(())
    }

    /// Waits for the server to close the connection, and returns the code. Skips all other frames.
    ///
    /// # Errors
    /// When the server does not send a close frame with a code within `limit`.
    pub async fn closed(&mut self, limit: Duration) -> anyhow::Result<u16> {
        let closed = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Close(Some(close)))) => return Ok(close.code.into()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.into()),
                    None => bail!("the connection is closed without a code"),
                }
            }
        };
        timeout(limit, closed).await.with_context(|| format!("the connection is open after {limit:?}"))?
    }

    /// Waits for the next text frame.
    ///
    /// # Errors
    /// When no text frame arrives within `limit`, or the connection is closed.
    pub async fn next(&mut self, limit: Duration) -> anyhow::Result<Frame> {
        let next = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return Ok(Frame { text: text.as_str().to_owned(), at: SystemTime::now() });
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.into()),
                    None => bail!("the connection is closed"),
                }
            }
        };
        timeout(limit, next).await.with_context(|| format!("no frame arrived within {limit:?}"))?
    }

    /// Closes the connection with a closing handshake.
    ///
    /// # Errors
    /// When the connection broke before, or the server does not answer in time.
    pub async fn close(mut self) -> anyhow::Result<()> {
        let closing = async {
            self.0.close(None).await?;
            while let Some(Ok(_)) = self.0.next().await {}
            Ok(())
        };
        timeout(HANDSHAKE_TIMEOUT, closing)
            .await
            .context("the server did not complete the closing handshake")?
    }
}
