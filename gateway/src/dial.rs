//! Opens TCP connections by racing the addresses of a host (Happy Eyeballs, RFC 8305).

use std::{io, net::SocketAddr, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

/// Maximum time to resolve a host and connect to it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Time after which the next address is tried beside an address that has not answered.
///
/// Source: "Connection Attempt Delay" in <https://www.rfc-editor.org/rfc/rfc8305#section-5>.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Connects to a host.
///
/// # Errors
/// The error of the last address that failed, or [`io::ErrorKind::TimedOut`] after 1 s, which is worth another
/// attempt.
pub(crate) async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let race = async { race(lookup_host((host, port)).await?.collect()).await };
    let stream =
        timeout(CONNECT_TIMEOUT, race).await.map_err(|_| timed_out("no connection within 1 s"))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Builds an error of the kind [`io::ErrorKind::TimedOut`].
pub(crate) fn timed_out(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, message)
}

async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in alternating(addresses) {
        attempts.push(TcpStream::connect(address));
        match timeout(ATTEMPT_DELAY, attempts.next()).await {
            Ok(Some(Ok(stream))) => return Ok(stream),
            Ok(Some(Err(error))) => last = error,
            Ok(None) | Err(_) => {}
        }
    }
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Alternates between the address families, in the resolver's order, so that an unreachable family costs one delay.
///
/// Source: <https://www.rfc-editor.org/rfc/rfc8305#section-4>.
fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let prefers_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, others): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == prefers_ipv6);
    let (mut preferred, mut others) = (preferred.into_iter(), others.into_iter());
    let mut alternating = Vec::new();
    loop {
        let pair = [preferred.next(), others.next()];
        if pair == [None, None] {
            return alternating;
        }
        alternating.extend(pair.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn address_families_alternate() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let [a, b, c, d] = ["[::1]:1", "[::2]:1", "127.0.0.1:1", "127.0.0.2:1"].map(address);
        assert_eq!(alternating(vec![a, b, c, d]), [a, c, b, d]);
        assert_eq!(alternating(vec![c, d]), [c, d]);
    }

    /// A listener whose backlog is full does not answer, like an unreachable address.
    #[tokio::test]
    async fn silent_address_is_skipped() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let silent = socket.listen(1).unwrap();
        let silent_address = silent.local_addr().unwrap();
        let mut backlog = Vec::new();
        while let Ok(connected) = timeout(ATTEMPT_DELAY, TcpStream::connect(silent_address)).await {
            backlog.push(connected.unwrap());
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let working_address = listener.local_addr().unwrap();
        let refused = (Ipv4Addr::LOCALHOST, 9).into();
        let stream = race(vec![refused, silent_address, working_address]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), working_address);
    }

    #[tokio::test]
    async fn last_error_is_returned() {
        let error = race(vec![(Ipv4Addr::LOCALHOST, 9).into()]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(race(Vec::new()).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
