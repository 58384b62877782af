//! A gateway that speaks HTTP/2 over TLS, with a certificate of its own.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
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
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// A gateway that answers every request with 200 until it is dropped.
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
    requests: AtomicUsize,
    enough: Notify,
}

impl Http2Gateway {
    /// A gateway on loopback that ends each connection with a GOAWAY after `posts` requests.
    ///
    /// # Errors
    /// When it cannot listen, or has no certificate.
    pub async fn start(posts: usize) -> anyhow::Result<Self> {
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
        let noted = Arc::clone(&seen);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, acceptor.clone(), Arc::clone(&noted), posts));
            }
        });
        Ok(Self { address, certificate, seen, _serving: serving })
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

/// A connection that breaks is the client's affair.
async fn serve(stream: TcpStream, acceptor: TlsAcceptor, seen: Arc<Seen>, posts: usize) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    seen.connections.fetch_add(1, Ordering::Relaxed);
    let served = Arc::new(Served { seen, requests: AtomicUsize::new(0), enough: Notify::new() });
    let serving = Arc::clone(&served);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let served = Arc::clone(&serving);
        async move {
            let path = request.uri().path().to_owned();
            served.seen.paths.lock().unwrap_or_else(PoisonError::into_inner).push(path);
            _ = request.into_body().collect().await;
            if served.requests.fetch_add(1, Ordering::Relaxed) + 1 == posts {
                served.enough.notify_one();
            }
            Ok::<_, Infallible>(Response::new(Empty::<bytes::Bytes>::new()))
        }
    });
    let connection =
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        () = served.enough.notified() => {
            connection.as_mut().graceful_shutdown();
            _ = connection.await;
        }
    }
}
