//! TLS for gateways, with a certificate of their own, and a gateway on HTTP/1.1 that holds handshakes back.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::wire::read;

/// Creates a certificate for `localhost`, and an acceptor that has it and accepts one protocol.
pub(crate) fn acceptor(protocol: &str) -> anyhow::Result<(CertificateDer<'static>, TlsAcceptor)> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()])?;
    let certificate = cert.der().clone();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)?;
    config.alpn_protocols = vec![protocol.into()];
    Ok((certificate, TlsAcceptor::from(Arc::new(config))))
}

/// Returns a client's TLS configuration that trusts this certificate.
#[expect(clippy::expect_used, reason = "a bug in the tests")]
pub(crate) fn trusting(certificate: &CertificateDer<'static>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a certificate");
    ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A gateway on HTTP/1.1 over TLS that answers every post with 200. Completes the first handshake at once and the
/// others after [`release`](Self::release). It runs until it is dropped.
#[derive(Debug)]
pub struct TlsGateway {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    released: watch::Sender<bool>,
    counts: Arc<Counts>,
    _serving: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicUsize,
    posts: AtomicUsize,
}

impl TlsGateway {
    /// Starts a gateway on loopback.
    ///
    /// # Errors
    /// When it cannot listen or create a certificate.
    pub async fn start() -> anyhow::Result<Self> {
        let (certificate, acceptor) = acceptor("http/1.1")?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (released, mut is_released) = (watch::Sender::new(false), watch::Sender::new(true).subscribe());
        let (counts, releasing) = (Arc::<Counts>::default(), released.clone());
        let (counting, mut serving) = (Arc::clone(&counts), JoinSet::new());
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counting.connections.fetch_add(1, Ordering::Relaxed);
                let (acceptor, counts) = (acceptor.clone(), Arc::clone(&counting));
                connections.spawn(async move { _ = serve(stream, acceptor, is_released, &counts).await });
                is_released = releasing.subscribe();
            }
        });
        Ok(Self { address, certificate, released, counts, _serving: serving })
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

    /// Completes all handshakes.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// Returns the number of connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Returns the number of posts so far.
    #[must_use]
    pub fn posts(&self) -> usize {
        self.counts.posts.load(Ordering::Relaxed)
    }
}

async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    mut is_released: watch::Receiver<bool>,
    counts: &Counts,
) -> anyhow::Result<()> {
    is_released.wait_for(|released| *released).await?;
    let mut stream = acceptor.accept(stream).await?;
    let mut buffer = Vec::new();
    while read(&mut stream, &mut buffer).await?.is_some() {
        counts.posts.fetch_add(1, Ordering::Relaxed);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await?;
    }
    Ok(())
}
