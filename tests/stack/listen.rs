//! `streamer listen`: on the emulator, and against scripted servers.

use std::{fs, net::Ipv4Addr, path::PathBuf, sync::Arc, time::SystemTime};

use anyhow::{Context as _, ensure};
use futures::{SinkExt as _, StreamExt as _};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
};
use serde_json::{Value, json};
use streamer_cli::stack::deploy::local_config;
use streamer_connections::ConnectionTable;
use streamer_message::{ConnectionId, TenantId, UserId};
use streamer_tests::{
    DEADLINE,
    command::{Streamer, signal},
    eventually,
};
use sysinfo::Signal;
use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, Lines,
    },
    net::{TcpListener, TcpStream},
    process::{Child, ChildStderr, ChildStdout},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream, accept_async,
    tungstenite::{Message as Frame, protocol::CloseFrame},
};

use super::{connect, text};

/// A running `streamer listen`.
struct Listening {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    err: Lines<BufReader<ChildStderr>>,
}

impl Listening {
    fn of(mut child: Child) -> Self {
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Self { child, out: BufReader::new(out).lines(), err: BufReader::new(err).lines() }
    }

    /// Returns the next line of standard output.
    async fn frame(&mut self) -> anyhow::Result<String> {
        let line = timeout(DEADLINE, self.out.next_line()).await.context("no frame was printed")?;
        line?.context("the command has ended")
    }

    /// Returns the next line of standard error.
    async fn note(&mut self) -> anyhow::Result<String> {
        let line = timeout(DEADLINE, self.err.next_line()).await.context("no note was printed")?;
        line?.context("the command has ended")
    }

    /// Returns the id in the note about the connection.
    async fn connection(&mut self) -> anyhow::Result<ConnectionId> {
        let note = self.note().await?;
        Ok(ConnectionId::new(note.strip_prefix("connection: ").context(note.clone())?)?)
    }

    /// Waits until the command has ended, and returns its exit code.
    async fn end(mut self) -> anyhow::Result<Option<i32>> {
        Ok(timeout(DEADLINE, self.child.wait()).await.context("the command did not end")??.code())
    }
}

/// A server on loopback that a test plays connection by connection, and the file with a client's token.
struct Server {
    listener: TcpListener,
    token: PathBuf,
}

impl Server {
    async fn start(streamer: &Streamer) -> anyhow::Result<Self> {
        let token = streamer.folder().with_file_name("token");
        fs::write(&token, "header.claims.signature\n")?;
        Ok(Self { listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?, token })
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// Starts `streamer listen` for this server.
    fn listen(&self, streamer: &Streamer, flags: &[&str]) -> anyhow::Result<Listening> {
        let url = format!("ws://127.0.0.1:{}/stage", self.port());
        let first = ["listen", "--url", &url, "--token-file", self.token.to_str().unwrap()];
        Ok(Listening::of(streamer.spawn_with(&[], first.iter().chain(flags))?))
    }

    async fn accept(&self) -> anyhow::Result<TcpStream> {
        Ok(timeout(DEADLINE, self.listener.accept()).await.context("no client connected")??.0)
    }

    async fn accept_socket(&self) -> anyhow::Result<WebSocketStream<TcpStream>> {
        Ok(accept_async(self.accept().await?).await?)
    }

    /// Answers a handshake with another status, and returns the request's head.
    async fn refuse(&self, status: u16, body: &str) -> anyhow::Result<String> {
        let (mut stream, mut head) = (self.accept().await?, Vec::new());
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} -\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await?;
        Ok(String::from_utf8(head)?)
    }
}

async fn next_frame<S>(socket: &mut WebSocketStream<S>) -> anyhow::Result<Frame>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let next = timeout(DEADLINE, socket.next()).await.context("no frame arrived")?;
    Ok(next.context("the connection is closed")??)
}

/// Returns the next frame as JSON.
async fn next_json<S>(socket: &mut WebSocketStream<S>) -> anyhow::Result<Value>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    Ok(serde_json::from_str(next_frame(socket).await?.to_text()?)?)
}

/// Asks page by page, and after a new connection from the last message on.
#[tokio::test]
async fn listen_asks_for_kept_messages() -> anyhow::Result<()> {
    let streamer = Streamer::new("listen-mailbox").await?;
    let server = Server::start(&streamer).await?;
    let mut listening = server.listen(&streamer, &["--mailbox"])?;
    let mut socket = server.accept_socket().await?;
    let hello = next_json(&mut socket).await?;
    assert_eq!((&hello["type"], &hello["hello"]), (&json!("streamer.sync"), &json!(true)));
    assert_eq!(hello["streams"], json!([{ "stream": "user", "from": "oldest" }]));
    let page = |n: &Value, seq: u64| {
        let messages = json!([{ "seq": seq, "id": format!("m{seq}"), "payload": "news" }]);
        let (after, missing) = (seq - 1, json!([]));
        json!({
            "type": "streamer.page", "n": n, "stream": "user", "epoch": "e.0", "after": after, "through": seq,
            "top": 2, "messages": messages, "missing": missing, "expires_in": 7200, "now": 1,
        })
    };
    socket.send(Frame::text(page(&hello["n"], 1).to_string())).await?;
    assert!(listening.frame().await?.ends_with("  mailbox         1  \"news\""));
    let sync = next_json(&mut socket).await?;
    assert_eq!((&sync["hello"], &sync["streams"][0]["seq"]), (&json!(false), &json!(1)));
    socket.send(Frame::text(page(&sync["n"], 2).to_string())).await?;
    assert!(listening.frame().await?.ends_with("  mailbox         2  \"news\""));
    drop(socket);

    let mut socket = server.accept_socket().await?;
    let hello = next_json(&mut socket).await?;
    assert_eq!((&hello["hello"], &hello["streams"][0]["seq"]), (&json!(true), &json!(2)));
    signal(&listening.child, Signal::Interrupt)?;
    assert_eq!(listening.end().await?, Some(0));
    Ok(())
}

/// The user has other connections, so the command has to recognize its own.
#[tokio::test]
async fn listen_prints_its_id_and_connects_again() -> anyhow::Result<()> {
    let streamer = Streamer::new("listen").await?;
    let started = streamer.run(["up", "--detach", "--json"]).await?;
    ensure!(started.success, "{started:?}");
    let up: Value = serde_json::from_str(&started.out)?;
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(connect(&streamer, &up).await?);
    }
    let echo = r#"{"type":"echo","request_id":"r1","text":"hello"}"#;
    let arguments = ["listen", "--user", "anna", "--tenant", "acme", "--json", "--send", echo];
    let mut listening = Listening::of(streamer.spawn(arguments)?);
    assert_eq!(listening.note().await?, "connected: user anna, tenant acme");
    let id = listening.connection().await?;
    let answer: Value = serde_json::from_str(&listening.frame().await?)?;
    assert_eq!(answer["frame"]["data"], "hello");
    assert!(answer["received_at"].is_string() && answer["duplicate"] == false, "{answer}");
    check_sent(&streamer, &mut listening, &id).await?;

    let aws = local_config(text(&up, "endpoint_url")).await;
    let table = ConnectionTable::new(aws_sdk_dynamodb::Client::new(&aws), text(&up, "connections_table"));
    let (tenant, user) = (TenantId::new("acme")?, UserId::new("anna")?);
    let rows = table.by_user(&tenant, &user, None, SystemTime::now()).await?.connections;
    assert_eq!(rows.len(), others.len() + 1);
    let row = rows.into_iter().find(|row| row.connection_id == id).context("the id is not in the table")?;
    table.close(&aws, &row, SystemTime::now()).await?;
    let closed = listening.note().await?;
    assert!(
        closed.contains("the server closed the connection with code 1000; connecting again in "),
        "{closed}"
    );
    assert_eq!(listening.note().await?, "connected: user anna, tenant acme");
    let again = listening.connection().await?;
    assert_ne!(again, id);
    check_sent(&streamer, &mut listening, &again).await?;

    signal(&listening.child, Signal::Interrupt)?;
    assert_eq!(listening.end().await?, Some(0));
    check_logs(&streamer, &again).await?;
    assert_eq!(streamer.run(["down"]).await?.out, "the stack is down\n");
    Ok(())
}

async fn check_sent(streamer: &Streamer, listening: &mut Listening, id: &ConnectionId) -> anyhow::Result<()> {
    let sent = streamer.run(["send", "--connection", id.as_str(), "--payload", "{ \"b\":1.0 }"]).await?;
    ensure!(sent.success, "{sent:?}");
    assert!(listening.frame().await?.ends_with(r#""duplicate":false,"frame":{ "b":1.0 }}"#));
    Ok(())
}

/// For people, a line has no JSON, and the lines around an invocation are left out. `--json` has everything.
async fn check_logs(streamer: &Streamer, id: &ConnectionId) -> anyhow::Result<()> {
    let logs = streamer.run(["logs"]).await?.out;
    let connected = format!("  connect     INFO  connected connection_id={id} user_id=anna tenant_id=acme");
    assert!(logs.lines().any(|line| line.ends_with(&connected)), "{logs}");
    assert!(!["START RequestId", "_aws", "{\"", "\u{1b}"].iter().any(|part| logs.contains(part)), "{logs}");
    let raw = streamer.run(["logs", "connect", "--json"]).await?.out;
    assert!(
        raw.contains("START RequestId") && raw.contains("\"_aws\"") && raw.contains(id.as_str()),
        "{raw}"
    );
    let disconnected = format!("  disconnected connection_id={id} ");
    eventually("the end of the connection is logged", async || {
        Ok(streamer.run(["logs", "disconnect"]).await?.out.contains(&disconnected))
    })
    .await?;
    let none = streamer.run(["logs", "--since", "0s"]).await?;
    assert!(none.success && none.out.is_empty(), "{none:?}");
    Ok(())
}

#[tokio::test]
async fn listen_connects_again_after_the_lifetime() -> anyhow::Result<()> {
    let streamer = Streamer::new("lifetime").await?;
    let up = streamer.run(["up", "--detach", "--connection-lifetime", "2s"]).await?;
    ensure!(up.success, "{up:?}");
    let mut listening = Listening::of(streamer.spawn(["listen", "--user", "anna", "--tenant", "acme"])?);
    for _ in 0..2 {
        assert_eq!(listening.note().await?, "connected: user anna, tenant acme");
        let mut closed = listening.note().await?;
        // On a slow machine, the connection may end before the command has found its id.
        while !closed.contains("; connecting again in ") {
            closed = listening.note().await?;
        }
        assert!(closed.starts_with("the server closed the connection with code 1001"), "{closed}");
        assert!(closed.contains("Going away"), "{closed}");
    }
    signal(&listening.child, Signal::Interrupt)?;
    assert_eq!(listening.end().await?, Some(0));
    assert_eq!(streamer.run(["down"]).await?.out, "the stack is down\n");
    Ok(())
}

#[tokio::test]
async fn refused_token_ends_listen() -> anyhow::Result<()> {
    let streamer = Streamer::new("listen-refused").await?;
    let server = Server::start(&streamer).await?;
    let mut listening = server.listen(&streamer, &[])?;
    let head = server.refuse(401, r#"{"error":"token_expired"}"#).await?;
    assert!(head.to_lowercase().contains("authorization: bearer header.claims.signature\r\n"), "{head}");
    let error = "streamer: the handshake was refused with status 401: token_expired";
    assert_eq!(listening.note().await?, error);
    assert_eq!(listening.end().await?, Some(1));
    Ok(())
}

#[tokio::test]
async fn unavailable_server_is_tried_again() -> anyhow::Result<()> {
    let streamer = Streamer::new("listen-retry").await?;
    let server = Server::start(&streamer).await?;
    let mut listening = server.listen(&streamer, &["--count", "1"])?;
    server.refuse(503, "").await?;
    let note = listening.note().await?;
    assert!(note.starts_with("the handshake was refused with status 503; connecting again in "), "{note}");

    let mut socket = server.accept_socket().await?;
    assert!(listening.note().await?.starts_with("connected: ws://127.0.0.1:"));
    socket.close(Some(CloseFrame { code: 4001.into(), reason: "bye\u{1b}".into() })).await?;
    let note = listening.note().await?;
    let expected = "the server closed the connection with code 4001: bye\u{fffd}; connecting again in ";
    assert!(note.starts_with(expected), "{note}");
    // Without a closing handshake.
    drop(server.accept_socket().await?);
    listening.note().await?;
    assert!(listening.note().await?.contains("; connecting again in "));

    let mut socket = server.accept_socket().await?;
    socket.send(Frame::text("\"last\"")).await?;
    assert!(listening.frame().await?.ends_with("  payload         \"last\""));
    let Frame::Close(Some(frame)) = next_frame(&mut socket).await? else { panic!("no closing handshake") };
    assert_eq!(u16::from(frame.code), 1000);
    assert_eq!(listening.end().await?, Some(0));
    Ok(())
}

#[tokio::test]
async fn duplicates_are_marked_across_connections() -> anyhow::Result<()> {
    let streamer = Streamer::new("listen-twice").await?;
    let server = Server::start(&streamer).await?;
    let mut listening = server.listen(&streamer, &["--count", "2"])?;
    let message =
        |id: &str| json!({ "type": "response", "id": id, "request_id": "r", "data": id }).to_string();
    let mut socket = server.accept_socket().await?;
    socket.send(Frame::text(message("a"))).await?;
    assert!(listening.frame().await?.ends_with("  response        r  \"a\""));
    socket.close(None).await?;
    drop(socket);
    assert!(listening.note().await?.starts_with("connected: "));
    let note = listening.note().await?;
    assert!(note.starts_with("the server closed the connection without a code; "), "{note}");
    let mut socket = server.accept_socket().await?;
    socket.send(Frame::text(message("a"))).await?;
    assert!(listening.frame().await?.ends_with("  response        r  \"a\"  (duplicate)"));
    // `--count` does not count the duplicate.
    socket.send(Frame::text(message("b"))).await?;
    assert!(listening.frame().await?.ends_with("  response        r  \"b\""));
    assert!(matches!(next_frame(&mut socket).await?, Frame::Close(_)));
    assert_eq!(listening.end().await?, Some(0));
    Ok(())
}

#[tokio::test]
async fn lines_of_stdin_become_frames() -> anyhow::Result<()> {
    let streamer = Streamer::new("listen-stdin").await?;
    let server = Server::start(&streamer).await?;
    let mut listening = server.listen(&streamer, &["--stdin", "--send", "1", "--send", "2"])?;
    let mut stdin = listening.child.stdin.take().unwrap();
    stdin.write_all(b"{\"a\":1}\n\n \nlast").await?;
    // A connection that ends at once loses no frame.
    drop(server.accept_socket().await?);
    drop(stdin);
    let mut received = Vec::new();
    while received.last().is_none_or(|text| text != "last") {
        let mut socket = server.accept_socket().await?;
        while let Ok(frame) = next_frame(&mut socket).await {
            received.push(frame.into_text()?.to_string());
            if received.last().is_some_and(|text| text == "last") {
                break;
            }
        }
    }
    assert!(received.ends_with(&["{\"a\":1}".to_owned(), "last".to_owned()]), "{received:?}");
    signal(&listening.child, Signal::Term)?;
    assert_eq!(listening.end().await?, Some(0));
    Ok(())
}

#[tokio::test]
async fn too_few_frames_in_time_fail() -> anyhow::Result<()> {
    let streamer = Streamer::new("listen-for").await?;
    let server = Server::start(&streamer).await?;
    let mut listening = server.listen(&streamer, &["--for", "10ms", "--count", "2"])?;
    assert_eq!(listening.note().await?, "streamer: only 0 of 2 frames arrived");
    assert_eq!(listening.end().await?, Some(1));
    assert_eq!(server.listen(&streamer, &["--for", "10ms"])?.end().await?, Some(0));
    Ok(())
}

/// The token comes from the variable, and the certificate is checked.
#[tokio::test]
async fn listen_connects_over_tls() -> anyhow::Result<()> {
    let streamer = Streamer::new("listen-tls").await?;
    let server = Server::start(&streamer).await?;
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()])?;
    let trusted = streamer.folder().with_file_name("certificate.pem");
    fs::write(&trusted, cert.pem())?;
    let key = PrivateKeyDer::from_pem_slice(signing_key.serialize_pem().as_bytes())?;
    let config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let url = format!("wss://localhost:{}/stage?Authorization=secret", server.port());
    let listen = |variables: &[(&str, &str)]| {
        anyhow::Ok(Listening::of(streamer.spawn_with(variables, ["listen", "--url", &url, "--count", "1"])?))
    };

    let token = ("STREAMER_TOKEN", "header.claims.signature");
    let mut listening = listen(&[token, ("SSL_CERT_FILE", trusted.to_str().unwrap())])?;
    let mut socket = accept_async(acceptor.accept(server.accept().await?).await?).await?;
    socket.send(Frame::text("1")).await?;
    assert!(listening.frame().await?.ends_with("  payload         1"));
    assert!(matches!(next_frame(&mut socket).await?, Frame::Close(_)));
    let note = listening.note().await?;
    assert_eq!(note, format!("connected: wss://localhost:{}/stage", server.port()), "the query is secret");
    assert_eq!(listening.end().await?, Some(0));

    let other = generate_simple_self_signed(["localhost".to_owned()])?;
    fs::write(&trusted, other.cert.pem())?;
    let mut listening = listen(&[token, ("SSL_CERT_FILE", trusted.to_str().unwrap())])?;
    assert!(acceptor.accept(server.accept().await?).await.is_err());
    let error = listening.note().await?;
    assert!(error.starts_with("streamer: cannot connect: the TLS handshake failed: "), "{error}");
    assert_eq!(listening.end().await?, Some(1));

    let mut listening = listen(&[])?;
    let error = "streamer: --url needs a token: --token-file FILE, or the variable STREAMER_TOKEN";
    assert_eq!(listening.note().await?, error);
    Ok(())
}
