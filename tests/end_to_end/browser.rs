//! A real browser, whose `new WebSocket(url, ["streamer.jwt", token])` cannot set other headers. Runs at full size
//! only.

use std::{env, process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use aws_sdk_lambda::primitives::Blob;
use serde_json::{Value, json};
use streamer_cli::{paths, stack::Stack};
use streamer_tests::{DEADLINE, emulator::stack, event, full};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

use crate::TENANT;

/// Receives the events that the page reports, one per request.
type Events = mpsc::UnboundedSender<String>;

#[tokio::test]
async fn browser_connects_with_token_as_subprotocol() -> anyhow::Result<()> {
    if !full() {
        return Ok(());
    }
    let stack = Arc::new(stack().await?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let serving = tokio::spawn(serve(listener, Arc::clone(&stack), sender));

    let profile = paths::shared(format!("browser-{}", std::process::id()));
    let program = env::var_os("BROWSER").unwrap_or_else(|| "chromium".into());
    let mut browser = Command::new(&program)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-default-apps"])
        // Allows connections to this machine only.
        .arg("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("http://{address}/page"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| {
            format!("{} is not installed: on Debian, run apt-get install chromium", program.display())
        })?;
    let mut events = Vec::new();
    while events.len() < 2 {
        let event = timeout(DEADLINE, receiver.recv()).await;
        let event = event.with_context(|| format!("the page reported {events:?} only"))?;
        events.push(event.context("the server has ended")?);
    }
    browser.kill().await?;
    serving.abort();
    _ = std::fs::remove_dir_all(profile);
    assert_eq!(events, ["open:streamer.jwt", "data:from%20a%20browser"]);
    Ok(())
}

async fn serve(listener: TcpListener, stack: Arc<Stack>, events: Events) {
    let mut answering = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (stack, events) = (Arc::clone(&stack), events.clone());
        answering.spawn(async move {
            if let Err(error) = answer(stream, &stack, &events).await {
                _ = events.send(format!("error:{error:#}"));
            }
        });
    }
}

async fn answer(mut stream: TcpStream, stack: &Stack, events: &Events) -> anyhow::Result<()> {
    let head = head(&mut stream).await?;
    let path = head.split(' ').nth(1).context("the request has no path")?;
    if path == "/socket" {
        return tunnel(stream, &head, stack).await;
    }
    if let Some(event) = path.strip_prefix("/events/") {
        _ = events.send(event.to_owned());
    }
    let body = if path == "/page" { page(stack)? } else { String::new() };
    let reply = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Ok(stream.write_all(reply.as_bytes()).await?)
}

fn page(stack: &Stack) -> anyhow::Result<String> {
    let token = stack.issuer.token(TENANT, "browser", Duration::from_secs(600))?;
    Ok(format!(
        r#"<script>
        const report = (event) => fetch("/events/" + event);
        const socket = new WebSocket("ws://" + location.host + "/socket", ["streamer.jwt", "{token}"]);
        socket.onopen = async () => {{
            await report("open:" + socket.protocol);
            socket.send(JSON.stringify({{ type: "echo", request_id: "r", text: "from a browser" }}));
        }};
        socket.onmessage = (event) => report("data:" + encodeURIComponent(JSON.parse(event.data).data));
        socket.onerror = () => report("failed");
        </script>"#
    ))
}

/// Reads the head of a request or response.
async fn head(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8(head)?)
}

/// Passes a handshake to the emulator, and adds the headers of `connect-handler` to its response, as API Gateway does.
async fn tunnel(mut client: TcpStream, request: &str, stack: &Stack) -> anyhow::Result<()> {
    let url = stack.deployed.websocket_url.strip_prefix("ws://").context("not a WebSocket URL")?;
    let (host, path) = url.split_once('/').context("the URL has no path")?;
    let mut server = TcpStream::connect(host).await?;
    server.write_all(request.replacen("/socket", &format!("/{path}"), 1).as_bytes()).await?;
    let response = head(&mut server).await?;
    let headers = handler_headers(request, stack).await?;
    let response = response.strip_suffix("\r\n").context("not a response head")?;
    client.write_all(format!("{response}{headers}\r\n").as_bytes()).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// Returns the headers with which the real `connect-handler` answers this request.
async fn handler_headers(request: &str, stack: &Stack) -> anyhow::Result<String> {
    let mut event = event::connect_json(None);
    let lines = request.lines().skip(1).filter_map(|line| line.split_once(": "));
    event["headers"] = lines.map(|(name, value)| (name.to_owned(), json!(value))).collect();
    let lambda = aws_sdk_lambda::Client::new(&stack.config);
    let function = &stack.deployed.functions["connect"];
    let output = lambda.invoke().function_name(function).payload(Blob::new(event.to_string())).send().await?;
    let response: Value = serde_json::from_slice(output.payload.context("no response")?.as_ref())?;
    if response["statusCode"] != 200 {
        bail!("the handler answered {response}");
    }
    let headers = response["headers"].as_object().into_iter().flatten();
    Ok(headers.map(|(name, value)| format!("{name}: {}\r\n", value.as_str().unwrap_or_default())).collect())
}
