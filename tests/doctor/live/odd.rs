//! Management endpoints that answer otherwise than the emulator does.

use std::{net::Ipv4Addr, sync::Arc};

use anyhow::Context as _;
use streamer_tests::emulator::stack;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};

use super::Patient;

/// Largest payload that an odd gateway delivers.
const FRAME_BYTES: usize = 32 * 1024;

/// A close frame with code 1009 (RFC 6455, section 7.4.1).
const TOO_BIG: &[u8] = &[0x88, 2, 0x03, 0xf1];

/// How a gateway differs from the emulator behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Oddity {
    /// It answers chunked, closes each connection, and closes clients' connections for payloads over 32 KiB.
    Frames,
    /// It refuses messages that came through the queue.
    RefuseWorker,
    /// It refuses all other posts.
    RefusePerson,
}

/// A proxy before the management endpoint, and one before the WebSockets.
pub(super) struct Gateway {
    /// URL of the management endpoint.
    pub(super) endpoint: String,
    /// URL that clients connect to.
    pub(super) url: String,
    _serving: JoinSet<()>,
}

impl Gateway {
    pub(super) async fn start(oddity: Oddity) -> anyhow::Result<Self> {
        let stack = stack().await?;
        let (too_big, mut serving) = (Arc::new(Notify::new()), JoinSet::new());
        let split = |url: &str, scheme: &str| {
            let rest = url.strip_prefix(scheme).with_context(|| format!("{url} has another scheme"))?;
            rest.split_once('/').map(|(host, path)| (host.to_owned(), path.to_owned())).context("no path")
        };
        let (api, api_path) = split(&stack.deployed.management_endpoint, "http://")?;
        let (door, door_path) = split(&stack.deployed.websocket_url, "ws://")?;
        let (posts, sockets) = (
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
        );
        let endpoint = format!("http://{}/{api_path}", posts.local_addr()?);
        let url = format!("ws://{}/{door_path}", sockets.local_addr()?);
        let notify = Arc::clone(&too_big);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = posts.accept().await {
                let (api, notify) = (api.clone(), Arc::clone(&notify));
                connections.spawn(async move { _ = post(stream, &api, oddity, &notify).await });
            }
        });
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = sockets.accept().await {
                let (door, too_big) = (door.clone(), Arc::clone(&too_big));
                connections.spawn(async move { _ = pass(stream, &door, &too_big).await });
            }
        });
        Ok(Self { endpoint, url, _serving: serving })
    }
}

/// Passes a WebSocket on until a payload is too big for it.
async fn pass(mut client: TcpStream, door: &str, too_big: &Notify) -> std::io::Result<()> {
    let mut server = TcpStream::connect(door).await?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.split(), server.split());
    let is_closed = tokio::select! {
        _ = copy(&mut from_client, &mut to_server) => false,
        _ = copy(&mut from_server, &mut to_client) => false,
        () = too_big.notified() => true,
    };
    if is_closed {
        client.write_all(TOO_BIG).await?;
        client.shutdown().await?;
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await?;
    }
    Ok(())
}

/// Answers the posts of a connection.
async fn post(mut client: TcpStream, api: &str, oddity: Oddity, too_big: &Notify) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let Some((head, body)) = request(&mut client, &mut buffer).await? else { return Ok(()) };
        let text = String::from_utf8_lossy(&body);
        let is_direct = ["-endpoint\"", "-direct-", "second", "-after\"", "padding"]
            .iter()
            .any(|part| text.contains(part));
        let is_refused = match oddity {
            Oddity::Frames => false,
            Oddity::RefuseWorker => text.contains("doctor-") && !is_direct,
            Oddity::RefusePerson => is_direct,
        };
        let (status, body) = if is_refused {
            let body = r#"{"Message":"User: arn:aws:iam::000000000000:user/a is not authorized to perform: execute-api:ManageConnections"}"#;
            (403, body.to_owned())
        } else if oddity == Oddity::Frames && body.len() > FRAME_BYTES {
            too_big.notify_one();
            (200, String::new())
        } else {
            forward(&head, &body, api).await?
        };
        let kind = if status == 403 { "x-amzn-ErrorType: AccessDeniedException\r\n" } else { "" };
        if oddity != Oddity::Frames {
            let answer =
                format!("HTTP/1.1 {status} Odd\r\n{kind}Content-Length: {}\r\n\r\n{body}", body.len());
            client.write_all(answer.as_bytes()).await?;
            continue;
        }
        let chunk = if body.is_empty() { String::new() } else { format!("{:x}\r\n{body}\r\n", body.len()) };
        let answer = format!("HTTP/1.1 {status} Odd\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n");
        client.write_all(answer.as_bytes()).await?;
        return client.shutdown().await;
    }
}

/// Reads a request's head and body.
pub(super) async fn request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> std::io::Result<Option<(String, Vec<u8>)>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let lengths = head.lines().filter_map(|line| line.split_once(':'));
            let length = lengths.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            let length =
                length.filter_map(|(_, value)| value.trim().parse::<usize>().ok()).next().unwrap_or(0);
            if buffer.len() >= end + 4 + length {
                let body = buffer[end + 4..end + 4 + length].to_vec();
                buffer.drain(..end + 4 + length);
                return Ok(Some((head, body)));
            }
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// Posts to the emulator, and returns its status and body.
pub(super) async fn forward(head: &str, body: &[u8], api: &str) -> std::io::Result<(u16, String)> {
    let mut to = TcpStream::connect(api).await?;
    let kept = head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let head = kept.collect::<Vec<_>>().join("\r\n") + "\r\nConnection: close\r\n\r\n";
    to.write_all(&[head.as_bytes(), body].concat()).await?;
    let mut answer = Vec::new();
    to.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(502);
    Ok((status, body.to_owned()))
}

/// A gateway that closes clients' connections for large payloads, answers chunked and keeps no connection.
#[tokio::test]
async fn odd_gateway_is_described() -> anyhow::Result<()> {
    let gateway = Gateway::start(Oddity::Frames).await?;
    let mut patient = Patient::with_worker("doctor-odd", Some(&gateway.endpoint), &[]).await?;
    patient.url = gateway.url.clone();
    let report = patient.examine().await?;
    assert_eq!(report.values("endpoint.framing")["framing"], "chunked");
    report.assert_named("endpoint.keep_alive", "warning", "memory_mb");
    assert_eq!((report.verdict("delivery.queue"), report.verdict("post.31_kib")), ("ok", "ok"));
    for name in ["post.33_kib", "post.128_kib"] {
        report.assert_named(name, "failed", "max_payload_bytes");
        assert_eq!(report.values(name)["close_code"], 1009, "{:?}", report.output);
    }
    assert_eq!(report.values("post.gone")["framing"], "chunked");
    patient.assert_nothing_left().await
}
