//! A stub of API Gateway, SQS and DynamoDB that is as fast as one core allows, so that the client is the bottleneck.
//!
//! It recognises the service by a word in the request's head, and sends the shortest answer that clients accept.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

/// Prints its address, and serves until it is killed.
pub(crate) async fn serve(delay: Duration, tls: Option<rustls::ServerConfig>) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address: SocketAddr = listener.local_addr()?;
    println!("{address}");
    let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            match acceptor {
                None => answer(stream, delay, reply).await,
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => answer(stream, delay, reply).await,
                    Err(error) => Err(error),
                },
            }
        });
    }
}

/// Answers each request of a connection after a delay, by its head.
pub(crate) async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    delay: Duration,
    reply: impl Fn(&[u8]) -> &'static [u8],
) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(64 * 1024);
    loop {
        let head = loop {
            if let Some(end) = find(&buffer, b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let reply = reply(&buffer[..head]);
        let length = content_length(&buffer[..head]);
        while buffer.len() < head + length {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        buffer.drain(..head + length);
        if !delay.is_zero() {
            sleep(delay).await;
        }
        stream.write_all(reply).await?;
        stream.flush().await?;
    }
}

/// The answer to a post.
pub(crate) const POST: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn reply(head: &[u8]) -> &'static [u8] {
    const EMPTY: &[u8] =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: 2\r\n\r\n{}";
    const SENT: &[u8] =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: 17\r\n\r\n{\"MessageId\":\"m\"}";
    const BATCH: &[u8] = include_bytes!("batch.http");
    if find(head, b"connections/").is_some() {
        POST
    } else if find(head, b"SendMessageBatch").is_some() {
        BATCH
    } else if find(head, b"SendMessage").is_some() {
        SENT
    } else {
        EMPTY
    }
}

fn content_length(head: &[u8]) -> usize {
    let lower = find(head, b"ontent-length: ").or_else(|| find(head, b"ontent-Length: "));
    let digits = lower.map_or(&[][..], |place| &head[place + 15..]);
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}
