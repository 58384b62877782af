//! A connection of a gateway on HTTP/2: its frames, its streams and their windows.

use std::{collections::BTreeMap, io, sync::atomic::Ordering};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{Limits, Reaction, Script, Seen, lock};

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
const WINDOW_UPDATE: u8 = 0x8;

/// END_STREAM, and ACK of SETTINGS and PING.
const END: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// The HPACK encoding of `:status: 200` (RFC 7541, appendix A).
const STATUS_200: [u8; 1] = [0x88];

/// The initial window of a connection, and of a stream unless it is set (RFC 9113, section 6.9.2).
const DEFAULT_WINDOW: u32 = 65_535;

/// A connection's state.
struct Served<'a> {
    stream: TlsStream<TcpStream>,
    seen: &'a Seen,
    limits: Limits,
    /// The open streams by id, each with its payload and its window.
    streams: BTreeMap<u32, (Vec<u8>, u32)>,
    /// The connection's window.
    window: u32,
    held: Vec<u32>,
    /// The last stream that was processed.
    last: u32,
    is_excluding: bool,
}

/// Serves a connection until it is closed.
pub(super) async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    seen: &Seen,
    mut released: watch::Receiver<bool>,
    limits: Limits,
    script: &Script,
) -> io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let connection = seen.connections.fetch_add(1, Ordering::Relaxed);
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await?;
    let (streams, held) = (BTreeMap::new(), Vec::new());
    let window = DEFAULT_WINDOW;
    let mut served = Served { stream, seen, limits, streams, window, held, last: 0, is_excluding: false };
    served.announce().await?;
    let (mut buffer, mut index) = (Vec::new(), 0);
    loop {
        while let Some(frame) = take_frame(&mut buffer) {
            let Some((id, payload)) = served.receive(frame).await? else { continue };
            seen.arrived.fetch_add(1, Ordering::Relaxed);
            let reaction = script(connection, index, &payload);
            index += 1;
            if !served.react(reaction, id, payload).await? {
                return served.stream.shutdown().await;
            }
        }
        tokio::select! {
            read = served.stream.read_buf(&mut buffer) => if read? == 0 { return Ok(()) },
            () = async { _ = released.wait_for(|released| *released).await }, if !served.held.is_empty() => {
                for id in std::mem::take(&mut served.held) {
                    served.answer(id).await?;
                }
            }
        }
    }
}

/// A frame that the client has sent.
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// Takes the first frame from the buffer, if it is there as a whole.
fn take_frame(buffer: &mut Vec<u8>) -> Option<Frame> {
    let (head, rest) = buffer.split_first_chunk::<9>()?;
    let [high, middle, low, kind, flags, id @ ..] = *head;
    let length = usize::try_from(u32::from_be_bytes([0, high, middle, low])).ok()?;
    let payload = rest.get(..length)?.to_vec();
    buffer.drain(..9 + length);
    Some(Frame { kind, flags, stream: u32::from_be_bytes(id), payload })
}

impl Served<'_> {
    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.stream.write_all(&frame).await?;
        self.stream.flush().await
    }

    async fn announce(&mut self) -> io::Result<()> {
        let mut settings = Vec::new();
        for (id, value) in [(3_u16, self.limits.streams), (4, self.limits.window)] {
            if let Some(value) = value {
                settings.extend(id.to_be_bytes());
                settings.extend(value.to_be_bytes());
            }
        }
        self.write(SETTINGS, 0, 0, &settings).await
    }

    /// Handles a frame. Returns the stream and the payload of a post that has arrived whole.
    async fn receive(&mut self, frame: Frame) -> io::Result<Option<(u32, Vec<u8>)>> {
        let Frame { kind, flags, stream, payload } = frame;
        match kind {
            HEADERS => {
                self.streams.insert(stream, (Vec::new(), self.limits.window.unwrap_or(DEFAULT_WINDOW)));
                let limit = self.limits.streams.map_or(usize::MAX, |limit| limit as usize);
                if self.streams.len() > limit && !self.is_excluding {
                    self.violate(format!("{} streams", self.streams.len()));
                }
            }
            DATA => return self.receive_data(stream, &payload, flags & END > 0).await,
            RST_STREAM => _ = self.streams.remove(&stream),
            SETTINGS if flags & END == 0 => self.write(SETTINGS, END, 0, &[]).await?,
            PING if flags & END == 0 => self.write(PING, END, 0, &payload).await?,
            _ => {}
        }
        Ok(None)
    }

    /// Takes the data from the windows of the stream and the connection. Restores a window when half of it is used.
    async fn receive_data(
        &mut self,
        stream: u32,
        data: &[u8],
        is_end: bool,
    ) -> io::Result<Option<(u32, Vec<u8>)>> {
        let length = u32::try_from(data.len()).map_err(io::Error::other)?;
        let mut window = self.window;
        self.take(&mut window, DEFAULT_WINDOW, length, 0).await?;
        self.window = window;
        let Some((mut payload, mut window)) = self.streams.remove(&stream) else { return Ok(None) };
        payload.extend_from_slice(data);
        if !is_end {
            self.take(&mut window, self.limits.window.unwrap_or(DEFAULT_WINDOW), length, stream).await?;
        } else if length > window {
            self.violate(format!("{length} bytes of {window}"));
        }
        let whole = is_end.then(|| std::mem::take(&mut payload));
        self.streams.insert(stream, (payload, window));
        Ok(whole.map(|payload| (stream, payload)))
    }

    /// Takes bytes from a window, and restores it to `full` when half of it is used.
    async fn take(&mut self, window: &mut u32, full: u32, length: u32, stream: u32) -> io::Result<()> {
        match window.checked_sub(length) {
            Some(left) => *window = left,
            None => self.violate(format!("{length} bytes of {window}")),
        }
        let used = full - *window;
        if used > 0 && *window <= full / 2 {
            self.write(WINDOW_UPDATE, 0, stream, &used.to_be_bytes()).await?;
            *window = full;
        }
        Ok(())
    }

    /// Reacts to a post, and returns whether the connection stays open.
    async fn react(&mut self, reaction: Reaction, id: u32, payload: Vec<u8>) -> io::Result<bool> {
        if self.is_excluding {
            return Ok(true);
        }
        if !matches!(reaction, Reaction::Reset(_) | Reaction::Exclude) {
            lock(&self.seen.processed).push(payload);
            self.last = self.last.max(id);
        }
        match reaction {
            Reaction::Answer => self.answer(id).await?,
            Reaction::Hold => self.held.push(id),
            Reaction::Limit(streams) => {
                self.limits.streams = Some(streams);
                self.announce().await?;
                self.held.push(id);
            }
            Reaction::Reset(code) => {
                self.streams.remove(&id);
                self.write(RST_STREAM, 0, id, &code.to_be_bytes()).await?;
            }
            Reaction::Exclude | Reaction::Close | Reaction::Drain => {
                self.is_excluding = true;
                self.held.extend((reaction == Reaction::Drain).then_some(id));
                let mut body = self.last.to_be_bytes().to_vec();
                body.extend([0; 4]);
                self.write(GOAWAY, 0, 0, &body).await?;
            }
        }
        Ok(reaction != Reaction::Close)
    }

    async fn answer(&mut self, id: u32) -> io::Result<()> {
        self.streams.remove(&id);
        self.write(HEADERS, END | END_HEADERS, id, &STATUS_200).await
    }

    fn violate(&self, description: String) {
        lock(&self.seen.violations).push(description);
    }
}
