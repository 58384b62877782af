//! A way to an endpoint that can be made to fail: what an outage of API Gateway looks like to the worker.

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

/// A way to an endpoint. While it fails, every request is answered with 503. It ends when it is dropped.
#[derive(Debug)]
pub struct Outage {
    address: SocketAddr,
    failing: watch::Sender<bool>,
    refused: Arc<AtomicUsize>,
    serving: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Outage {
    /// A way to the server at `url`, which does not fail yet. It has a thread of its own: whoever looks at what
    /// comes of it is not to be in its way.
    ///
    /// # Errors
    /// When `url` names no server, or no port is free.
    pub fn prepare(url: &str) -> anyhow::Result<Self> {
        let upstream =
            url.strip_prefix("http://").with_context(|| format!("{url} is no http URL"))?.to_owned();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (failing, is_failing) = watch::channel(false);
        let (end, ended) = oneshot::channel();
        let refused = Arc::<AtomicUsize>::default();
        let counting = Arc::clone(&refused);
        let serving = thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, &upstream, &is_failing, &counting) => {}
                    _ = ended => {}
                }
            });
        });
        Ok(Self { address, failing, refused, serving: Some((end, serving)) })
    }

    /// Where it begins.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on everything fails, or no longer does.
    pub fn fail(&self, fails: bool) {
        self.failing.send_replace(fails);
    }

    /// Requests that were answered with 503.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        if let Some((end, serving)) = self.serving.take() {
            _ = end.send(());
            _ = serving.join();
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
        // A connection that breaks is the worker's affair.
        connections.spawn(async move { _ = serve(stream, &upstream, failing, &refused).await });
    }
}

async fn serve(
    mut stream: TcpStream,
    upstream: &str,
    mut failing: watch::Receiver<bool>,
    refused: &AtomicUsize,
) -> io::Result<()> {
    if *failing.borrow_and_update() {
        request(&mut stream).await?;
        refused.fetch_add(1, Ordering::Relaxed);
        return stream.write_all(UNAVAILABLE).await;
    }
    let mut to = TcpStream::connect(upstream).await?;
    let ((mut asks, mut hears), (mut answers, mut says)) = (stream.split(), to.split());
    // Whichever end closes first, a killed worker's above all, closes the other.
    tokio::select! {
        asked = copy(&mut asks, &mut says) => asked.map(|_| ()),
        answered = copy(&mut answers, &mut hears) => answered.map(|_| ()),
        _ = failing.changed() => Ok(()),
    }
}

/// Reads one request to its end, so that closing the connection does not reset it.
async fn request(stream: &mut TcpStream) -> io::Result<()> {
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
