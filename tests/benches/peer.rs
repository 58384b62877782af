//! A stub of API Gateway over TLS for the bench of HTTP versions: it counts its connections, and answers by HTTP/1.1
//! with any framing, or by HTTP/2.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Response, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{server::server_config, stub};

/// Concurrent streams that the stub allows on an HTTP/2 connection, as load balancers commonly do.
const MAX_STREAMS: u32 = 128;

/// Prints the addresses of the stub and of its counter of connections, and serves until it is killed.
pub(crate) async fn serve(delay: Duration, protocol: &str) -> anyhow::Result<()> {
    let (listener, counter) = (listen().await?, listen().await?);
    println!("{} {}", listener.local_addr()?, counter.local_addr()?);
    let connections = Arc::<AtomicUsize>::default();
    tokio::spawn(count(counter, Arc::clone(&connections)));
    let answer = match protocol {
        "http2" => None,
        "chunked" => Some(&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"[..]),
        "unframed" => Some(&b"HTTP/1.1 200 OK\r\n\r\n"[..]),
        _ => Some(stub::POST),
    };
    let mut config = server_config()?;
    config.alpn_protocols = vec![if answer.is_none() { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        connections.fetch_add(1, Ordering::Relaxed);
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let stream = acceptor.accept(stream).await?;
            match answer {
                Some(answer) => stub::answer(stream, delay, |_| answer).await,
                None => http2(stream, delay).await,
            }
        });
    }
}

async fn listen() -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}

/// Sends the number of connections so far to each client.
async fn count(counter: TcpListener, connections: Arc<AtomicUsize>) -> std::io::Result<()> {
    loop {
        let (mut stream, _) = counter.accept().await?;
        stream.write_all(connections.load(Ordering::Relaxed).to_string().as_bytes()).await?;
    }
}

async fn http2(stream: TlsStream<TcpStream>, delay: Duration) -> std::io::Result<()> {
    let service = service_fn(move |request: hyper::Request<Incoming>| async move {
        request.into_body().collect().await?;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        hyper::Result::Ok(Response::new(Empty::<Bytes>::new()))
    });
    let mut server = http2::Builder::new(TokioExecutor::new());
    server.max_concurrent_streams(MAX_STREAMS);
    server.serve_connection(TokioIo::new(stream), service).await.map_err(std::io::Error::other)
}
