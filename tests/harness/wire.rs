//! A scripted gateway: an HTTP/1.1 server that controls each answer byte by byte, and can stall and disconnect.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

/// The gateway's reaction to a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A whole answer.
    Answer(u16, String),
    /// A whole answer, after a delay.
    Late(Duration, u16),
    /// A whole answer, as soon as the value is true.
    Held(watch::Receiver<bool>, u16),
    /// A whole answer, and after a delay these bytes.
    Then(u16, Duration, &'static str),
    /// These bytes, unchanged.
    Raw(Vec<u8>),
    /// A whole answer, and then the connection is closed.
    Last(u16),
    /// A whole head and a body that does not end.
    Endless(u16),
    /// The connection is reset.
    Reset,
    /// The connection is closed in the middle of an answer.
    Half,
    /// No answer.
    Silent,
}

/// A request that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The request line, such as `POST /stage/@connections/abc HTTP/1.1`.
    pub line: String,
    /// The header lines.
    pub headers: Vec<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// A scripted gateway that runs until it is dropped.
#[derive(Debug)]
pub struct WireGateway {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
    spoke: Arc<AtomicBool>,
    _serving: JoinSet<()>,
}

impl WireGateway {
    /// Starts a gateway on loopback. `script` returns the reaction to the n-th request, from 0.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(script: impl Fn(usize) -> Reply + Send + Sync + 'static) -> io::Result<Self> {
        Self::answering(move |index, _| script(index)).await
    }

    /// Like [`start`](Self::start), with a script that sees the request.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn answering(
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let mut serving = JoinSet::new();
        let (connections, spoke) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let speaking = Arc::clone(&spoke);
        let (script, recorded, accepted) =
            (Arc::new(script), Arc::clone(&requests), Arc::clone(&connections));
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                let (script, recorded) = (Arc::clone(&script), Arc::clone(&recorded));
                let spoke = Arc::clone(&speaking);
                // Errors are expected: some tests break the connection.
                connections.spawn(async move { _ = serve(stream, &*script, &recorded, &spoke).await });
            }
        });
        Ok(Self { address, requests, connections, spoke, _serving: serving })
    }

    /// Returns the gateway's origin.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the management endpoint, with a stage.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("{}/stage", self.origin())
    }

    /// Whether it has sent bytes after an answer ([`Reply::Then`]).
    #[must_use]
    pub fn spoke(&self) -> bool {
        self.spoke.load(Ordering::Relaxed)
    }

    /// Returns the number of connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Returns all requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Request {
    /// Returns the id of the connection that it posts to, encoded as in the path.
    #[must_use]
    pub fn connection(&self) -> &str {
        let path = self.line.split(' ').nth(1).unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default()
    }

    /// Returns a header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = self.headers.iter().filter_map(|header| header.split_once(':'));
        headers.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }
}

async fn serve(
    mut stream: TcpStream,
    script: &(impl Fn(usize, &Request) -> Reply + ?Sized),
    requests: &Mutex<Vec<Request>>,
    spoke: &AtomicBool,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(request) = read(&mut stream, &mut buffer).await? {
        let index = {
            let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
            requests.push(request.clone());
            requests.len() - 1
        };
        match script(index, &request) {
            Reply::Answer(status, body) => answer(&mut stream, status, &body).await?,
            Reply::Late(delay, status) => {
                sleep(delay).await;
                answer(&mut stream, status, "").await?;
            }
            Reply::Held(mut released, status) => {
                // An error means that the test has ended.
                if released.wait_for(|released| *released).await.is_ok() {
                    answer(&mut stream, status, "").await?;
                }
            }
            Reply::Then(status, delay, bytes) => {
                answer(&mut stream, status, "").await?;
                sleep(delay).await;
                stream.write_all(bytes.as_bytes()).await?;
                spoke.store(true, Ordering::Relaxed);
            }
            Reply::Raw(bytes) => stream.write_all(&bytes).await?,
            Reply::Last(status) => return answer(&mut stream, status, "").await,
            Reply::Endless(status) => {
                let head = format!("HTTP/1.1 {status} Scripted\r\nTransfer-Encoding: chunked\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
                loop {
                    stream.write_all(b"4\r\nmore\r\n").await?;
                    sleep(Duration::from_millis(1)).await;
                }
            }
            Reply::Reset => return stream.set_zero_linger(),
            Reply::Silent => sleep(Duration::from_secs(3600)).await,
            Reply::Half => return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le").await,
        }
    }
    Ok(())
}

async fn answer(stream: &mut TcpStream, status: u16, body: &str) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status} Scripted\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).await
}

/// Reads a connection's next request. Returns `None` when the client has closed it.
pub(crate) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Request>> {
    let head_end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head: Vec<u8> = buffer.drain(..head_end).collect();
    let head = String::from_utf8_lossy(&head).trim_end().to_owned();
    let mut lines = head.split("\r\n").map(str::to_owned);
    let line = lines.next().unwrap_or_default();
    let headers: Vec<_> = lines.collect();
    let length = headers.iter().filter_map(|header| header.split_once(':'));
    let length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.filter_map(|(_, value)| value.trim().parse().ok()).next().unwrap_or(0);
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(Request { line, headers, body: buffer.drain(..length).collect() }))
}
