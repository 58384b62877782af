//! The stack that people live with: its commands, and every way to end it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashSet,
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use streamer_cli::stack::{
    Endpoint,
    deploy::local_config,
    emulator::{MINISTACK, install},
    socket::Socket,
};
use streamer_message::{TenantId, UserId};
use streamer_producer::Message;
use streamer_tests::{
    command::{Streamer, ready, signal},
    emulator, eventually,
};
use sysinfo::Signal;
use tokio::{process::Child, sync::mpsc, task::JoinSet, time::timeout};

const LIMIT: Duration = Duration::from_secs(30);

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap()
}

fn port(object: &Value) -> u16 {
    text(object, "endpoint_url").rsplit(':').next().unwrap().parse().unwrap()
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

async fn connected(streamer: &Streamer, up: &Value) -> anyhow::Result<Socket> {
    let token = streamer.run(["token", "--user", "anna", "--tenant", "acme"]).await?;
    assert!(token.success, "{token:?}");
    Ok(Socket::connect(text(up, "websocket_url"), Some(token.out.trim())).await?)
}

/// Looks until no process, no port, no lock and no file of the stack is left.
async fn leaves_nothing_behind(streamer: &Streamer, port: u16) -> anyhow::Result<()> {
    eventually("no process is left", async || Ok(streamer.processes()?.is_empty())).await?;
    eventually("the port is free", async || Ok(is_free(port))).await?;
    eventually("the lock is free", async || Ok(streamer.run(["down"]).await?.out == "no stack is up\n"))
        .await?;
    assert!(!streamer.folder().exists());
    Ok(())
}

async fn is_ended_by(name: &str, in_terminal: bool, end: impl FnOnce(&mut Child)) -> anyhow::Result<()> {
    let streamer = Streamer::new(name).await?;
    let arguments = ["up", "--json"];
    let mut command =
        if in_terminal { streamer.spawn_in_terminal(arguments)? } else { streamer.spawn(arguments)? };
    let up = ready(&mut command).await?;
    // So that Lambdas run too.
    let _socket = connected(&streamer, &up).await?;
    assert!(!streamer.processes()?.is_empty());

    end(&mut command);
    timeout(LIMIT, command.wait()).await??;
    leaves_nothing_behind(&streamer, port(&up)).await
}

#[tokio::test]
async fn ctrl_c_leaves_nothing_behind() -> anyhow::Result<()> {
    is_ended_by("ctrl-c", false, |command| signal(command, Signal::Interrupt).unwrap()).await
}

#[tokio::test]
async fn sigterm_leaves_nothing_behind() -> anyhow::Result<()> {
    is_ended_by("sigterm", false, |command| signal(command, Signal::Term).unwrap()).await
}

#[tokio::test]
async fn sigkill_leaves_nothing_behind() -> anyhow::Result<()> {
    is_ended_by("sigkill", false, |command| signal(command, Signal::Kill).unwrap()).await
}

#[tokio::test]
async fn a_closed_terminal_leaves_nothing_behind() -> anyhow::Result<()> {
    is_ended_by("terminal", true, |command| drop(command.stdin.take())).await
}

#[tokio::test]
async fn sigkill_while_it_starts_leaves_nothing_behind() -> anyhow::Result<()> {
    let streamer = Streamer::new("start").await?;
    let mut command = streamer.spawn(["up", "--detach", "--json"])?;
    eventually("the emulator runs", async || Ok(!streamer.processes()?.is_empty())).await?;
    let busy = streamer.run(["up"]).await?;
    assert!(
        !busy.success && busy.err.contains("a stack is starting or ending right now: try again"),
        "{busy:?}"
    );

    signal(&command, Signal::Kill)?;
    command.wait().await?;
    leaves_nothing_behind(&streamer, 0).await
}

#[tokio::test]
async fn a_detached_stack_serves_every_command_until_it_is_down() -> anyhow::Result<()> {
    let streamer = Streamer::new("detached").await?;
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let started = streamer.run(["up", "--detach", "--json", "--port", &free.to_string()]).await?;
    assert!(started.success, "{started:?}");
    let up: Value = serde_json::from_str(&started.out)?;
    assert_eq!(port(&up), free);
    for field in ["region", "management_endpoint", "queue_url", "dead_letter_queue_url", "connections_table"]
    {
        assert!(!text(&up, field).is_empty(), "{field}");
    }
    for function in ["connect", "disconnect", "delivery", "router"] {
        assert!(up["functions"][function].is_string(), "{function}");
    }
    assert!(up["pid"].is_number());

    let second = streamer.run(["up"]).await?;
    assert!(!second.success && second.err.contains("a stack is up already, process "), "{second:?}");
    assert!(
        second.err.contains(text(&up, "websocket_url")) && second.err.contains("`streamer down`"),
        "{second:?}"
    );

    let mut socket = connected(&streamer, &up).await?;
    let connection = connection(&streamer).await?;
    let sent = streamer.run(["send", "--connection", &connection, "--payload", "{ \"hello\":1.0 }"]).await?;
    assert!(sent.success && sent.out.starts_with("sent "), "{sent:?}");
    assert_eq!(socket.next(LIMIT).await?.text, "{ \"hello\":1.0 }");

    let sent =
        streamer.run(["send", "--connection", &connection, "--request", "r", "--progress", "40"]).await?;
    assert!(sent.success, "{sent:?}");
    let progress = socket.next(LIMIT).await?.json()?;
    assert_eq!((&progress["type"], &progress["progress"]), (&json!("progress"), &json!(40)));

    for to in [vec!["--tenant", "acme"], vec!["--tenant", "acme", "--user", "anna"]] {
        let payload = serde_json::to_string(&to)?;
        let arguments = ["send"].into_iter().chain(to).chain(["--payload", &payload]);
        let sent = streamer.run_all(arguments).await?;
        assert!(sent.success, "{sent:?}");
        assert_eq!(socket.next(LIMIT).await?.text, payload);
    }

    let lines = "\"first\"\n{\n\n\"third\"\n";
    let sent = streamer.run_with(["send", "--connections", &connection, "--stdin"], lines).await?;
    assert!(!sent.success && sent.out.starts_with("2 sent in "), "{sent:?}");
    assert!(sent.err.contains("line 2: the payload cannot be written as JSON"), "{sent:?}");
    assert!(sent.err.contains("streamer: 1 of 3 lines were not sent"), "{sent:?}");
    let frames = [socket.next(LIMIT).await?.text, socket.next(LIMIT).await?.text];
    assert_eq!(HashSet::from(frames), HashSet::from(["\"first\"".to_owned(), "\"third\"".to_owned()]));

    let who = streamer.run(["connections", "--tenant", "acme", "--user", "anna", "--json"]).await?;
    let live: Value = serde_json::from_str(&who.out)?;
    assert_eq!(
        (text(&live, "connection"), text(&live, "user"), text(&live, "tenant")),
        (connection.as_str(), "anna", "acme")
    );
    for table in
        [streamer.run(["connections"]).await?, streamer.run(["connections", "--tenant", "acme"]).await?]
    {
        assert!(
            table.success && table.out.contains(&connection) && table.out.ends_with("1 connection\n"),
            "{table:?}"
        );
    }
    assert_eq!(streamer.run(["connections", "--tenant", "globex"]).await?.out, "0 connections\n");

    let late = ["send", "--connection", &connection, "--payload", "1", "--expires-in", "0s", "--id", "late"];
    assert!(streamer.run(late).await?.success);
    let expired =
        |log: &str| log.lines().any(|line| line.contains("\"late\"") && line.contains("\"expired\""));
    eventually("the log says that it expired", async || {
        Ok(expired(&streamer.run(["logs", "delivery"]).await?.out))
    })
    .await?;
    let nobody = streamer.run(["disconnect", "--tenant", "acme", "--user", "bob"]).await?;
    assert_eq!(nobody.out, "0 closed, 0 were gone already, 0 failed\n");
    let ended = streamer.run(["disconnect", "--tenant", "acme"]).await?;
    assert!(ended.success && ended.out == "1 closed, 0 were gone already, 0 failed\n", "{ended:?}");
    assert!(socket.next(LIMIT).await.is_err(), "the socket is closed");
    assert_eq!(streamer.run(["connections"]).await?.out, "0 connections\n");

    let unknown = streamer.run(["logs", "nobody"]).await?;
    assert!(unknown.err.contains("there is no function `nobody`: choose one of connect, "), "{unknown:?}");

    assert_eq!(streamer.run(["down"]).await?.out, "the stack is down\n");
    leaves_nothing_behind(&streamer, free).await
}

/// The connection whose `$connect` the log tells of.
async fn connection(streamer: &Streamer) -> anyhow::Result<String> {
    let mut found = None;
    eventually("the log tells of a connection", async || {
        let log = streamer.run(["logs", "connect"]).await?.out;
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let connected = lines.filter(|line| line["message"] == "connected");
        found = connected.filter_map(|line| line["connection_id"].as_str().map(str::to_owned)).next();
        Ok(found.is_some())
    })
    .await?;
    Ok(found.unwrap())
}

#[tokio::test]
async fn without_a_stack_each_command_says_what_to_do() -> anyhow::Result<()> {
    let streamer = Streamer::new("without").await?;
    let none = "no stack is up on this machine: start one with `streamer up`";
    for said in [
        streamer.run(["token", "--user", "anna", "--tenant", "acme"]).await?,
        streamer.run(["logs"]).await?,
        streamer.run(["send", "--connection", "c", "--payload", "1"]).await?,
        streamer.run(["connections"]).await?,
        streamer.run(["disconnect", "--tenant", "acme"]).await?,
    ] {
        assert!(!said.success && said.err.contains(none), "{said:?}");
    }
    let aws = streamer.run(["send", "--aws", "--connection", "c", "--payload", "1"]).await?;
    assert!(!aws.success && aws.err.contains("--aws needs the queue: --queue-url"), "{aws:?}");
    let aws = streamer.run(["connections", "--aws"]).await?;
    assert!(!aws.success && aws.err.contains("--aws needs the table: --table"), "{aws:?}");
    Ok(())
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_and_another_one_asked_for() -> anyhow::Result<()> {
    let streamer = Streamer::new("port").await?;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = taken.local_addr()?.port().to_string();
    let said = streamer.run(["up", "--port", &port]).await?;
    let sentence = format!("port {port} is taken: end what listens there, or choose another one with --port");
    assert!(!said.success && said.err.contains(&sentence), "{said:?}");
    Ok(())
}

#[tokio::test]
async fn the_demo_uses_the_endpoint_that_it_is_given_and_leaves_nothing_there() -> anyhow::Result<()> {
    let streamer = Streamer::new("foreign").await?;
    let emulator = Endpoint::start_own(&install(&MINISTACK).await?, "foreign").await?;
    let up = streamer.run_at(emulator.url(), ["up"]).await?;
    assert!(!up.success && up.err.contains("`up` starts one of its own: unset the variable"), "{up:?}");
    let demo = streamer.run_at(emulator.url(), []).await?;
    assert!(demo.success && demo.out.contains("PASS 10/10"), "{demo:?}");

    let config = local_config(emulator.url()).await;
    let functions = aws_sdk_lambda::Client::new(&config).list_functions().send().await?;
    assert!(functions.functions().is_empty(), "{functions:?}");
    let mappings = aws_sdk_lambda::Client::new(&config).list_event_source_mappings().send().await?;
    assert!(mappings.event_source_mappings().is_empty(), "{mappings:?}");
    let queues = aws_sdk_sqs::Client::new(&config).list_queues().send().await?;
    assert!(queues.queue_urls().is_empty(), "{queues:?}");
    let tables = aws_sdk_dynamodb::Client::new(&config).list_tables().send().await?;
    assert!(tables.table_names().is_empty(), "{tables:?}");
    Ok(())
}

#[tokio::test]
async fn help_names_every_command() -> anyhow::Result<()> {
    let streamer = Streamer::new("help").await?;
    let help = streamer.run(["--help"]).await?.out;
    for command in
        ["up", "down", "logs", "token", "send", "connections", "disconnect", "package", "redrive", "status"]
    {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
        assert!(streamer.run([command, "--help"]).await?.success);
    }
    Ok(())
}

#[tokio::test]
async fn a_worker_that_is_killed_loses_nothing() -> anyhow::Result<()> {
    const SOCKETS: usize = 50;
    const MESSAGES: usize = 30;
    let stack = emulator::stack().await?;
    let connect = |_| async { stack.connect("kills", "crowd").await };
    let sockets: Vec<_> = stream::iter(0..SOCKETS).map(connect).buffer_unordered(20).try_collect().await?;
    let (tenant, user) = (TenantId::new("kills")?, UserId::new("crowd")?);
    let rows = stack.table().by_user(&tenant, &user, None, std::time::SystemTime::now()).await?.connections;
    let ids: Vec<_> = rows.into_iter().map(|row| row.connection_id).collect();
    assert_eq!(ids.len(), SOCKETS);

    let (arrive, mut arrivals) = mpsc::channel(SOCKETS);
    let mut listening = JoinSet::new();
    for (index, mut socket) in sockets.into_iter().enumerate() {
        let arrive = arrive.clone();
        listening.spawn(async move {
            while let Ok(frame) = socket.next(LIMIT * 2).await {
                let id = text(&frame.json().unwrap(), "id").to_owned();
                if arrive.send((index, id)).await.is_err() {
                    break;
                }
            }
        });
    }
    let messages = (0..MESSAGES).map(|id| Message::connections(&ids).id(id.to_string()).response("hello"));
    stack.producer().send_all(messages.collect::<Result<Vec<_>, _>>()?).await?;

    let (mut unique, mut twice, mut kills) = (HashSet::new(), 0, 0);
    while unique.len() < SOCKETS * MESSAGES {
        let arrival = timeout(LIMIT, arrivals.recv()).await?.unwrap();
        if !unique.insert(arrival) {
            twice += 1;
        } else if [1, SOCKETS * MESSAGES / 3, SOCKETS * MESSAGES / 2].contains(&unique.len()) {
            // In the middle of the first batch, then of what is delivered again.
            kills += stack.processes("delivery")?.kill();
        }
    }
    // What was posted already when its worker was killed comes again.
    while twice == 0 {
        twice += usize::from(!unique.insert(timeout(LIMIT, arrivals.recv()).await?.unwrap()));
    }
    println!("{} arrived, {twice} of them twice, {kills} processes killed", unique.len());
    assert!(kills > 0, "there was no worker to kill");
    Ok(())
}
