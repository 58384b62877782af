//! A WebSocket client that also counts the frames of each message.

use std::{
    collections::VecDeque,
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use streamer_environment::aws::chain;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, ClientRequestBuilder, Message},
};

use super::net::{Duplex, Server};
use crate::stack::front_door::frames::{CONTINUATION, Piece, Position};

/// Time that a handshake may take. A function's cold start is part of it.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// Time that a closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Messages that have arrived and were not taken. At the bound, the client stops reading.
const MAX_ARRIVALS: usize = 256;

/// A connected client. A task of its own receives, so that times of arrival do not depend on when messages are taken.
pub(super) struct Socket {
    sending: SplitSink<WebSocketStream<Tap>, Message>,
    arrivals: mpsc::Receiver<Result<Arrival, Ended>>,
    _receiving: JoinSet<()>,
}

/// A message that arrived.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    /// The text.
    pub(super) text: String,
    /// The number of frames in which it came.
    pub(super) frames: usize,
    /// The time of arrival.
    pub(super) at: Instant,
}

/// The reason that no message arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// None came in time.
    Late,
    /// The connection was closed, with this code if the server sent one.
    Closed(Option<u16>),
}

/// The reason that a client is not connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotConnected {
    /// The server answered the handshake with this status.
    Refused(u16),
    /// There was no answer, or none that can be understood.
    Failed(String),
}

impl fmt::Display for NotConnected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(formatter, "refused with {status}"),
            Self::Failed(error) => formatter.write_str(error),
        }
    }
}

impl Ended {
    /// Describes the end for people.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Late => "no frame came in time".to_owned(),
            Self::Closed(Some(code)) => format!("the connection was closed with code {code}"),
            Self::Closed(None) => "the connection was closed without a code".to_owned(),
        }
    }
}

impl Socket {
    /// Connects, with a token in the header `Authorization` or without one.
    pub(super) async fn connect(
        url: &str,
        token: Option<&str>,
        user_agent: &str,
    ) -> Result<Self, NotConnected> {
        let failed = |text: &str| NotConnected::Failed(text.to_owned());
        let is_websocket = url.starts_with("ws://") || url.starts_with("wss://");
        let server = Server::parse(url).filter(|_| is_websocket);
        let server = server.ok_or_else(|| failed("the URL does not begin with wss:// or ws://"))?;
        let uri = url.parse().map_err(|_| failed("the URL cannot be parsed"))?;
        let mut request = ClientRequestBuilder::new(uri).with_header("User-Agent", user_agent);
        if let Some(token) = token {
            request = request.with_header("Authorization", format!("Bearer {token}"));
        }
        let stream = server.open(&[]).await.map_err(NotConnected::Failed)?.stream;
        let frames = Frames::default();
        let tap = Tap { stream, frames: frames.clone(), handshake: Some(Vec::new()) };
        match timeout(HANDSHAKE_TIMEOUT, client_async(request, tap)).await {
            Ok(Ok((stream, _))) => Ok(Self::receiving(stream, frames)),
            Ok(Err(tungstenite::Error::Http(answer))) => Err(NotConnected::Refused(answer.status().as_u16())),
            Ok(Err(error)) => Err(NotConnected::Failed(chain(&error))),
            Err(_) => Err(failed(&format!("no answer within {} s", HANDSHAKE_TIMEOUT.as_secs()))),
        }
    }

    fn receiving(stream: WebSocketStream<Tap>, frames: Frames) -> Self {
        let (sending, incoming) = stream.split();
        let (sender, arrivals) = mpsc::channel(MAX_ARRIVALS);
        let mut receiving = JoinSet::new();
        receiving.spawn(receive(incoming, frames, sender));
        Self { sending, arrivals, _receiving: receiving }
    }

    /// Sends a text message. A failure shows when the next message does not arrive.
    pub(super) async fn send(&mut self, text: String) {
        _ = timeout(CLOSE_TIMEOUT, self.sending.send(Message::text(text))).await;
    }

    /// Waits for the next message.
    pub(super) async fn next(&mut self, limit: Duration) -> Result<Arrival, Ended> {
        match timeout(limit, self.arrivals.recv()).await {
            Ok(Some(arrival)) => arrival,
            Ok(None) => Err(Ended::Closed(None)),
            Err(_) => Err(Ended::Late),
        }
    }

    /// Closes the connection with a closing handshake.
    pub(super) async fn close(mut self) {
        let closing = async {
            if self.sending.close().await.is_ok() {
                while self.arrivals.recv().await.is_some() {}
            }
        };
        _ = timeout(CLOSE_TIMEOUT, closing).await;
    }
}

/// Receives messages until the connection ends.
async fn receive(
    mut incoming: SplitStream<WebSocketStream<Tap>>,
    frames: Frames,
    arrivals: mpsc::Sender<Result<Arrival, Ended>>,
) {
    let mut is_closed = false;
    while let Some(Ok(message)) = incoming.next().await {
        match message {
            Message::Text(text) => {
                let at = Instant::now();
                let arrival = Arrival { text: text.as_str().to_owned(), frames: frames.take(), at };
                if arrivals.send(Ok(arrival)).await.is_err() {
                    return;
                }
            }
            // The next read sends the answer to the close frame.
            Message::Close(close) => {
                is_closed = true;
                _ = arrivals.send(Err(Ended::Closed(close.map(|close| close.code.into())))).await;
            }
            Message::Binary(_) => _ = frames.take(),
            _ => {}
        }
    }
    if !is_closed {
        _ = arrivals.send(Err(Ended::Closed(None))).await;
    }
}

/// The numbers of frames of the messages that have begun and were not taken.
#[derive(Debug, Clone, Default)]
struct Frames(Arc<Mutex<(Position, VecDeque<usize>)>>);

impl Frames {
    fn read(&self, mut bytes: &[u8]) {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (position, messages) = &mut *guard;
        while !bytes.is_empty() {
            let (read, piece) = position.read(bytes);
            bytes = &bytes[read..];
            match piece {
                Piece::Header(header) if header.is_control() => {}
                Piece::Header(header) if header.opcode == CONTINUATION => {
                    messages.back_mut().into_iter().for_each(|frames| *frames += 1);
                }
                Piece::Header(_) => messages.push_back(1),
                Piece::Unfinished | Piece::Payload => {}
            }
        }
    }

    /// Returns the number of frames of the oldest message.
    fn take(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.pop_front().unwrap_or(0)
    }
}

/// Looks at the bytes that a WebSocket receives. The library joins frames and does not tell how many there were.
struct Tap {
    stream: Box<dyn Duplex>,
    frames: Frames,
    /// The head of the handshake's answer, until its end has arrived.
    handshake: Option<Vec<u8>>,
}

impl Tap {
    fn look(&mut self, bytes: &[u8]) {
        let Some(head) = &mut self.handshake else { return self.frames.read(bytes) };
        head.extend_from_slice(bytes);
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = head.split_off(end + 4);
            self.handshake = None;
            self.frames.read(&rest);
        }
    }
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let bytes = buffer.filled()[before..].to_vec();
        self.look(&bytes);
        read
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};
    use tokio_tungstenite::accept_async;

    use super::*;

    #[tokio::test]
    async fn frames_of_each_message_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        let server = async {
            let mut socket = accept_async(listener.accept().await.unwrap().0).await.unwrap();
            // A message in two frames with a ping between them, one in a single frame, and a close with a code.
            let bytes = b"\x01\x01a\x89\x00\x80\x01b\x81\x01c\x88\x02\x03\xf1";
            socket.get_mut().write_all(bytes).await.unwrap();
            socket
        };
        let client = async { Socket::connect(&url, None, "test").await.ok().unwrap() };
        let (_server, mut client) = tokio::join!(server, client);
        let limit = Duration::from_secs(10);
        let first = client.next(limit).await.unwrap();
        assert_eq!((first.text.as_str(), first.frames), ("ab", 2));
        let second = client.next(limit).await.unwrap();
        assert_eq!((second.text.as_str(), second.frames), ("c", 1));
        assert_eq!(client.next(limit).await.unwrap_err(), Ended::Closed(Some(1009)));
    }
}
