//! Reads a raw answer over HTTP/1.1: its head, the framing of its body, and its body.

use std::{io, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::timeout,
};

/// Maximum size of a head, and of a body.
const MAX_BYTES: usize = 64 * 1024;

/// Maximum time for the head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum time for the body after its head.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// The sign of a body's end (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// `Content-Length`.
    Length,
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The status has no body.
    Bodiless,
    /// The body ends with the connection.
    UntilClose,
}

/// An answer.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// The status line's version, such as `HTTP/1.1`.
    pub(super) version: String,
    /// The status.
    pub(super) status: u16,
    /// The framing of the body.
    pub(super) framing: Framing,
    /// Whether the server announces that it closes the connection.
    pub(super) closes: bool,
    /// The header `x-amzn-ErrorType`, without a suffix after a colon.
    pub(super) error_type: Option<String>,
    /// The names of the headers, in lower case.
    pub(super) headers: Vec<String>,
    /// The body.
    pub(super) body: Vec<u8>,
}

impl Framing {
    /// Returns the name, for people and as a JSON value.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Length => "content-length",
            Self::Chunked => "chunked",
            Self::Bodiless => "no body",
            Self::UntilClose => "until the connection closes",
        }
    }
}

impl Answer {
    /// Returns whether the status means success.
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns the status with the error's type, such as `403 (ForbiddenException)`.
    pub(super) fn describe(&self) -> String {
        match &self.error_type {
            Some(kind) => format!("{} ({kind})", self.status),
            None => self.status.to_string(),
        }
    }

    /// Returns the text of the body's field `message`, which AWS's errors have.
    pub(super) fn message(&self) -> Option<String> {
        let body: Value = serde_json::from_slice(&self.body).ok()?;
        let text = body.get("message").or_else(|| body.get("Message"))?;
        text.as_str().map(str::to_owned)
    }

    /// Describes the body without its content: its size, and the names of a JSON object's fields.
    pub(super) fn shape(&self) -> String {
        let bytes = self.body.len();
        match serde_json::from_slice::<Value>(&self.body) {
            Ok(Value::Object(fields)) => {
                let names = fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                format!("JSON with {}, {bytes} bytes", if names.is_empty() { "no field" } else { &names })
            }
            _ if bytes == 0 => "an empty body".to_owned(),
            _ => format!("{bytes} bytes of text"),
        }
    }

    /// Reads an answer to a POST. `buffer` keeps bytes that arrived after it.
    ///
    /// # Errors
    /// When the connection ends or breaks before the end of the head, or no answer comes in time.
    pub(super) async fn read(
        stream: &mut (impl AsyncRead + Unpin + ?Sized),
        buffer: &mut Vec<u8>,
    ) -> io::Result<Self> {
        let end = timeout(HEAD_TIMEOUT, head_end(stream, buffer)).await??;
        let head: Vec<u8> = buffer.drain(..end).collect();
        let mut answer = Self::parse(&String::from_utf8_lossy(&head))?;
        let length = length_of(&String::from_utf8_lossy(&head)).unwrap_or(0).min(MAX_BYTES);
        let body = async {
            match answer.framing {
                Framing::Bodiless => Ok(Vec::new()),
                Framing::Length => exactly(stream, buffer, length).await,
                Framing::Chunked => chunks(stream, buffer).await,
                Framing::UntilClose => {
                    while buffer.len() < MAX_BYTES && stream.read_buf(buffer).await? > 0 {}
                    Ok(std::mem::take(buffer))
                }
            }
        };
        match timeout(BODY_TIMEOUT, body).await {
            Ok(body) => answer.body = body?,
            // The end of such a body may never come.
            Err(_) if answer.framing == Framing::UntilClose => answer.body = std::mem::take(buffer),
            Err(late) => return Err(late.into()),
        }
        Ok(answer)
    }

    fn parse(head: &str) -> io::Result<Self> {
        let mut lines = head.split("\r\n");
        let mut status_line = lines.next().unwrap_or_default().splitn(3, ' ');
        let version = status_line.next().unwrap_or_default().to_owned();
        let status = status_line.next().and_then(|status| status.parse().ok());
        let (true, Some(status)) = (version.starts_with("HTTP/"), status) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP/1.1"));
        };
        let headers = headers(head);
        let value = |name: &str| {
            headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.to_ascii_lowercase())
        };
        let framing = if status == 204 || status == 304 {
            Framing::Bodiless
        } else if value("transfer-encoding").is_some_and(|coding| coding.ends_with("chunked")) {
            Framing::Chunked
        } else if value("content-length").is_some() {
            Framing::Length
        } else {
            Framing::UntilClose
        };
        let connection = value("connection").unwrap_or_default();
        let error_type = headers.iter().find(|(name, _)| name == "x-amzn-errortype");
        let error_type = error_type.and_then(|(_, value)| value.split(':').next()).map(str::to_owned);
        Ok(Self {
            closes: connection.contains("close")
                || framing == Framing::UntilClose
                || version == "HTTP/1.0" && !connection.contains("keep-alive"),
            version,
            status,
            framing,
            error_type,
            headers: headers.into_iter().map(|(name, _)| name).collect(),
            body: Vec::new(),
        })
    }
}

/// Returns the headers, with names in lower case.
fn headers(head: &str) -> Vec<(String, String)> {
    let lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned())).collect()
}

fn length_of(head: &str) -> Option<usize> {
    let headers = headers(head);
    headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok())
}

/// Reads up to the end of the head, and returns its position.
async fn head_end(stream: &mut (impl AsyncRead + Unpin + ?Sized), buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok(end + 4);
        }
        more(stream, buffer).await?;
    }
}

/// Reads some bytes.
async fn more(stream: &mut (impl AsyncRead + Unpin + ?Sized), buffer: &mut Vec<u8>) -> io::Result<()> {
    if buffer.len() >= MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too large"));
    }
    match stream.read_buf(buffer).await? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
        _ => Ok(()),
    }
}

async fn exactly(
    stream: &mut (impl AsyncRead + Unpin + ?Sized),
    buffer: &mut Vec<u8>,
    bytes: usize,
) -> io::Result<Vec<u8>> {
    while buffer.len() < bytes {
        more(stream, buffer).await?;
    }
    Ok(buffer.drain(..bytes).collect())
}

/// Reads a line without its end.
async fn line(stream: &mut (impl AsyncRead + Unpin + ?Sized), buffer: &mut Vec<u8>) -> io::Result<String> {
    loop {
        if let Some(end) = buffer.windows(2).position(|window| window == b"\r\n") {
            let line: Vec<u8> = buffer.drain(..end + 2).collect();
            return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
        }
        more(stream, buffer).await?;
    }
}

/// Reads a chunked body with its trailers (RFC 9112, section 7.1).
async fn chunks(stream: &mut (impl AsyncRead + Unpin + ?Sized), buffer: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(stream, buffer).await?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16);
        let size = size.ok().filter(|size| body.len() + size <= MAX_BYTES);
        let size =
            size.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a chunk has no valid size"))?;
        if size == 0 {
            while !line(stream, buffer).await?.is_empty() {}
            return Ok(body);
        }
        body.extend(exactly(stream, buffer, size).await?);
        exactly(stream, buffer, 2).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &str) -> (Answer, Vec<u8>) {
        let mut buffer = Vec::new();
        let answer = Answer::read(&mut bytes.as_bytes(), &mut buffer).await.unwrap();
        (answer, buffer)
    }

    #[tokio::test]
    async fn each_framing_ends_its_body() {
        let head = "HTTP/1.1 410 Gone\r\nx-amzn-ErrorType: GoneException:http://a\r\n";
        for (rest, framing, body) in [
            ("Content-Length: 2\r\n\r\n{}", Framing::Length, "{}"),
            (
                "Transfer-Encoding: chunked\r\n\r\n1;x=y\r\n{\r\n1\r\n}\r\n0\r\nT: t\r\n\r\n",
                Framing::Chunked,
                "{}",
            ),
            ("\r\n{}", Framing::UntilClose, "{}"),
        ] {
            let (answer, left) = read(&format!("{head}{rest}")).await;
            assert_eq!((answer.framing, &*answer.body), (framing, body.as_bytes()), "{rest}");
            assert_eq!(answer.describe(), "410 (GoneException)");
            assert_eq!(answer.closes, framing == Framing::UntilClose);
            assert!(left.is_empty(), "{rest}");
        }
    }

    #[tokio::test]
    async fn announced_close_is_seen() {
        let (answer, _) = read("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
        assert!(answer.closes && answer.is_success());
        let (answer, _) = read("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        assert!(answer.closes);
    }

    #[tokio::test]
    async fn shape_has_no_content() {
        let (answer, _) = read("HTTP/1.1 410 Gone\r\nContent-Length: 17\r\n\r\n{\"message\":\"sec\"}").await;
        assert_eq!(answer.shape(), "JSON with message, 17 bytes");
        assert_eq!(answer.message().as_deref(), Some("sec"));
    }
}
