//! A WebSocket client that receives each message once.

use std::collections::HashSet;

use anyhow::Context as _;
use serde_json::Value;
use streamer_cli::stack::socket::{Frame, Socket};

use crate::DEADLINE;

/// A connected client that drops messages which it has already received, as every client has to: delivery is at
/// least once.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    received: HashSet<String>,
}

impl Client {
    /// Wraps a connected socket.
    #[must_use]
    pub fn new(socket: Socket) -> Self {
        Self { socket, received: HashSet::new() }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn send(&mut self, request: &Value) -> anyhow::Result<()> {
        self.socket.send(request).await
    }

    /// Sends a text that need not be JSON.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn send_text(&mut self, text: &str) -> anyhow::Result<()> {
        self.socket.send_text(text).await
    }

    /// Waits for the next new message, which the error calls `expected`.
    ///
    /// # Errors
    /// When no frame arrives within [`DEADLINE`], or the connection is closed.
    pub async fn next(&mut self, expected: &str) -> anyhow::Result<Frame> {
        loop {
            let frame = self.socket.next(DEADLINE).await;
            let frame = frame.with_context(|| format!("{expected} did not arrive"))?;
            if self.received.insert(id(&frame)) {
                return Ok(frame);
            }
        }
    }

    /// Closes the connection, and waits for the other side to close it too.
    ///
    /// # Errors
    /// When the connection broke before, or the other side does not close it in time.
    pub async fn close(self) -> anyhow::Result<()> {
        self.socket.close().await
    }
}

/// The message's id; the whole text of a payload that has none.
fn id(frame: &Frame) -> String {
    let id = frame.json().ok().and_then(|payload| Some(payload.get("id")?.as_str()?.to_owned()));
    id.unwrap_or_else(|| frame.text.clone())
}
