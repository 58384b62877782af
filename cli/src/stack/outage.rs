//! A way to an endpoint that can be made to fail: what an outage of API Gateway looks like to the worker.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
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
    _serving: JoinSet<()>,
}

impl Outage {
    /// A way to the server at `url`, which does not fail yet.
    ///
    /// # Errors
    /// When `url` names no server, or no port is free.
    pub async fn prepare(url: &str) -> anyhow::Result<Self> {
        let upstream = url.strip_prefix("http://").with_context(|| format!("{url} is no http URL"))?.to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (failing, is_failing) = watch::channel(false);
        let refused = Arc::<AtomicUsize>::default();
        let (mut serving, counting) = (JoinSet::new(), Arc::clone(&refused));
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (upstream, is_failing) = (upstream.clone(), is_failing.clone());
                let refused = Arc::clone(&counting);
                // A connection that breaks is the worker's affair.
                connections.spawn(async move { _ = serve(stream, &upstream, is_failing, &refused).await });
            }
        });
        Ok(Self { address, failing, refused, _serving: serving })
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
    tokio::select! {
        passed = copy_bidirectional(&mut stream, &mut to) => passed.map(|_| ()),
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
