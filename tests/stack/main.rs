//! The local stack: its commands, and every way to end it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod demo;
mod ends;
mod listen;
mod refusals;
mod routers;
mod shell;
mod token;

use std::{
    collections::HashSet,
    fs,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};
use streamer_cli::{
    paths,
    stack::{
        Endpoint, build,
        deploy::local_config,
        emulator::{MINISTACK, install},
        processes::Processes,
        socket::Socket,
    },
};
use streamer_producer::Message;
use streamer_tests::{
    boto3,
    command::{Streamer, output, printed, ready, signal, signal_process},
    emulator, eventually, node, python, skip,
};
use sysinfo::Signal;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

const LIMIT: Duration = Duration::from_secs(30);

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap()
}

fn port(up: &Value) -> u16 {
    text(up, "endpoint_url").rsplit(':').next().unwrap().parse().unwrap()
}

fn front_door_port(up: &Value) -> u16 {
    let url = text(up, "websocket_url").strip_suffix("/local").unwrap();
    url.rsplit(':').next().unwrap().parse().unwrap()
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

async fn connect(streamer: &Streamer, up: &Value) -> anyhow::Result<Socket> {
    let token = streamer.run(["token", "--user", "anna", "--tenant", "acme"]).await?;
    assert!(token.success, "{token:?}");
    Ok(Socket::connect(text(up, "websocket_url"), Some(token.out.trim())).await?)
}

/// Waits until no process, port, lock and file of the stack is left.
async fn assert_nothing_left(streamer: &Streamer, port: u16) -> anyhow::Result<()> {
    eventually("no process is left", async || Ok(streamer.processes()?.is_empty())).await?;
    eventually("the port is free", async || Ok(is_free(port))).await?;
    eventually("the lock is free", async || Ok(streamer.run(["down"]).await?.out == "no stack is up\n"))
        .await?;
    assert!(!streamer.folder().exists());
    Ok(())
}

async fn start(streamer: &Streamer) -> anyhow::Result<Value> {
    let up = streamer.run(["up", "--detach", "--json"]).await?;
    assert!(up.success, "{up:?}");
    Ok(serde_json::from_str(&up.out)?)
}

#[tokio::test]
async fn detached_stack_serves_every_command() -> anyhow::Result<()> {
    let streamer = Streamer::new("detached").await?;
    let free_port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let up = start_detached(&streamer, free_port).await?;
    let mut socket = connect(&streamer, &up).await?;
    let connection = logged_connection(&streamer).await?;
    check_send(&streamer, &mut socket, &connection).await?;
    check_send_from_stdin(&streamer, &mut socket, &connection).await?;
    check_connections(&streamer, &connection).await?;
    check_expiry(&streamer, &connection).await?;

    check_mailbox(&streamer).await?;
    check_disconnect_lists(&streamer).await?;
    let other_user = streamer.run(["disconnect", "--tenant", "acme", "--user", "bob", "--close"]).await?;
    assert_eq!(other_user.out, "0 closed, 0 already gone, 0 failed\n");
    let disconnected = streamer.run(["disconnect", "--tenant", "acme", "--close"]).await?;
    assert!(
        disconnected.success && disconnected.out == "1 closed, 0 already gone, 0 failed\n",
        "{disconnected:?}"
    );
    assert!(socket.next(LIMIT).await.is_err(), "the socket is closed");
    assert_eq!(streamer.run(["connections"]).await?.out, "0 connections\n");

    check_interruption(&streamer).await?;

    let unknown = streamer.run(["logs", "unknown"]).await?;
    assert!(unknown.err.contains("there is no function `unknown`: choose one of connect, "), "{unknown:?}");

    assert_eq!(streamer.run(["down"]).await?.out, "the stack is down\n");
    assert_nothing_left(&streamer, free_port).await
}

/// Commands that run until Ctrl-C end with its exit code.
async fn check_interruption(streamer: &Streamer) -> anyhow::Result<()> {
    for arguments in [["logs", "--follow"], ["status", "--watch"]] {
        let mut command = streamer.spawn(arguments)?;
        printed(&mut command, "").await?;
        signal(&command, Signal::Interrupt)?;
        let ended = output(command).await?;
        let err = "streamer: interrupted by Ctrl-C\n";
        assert_eq!((ended.code, ended.err.as_str()), (Some(130), err), "{arguments:?}");
    }
    Ok(())
}

/// A message is kept for a user who is away, read by `listen`, listed, and erased.
async fn check_mailbox(streamer: &Streamer) -> anyhow::Result<()> {
    let user = ["--tenant", "acme", "--user", "berta"];
    let with = |command: &[&'static str], options: &[&'static str]| {
        command.iter().chain(&user).chain(options).copied().collect::<Vec<_>>()
    };
    let send =
        with(&["send"], &["--payload", "{ \"kept\":1.0 }", "--id", "order-1", "--keep", "7d", "--wait=60s"]);
    let sent = streamer.run_all(send).await?;
    assert!(sent.success && sent.out.ends_with("\nkept         user berta of tenant acme\n"), "{sent:?}");
    let short = streamer.run_all(with(&["send"], &["--payload", "1", "--keep", "59s"])).await?;
    assert!(short.code == Some(2) && short.err.contains("60 to 2592000 seconds"), "{short:?}");

    let listen = with(&["listen"], &["--mailbox", "--count", "1", "--for", "60s"]);
    let listened = streamer.run_all(listen).await?;
    assert!(
        listened.success && listened.out.ends_with("  mailbox         1  { \"kept\":1.0 }\n"),
        "{listened:?}"
    );
    let shown = streamer.run_all(with(&["mailbox"], &["--show", "order-1"])).await?;
    assert_eq!(shown.out, "{ \"kept\":1.0 }", "{shown:?}");
    let erased = streamer.run_all(with(&["forget"], &["--yes"])).await?;
    assert!(erased.success && erased.out.contains("\nmailbox: "), "{erased:?}");
    let listed = streamer.run_all(with(&["mailbox"], &[])).await?;
    assert_eq!(listed.out, "0 messages of 0 bytes, 0 devices\n", "{listed:?}");
    Ok(())
}

/// Without `--close`, nothing is closed.
async fn check_disconnect_lists(streamer: &Streamer) -> anyhow::Result<()> {
    let listed = streamer.run(["disconnect", "--tenant", "acme"]).await?;
    let expected = "\
CONNECTIONS  USER
          1  anna
1 connection of 1 user; nothing was closed, use --close to close
";
    assert!(listed.success && listed.out == expected, "{listed:?}");
    let other_user = streamer.run(["disconnect", "--tenant", "acme", "--user", "bob"]).await?;
    assert_eq!(other_user.out, "no connections\n");
    assert!(streamer.run(["connections"]).await?.out.ends_with("1 connection\n"));
    Ok(())
}

/// Starts a detached stack on a port, and checks that a second one is refused.
async fn start_detached(streamer: &Streamer, free_port: u16) -> anyhow::Result<Value> {
    let started = streamer.run(["up", "--detach", "--json", "--port", &free_port.to_string()]).await?;
    assert!(started.success, "{started:?}");
    let up: Value = serde_json::from_str(&started.out)?;
    assert_eq!(port(&up), free_port);
    let queues = ["queue_url", "dead_letter_queue_url", "receipts_queue_url"];
    for field in
        ["region", "management_endpoint", "connections_table", "mailbox_table"].into_iter().chain(queues)
    {
        assert!(!text(&up, field).is_empty(), "{field}");
    }
    for function in ["connect", "disconnect", "delivery", "mailbox", "router"] {
        assert!(up["functions"][function].is_string(), "{function}");
    }
    assert!(up["pid"].is_number());
    let state: Value = serde_json::from_slice(&fs::read(streamer.folder().join("stack.json"))?)?;
    assert_eq!(state, up, "stack.json and `up --json` have one shape");

    let second = streamer.run(["up"]).await?;
    assert!(!second.success && second.err.contains("a stack is already up, process "), "{second:?}");
    assert!(
        second.err.contains(text(&up, "websocket_url")) && second.err.contains("`streamer down`"),
        "{second:?}"
    );
    Ok(up)
}

async fn check_send(streamer: &Streamer, socket: &mut Socket, connection: &str) -> anyhow::Result<()> {
    let sent = streamer.run(["send", "--connection", connection, "--payload", "{ \"hello\":1.0 }"]).await?;
    assert!(sent.success && sent.out.starts_with("queued "), "{sent:?}");
    assert_eq!(socket.next(LIMIT).await?.text, "{ \"hello\":1.0 }");

    let sent =
        streamer.run(["send", "--connection", connection, "--request", "r", "--progress", "40"]).await?;
    assert!(sent.success, "{sent:?}");
    let progress = socket.next(LIMIT).await?.json()?;
    assert_eq!((&progress["type"], &progress["progress"]), (&json!("progress"), &json!(40)));

    for audience in [vec!["--tenant", "acme"], vec!["--tenant", "acme", "--user", "anna"]] {
        let payload = serde_json::to_string(&audience)?;
        let arguments = ["send"].into_iter().chain(audience).chain(["--payload", &payload]);
        let sent = streamer.run_all(arguments).await?;
        assert!(sent.success, "{sent:?}");
        assert_eq!(socket.next(LIMIT).await?.text, payload);
    }
    Ok(())
}

async fn check_send_from_stdin(
    streamer: &Streamer,
    socket: &mut Socket,
    connection: &str,
) -> anyhow::Result<()> {
    let lines = "\"first\"\n{\n\n\"third\"\n";
    let sent = streamer.run_with(["send", "--connections", connection, "--stdin"], lines).await?;
    assert!(!sent.success && sent.out.starts_with("3 lines in "), "{sent:?}");
    assert!(sent.out.contains(": 2 queued (") && sent.out.ends_with("), 0 failed, 1 invalid\n"), "{sent:?}");
    assert!(sent.err.contains("line 2: not JSON (EOF while parsing an object): names and"), "{sent:?}");
    assert!(sent.err.contains("streamer: 1 line is no message (line 2): correct"), "{sent:?}");
    let frames = [socket.next(LIMIT).await?.text, socket.next(LIMIT).await?.text];
    assert_eq!(HashSet::from(frames), HashSet::from(["\"first\"".to_owned(), "\"third\"".to_owned()]));
    Ok(())
}

async fn check_connections(streamer: &Streamer, connection: &str) -> anyhow::Result<()> {
    let listed = streamer.run(["connections", "--tenant", "acme", "--user", "anna", "--json"]).await?;
    let live: Value = serde_json::from_str(&listed.out)?;
    assert_eq!(
        (text(&live, "connection"), text(&live, "user"), text(&live, "tenant")),
        (connection, "anna", "acme")
    );
    for table in
        [streamer.run(["connections"]).await?, streamer.run(["connections", "--tenant", "acme"]).await?]
    {
        assert!(
            table.success && table.out.contains(connection) && table.out.ends_with("1 connection\n"),
            "{table:?}"
        );
    }
    assert_eq!(streamer.run(["connections", "--tenant", "globex"]).await?.out, "0 connections\n");
    Ok(())
}

/// Sends a message that expires at once, and waits until the worker has logged it.
async fn check_expiry(streamer: &Streamer, connection: &str) -> anyhow::Result<()> {
    let late = ["send", "--connection", connection, "--payload", "1", "--expires-in", "0s", "--id", "late"];
    assert!(streamer.run(late).await?.success);
    let expired = |log: &str| {
        log.lines().any(|line| line.contains("  INFO  expired ") && line.contains(" message_id=late"))
    };
    eventually("the worker has logged the expiry", async || {
        Ok(expired(&streamer.run(["logs", "delivery"]).await?.out))
    })
    .await
}

/// Returns the connection whose `$connect` was logged.
async fn logged_connection(streamer: &Streamer) -> anyhow::Result<String> {
    let mut found = None;
    eventually("a connection is logged", async || {
        let log = streamer.run(["logs", "connect", "--json"]).await?.out;
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let connected = lines.filter(|line| line["message"] == "connected");
        found = connected.filter_map(|line| line["connection_id"].as_str().map(str::to_owned)).next();
        Ok(found.is_some())
    })
    .await?;
    Ok(found.unwrap())
}

#[tokio::test]
async fn shell_uses_stack_through_env() -> anyhow::Result<()> {
    const PRINT: &str = r#"
        eval "$(streamer env)"
        printf '%s\n' "$AWS_ENDPOINT_URL" "$QUEUE_URL" "$DEAD_LETTER_QUEUE_URL" "$RECEIPTS_QUEUE_URL" "$CONNECTIONS_TABLE" "$MAILBOX_TABLE" "$WEBSOCKET_URL"
        eval "$(streamer env --unset)"
        echo "${QUEUE_URL-unset} ${RECEIPTS_QUEUE_URL-unset} ${AWS_ACCESS_KEY_ID-unset}""#;
    let streamer = Streamer::new("env").await?;
    let up = start(&streamer).await?;
    let printed = streamer.run_script(PRINT).await?;
    let queues = ["endpoint_url", "queue_url", "dead_letter_queue_url", "receipts_queue_url"];
    let fields = queues.into_iter().chain(["connections_table", "mailbox_table", "websocket_url"]);
    let expected: Vec<_> = fields.map(|field| text(&up, field)).chain(["unset unset unset"]).collect();
    assert_eq!(printed.out.lines().collect::<Vec<_>>(), expected, "{printed:?}");
    let object: Value = serde_json::from_str(&streamer.run(["env", "--json"]).await?.out)?;
    assert_eq!(object["QUEUE_URL"], up["queue_url"]);
    assert_eq!(object["RECEIPTS_QUEUE_URL"], up["receipts_queue_url"]);

    let aws = streamer.run_script(r#"eval "$(streamer env)"; streamer connections --aws"#).await?;
    assert!(aws.success && aws.out == "0 connections\n", "{aws:?}");
    assert!(aws.err.contains("--aws means the stack on this machine here"), "{aws:?}");

    // The variables of a stack that is down are no endpoint of the user's.
    let again = r#"eval "$(streamer env)"; streamer down >&2; streamer env; streamer up --detach --json"#;
    let again = streamer.run_script(again).await?;
    assert!(again.success && again.err.contains("no stack is up on this machine"), "{again:?}");
    let second: Value = serde_json::from_str(&again.out)?;
    assert_ne!(second["pid"], up["pid"]);
    assert_eq!(streamer.run(["down"]).await?.out, "the stack is down\n");
    assert_nothing_left(&streamer, port(&second)).await
}

#[tokio::test]
async fn help_lists_every_command() -> anyhow::Result<()> {
    let streamer = Streamer::new("help").await?;
    let help = streamer.run(["--help"]).await?.out;
    for command in shell::COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
        assert!(streamer.run([command, "--help"]).await?.success);
    }
    Ok(())
}

/// Kills the worker repeatedly while it delivers. Every message arrives, some more than once.
#[tokio::test]
async fn killed_workers_lose_no_message() -> anyhow::Result<()> {
    const SOCKETS: usize = 50;
    const MESSAGES: usize = 30;
    let stack = emulator::stack().await?;
    let (sockets, ids) = emulator::crowd(&stack, "kills", "crowd", SOCKETS).await?;

    let (sender, mut frames) = mpsc::channel(SOCKETS);
    let mut readers = JoinSet::new();
    for (index, mut socket) in sockets.into_iter().enumerate() {
        let sender = sender.clone();
        readers.spawn(async move {
            while let Ok(frame) = socket.next(LIMIT * 2).await {
                let id = text(&frame.json().unwrap(), "id").to_owned();
                if sender.send((index, id)).await.is_err() {
                    break;
                }
            }
        });
    }
    let messages = (0..MESSAGES).map(|id| Message::connections(&ids).id(id.to_string()).response("hello"));
    stack.producer().send_all(messages.collect::<Result<Vec<_>, _>>()?).await?;

    let (mut unique, mut duplicates, mut kills) = (HashSet::new(), 0, 0);
    while unique.len() < SOCKETS * MESSAGES {
        let frame = timeout(LIMIT, frames.recv()).await?.unwrap();
        if !unique.insert(frame) {
            duplicates += 1;
        } else if [1, SOCKETS * MESSAGES / 3, SOCKETS * MESSAGES / 2].contains(&unique.len()) {
            // In the middle of the first batch, and then of repeated deliveries.
            kills += stack.processes("delivery")?.kill();
        }
    }
    // The killed workers had posted messages that are delivered again.
    while duplicates == 0 {
        duplicates += usize::from(!unique.insert(timeout(LIMIT, frames.recv()).await?.unwrap()));
    }
    println!("{} received, {duplicates} duplicates, {kills} processes killed", unique.len());
    assert!(kills > 0, "no worker process to kill");
    Ok(())
}
