//! A gateway that speaks HTTP/2 over TLS, with a certificate of its own, and a pipe before it that loses bytes.

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
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
};
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

/// What the gateway does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// Answers 200.
    Answers,
    /// Answers 200, and closes the connection with a GOAWAY.
    AnswersLast,
    /// Says that it has not processed it (REFUSED_STREAM).
    Refuses,
    /// Closes the connection without a GOAWAY.
    Closes,
    /// Nothing; the connection answers pings all the same.
    Hangs,
}

type Script = dyn Fn(usize, usize) -> Does + Send + Sync;

/// A gateway that does what its script says, until it is dropped.
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

/// One connection's requests.
struct Served {
    seen: Arc<Seen>,
    connection: usize,
    requests: AtomicUsize,
    enough: Notify,
    closes: Notify,
}

impl Http2Gateway {
    /// A gateway on loopback that ends each connection with a GOAWAY after `posts` requests.
    ///
    /// # Errors
    /// When it cannot listen, or has no certificate.
    pub async fn start(posts: usize) -> anyhow::Result<Self> {
        Self::scripted(move |_, place| if place + 1 == posts { Does::AnswersLast } else { Does::Answers })
            .await
    }

    /// A gateway on loopback that does with the n-th request of the n-th connection, from 0, what `script` says.
    ///
    /// # Errors
    /// When it cannot listen, or has no certificate.
    pub async fn scripted(
        script: impl Fn(usize, usize) -> Does + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        Self::limited(u32::MAX, script).await
    }

    /// The same, with at most so many requests at a time on each connection.
    ///
    /// # Errors
    /// When it cannot listen, or has no certificate.
    pub async fn limited(
        streams: u32,
        script: impl Fn(usize, usize) -> Does + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()])?;
        let certificate = cert.der().clone();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, seen) = (listener.local_addr()?, Arc::<Seen>::default());
        let mut serving = JoinSet::new();
        let (noted, script) = (Arc::clone(&seen), Arc::<Script>::from(Box::new(script) as Box<Script>));
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen, script) = (acceptor.clone(), Arc::clone(&noted), Arc::clone(&script));
                connections.spawn(serve(stream, acceptor, seen, script, streams));
            }
        });
        Ok(Self { address, certificate, seen, _serving: serving })
    }

    /// A pipe to this gateway.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn pipe(&self, hanging: usize) -> io::Result<Pipe> {
        Pipe::start(self.address, hanging).await
    }

    /// The management endpoint, with a stage.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("https://localhost:{}/stage", self.address.port())
    }

    /// A client's TLS configuration that trusts this gateway.
    ///
    /// # Panics
    /// When TLS cannot be set up at all.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a fault of the tests themselves")]
    pub fn trusting(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    /// How many connections were made.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }

    /// The paths of the requests that arrived.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.seen.paths.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A connection that breaks is for the client to handle.
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
            Does::Answers => {}
            Does::AnswersLast => self.enough.notify_one(),
            Does::Refuses => return Err(h2::Reason::REFUSED_STREAM.into()),
            Does::Closes => {
                self.closes.notify_one();
                std::future::pending::<()>().await;
            }
            Does::Hangs => std::future::pending().await,
        }
        Ok(Response::new(Empty::new()))
    }
}

/// Passes bytes between a client and a gateway, until it is dropped.
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
                let place = counting.fetch_add(1, Ordering::Relaxed);
                if place < hanging {
                    hung.push(client);
                    continue;
                }
                let silent = if place == 0 { Arc::clone(&silencing) } else { Arc::default() };
                let Ok(gateway) = TcpStream::connect(gateway).await else { continue };
                let ((from_client, to_client), (from_gateway, to_gateway)) =
                    (client.into_split(), gateway.into_split());
                pipes.spawn(pass(from_client, to_gateway, Arc::clone(&silent)));
                pipes.spawn(pass(from_gateway, to_client, silent));
            }
        });
        Ok(Self { port, silent, connections, _passing: passing })
    }

    /// The gateway's management endpoint by way of this pipe.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("https://localhost:{}/stage", self.port)
    }

    /// Loses every byte of the first connection from now on.
    pub fn silence(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    /// How many connections were made.
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
