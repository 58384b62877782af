//! HTTP/1.1 (RFC 9112) for one kind of request: a post, and the answer to it.
//!
//! A general client hands a request to the task that drives its connection, and the answer back. Here the post
//! itself drives the connection, with one write and mostly one read. A connection takes the next post only
//! after an answer that says its length and was read to its end; after any other it is closed.

use std::{io, time::SystemTime};

use futures::FutureExt as _;
use http::HeaderValue;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use super::{Answered, BODY_BYTES, BODY_TIME, Post, sign::CONTENT_TYPE, skew};

/// Bytes of an answer's head, at most.
const HEAD_BYTES: usize = 16 * 1024;

/// Header lines of an answer's head, at most.
const HEADERS: usize = 64;

/// Payloads up to this size are copied behind the head, so that both leave with one write.
const COPIED: usize = 4 * 1024;

/// A connection that takes one post at a time.
pub struct Http1 {
    stream: Stream,
    buffer: Vec<u8>,
}

/// With TLS or without it.
pub enum Stream {
    /// Without.
    Plain(TcpStream),
    /// With.
    Tls(Box<TlsStream<TcpStream>>),
}

/// What an answer's head says.
struct Head {
    status: u16,
    /// The body's length, where the head says it.
    length: Option<usize>,
    /// Whether the host keeps the connection.
    kept: bool,
    /// Of a 403, its time.
    date: Option<SystemTime>,
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
    /// A fresh connection.
    pub fn new(stream: Stream) -> Self {
        Self { stream, buffer: Vec::with_capacity(2 * 1024) }
    }

    /// Whether the connection can take a post: open, and without a word from the host, who has nothing to say
    /// before it is asked. What it says all the same, such as a 408 before it closes, is no answer to the next
    /// post.
    pub fn is_idle(&mut self) -> bool {
        self.buffer.clear();
        self.stream.read(&mut self.buffer).now_or_never().is_none()
    }

    /// Posts, and returns the answer, and whether the connection takes another post.
    ///
    /// # Errors
    /// Whatever kept the answer's head from arriving whole.
    pub async fn send(&mut self, post: &Post<'_>) -> io::Result<(Answered, bool)> {
        if let Err(error) = self.write(post).await {
            // The host may have refused the post before it had all of it.
            self.buffer.clear();
            let head = timeout(BODY_TIME, self.read_head()).await;
            let head = head.ok().and_then(Result::ok).ok_or(error)?;
            return Ok((Answered { status: head.status, message: String::new(), date: head.date }, false));
        }
        self.buffer.clear();
        let head = self.read_head().await?;
        // Mostly the body has come with the head.
        let whole = head.length == Some(self.buffer.len())
            || timeout(BODY_TIME, self.read_body(head.length)).await.is_ok_and(|whole| whole);
        let body = &self.buffer[..self.buffer.len().min(head.length.unwrap_or(BODY_BYTES))];
        let message = String::from_utf8_lossy(body).into_owned();
        Ok((Answered { status: head.status, message, date: head.date }, whole && head.kept))
    }

    async fn write(&mut self, post: &Post<'_>) -> io::Result<()> {
        let Post { path, host, signed, payload, .. } = post;
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
        header("x-amz-date", signed.date.as_bytes());
        if let Some(token) = &signed.token {
            header("x-amz-security-token", token.as_bytes());
        }
        header("authorization", &signed.authorization);
        head.extend_from_slice(b"\r\n\r\n");
        if payload.len() <= COPIED {
            head.extend_from_slice(payload);
            return self.stream.write_all(head).await;
        }
        self.stream.write_all(head).await?;
        self.stream.write_all(payload).await
    }

    /// Reads the head of the answer; what came behind it stays in the buffer. Interim answers (1xx) are passed
    /// over.
    async fn read_head(&mut self) -> io::Result<Head> {
        loop {
            while let Some((head, length)) = parse(&self.buffer)? {
                self.buffer.drain(..length);
                match head.status {
                    101 => return Err(io::Error::other("the host changed the protocol unasked")),
                    100..=199 => {}
                    _ => return Ok(head),
                }
            }
            if self.buffer.len() > HEAD_BYTES {
                return Err(io::Error::other("the answer's head is too long"));
            }
            let begun = !self.buffer.is_empty();
            self.stream.read(&mut self.buffer).await.map_err(|error| {
                // With the first byte of an answer the host has seen the post.
                if begun { io::Error::other(format!("the answer is cut: {error}")) } else { error }
            })?;
        }
    }

    /// Reads the body, and returns whether that was its end and nothing came after it. A body that does not say
    /// its length has no end here.
    async fn read_body(&mut self, length: Option<usize>) -> bool {
        let wanted = length.unwrap_or(BODY_BYTES).min(BODY_BYTES);
        while self.buffer.len() < wanted {
            if self.stream.read(&mut self.buffer).await.is_err() {
                return false;
            }
        }
        length == Some(self.buffer.len())
    }
}

/// The head at the buffer's beginning and its length, or `None` where it is not whole.
fn parse(buffer: &[u8]) -> io::Result<Option<(Head, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let parsed =
        answer.parse(buffer).map_err(|error| io::Error::other(format!("no HTTP answer: {error}")))?;
    let (httparse::Status::Complete(length), Some(status)) = (parsed, answer.code) else { return Ok(None) };
    let mut head = Head { status, length: None, kept: answer.version == Some(1), date: None };
    for header in answer.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let number = content_length(header.value);
            // A length that is none, or two that differ: nobody knows where the next answer begins.
            head.kept &= number.is_some() && head.length.is_none_or(|length| Some(length) == number);
            head.length = number;
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            // It overrides a length (RFC 9112, section 6.3), and its end is not looked for.
            head.kept = false;
        } else if status == 403 && header.name.eq_ignore_ascii_case("date") {
            head.date = skew::read_date(header.value);
        } else if header.name.eq_ignore_ascii_case("connection") {
            let mut options = header.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            head.kept &= !options.any(|option| option.eq_ignore_ascii_case(b"close"));
        }
    }
    // These have no body (RFC 9112, section 6.3).
    if matches!(status, 204 | 304) {
        head.length = Some(0);
    }
    Ok(Some((head, length)))
}

/// Digits and nothing else (RFC 9110, section 8.6).
fn content_length(value: &[u8]) -> Option<usize> {
    let digits = std::str::from_utf8(value.trim_ascii()).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}
