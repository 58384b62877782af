//! A proxy in front of the management endpoint that answers 503 on demand, to simulate an outage of API Gateway.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
    runtime::Builder,
    sync::{oneshot, watch},
    task::JoinSet,
};

const UNAVAILABLE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// A proxy that answers every request with 503 while it fails. It stops when it is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    failing: watch::Sender<bool>,
    refused: Arc<AtomicUsize>,
    server: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl FaultProxy {
    /// Starts a proxy to the server at `url`, which does not fail yet. It runs in a thread of its own, so that the
    /// caller's work cannot delay it.
    ///
    /// # Errors
    /// When `url` is not an http URL, or no port is available.
    pub fn start(url: &str) -> anyhow::Result<Self> {
        let upstream =
            url.strip_prefix("http://").with_context(|| format!("{url} is not an http URL"))?.to_owned();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (failing, is_failing) = watch::channel(false);
        let (stop, stopped) = oneshot::channel();
        let refused = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&refused);
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, &upstream, &is_failing, &counter) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { address, failing, refused, server: Some((stop, thread)) })
    }

    /// Returns the proxy's own URL, without a path.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Starts to fail, or stops.
    pub fn set_failing(&self, failing: bool) {
        self.failing.send_replace(failing);
    }

    /// Returns the number of requests answered with 503.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.server.take() {
            _ = stop.send(());
            _ = thread.join();
        }
    }
}

async fn accept(
    listener: std::net::TcpListener,
    upstream: &str,
    failing: &watch::Receiver<bool>,
    refused: &Arc<AtomicUsize>,
) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (upstream, failing, refused) = (upstream.to_owned(), failing.clone(), Arc::clone(refused));
        // The client sees a broken connection as such, so the error needs no other report.
        connections.spawn(async move { _ = serve(stream, &upstream, failing, &refused).await });
    }
}

async fn serve(
    mut client: TcpStream,
    upstream: &str,
    mut failing: watch::Receiver<bool>,
    refused: &AtomicUsize,
) -> io::Result<()> {
    if *failing.borrow_and_update() {
        read_request(&mut client).await?;
        refused.fetch_add(1, Ordering::Relaxed);
        return client.write_all(UNAVAILABLE).await;
    }
    let mut server = TcpStream::connect(upstream).await?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.split(), server.split());
    // When one side closes, as a crashed worker's does, the other is closed, too.
    tokio::select! {
        sent = copy(&mut from_client, &mut to_server) => sent.map(|_| ()),
        received = copy(&mut from_server, &mut to_client) => received.map(|_| ()),
        _ = failing.changed() => Ok(()),
    }
}

/// Reads one whole request: unread data would turn the close of the connection into a reset.
async fn read_request(stream: &mut TcpStream) -> io::Result<()> {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let headers = head.lines().filter_map(|line| line.split_once(':'));
            let length = headers.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            let length = length.filter_map(|(_, value)| value.trim().parse().ok()).next().unwrap_or(0);
            if body.len() >= length {
                return Ok(());
            }
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
