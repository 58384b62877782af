//! A real browser, whose `new WebSocket(url, ["streamer.jwt", token])` cannot set other headers. Runs at full size
//! only.

use std::{env, process::Stdio, time::Duration};

use anyhow::Context as _;
use streamer_cli::{paths, stack::Stack};
use streamer_tests::{DEADLINE, emulator::stack, full};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
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
    let page = page(&stack().await?)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let serving = tokio::spawn(serve(listener, page, sender));

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
    while events.len() < 4 {
        let event = timeout(DEADLINE, receiver.recv()).await;
        let event = event.with_context(|| format!("the page reported {events:?} only"))?;
        events.push(event.context("the server has ended")?);
    }
    browser.kill().await?;
    serving.abort();
    _ = std::fs::remove_dir_all(profile);
    // The second connection offers a subprotocol that `connect-handler` does not answer.
    assert_eq!(events, ["open:streamer.jwt", "data:from%20a%20browser", "close:1000", "close:1006"]);
    Ok(())
}

async fn serve(listener: TcpListener, page: String, events: Events) {
    let mut answering = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (page, events) = (page.clone(), events.clone());
        answering.spawn(async move {
            if let Err(error) = answer(stream, &page, &events).await {
                _ = events.send(format!("error:{error:#}"));
            }
        });
    }
}

async fn answer(stream: TcpStream, page: &str, events: &Events) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    stream.read_line(&mut request).await?;
    let mut header = String::new();
    while stream.read_line(&mut header).await? > 2 {
        header.clear();
    }
    // A browser opens connections that it does not use.
    let Some(path) = request.split(' ').nth(1) else { return Ok(()) };
    if let Some(event) = path.strip_prefix("/events/") {
        _ = events.send(event.to_owned());
    }
    let body = if path == "/page" { page } else { "" };
    let reply = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Ok(stream.write_all(reply.as_bytes()).await?)
}

fn page(stack: &Stack) -> anyhow::Result<String> {
    let token = stack.issuer.token(TENANT, "browser", Duration::from_secs(600))?;
    let url = &stack.deployed.websocket_url;
    Ok(format!(
        r#"<script>
        const report = (event) => fetch("/events/" + event);
        const socket = new WebSocket("{url}", ["streamer.jwt", "{token}"]);
        socket.onopen = async () => {{
            await report("open:" + socket.protocol);
            socket.send(JSON.stringify({{ type: "echo", request_id: "r", text: "from a browser" }}));
        }};
        socket.onmessage = async (event) => {{
            await report("data:" + encodeURIComponent(JSON.parse(event.data).data));
            socket.close(1000);
        }};
        socket.onclose = async (event) => {{
            await report("close:" + event.code);
            const other = new WebSocket("{url}?Authorization={token}", ["chat"]);
            other.onopen = () => report("open:" + other.protocol);
            other.onclose = (event) => report("close:" + event.code);
        }};
        </script>"#
    ))
}
