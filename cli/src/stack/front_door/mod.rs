//! The front door of a stack: the server that clients connect to. It passes their connections on to the emulator, and
//! answers as API Gateway does where the emulator does not.
//!
//! - `handshake` answers requests. Refusals of API Gateway belong there.
//! - `bridge` passes on everything after an accepted handshake, in two directions of `pipe`. It reads the headers of
//!   `frames` and closes connections that exceed the `limits` of API Gateway.
//! - `faults` cuts, stalls and refuses connections, for tests.
//!
//! The sizes are those of a client's frames and messages; the times count for both directions. Frames to the client
//! pass whatever their size: the 128 KiB of a PostToConnection request are the emulator's to check, and a client does
//! not notice in how many frames API Gateway sends them.

mod bridge;
mod faults;
pub(crate) mod frames;
mod handshake;
mod limits;
mod pipe;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
    sync::oneshot,
    time::sleep,
};

use self::handshake::{Door, Upstream, answer};
pub use self::{
    faults::{Faults, Refusal},
    limits::{FRAME_BYTES, Limits, MESSAGE_BYTES},
};

/// Number of file descriptors that this process may use: two for each client, and a third if this process is the
/// client. Without asking, a process usually gets 256 on macOS and 1024 on Linux.
const DESCRIPTORS: u64 = 10_240;

/// Time between two attempts to accept a connection while no file descriptor is left.
pub(crate) const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// A server on loopback that passes WebSockets on to a stage of a WebSocket API. When it is dropped, it closes them.
#[derive(Debug)]
pub struct FrontDoor {
    address: SocketAddr,
    stage: String,
    faults: Faults,
    server: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl FrontDoor {
    /// Starts a front door to the stage at `url`, `ws://…/{stage}`, whose `connect-handler` answers these
    /// `subprotocols` besides `streamer.jwt`. It runs in a thread of its own, so that the caller's work cannot delay it.
    /// It closes connections after the times of `limits`.
    ///
    /// # Errors
    /// When `url` is not a ws URL, or no port is available.
    pub fn start(url: &str, subprotocols: Vec<String>, limits: Limits) -> anyhow::Result<Self> {
        let (upstream, faults) = (Upstream::parse(url, subprotocols)?, Faults::default());
        let stage = upstream.stage().to_owned();
        let door = Arc::new(Door { upstream, limits, faults: faults.clone() });
        // Without more, the front door still serves as many clients as it can.
        raise_descriptor_limit();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, door) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { address, stage, faults, server: Some((stop, thread)) })
    }

    /// Returns the URL that clients connect to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}/{}", self.address, self.stage)
    }

    /// Returns the faults of this front door. It has no fault at first.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }
}

impl Drop for FrontDoor {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.server.take() {
            _ = stop.send(());
            _ = thread.join();
        }
    }
}

/// Raises the limit on file descriptors to [`DESCRIPTORS`], as far as the system allows.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    if limit.current.is_some_and(|current| current < wanted) {
        _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit });
    }
}

async fn accept(listener: std::net::TcpListener, door: Arc<Door>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, Arc::clone(&door)));
            }
            Err(_) => sleep(ACCEPT_RETRY_DELAY).await,
        }
    }
}

/// Answers the requests of a connection, until one opens a WebSocket.
async fn serve(stream: TcpStream, door: Arc<Door>) {
    _ = stream.set_nodelay(true);
    let service = service_fn(async |request| answer(&door, request).await);
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // The client sees a broken connection as such, so the error needs no other report.
    _ = connection.with_upgrades().await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use futures::{SinkExt as _, StreamExt as _, future::join_all};
    use http::StatusCode;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::timeout,
    };
    use tokio_tungstenite::{
        WebSocketStream, accept_async, client_async,
        tungstenite::{Message, protocol::frame::coding::CloseCode},
    };

    use super::*;

    /// How long a test waits. It only limits a failing run.
    const DEADLINE: Duration = Duration::from_secs(120);

    /// A server in place of the emulator.
    struct Emulator(TcpListener);

    impl Emulator {
        async fn start() -> (Self, FrontDoor) {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let url = format!("ws://{}/_aws/execute-api/a1b2c3d4/local", listener.local_addr().unwrap());
            (
                Self(listener),
                FrontDoor::start(&url, vec!["graphql-transport-ws".to_owned()], Limits::default()).unwrap(),
            )
        }

        async fn stream(&self) -> TcpStream {
            timeout(DEADLINE, self.0.accept()).await.unwrap().unwrap().0
        }

        async fn accept(&self) -> WebSocketStream<TcpStream> {
            accept_async(self.stream().await).await.unwrap()
        }

        /// Connects a client, and returns both ends.
        async fn connect(
            &self,
            door: &FrontDoor,
        ) -> (WebSocketStream<TcpStream>, WebSocketStream<TcpStream>) {
            let client = async { client_async(door.url(), tcp(door).await).await.unwrap().0 };
            tokio::join!(client, self.accept())
        }
    }

    async fn tcp(door: &FrontDoor) -> TcpStream {
        TcpStream::connect(door.address).await.unwrap()
    }

    /// Returns a handshake with these headers, each of which ends in CRLF.
    fn handshake(target: &str, headers: &str) -> String {
        format!(
            "GET {target} HTTP/1.1\r\nHost: example.com\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        )
    }

    const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

    /// Reads the head of a request or response.
    async fn head(stream: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(DEADLINE, stream.read_u8()).await.unwrap().unwrap());
        }
        String::from_utf8(head).unwrap().to_lowercase()
    }

    async fn send(stream: &mut TcpStream, text: &str) {
        stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until the other side closes or resets the connection.
    async fn rest(stream: &mut TcpStream) -> Vec<u8> {
        let mut rest = Vec::new();
        _ = timeout(DEADLINE, stream.read_to_end(&mut rest)).await.unwrap();
        rest
    }

    /// Opens a WebSocket with these headers, and returns both ends with the heads that they received.
    async fn open(
        emulator: &Emulator,
        door: &FrontDoor,
        headers: &str,
        answer: &str,
    ) -> ((TcpStream, String), (TcpStream, String)) {
        let mut client = tcp(door).await;
        send(&mut client, &handshake("/local", headers)).await;
        let mut server = emulator.stream().await;
        let request = head(&mut server).await;
        send(&mut server, &format!("{ACCEPTED}{answer}\r\n")).await;
        let response = head(&mut client).await;
        ((client, response), (server, request))
    }

    #[tokio::test]
    async fn subprotocol_is_answered_only_when_offered() {
        let (emulator, door) = Emulator::start().await;
        for (offered, emulated, answered) in [
            ("Sec-WebSocket-Protocol: streamer.jwt, a.b.c\r\n", "", Some("streamer.jwt")),
            (
                "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: streamer.jwt, a.b.c\r\n",
                "",
                Some("streamer.jwt"),
            ),
            ("Sec-WebSocket-Protocol: chat\r\n", "", None),
            ("Sec-WebSocket-Protocol: chat, graphql-transport-ws\r\n", "", Some("graphql-transport-ws")),
            // `connect-handler` answers no other subprotocol, so API Gateway does not, either.
            ("Sec-WebSocket-Protocol: chat\r\n", "Sec-WebSocket-Protocol: chat\r\n", None),
            ("", "", None),
        ] {
            let ((_client, response), (_server, request)) = open(&emulator, &door, offered, emulated).await;
            assert!(response.starts_with("http/1.1 101 "), "{response}");
            let lines: Vec<_> =
                response.lines().filter(|line| line.contains("sec-websocket-protocol")).collect();
            let expected: Vec<_> =
                answered.iter().map(|subprotocol| format!("sec-websocket-protocol: {subprotocol}")).collect();
            assert_eq!(lines, expected, "{offered}");
            for line in offered.to_lowercase().lines() {
                assert!(request.contains(line), "{request}");
            }
        }
    }

    #[tokio::test]
    async fn handshake_passes_unchanged_except_extensions() {
        let (emulator, door) = Emulator::start().await;
        let mut client = tcp(&door).await;
        let headers = "Authorization: Bearer a.b.c\r\nUser-Agent: device/1\r\nX-Twice: 1\r\nX-Twice: 2\r\n\
            Sec-WebSocket-Extensions: permessage-deflate\r\n";
        send(&mut client, &handshake("/local/?Authorization=a%2Eb&x=1&x=2", headers)).await;
        let mut server = emulator.stream().await;
        let request = head(&mut server).await;
        let host = emulator.0.local_addr().unwrap();
        assert!(
            request
                .starts_with("get /_aws/execute-api/a1b2c3d4/local?authorization=a%2eb&x=1&x=2 http/1.1\r\n")
        );
        for line in ["authorization: bearer a.b.c", "user-agent: device/1", "x-twice: 1\r\nx-twice: 2"] {
            assert!(request.contains(&format!("\r\n{line}\r\n")), "{request}");
        }
        assert!(
            request.contains(&format!("\r\nhost: {host}\r\n")) && !request.contains("example.com"),
            "{request}"
        );
        assert!(!request.contains("permessage-deflate"), "{request}");
    }

    #[tokio::test]
    async fn refusal_passes_with_status_and_body() {
        let (emulator, door) = Emulator::start().await;
        for (refusal, status, body) in [
            ("403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "403 forbidden", ""),
            (
                "401 Unauthorized\r\nX-Id: a\r\nContent-Length: 9\r\n\r\n{\"m\":\"n\"}",
                "401 unauthorized",
                r#"{"m":"n"}"#,
            ),
            (
                "500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n4\r\nhalf\r\n0\r\n\r\n",
                "500 oops",
                "halfhalf",
            ),
        ] {
            let mut client = tcp(&door).await;
            send(&mut client, &handshake("/local", "")).await;
            let mut server = emulator.stream().await;
            head(&mut server).await;
            send(&mut server, &format!("HTTP/1.1 {refusal}")).await;
            let response = head(&mut client).await;
            assert!(response.starts_with(&format!("http/1.1 {status}\r\n")), "{response}");
            assert!(response.contains(&format!("content-length: {}\r\n", body.len())), "{response}");
            assert_eq!(response.contains("x-id: a\r\n"), refusal.contains("X-Id"), "{response}");
            let mut received = vec![0; body.len()];
            timeout(DEADLINE, client.read_exact(&mut received)).await.unwrap().unwrap();
            assert_eq!(received, body.as_bytes());
        }
    }

    #[tokio::test]
    async fn other_stages_and_requests_get_403() {
        let (_emulator, door) = Emulator::start().await;
        let plain = |method, path| format!("{method} {path} HTTP/1.1\r\nHost: example.com\r\n\r\n");
        for request in [
            handshake("/", ""),
            handshake("/production", ""),
            handshake("/local/more", ""),
            handshake("/locals", ""),
            handshake("/_aws/execute-api/a1b2c3d4/local", ""),
            plain("GET", "/local"),
            plain("POST", "/local/@connections/abc"),
            handshake("/local", "").replace("GET", "PUT"),
        ] {
            let mut client = tcp(&door).await;
            send(&mut client, &request).await;
            let response = head(&mut client).await;
            assert!(response.starts_with("http/1.1 403 forbidden\r\n"), "{request}{response}");
            assert!(response.contains("x-amzn-errortype: forbiddenexception\r\n"), "{response}");
            let body = br#"{"message":"Forbidden"}"#;
            let mut received = [0; 23];
            timeout(DEADLINE, client.read_exact(&mut received)).await.unwrap().unwrap();
            assert_eq!(&received, body);
        }
    }

    #[tokio::test]
    async fn missing_emulator_gets_502() {
        let (emulator, door) = Emulator::start().await;
        drop(emulator);
        let mut client = tcp(&door).await;
        send(&mut client, &handshake("/local", "")).await;
        let response = head(&mut client).await;
        assert!(response.starts_with("http/1.1 502 bad gateway\r\n"), "{response}");
    }

    #[test]
    fn only_ws_urls_are_accepted() {
        for url in ["wss://127.0.0.1:1/local", "http://127.0.0.1:1/local", "/local"] {
            assert!(FrontDoor::start(url, Vec::new(), Limits::default()).is_err(), "{url}");
        }
    }

    /// Close frames with every code, even those that only a broken side sends, pass in both directions.
    #[tokio::test]
    async fn close_codes_pass_both_ways() {
        let (emulator, door) = Emulator::start().await;
        for code in [1000, 1001, 1003, 1009, 1011, 1005, 1006, 3000, 4001, 4999] {
            let close = [&[0x88, 5][..], &u16::to_be_bytes(code), b"bye"].concat();
            let ((mut client, _), (mut server, _)) = open(&emulator, &door, "", "").await;
            pass(&close, &mut client, &mut server).await;
            server.write_all(&close).await.unwrap();
            drop(server);
            assert_eq!(rest(&mut client).await, close, "{code}");
        }
    }

    /// Neither side's control frames are answered on the way, and fragments are not joined.
    #[tokio::test]
    async fn frames_pass_as_they_are() {
        let (emulator, door) = Emulator::start().await;
        let ((mut client, _), (mut server, _)) = open(&emulator, &door, "", "").await;
        let (ping, pong, fragments) = (b"\x89\x01p", b"\x8a\x01q", b"\x01\x01a\x89\x00\x80\x01b");
        for frames in [&ping[..], pong, fragments] {
            pass(frames, &mut client, &mut server).await;
            pass(frames, &mut server, &mut client).await;
        }
    }

    async fn pass(bytes: &[u8], from: &mut TcpStream, to: &mut TcpStream) {
        from.write_all(bytes).await.unwrap();
        let mut received = vec![0; bytes.len()];
        timeout(DEADLINE, to.read_exact(&mut received)).await.unwrap().unwrap();
        assert_eq!(received, bytes);
    }

    #[tokio::test]
    async fn messages_within_the_limits_pass() {
        let (emulator, door) = Emulator::start().await;
        let (mut client, mut server) = emulator.connect(&door).await;
        let large = "x".repeat(1024 * 1024);
        for message in [Message::text(large.clone()), Message::binary(large.clone()), Message::text("")] {
            exchange(&message, &mut server, &mut client).await;
        }
        for message in [Message::text(&large[..32 * 1024]), Message::text("")] {
            exchange(&message, &mut client, &mut server).await;
        }
    }

    #[tokio::test]
    async fn large_message_closes_both_sides() {
        let (emulator, door) = Emulator::start().await;
        let (mut client, mut server) = emulator.connect(&door).await;
        let large = Message::text("x".repeat(1024 * 1024));
        let exchange = async {
            let client = async {
                client.send(large).await.unwrap();
                client.next().await
            };
            tokio::join!(client, server.next())
        };
        let (at_client, at_server) = timeout(DEADLINE, exchange).await.unwrap();
        let Message::Close(Some(close)) = at_client.unwrap().unwrap() else { panic!("no close frame") };
        assert_eq!(close.code, CloseCode::Size);
        assert!(at_server.unwrap().is_err(), "the emulator is not disconnected");
    }

    #[tokio::test]
    async fn times_of_limits_apply() {
        let (emulator, _) = Emulator::start().await;
        let url = format!("ws://{}/local", emulator.0.local_addr().unwrap());
        let (defaults, short) = (Limits::default(), Duration::from_millis(50));
        for limits in [Limits { idle: short, ..defaults }, Limits { lifetime: short, ..defaults }] {
            let door = FrontDoor::start(&url, Vec::new(), limits).unwrap();
            let ((mut client, _), (mut server, _)) = open(&emulator, &door, "", "").await;
            assert_eq!(rest(&mut server).await, b"");
            drop(server);
            assert_eq!(rest(&mut client).await, b"\x88\x0c\x03\xe9Going away");
        }
    }

    #[tokio::test]
    async fn cut_spares_later_connections() {
        let (emulator, door) = Emulator::start().await;
        let ((mut client, _), (mut server, _)) = open(&emulator, &door, "", "").await;
        let faults = door.faults().clone();
        thread::spawn(move || faults.cut_all()).join().unwrap();
        assert_eq!((rest(&mut client).await, rest(&mut server).await), (vec![], vec![]));
        let ((mut client, _), (mut server, _)) = open(&emulator, &door, "", "").await;
        pass(b"\x89\x01p", &mut client, &mut server).await;
    }

    #[tokio::test]
    async fn stall_holds_frames_and_handshakes_back() {
        let (emulator, door) = Emulator::start().await;
        let ((mut client, _), (mut server, _)) = open(&emulator, &door, "", "").await;
        door.faults().stall(true);
        let mut second = tcp(&door).await;
        send(&mut second, &handshake("/local", "")).await;
        send(&mut client, "\x09\x01p").await;
        let mut received = [0; 3];
        let any = async {
            tokio::select! {
                _ = emulator.0.accept() => {}
                _ = server.read(&mut received) => {}
            }
        };
        // A longer wait would only make the test stricter.
        assert!(timeout(Duration::from_millis(100), any).await.is_err());
        door.faults().stall(false);
        timeout(DEADLINE, server.read_exact(&mut received)).await.unwrap().unwrap();
        assert_eq!(&received, b"\x09\x01p");
        head(&mut emulator.stream().await).await;
    }

    #[tokio::test]
    async fn refusals_answer_handshakes() {
        let (emulator, door) = Emulator::start().await;
        let ((mut client, _), (mut server, _)) = open(&emulator, &door, "", "").await;
        for (status, line, body) in [
            (StatusCode::TOO_MANY_REQUESTS, "429 too many requests", r#"{"message":"Too Many Requests"}"#),
            (StatusCode::INTERNAL_SERVER_ERROR, "500 internal", r#"{"message":"Internal Server Error"}"#),
            (StatusCode::FORBIDDEN, "403 forbidden", r#"{"message":"Forbidden"}"#),
        ] {
            door.faults().refuse(Some(Refusal::Status(status)));
            let mut refused = tcp(&door).await;
            send(&mut refused, &handshake("/local", "")).await;
            let response = head(&mut refused).await;
            assert!(response.starts_with(&format!("http/1.1 {line}")), "{response}");
            let mut received = vec![0; body.len()];
            timeout(DEADLINE, refused.read_exact(&mut received)).await.unwrap().unwrap();
            assert_eq!(received, body.as_bytes());
        }
        door.faults().refuse(Some(Refusal::Closed));
        let mut refused = tcp(&door).await;
        send(&mut refused, &handshake("/local", "")).await;
        assert_eq!(rest(&mut refused).await, b"");
        pass(b"\x89\x01p", &mut client, &mut server).await;
        door.faults().refuse(None);
        open(&emulator, &door, "", "").await;
    }

    async fn exchange(
        message: &Message,
        from: &mut WebSocketStream<TcpStream>,
        to: &mut WebSocketStream<TcpStream>,
    ) {
        let exchanging = async { tokio::join!(from.send(message.clone()), to.next()) };
        let (sent, received) = timeout(DEADLINE, exchanging).await.unwrap();
        sent.unwrap();
        assert_eq!(received.unwrap().unwrap(), *message);
    }

    /// Bytes that either side sends together with the handshake belong to the WebSocket.
    #[tokio::test]
    async fn early_frames_are_kept() {
        let (emulator, door) = Emulator::start().await;
        let mut client = tcp(&door).await;
        send(&mut client, &format!("{}\x01\x05early", handshake("/local", ""))).await;
        let mut server = emulator.stream().await;
        head(&mut server).await;
        send(&mut server, &format!("{ACCEPTED}\r\n\x01\x06answer")).await;
        head(&mut client).await;
        let (mut early, mut answer) = ([0; 7], [0; 8]);
        timeout(DEADLINE, server.read_exact(&mut early)).await.unwrap().unwrap();
        timeout(DEADLINE, client.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!((&early, &answer), (b"\x01\x05early", b"\x01\x06answer"));
    }

    /// The front door and the kernel hold a limited number of bytes for a side that does not read, and lose none.
    #[tokio::test]
    async fn slow_reader_holds_the_sender_back() {
        const CHUNK: usize = 1024 * 1024;
        const LIMIT: usize = 256 * CHUNK;
        let (emulator, door) = Emulator::start().await;
        // Frames of 32 KiB with their headers.
        let chunk = [&[0x81, 126, 0x7f, 0xfc][..], &[b'x'; 0x7ffc]].concat().repeat(32);
        for is_client_slow in [true, false] {
            let ((client, _), (server, _)) = open(&emulator, &door, "", "").await;
            let (mut sender, mut reader) = if is_client_slow { (server, client) } else { (client, server) };
            let mut sent = 0;
            // A busy machine may end this early, which only makes the test easier.
            while let Ok(written) =
                timeout(Duration::from_secs(1), sender.write(&chunk[sent % CHUNK..])).await
            {
                sent += written.unwrap();
                assert!(sent < LIMIT, "{sent} bytes are held");
            }
            drop(sender);
            assert_eq!(rest(&mut reader).await.len(), sent);
        }
    }

    #[tokio::test]
    async fn end_of_one_side_ends_the_other() {
        let (emulator, door) = Emulator::start().await;
        for is_reset in [false, true] {
            let ((client, _), (mut server, _)) = open(&emulator, &door, "", "").await;
            end(client, is_reset);
            assert_eq!(rest(&mut server).await, b"", "the client has left, reset: {is_reset}");
            let ((mut client, _), (server, _)) = open(&emulator, &door, "", "").await;
            end(server, is_reset);
            assert_eq!(rest(&mut client).await, b"", "the emulator has left, reset: {is_reset}");
        }
    }

    /// Ends a connection without a close frame.
    fn end(stream: TcpStream, is_reset: bool) {
        if is_reset {
            stream.set_zero_linger().unwrap();
        }
    }

    /// A client that has sent its last bytes may still be answered.
    #[tokio::test]
    async fn half_closed_connection_still_receives() {
        let (emulator, door) = Emulator::start().await;
        let ((mut client, _), (mut server, _)) = open(&emulator, &door, "", "").await;
        send(&mut client, "\x01\x04last").await;
        client.shutdown().await.unwrap();
        assert_eq!(rest(&mut server).await, b"\x01\x04last");
        send(&mut server, "\x01\x06answer").await;
        drop(server);
        assert_eq!(rest(&mut client).await, b"\x01\x06answer");
    }

    #[tokio::test]
    async fn client_may_leave_during_the_handshake() {
        let (emulator, door) = Emulator::start().await;
        let mut client = tcp(&door).await;
        send(&mut client, &handshake("/local", "")).await;
        let mut server = emulator.stream().await;
        head(&mut server).await;
        drop(client);
        assert_eq!(rest(&mut server).await, b"");
    }

    #[tokio::test]
    async fn dropped_front_door_ends_every_socket() {
        let (emulator, door) = Emulator::start().await;
        let ((mut client, _), (mut server, _)) = open(&emulator, &door, "", "").await;
        let address = door.address;
        drop(door);
        assert_eq!((rest(&mut client).await, rest(&mut server).await), (vec![], vec![]));
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn many_sockets_at_once() {
        const SOCKETS: usize = 500;
        let (emulator, door) = Emulator::start().await;
        let connecting = join_all((0..SOCKETS).map(async |number| {
            let mut client = client_async(door.url(), tcp(&door).await).await.unwrap().0;
            client.send(Message::text(number.to_string())).await.unwrap();
            assert_eq!(client.next().await.unwrap().unwrap(), Message::text(number.to_string()));
            client
        }));
        let echoing = async {
            let mut sockets = Vec::new();
            for _ in 0..SOCKETS {
                let mut socket = emulator.accept().await;
                sockets.push(tokio::spawn(async move {
                    let message = socket.next().await.unwrap().unwrap();
                    socket.send(message).await.unwrap();
                    socket
                }));
            }
            sockets
        };
        let (clients, servers) =
            timeout(DEADLINE, async { tokio::join!(connecting, echoing) }).await.unwrap();
        assert_eq!((clients.len(), servers.len()), (SOCKETS, SOCKETS));
    }
}
