//! A stub of Lambda's Runtime API for one process.
//!
//! Source: <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>.

use std::{
    net::Ipv4Addr,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// Time that an invocation may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The Runtime API of one function.
#[derive(Debug)]
pub struct RuntimeApi {
    listener: TcpListener,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

/// The result of an invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A response.
    Response(String),
    /// An error that the function reported.
    Error(String),
}

impl RuntimeApi {
    /// Listens on loopback.
    ///
    /// # Errors
    /// When no port is available.
    pub async fn listen() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        Ok(Self { listener, stream: None, buffer: Vec::new() })
    }

    /// Returns the environment variables that a function needs to connect to this API.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn variables(&self) -> anyhow::Result<[(&'static str, String); 4]> {
        Ok([
            ("AWS_LAMBDA_RUNTIME_API", self.listener.local_addr()?.to_string()),
            ("AWS_LAMBDA_FUNCTION_NAME", "streamer".to_owned()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512".to_owned()),
            ("AWS_LAMBDA_FUNCTION_VERSION", "1".to_owned()),
        ])
    }

    /// Waits for the function to request an invocation.
    ///
    /// # Errors
    /// When the function sends another request.
    pub async fn poll(&mut self) -> anyhow::Result<()> {
        let (head, _) = self.request().await?;
        ensure!(
            head.starts_with("GET ") && head.contains("/invocation/next"),
            "expected a request for the next invocation, got: {head}"
        );
        Ok(())
    }

    /// Answers the pending request with an event, and waits for the result.
    ///
    /// # Errors
    /// When the function reports no result.
    pub async fn invoke(&mut self, event: &str) -> anyhow::Result<Answer> {
        let deadline = SystemTime::now() + TIMEOUT;
        let deadline = deadline.duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
        self.answer(&format!(
            "HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: 1\r\nLambda-Runtime-Deadline-Ms: {deadline}\r\n\
             Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:eu-central-1:000000000000:function:streamer\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{event}",
            event.len()
        ))
        .await?;
        let (head, body) = self.request().await?;
        self.answer("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await?;
        let path = head.split(' ').nth(1).unwrap_or_default();
        ensure!(head.starts_with("POST "), "expected a response or an error, got: {head}");
        Ok(if path.ends_with("/response") { Answer::Response(body) } else { Answer::Error(body) })
    }

    /// Reads the next request and returns its head and body.
    async fn request(&mut self) -> anyhow::Result<(String, String)> {
        loop {
            if self.stream.is_none() {
                let (stream, _) = self.listener.accept().await?;
                stream.set_nodelay(true)?;
                self.stream = Some(stream);
                self.buffer.clear();
            }
            let stream = self.stream.as_mut().context("no connection")?;
            if let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                let lower = head.to_ascii_lowercase();
                let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next());
                let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
                let (body, end) = (end + 4, end + 4 + length);
                while self.buffer.len() < end {
                    ensure!(
                        stream.read_buf(&mut self.buffer).await? > 0,
                        "the function closed the connection in the middle of a request"
                    );
                }
                let body = String::from_utf8_lossy(&self.buffer[body..end]).into_owned();
                self.buffer.drain(..end);
                return Ok((head, body));
            }
            if stream.read_buf(&mut self.buffer).await? == 0 {
                self.stream = None;
            }
        }
    }

    async fn answer(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(self.stream.as_mut().context("no connection")?.write_all(text.as_bytes()).await?)
    }
}
