//! TLS handshakes: the offered protocols, and the number of handshakes at once.

use std::time::Duration;

use futures::future::{join, join_all};
use streamer_gateway::PostResult;
use streamer_tests::{DEADLINE, eventually, tls::TlsGateway};
use tokio::{net::TcpListener, time::timeout};
use tokio_rustls::LazyConfigAcceptor;

use crate::client::{api, post, status, tls_api};

#[tokio::test]
async fn http2_is_offered_before_http1() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = api(&format!("https://localhost:{}/stage", listener.local_addr().unwrap().port())).await;
    let offered = async {
        let (stream, _) = listener.accept().await.unwrap();
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await.unwrap();
        start.client_hello().alpn().unwrap().map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    let (offered, _) = join(offered, timeout(Duration::from_secs(1), post(&api, "c"))).await;
    assert_eq!(offered, [&b"h2"[..], b"http/1.1"]);
}

/// A host accepts connections and does not shake hands, so each opening fails after two attempts of 2 s. Without an
/// open connection, the first post opens one alone, and then eight at once.
#[tokio::test]
async fn unreachable_host_fails_posts_together() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = api(&format!("https://127.0.0.1:{}/stage", listener.local_addr().unwrap().port())).await;
    tokio::time::pause();
    let posts = join_all((0..9).map(|_| post(&api, "c")));
    let results = timeout(Duration::from_secs(9), posts).await.unwrap();
    let is_handshake = |result: &_| matches!(result, PostResult::Broken(error) if error.contains("no TLS"));
    assert!(results.iter().all(is_handshake), "{results:?}");
}

/// The first handshake shows that the host uses HTTP/1.1. Then eight posts open a connection each, and the others
/// take the first connection in turn while these handshakes hang.
#[tokio::test]
async fn posts_that_wait_take_free_connections() {
    let gateway = TlsGateway::start().await.unwrap();
    let api = tls_api(gateway.trusting(), &gateway.endpoint(), 128).await;
    let posting = timeout(DEADLINE, join_all((0..64).map(|_| post(&api, "c"))));
    let releasing = async {
        eventually("56 posts have arrived", async || Ok(gateway.posts() == 56)).await.unwrap();
        assert_eq!(gateway.connections(), 1 + 8);
        gateway.release();
    };
    let (results, ()) = join(posting, releasing).await;
    assert_eq!(results.unwrap(), vec![status(200, ""); 64]);
    assert_eq!((gateway.posts(), gateway.connections()), (64, 9));
}
