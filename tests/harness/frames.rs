//! A gateway on HTTP/2 that writes each frame itself (RFC 9113, section 4.1): it announces limits, checks that the
//! client keeps them, and refuses, resets or excludes streams.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::{ClientConfig, pki_types::CertificateDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::tls::{acceptor, trusting};

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

/// The limits that the gateway announces.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Concurrent streams of a connection.
    pub streams: Option<u32>,
    /// Initial window of a stream in bytes.
    pub window: Option<u32>,
}

/// The gateway's reaction to a post that has arrived whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// Processes it, and answers 200.
    Answer,
    /// Processes it, and answers 200 when [`FrameGateway::release`] is called.
    Hold,
    /// Processes it, and closes the connection after a GOAWAY that includes it.
    Close,
    /// Resets its stream with this code.
    Reset(u32),
    /// Sends a GOAWAY that excludes it, and ignores it and all later posts of the connection.
    Exclude,
}

/// The code of REFUSED_STREAM.
pub const REFUSED_STREAM: u32 = 0x7;
/// The code of INTERNAL_ERROR.
pub const INTERNAL_ERROR: u32 = 0x2;

/// Gets the index of the connection, the index of the post in it, and the payload.
type Script = dyn Fn(usize, usize, &[u8]) -> Reaction + Send + Sync;

/// A gateway that runs until it is dropped.
#[derive(Debug)]
pub struct FrameGateway {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    seen: Arc<Seen>,
    released: watch::Sender<bool>,
    _serving: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Seen {
    connections: AtomicUsize,
    open: AtomicUsize,
    arrived: AtomicUsize,
    processed: Mutex<Vec<Vec<u8>>>,
    violations: Mutex<Vec<String>>,
}

impl FrameGateway {
    /// Starts a gateway on loopback.
    ///
    /// # Errors
    /// When it cannot listen or create a certificate.
    pub async fn start(
        limits: Limits,
        script: impl Fn(usize, usize, &[u8]) -> Reaction + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let (certificate, acceptor) = acceptor("h2")?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (seen, released, mut serving) =
            (Arc::<Seen>::default(), watch::Sender::new(false), JoinSet::new());
        let (seen_by_all, releasing, script) =
            (Arc::clone(&seen), released.clone(), Arc::<Script>::from(Box::new(script) as Box<Script>));
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, script) = (acceptor.clone(), Arc::clone(&script));
                let (seen, released) = (Arc::clone(&seen_by_all), releasing.subscribe());
                connections.spawn(async move {
                    seen.open.fetch_add(1, Ordering::Relaxed);
                    // Errors are expected: some tests break the connection.
                    _ = serve(stream, acceptor, &seen, released, limits, &*script).await;
                    seen.open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Ok(Self { address, certificate, seen, released, _serving: serving })
    }

    /// Answers the posts that are held, and later ones at once.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// Returns the management endpoint, with a stage.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("https://localhost:{}/stage", self.address.port())
    }

    /// Returns a TLS configuration for clients that trusts this gateway.
    #[must_use]
    pub fn trusting(&self) -> ClientConfig {
        trusting(&self.certificate)
    }

    /// Returns the number of connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }

    /// Returns the number of connections that are open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.seen.open.load(Ordering::Relaxed)
    }

    /// Returns the number of posts that have arrived whole so far.
    #[must_use]
    pub fn arrived(&self) -> usize {
        self.seen.arrived.load(Ordering::Relaxed)
    }

    /// Returns the payloads of the processed posts, in order of arrival.
    #[must_use]
    pub fn processed(&self) -> Vec<Vec<u8>> {
        lock(&self.seen.processed).clone()
    }

    /// Returns descriptions of the limits that clients have exceeded.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        lock(&self.seen.violations).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection's state.
struct Served<'a> {
    stream: TlsStream<TcpStream>,
    seen: &'a Seen,
    limits: Limits,
    /// The open streams by id, each with its payload and its window.
    streams: BTreeMap<u32, (Vec<u8>, u32)>,
    held: Vec<u32>,
    /// The last stream that was processed.
    last: u32,
    is_excluding: bool,
}

async fn serve(
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
    let mut served = Served { stream, seen, limits, streams, held, last: 0, is_excluding: false };
    served.announce().await?;
    let (mut buffer, mut index) = (Vec::new(), 0);
    loop {
        while let Some(frame) = take_frame(&mut buffer) {
            let Some((id, payload)) = served.receive(frame).await? else { continue };
            seen.arrived.fetch_add(1, Ordering::Relaxed);
            let mut reaction = script(connection, index, &payload);
            if reaction == Reaction::Hold && *released.borrow() {
                reaction = Reaction::Answer;
            }
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
    let [length_high, length_middle, length_low, kind, flags, id @ ..] = *head;
    let length = usize::from(length_high) << 16 | usize::from(length_middle) << 8 | usize::from(length_low);
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

    /// Checks the stream's window, and opens it and the connection's by as many bytes again.
    async fn receive_data(
        &mut self,
        stream: u32,
        data: &[u8],
        is_end: bool,
    ) -> io::Result<Option<(u32, Vec<u8>)>> {
        let length = u32::try_from(data.len()).map_err(io::Error::other)?;
        if length > 0 {
            self.write(WINDOW_UPDATE, 0, 0, &length.to_be_bytes()).await?;
        }
        let Some((payload, window)) = self.streams.get_mut(&stream) else { return Ok(None) };
        payload.extend_from_slice(data);
        let (is_within, whole) = (length <= *window, is_end.then(|| std::mem::take(payload)));
        if !is_within {
            self.violate(format!("{length} bytes"));
        }
        if length > 0 && !is_end {
            self.write(WINDOW_UPDATE, 0, stream, &length.to_be_bytes()).await?;
        }
        Ok(whole.map(|payload| (stream, payload)))
    }

    /// Reacts to a post, and returns whether the connection stays open.
    async fn react(&mut self, reaction: Reaction, id: u32, payload: Vec<u8>) -> io::Result<bool> {
        if self.is_excluding {
            return Ok(true);
        }
        if matches!(reaction, Reaction::Answer | Reaction::Hold | Reaction::Close) {
            lock(&self.seen.processed).push(payload);
            self.last = self.last.max(id);
        }
        match reaction {
            Reaction::Answer => self.answer(id).await?,
            Reaction::Hold => self.held.push(id),
            Reaction::Reset(code) => {
                self.streams.remove(&id);
                self.write(RST_STREAM, 0, id, &code.to_be_bytes()).await?;
            }
            Reaction::Exclude | Reaction::Close => {
                self.is_excluding = true;
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
