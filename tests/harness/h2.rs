//! A gateway on HTTP/2 over TLS, with a certificate of its own, and a pipe before it that drops bytes.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use http::Response;
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, pki_types::CertificateDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::tls::{acceptor, trusting};

/// The gateway's reaction to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Answers 200.
    Answer,
    /// Answers 200, and closes the connection with a GOAWAY.
    AnswerAndGoAway,
    /// Resets the stream with REFUSED_STREAM: it was not processed.
    RefuseStream,
    /// Closes the connection without a GOAWAY.
    Close,
    /// Never answers. The connection still answers pings.
    Hang,
}

type Script = dyn Fn(usize, usize) -> Action + Send + Sync;

/// A scripted gateway that runs until it is dropped.
#[derive(Debug)]
pub struct Http2Gateway {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    seen: Arc<Seen>,
    _serving: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Seen {
    connections: AtomicUsize,
    paths: Mutex<Vec<String>>,
}

/// State of one connection.
struct Served {
    seen: Arc<Seen>,
    connection: usize,
    requests: AtomicUsize,
    enough: Notify,
    closes: Notify,
}

impl Http2Gateway {
    /// Starts a gateway on loopback that ends each connection with a GOAWAY after `posts` requests.
    ///
    /// # Errors
    /// When it cannot listen or create a certificate.
    pub async fn start(posts: usize) -> anyhow::Result<Self> {
        Self::scripted(
            move |_, index| if index + 1 == posts { Action::AnswerAndGoAway } else { Action::Answer },
        )
        .await
    }

    /// Starts a gateway on loopback. `script` gets the indexes of the connection and of the request in it, from 0.
    ///
    /// # Errors
    /// When it cannot listen or create a certificate.
    pub async fn scripted(
        script: impl Fn(usize, usize) -> Action + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        Self::limited(u32::MAX, script).await
    }

    /// Like [`scripted`](Self::scripted), with at most `streams` concurrent requests per connection.
    ///
    /// # Errors
    /// When it cannot listen or create a certificate.
    pub async fn limited(
        streams: u32,
        script: impl Fn(usize, usize) -> Action + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let (certificate, acceptor) = acceptor("h2")?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, seen) = (listener.local_addr()?, Arc::<Seen>::default());
        let mut serving = JoinSet::new();
        let (seen_by_all, script) = (Arc::clone(&seen), Arc::<Script>::from(Box::new(script) as Box<Script>));
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen, script) =
                    (acceptor.clone(), Arc::clone(&seen_by_all), Arc::clone(&script));
                connections.spawn(serve(stream, acceptor, seen, script, streams));
            }
        });
        Ok(Self { address, certificate, seen, _serving: serving })
    }

    /// Starts a pipe to this gateway, whose first `hanging` connections never reach it.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn pipe(&self, hanging: usize) -> io::Result<Pipe> {
        Pipe::start(self.address, hanging).await
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

    /// Returns the paths of all requests so far.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.seen.paths.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves a connection. Its errors are the client's to handle.
async fn serve(stream: TcpStream, acceptor: TlsAcceptor, seen: Arc<Seen>, script: Arc<Script>, streams: u32) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let connection = seen.connections.fetch_add(1, Ordering::Relaxed);
    let (requests, enough, closes) = (AtomicUsize::new(0), Notify::new(), Notify::new());
    let served = Arc::new(Served { seen, connection, requests, enough, closes });
    let serving = Arc::clone(&served);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (served, script) = (Arc::clone(&serving), Arc::clone(&script));
        async move { served.answer(request, &*script).await }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    let connection = builder.max_concurrent_streams(streams).serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        () = served.closes.notified() => {}
        () = served.enough.notified() => {
            connection.as_mut().graceful_shutdown();
            _ = connection.await;
        }
    }
}

impl Served {
    async fn answer(
        &self,
        request: http::Request<Incoming>,
        script: &Script,
    ) -> Result<Response<Empty<bytes::Bytes>>, h2::Error> {
        let path = request.uri().path().to_owned();
        self.seen.paths.lock().unwrap_or_else(PoisonError::into_inner).push(path);
        _ = request.into_body().collect().await;
        match script(self.connection, self.requests.fetch_add(1, Ordering::Relaxed)) {
            Action::Answer => {}
            Action::AnswerAndGoAway => self.enough.notify_one(),
            Action::RefuseStream => return Err(h2::Reason::REFUSED_STREAM.into()),
            Action::Close => {
                self.closes.notify_one();
                std::future::pending::<()>().await;
            }
            Action::Hang => std::future::pending().await,
        }
        Ok(Response::new(Empty::new()))
    }
}

/// Passes bytes between clients and a gateway until it is dropped.
#[derive(Debug)]
pub struct Pipe {
    port: u16,
    silent: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    _passing: JoinSet<()>,
}

impl Pipe {
    async fn start(gateway: SocketAddr, hanging: usize) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (silent, connections) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (silencing, counting) = (Arc::clone(&silent), Arc::clone(&connections));
        let mut passing = JoinSet::new();
        passing.spawn(async move {
            let (mut pipes, mut hung) = (JoinSet::new(), Vec::new());
            while let Ok((client, _)) = listener.accept().await {
                let index = counting.fetch_add(1, Ordering::Relaxed);
                if index < hanging {
                    hung.push(client);
                    continue;
                }
                let silent = if index == 0 { Arc::clone(&silencing) } else { Arc::default() };
                let Ok(gateway) = TcpStream::connect(gateway).await else { continue };
                let ((from_client, to_client), (from_gateway, to_gateway)) =
                    (client.into_split(), gateway.into_split());
                pipes.spawn(pass(from_client, to_gateway, Arc::clone(&silent)));
                pipes.spawn(pass(from_gateway, to_client, silent));
            }
        });
        Ok(Self { port, silent, connections, _passing: passing })
    }

    /// Returns the gateway's management endpoint through this pipe.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("https://localhost:{}/stage", self.port)
    }

    /// Drops every further byte of the first connection.
    pub fn silence(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    /// Returns the number of connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, silent: Arc<AtomicBool>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if !silent.load(Ordering::Relaxed) && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
