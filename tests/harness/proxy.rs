//! A proxy before API Gateway that injects faults: it answers some posts itself, and resets the connection of others.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::wire::{Request, read};

/// A fault of a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// No fault: the post is passed on.
    None,
    /// The proxy answers with this status.
    Status(u16),
    /// The connection is reset before the post is passed on.
    Reset,
    /// The post is passed on, and the connection is reset before the answer.
    AnswerLost,
}

/// A proxy that runs until it is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    counts: Arc<Mutex<BTreeMap<Fault, usize>>>,
    _serving: JoinSet<()>,
}

impl FaultProxy {
    /// Starts a proxy on loopback for the server at `upstream`. `decide` chooses each post's fault.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(
        upstream: SocketAddr,
        decide: impl Fn() -> Fault + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let counts: Arc<Mutex<BTreeMap<Fault, usize>>> = Arc::default();
        let (decide, counting) = (Arc::new(decide), Arc::clone(&counts));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (decide, counts) = (Arc::clone(&decide), Arc::clone(&counting));
                // Errors are expected: most faults break the connection.
                connections.spawn(async move { _ = serve(stream, upstream, &*decide, &counts).await });
            }
        });
        Ok(Self { address, counts, _serving: serving })
    }

    /// Returns the proxy's origin.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the number of posts by fault.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Fault, usize> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    upstream: SocketAddr,
    decide: &(impl Fn() -> Fault + ?Sized),
    counts: &Mutex<BTreeMap<Fault, usize>>,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(request) = read(&mut stream, &mut buffer).await? {
        let fault = decide();
        *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(fault).or_default() += 1;
        match fault {
            Fault::None => {
                let answer = pass(&request, upstream).await?;
                return stream.write_all(&answer).await;
            }
            Fault::Status(status) => {
                let answer = format!("HTTP/1.1 {status} Injected\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await?;
            }
            Fault::Reset => return stream.set_zero_linger(),
            Fault::AnswerLost => {
                pass(&request, upstream).await?;
                return stream.set_zero_linger();
            }
        }
    }
    Ok(())
}

/// Passes a request on over a new connection, and returns the answer's bytes.
async fn pass(request: &Request, upstream: SocketAddr) -> io::Result<Vec<u8>> {
    let mut to = TcpStream::connect(upstream).await?;
    let mut head = format!("{}\r\nConnection: close\r\n", request.line);
    for header in
        request.headers.iter().filter(|header| !header.to_ascii_lowercase().starts_with("connection:"))
    {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    to.write_all(&[head.as_bytes(), &request.body].concat()).await?;
    let mut answer = Vec::new();
    to.read_to_end(&mut answer).await?;
    Ok(answer)
}
