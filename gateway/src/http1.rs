//! HTTP/1.1 (RFC 9112) for posts only.
//!
//! A general client passes each request to the task that drives the connection, and the response back. Here the
//! post itself drives the connection, with one write and usually one read. A connection is reused only after a
//! response that declares its length, or is chunked, and was read to its end. After any other response it is closed.

use std::{io, time::SystemTime};

use futures::FutureExt as _;
use http::HeaderValue;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::client::TlsStream;

use crate::{
    chunked::ChunkedBody,
    post::{BODY_TIMEOUT, MAX_BODY_BYTES, PostRequest, PostResponse},
    sign::CONTENT_TYPE,
    skew,
};

/// Maximum number of bytes of a response's head.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Maximum number of headers of a response.
pub(crate) const MAX_HEADERS: usize = 64;

/// Payloads up to this number of bytes are appended to the head, so that one write sends both.
const MAX_COPIED_BYTES: usize = 4 * 1024;

/// A connection for one post at a time.
pub struct Http1 {
    stream: Stream,
    buffer: Vec<u8>,
    /// The end of the latest post, by the pool's clock. `None` before the first post.
    pub(crate) idle_since: Option<Instant>,
}

/// A byte stream with or without TLS.
pub enum Stream {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// The head of a response.
struct Head {
    status: u16,
    framing: Framing,
    /// Whether the connection can be reused after this response.
    is_reusable: bool,
    /// The header `Date`, if the status is 403.
    date: Option<SystemTime>,
}

/// How the end of a response's body is found (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// By its length.
    Length(usize),
    /// By its last chunk.
    Chunked,
    /// By the end of the connection.
    Close,
}

impl Stream {
    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    async fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let read = match self {
            Self::Plain(stream) => stream.read_buf(buffer).await?,
            Self::Tls(stream) => stream.read_buf(buffer).await?,
        };
        if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

impl Http1 {
    /// Wraps a new connection.
    pub fn new(stream: Stream) -> Self {
        Self { stream, buffer: Vec::with_capacity(2 * 1024), idle_since: None }
    }

    /// Returns whether the connection can be reused: it is open, and the host has sent nothing unrequested, such as a
    /// 408 before it closes. The next post must not take that for its response.
    pub fn is_idle(&mut self) -> bool {
        self.buffer.clear();
        self.stream.read(&mut self.buffer).now_or_never().is_none()
    }

    /// Sends a post, and returns the response and whether the connection can be reused.
    ///
    /// # Errors
    /// The error that prevented a complete response head.
    pub async fn send(&mut self, post: &PostRequest<'_>) -> io::Result<(PostResponse, bool)> {
        if let Err(error) = self.write(post).await {
            // The host may have refused the post before it received all of it.
            self.buffer.clear();
            let head = timeout(BODY_TIMEOUT, self.read_head()).await;
            let head = head.ok().and_then(Result::ok).ok_or(error)?;
            let response = PostResponse { status: head.status, message: String::new(), date: head.date };
            return Ok((response, false));
        }
        self.buffer.clear();
        let head = self.read_head().await?;
        let (message, is_complete) = match head.framing {
            // The body usually arrives with the head.
            Framing::Length(length) if length == self.buffer.len() => (self.text(length), true),
            Framing::Length(length) => {
                let is_complete = timeout(BODY_TIMEOUT, self.read_body(length)).await.unwrap_or(false);
                (self.text(length), is_complete && self.buffer.len() == length)
            }
            Framing::Chunked => {
                let mut body = ChunkedBody::default();
                let read = timeout(BODY_TIMEOUT, self.read_chunks(&mut body)).await;
                (String::from_utf8_lossy(&body.data).into_owned(), read.unwrap_or(false))
            }
            // The status alone decides, and the end may be far.
            Framing::Close if (200..300).contains(&head.status) => (String::new(), false),
            Framing::Close => {
                _ = timeout(BODY_TIMEOUT, self.read_body(MAX_BODY_BYTES)).await;
                (self.text(MAX_BODY_BYTES), false)
            }
        };
        let response = PostResponse { status: head.status, message, date: head.date };
        Ok((response, is_complete && head.is_reusable))
    }

    async fn write(&mut self, post: &PostRequest<'_>) -> io::Result<()> {
        let PostRequest { path, host, signature, payload, .. } = post;
        let head = &mut self.buffer;
        head.clear();
        head.extend_from_slice(b"POST ");
        head.extend_from_slice(path.as_bytes());
        head.extend_from_slice(b" HTTP/1.1");
        let mut header = |name: &str, value: &[u8]| {
            head.extend_from_slice(b"\r\n");
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value);
        };
        header("host", host.as_bytes());
        header("content-type", CONTENT_TYPE.as_bytes());
        header("content-length", HeaderValue::from(payload.len()).as_bytes());
        header("x-amz-date", signature.date.as_bytes());
        if let Some(token) = &signature.token {
            header("x-amz-security-token", token.as_bytes());
        }
        header("authorization", &signature.authorization);
        head.extend_from_slice(b"\r\n\r\n");
        if payload.len() <= MAX_COPIED_BYTES {
            head.extend_from_slice(payload);
            return self.stream.write_all(head).await;
        }
        self.stream.write_all(head).await?;
        self.stream.write_all(payload).await
    }

    /// Reads the head of the response, and leaves the bytes after it in the buffer. Skips interim responses (1xx).
    async fn read_head(&mut self) -> io::Result<Head> {
        loop {
            while let Some((head, length)) = parse(&self.buffer)? {
                self.buffer.drain(..length);
                match head.status {
                    101 => {
                        return Err(io::Error::other("the host switched protocols without a request (101)"));
                    }
                    100..=199 => {}
                    _ => return Ok(head),
                }
            }
            if self.buffer.len() > MAX_HEAD_BYTES {
                return Err(io::Error::other("the response head is too long: over 16 KiB"));
            }
            let has_begun = !self.buffer.is_empty();
            self.stream.read(&mut self.buffer).await.map_err(|error| {
                // The first byte of a response shows that the host has seen the post.
                if has_begun {
                    io::Error::other(format!("the response is incomplete: {error}"))
                } else {
                    error
                }
            })?;
        }
    }

    /// Returns up to so many bytes of the body as text.
    fn text(&self, length: usize) -> String {
        let body = &self.buffer[..self.buffer.len().min(length).min(MAX_BODY_BYTES)];
        String::from_utf8_lossy(body).into_owned()
    }

    /// Reads so many bytes of the body, or as many as matter, and returns whether there are as many.
    async fn read_body(&mut self, length: usize) -> bool {
        while self.buffer.len() < length.min(MAX_BODY_BYTES) {
            if self.stream.read(&mut self.buffer).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Reads a chunked body, and returns whether it is complete and no bytes follow it.
    async fn read_chunks(&mut self, body: &mut ChunkedBody) -> bool {
        loop {
            match body.decode(&self.buffer) {
                Ok(Some(length)) => return length == self.buffer.len(),
                Ok(None) => {}
                Err(_) => return false,
            }
            if self.stream.read(&mut self.buffer).await.is_err() {
                return false;
            }
        }
    }
}

/// Parses the head at the start of the buffer, and returns it with its length, or `None` if it is incomplete.
fn parse(buffer: &[u8]) -> io::Result<Option<(Head, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response
        .parse(buffer)
        .map_err(|error| io::Error::other(format!("the response is not HTTP: {error}")))?;
    let (httparse::Status::Complete(length), Some(status)) = (parsed, response.code) else { return Ok(None) };
    let is_http_1_1 = response.version == Some(1);
    let (mut body_length, mut codings) = (None, None);
    let mut head = Head { status, framing: Framing::Close, is_reusable: is_http_1_1, date: None };
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = content_length(header.value);
            // After an invalid length, or two that differ, the start of the next response is unknown.
            head.is_reusable &= length.is_some() && body_length.is_none_or(|other| Some(other) == length);
            body_length = length;
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            // A second field would add a coding.
            codings = Some(if codings.is_none() { header.value.trim_ascii() } else { b"" });
        } else if status == 403 && header.name.eq_ignore_ascii_case("date") {
            head.date = skew::read_date(header.value);
        } else if header.name.eq_ignore_ascii_case("connection") {
            let mut options = header.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            head.is_reusable &= !options.any(|option| option.eq_ignore_ascii_case(b"close"));
        }
    }
    // In the order of RFC 9112, section 6.3. A response with both a coding and a length may be an attempt to smuggle
    // another response, so its connection is not reused.
    head.framing = match (codings, body_length) {
        _ if matches!(status, 204 | 304) => Framing::Length(0),
        (Some(codings), length) => {
            let is_chunked = is_http_1_1 && codings.eq_ignore_ascii_case(b"chunked");
            head.is_reusable &= is_chunked && length.is_none();
            if is_chunked { Framing::Chunked } else { Framing::Close }
        }
        (None, Some(length)) => Framing::Length(length),
        (None, None) => Framing::Close,
    };
    Ok(Some((head, length)))
}

/// Parses a `Content-Length`, which consists of digits only (RFC 9110, section 8.6).
fn content_length(value: &[u8]) -> Option<usize> {
    let digits = std::str::from_utf8(value.trim_ascii()).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}
