//! A gateway on HTTP/2 that writes each frame itself (RFC 9113, section 4.1): it announces limits, checks that the
//! client keeps them, and refuses, resets or excludes streams.

mod connection;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::{ClientConfig, pki_types::CertificateDer};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use self::connection::serve;
use crate::tls::{acceptor, trusting};

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
    /// Announces this limit of concurrent streams, and holds the post like [`Hold`](Self::Hold).
    Limit(u32),
    /// Sends a GOAWAY that includes it, holds it like [`Hold`](Self::Hold), and ignores all later posts of the
    /// connection.
    Drain,
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
