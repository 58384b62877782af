//! A real browser, whose `new WebSocket(url, ["streamer.jwt", token])` can set no other header: at full size only.

use std::{env, process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use aws_sdk_lambda::primitives::Blob;
use serde_json::{Value, json};
use streamer_cli::{paths, stack::Stack};
use streamer_tests::{emulator::stack, event, full};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

use crate::{LIMIT, TENANT};

/// What the page tells its server, one fact a request.
type Told = mpsc::UnboundedSender<String>;

#[tokio::test]
async fn a_browser_connects_with_the_token_as_a_subprotocol() -> anyhow::Result<()> {
    if !full() {
        return Ok(());
    }
    let stack = Arc::new(stack().await?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (told, mut tells) = mpsc::unbounded_channel();
    let serving = tokio::spawn(serve(listener, Arc::clone(&stack), told));

    let profile = paths::shared(format!("browser-{}", std::process::id()));
    let program = env::var_os("BROWSER").unwrap_or_else(|| "chromium".into());
    let mut browser = Command::new(&program)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-default-apps"])
        // It reaches this machine and nothing else.
        .arg("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("http://{address}/page"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{} is not here: on Debian, apt-get install chromium", program.display()))?;
    let mut said = Vec::new();
    while said.len() < 2 {
        said.push(
            timeout(LIMIT * 2, tells.recv()).await.context(format!("it said {said:?}"))?.context("an end")?,
        );
    }
    browser.kill().await?;
    serving.abort();
    _ = std::fs::remove_dir_all(profile);
    assert_eq!(said, ["open:streamer.jwt", "data:from%20a%20browser"]);
    Ok(())
}

async fn serve(listener: TcpListener, stack: Arc<Stack>, told: Told) {
    let mut answering = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (stack, told) = (Arc::clone(&stack), told.clone());
        answering.spawn(async move {
            if let Err(error) = answer(stream, &stack, &told).await {
                _ = told.send(format!("error:{error:#}"));
            }
        });
    }
}

async fn answer(mut stream: TcpStream, stack: &Stack, told: &Told) -> anyhow::Result<()> {
    let head = head(&mut stream).await?;
    let path = head.split(' ').nth(1).context("a path")?;
    if path == "/socket" {
        return tunnel(stream, &head, stack).await;
    }
    if let Some(fact) = path.strip_prefix("/said/") {
        _ = told.send(fact.to_owned());
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
        const say = (fact) => fetch("/said/" + fact);
        const socket = new WebSocket("ws://" + location.host + "/socket", ["streamer.jwt", "{token}"]);
        socket.onopen = async () => {{
            await say("open:" + socket.protocol);
            socket.send(JSON.stringify({{ type: "echo", request_id: "r", text: "from a browser" }}));
        }};
        socket.onmessage = (event) => say("data:" + encodeURIComponent(JSON.parse(event.data).data));
        socket.onerror = () => say("failed");
        </script>"#
    ))
}

/// A request's or an answer's head.
async fn head(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8(head)?)
}

/// A way to the emulator that adds to its answer what the handler has answered, as API Gateway does.
async fn tunnel(mut client: TcpStream, request: &str, stack: &Stack) -> anyhow::Result<()> {
    let url = stack.deployed.websocket_url.strip_prefix("ws://").context("a WebSocket URL")?;
    let (host, path) = url.split_once('/').context("a path")?;
    let mut server = TcpStream::connect(host).await?;
    server.write_all(request.replacen("/socket", &format!("/{path}"), 1).as_bytes()).await?;
    let answer = head(&mut server).await?;
    let added = headers_of_the_handler(request, stack).await?;
    let answer = format!("{}{added}\r\n", answer.strip_suffix("\r\n").context("a head")?);
    client.write_all(answer.as_bytes()).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// What the real `connect-handler` answers to this request, as header lines.
async fn headers_of_the_handler(request: &str, stack: &Stack) -> anyhow::Result<String> {
    let mut event = serde_json::to_value(event::connect(None))?;
    let lines = request.lines().skip(1).filter_map(|line| line.split_once(": "));
    event["headers"] = lines.map(|(name, value)| (name.to_owned(), json!(value))).collect();
    let lambda = aws_sdk_lambda::Client::new(&stack.config);
    let function = &stack.deployed.functions["connect"];
    let output = lambda.invoke().function_name(function).payload(Blob::new(event.to_string())).send().await?;
    let answer: Value = serde_json::from_slice(output.payload.context("an answer")?.as_ref())?;
    if answer["statusCode"] != 200 {
        bail!("the handler answered {answer}");
    }
    let headers = answer["headers"].as_object().into_iter().flatten();
    Ok(headers.map(|(name, value)| format!("{name}: {}\r\n", value.as_str().unwrap_or_default())).collect())
}
