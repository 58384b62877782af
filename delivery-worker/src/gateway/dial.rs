//! Opens TCP connections: addresses are raced, and none is waited for long.

use std::{io, net::SocketAddr, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

/// How long resolving and connecting may take.
const CONNECT: Duration = Duration::from_secs(1);

/// The next address is tried when the one before has not answered for so long.
///
/// Source: "Connection Attempt Delay" in <https://www.rfc-editor.org/rfc/rfc8305#section-5>.
const NEXT: Duration = Duration::from_millis(250);

/// Connects to a host.
///
/// # Errors
/// The last address's error, or [`io::ErrorKind::TimedOut`] after 1 s.
pub async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let race = async { race(lookup_host((host, port)).await?.collect()).await };
    let stream = timeout(CONNECT, race).await.map_err(|_| timed_out("no connection within 1 s"))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub(super) fn timed_out(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in alternating(addresses) {
        attempts.push(TcpStream::connect(address));
        match timeout(NEXT, attempts.next()).await {
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

/// The families take turns, in the resolver's order, so that one that is cut off costs one delay.
///
/// Source: <https://www.rfc-editor.org/rfc/rfc8305#section-4>.
fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (same, others): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first);
    let (mut same, mut others) = (same.into_iter(), others.into_iter());
    let mut all = Vec::new();
    loop {
        let pair = [same.next(), others.next()];
        if pair == [None, None] {
            return all;
        }
        all.extend(pair.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn address_families_take_turns() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let [a, b, c, d] = ["[::1]:1", "[::2]:1", "127.0.0.1:1", "127.0.0.2:1"].map(address);
        assert_eq!(alternating(vec![a, b, c, d]), [a, c, b, d]);
        assert_eq!(alternating(vec![c, d]), [c, d]);
    }

    /// A listener whose backlog is full answers no more, as an address that is cut off.
    #[tokio::test]
    async fn address_that_does_not_answer_is_passed_over() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let silent = socket.listen(1).unwrap();
        let at = silent.local_addr().unwrap();
        let mut filling = Vec::new();
        while let Ok(connected) = timeout(NEXT, TcpStream::connect(at)).await {
            filling.push(connected.unwrap());
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let works = listener.local_addr().unwrap();
        let refused = (Ipv4Addr::LOCALHOST, 9).into();
        let stream = race(vec![refused, at, works]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), works);
    }

    #[tokio::test]
    async fn last_error_is_returned() {
        let error = race(vec![(Ipv4Addr::LOCALHOST, 9).into()]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(race(Vec::new()).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
