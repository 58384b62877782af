//! The local stack: its commands, and every way to end it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashSet,
    fs,
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use streamer_cli::{
    paths,
    stack::{
        Endpoint,
        deploy::local_config,
        emulator::{MINISTACK, install},
        socket::Socket,
    },
};
use streamer_message::{TenantId, UserId};
use streamer_producer::Message;
use streamer_tests::{
    command::{Streamer, output, ready, signal, signal_process},
    emulator, eventually,
};
use sysinfo::Signal;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Child,
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

/// Starts a stack and a connection, ends the command with `end`, and checks that nothing is left.
async fn end_with(name: &str, in_terminal: bool, end: impl FnOnce(&mut Child)) -> anyhow::Result<()> {
    let streamer = Streamer::new(name).await?;
    let arguments = ["up", "--json"];
    let mut command =
        if in_terminal { streamer.spawn_in_terminal(arguments)? } else { streamer.spawn(arguments)? };
    let up = ready(&mut command).await?;
    // The connection starts a Lambda process.
    let _socket = connect(&streamer, &up).await?;
    assert!(!streamer.processes()?.is_empty());

    end(&mut command);
    timeout(LIMIT, command.wait()).await??;
    eventually("the front door is gone", async || Ok(is_free(front_door_port(&up)))).await?;
    assert_nothing_left(&streamer, port(&up)).await
}

/// Each end of `up` leaves no process, port, lock and file behind.
mod nothing_is_left_after {
    use super::*;

    #[tokio::test]
    async fn ctrl_c() -> anyhow::Result<()> {
        end_with("ctrl-c", false, |command| signal(command, Signal::Interrupt).unwrap()).await
    }

    #[tokio::test]
    async fn sigterm() -> anyhow::Result<()> {
        end_with("sigterm", false, |command| signal(command, Signal::Term).unwrap()).await
    }

    #[tokio::test]
    async fn sigkill() -> anyhow::Result<()> {
        end_with("sigkill", false, |command| signal(command, Signal::Kill).unwrap()).await
    }

    #[tokio::test]
    async fn closed_terminal() -> anyhow::Result<()> {
        end_with("terminal", true, |command| drop(command.stdin.take())).await
    }

    #[tokio::test]
    async fn sigkill_during_start() -> anyhow::Result<()> {
        let streamer = Streamer::new("start").await?;
        let mut command = streamer.spawn(["up", "--detach", "--json"])?;
        eventually("the emulator runs", async || Ok(!streamer.processes()?.is_empty())).await?;
        signal(&command, Signal::Kill)?;
        command.wait().await?;
        assert_nothing_left(&streamer, 0).await
    }

    #[tokio::test]
    async fn down_during_start() -> anyhow::Result<()> {
        let streamer = Streamer::new("down").await?;
        let command = streamer.spawn(["up", "--detach", "--json"])?;
        eventually("the emulator runs", async || Ok(!streamer.processes()?.is_empty())).await?;
        assert_eq!(streamer.run(["down"]).await?.out, "the stack is down\n");
        let up = output(command).await?;
        assert!(!up.success && up.err.contains("interrupted while starting"), "{up:?}");
        assert_nothing_left(&streamer, 0).await
    }
}

/// Any process of a stack may be killed: `down` ends the rest, and `up` starts a new stack.
mod down_and_up_work_after_sigkill_of {
    use super::*;

    /// Kills the processes that `choose` takes from the owner, the supervisor, the emulator and a function.
    async fn check(name: &str, choose: impl Fn([u32; 4]) -> Vec<u32>) -> anyhow::Result<()> {
        let streamer = Streamer::new(name).await?;
        let up = start(&streamer).await?;
        kill(&streamer, &up, &choose).await?;
        let down = streamer.run(["down"]).await?;
        assert!(down.success, "{down:?}");
        assert_nothing_left(&streamer, port(&up)).await?;

        let up = start(&streamer).await?;
        kill(&streamer, &up, &choose).await?;
        // Until the owner has noticed, the stack counts as up.
        let mut second = Value::Null;
        eventually("a new stack is up", async || {
            let result = streamer.run(["up", "--detach", "--json"]).await?;
            assert!(result.success || result.err.contains("a stack is already up"), "{result:?}");
            second = serde_json::from_str(&result.out).unwrap_or_default();
            Ok(result.success)
        })
        .await?;
        assert_ne!(second["pid"], up["pid"]);
        connect(&streamer, &second).await?;
        assert_eq!(streamer.run(["down"]).await?.out, "the stack is down\n");
        assert_nothing_left(&streamer, port(&second)).await
    }

    async fn kill(
        streamer: &Streamer,
        up: &Value,
        choose: impl Fn([u32; 4]) -> Vec<u32>,
    ) -> anyhow::Result<()> {
        // The connection starts a function.
        let _socket = connect(streamer, up).await?;
        let chain = streamer.chain(u32::try_from(up["pid"].as_u64().unwrap())?).await?;
        choose(chain).into_iter().try_for_each(|pid| signal_process(pid, Signal::Kill))
    }

    #[tokio::test]
    async fn owner() -> anyhow::Result<()> {
        check("killed-owner", |[owner, ..]| vec![owner]).await
    }

    #[tokio::test]
    async fn supervisor() -> anyhow::Result<()> {
        check("killed-supervisor", |[_, supervisor, ..]| vec![supervisor]).await
    }

    #[tokio::test]
    async fn emulator() -> anyhow::Result<()> {
        check("killed-emulator", |[_, _, emulator, _]| vec![emulator]).await
    }

    #[tokio::test]
    async fn owner_and_supervisor() -> anyhow::Result<()> {
        check("killed-both", |[owner, supervisor, ..]| vec![owner, supervisor]).await
    }

    /// Only functions are left, which hold no lock.
    #[tokio::test]
    async fn all_but_functions() -> anyhow::Result<()> {
        check("killed-all", |[owner, supervisor, emulator, _]| vec![owner, supervisor, emulator]).await
    }

    /// A stack gets over a crash of a function.
    #[tokio::test]
    async fn function() -> anyhow::Result<()> {
        let streamer = Streamer::new("killed-function").await?;
        let up = start(&streamer).await?;
        kill(&streamer, &up, |[.., function]| vec![function]).await?;
        connect(&streamer, &up).await?;
        let second = streamer.run(["up"]).await?;
        assert!(!second.success && second.err.contains("a stack is already up"), "{second:?}");
        assert_eq!(streamer.run(["down"]).await?.out, "the stack is down\n");
        assert_nothing_left(&streamer, port(&up)).await
    }
}

async fn start(streamer: &Streamer) -> anyhow::Result<Value> {
    let up = streamer.run(["up", "--detach", "--json"]).await?;
    assert!(up.success, "{up:?}");
    Ok(serde_json::from_str(&up.out)?)
}

/// Right after an interrupted start, `down` and `up` wait for its end.
#[tokio::test]
async fn interrupted_start_is_waited_for() -> anyhow::Result<()> {
    let streamer = Streamer::new("interrupted").await?;
    for command in ["down", "up"] {
        let mut first = streamer.spawn(["up", "--json"])?;
        eventually("the emulator runs", async || Ok(!streamer.processes()?.is_empty())).await?;
        signal(&first, Signal::Interrupt)?;
        if command == "down" {
            let down = streamer.run(["down"]).await?;
            assert!(down.success, "{down:?}");
        }
        let second = start(&streamer).await?;
        first.wait().await?;
        assert_eq!(streamer.run(["down"]).await?.out, "the stack is down\n");
        assert_nothing_left(&streamer, port(&second)).await?;
    }
    Ok(())
}

/// A second `up` waits until the first has started, and then says where it is.
#[tokio::test]
async fn second_up_waits_for_start() -> anyhow::Result<()> {
    let streamer = Streamer::new("second").await?;
    let first = streamer.spawn(["up", "--detach", "--json"])?;
    eventually("the emulator runs", async || Ok(!streamer.processes()?.is_empty())).await?;
    let second = streamer.run(["up"]).await?;
    assert!(!second.success && second.err.contains("a stack is already up, process "), "{second:?}");
    let up: Value = serde_json::from_str(&output(first).await?.out)?;
    assert_eq!(streamer.run(["down"]).await?.out, "the stack is down\n");
    assert_nothing_left(&streamer, port(&up)).await
}

#[tokio::test]
async fn detached_stack_survives_closed_terminal() -> anyhow::Result<()> {
    let streamer = Streamer::new("closed").await?;
    let mut command = streamer.spawn_in_terminal(["up", "--detach", "--json"])?;
    let up = ready(&mut command).await?;
    drop(command.stdin.take());
    timeout(LIMIT, command.wait()).await??;
    signal_process(u32::try_from(up["pid"].as_u64().unwrap())?, Signal::Hangup)?;
    connect(&streamer, &up).await?;
    assert_eq!(streamer.run(["down"]).await?.out, "the stack is down\n");
    assert_nothing_left(&streamer, port(&up)).await
}

/// A kept demo is a stack like that of `up`.
#[tokio::test]
async fn kept_demo_serves_every_command() -> anyhow::Result<()> {
    let streamer = Streamer::new("keep").await?;
    let mut demo = streamer.spawn(["--keep"])?;
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let mut text = String::new();
    while !text.contains("The stack is up.") {
        text += &lines.next_line().await?.unwrap_or_else(|| panic!("the demo ended: {text}"));
    }
    let up: Value = serde_json::from_slice(&fs::read(streamer.folder().join("stack.json"))?)?;
    assert_eq!(up["pid"].as_u64(), demo.id().map(u64::from));

    let second = streamer.run(["up"]).await?;
    assert!(!second.success && second.err.contains("a stack is already up, process "), "{second:?}");
    let second = streamer.run(["--keep"]).await?;
    assert!(!second.success && second.err.contains("a stack is already up, process "), "{second:?}");
    let mut socket = connect(&streamer, &up).await?;
    let sent = streamer.run(["send", "--tenant", "acme", "--user", "anna", "--payload", "\"kept\""]).await?;
    assert!(sent.success, "{sent:?}");
    assert_eq!(socket.next(LIMIT).await?.text, "\"kept\"");
    for command in ["connections", "status", "redrive", "logs"] {
        let result = streamer.run([command]).await?;
        assert!(result.success, "{result:?}");
    }
    assert_eq!(streamer.run(["down"]).await?.out, "the stack is down\n");
    assert!(timeout(LIMIT, demo.wait()).await??.success());
    assert_nothing_left(&streamer, port(&up)).await
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

    let other_user = streamer.run(["disconnect", "--tenant", "acme", "--user", "bob"]).await?;
    assert_eq!(other_user.out, "0 closed, 0 already gone, 0 failed\n");
    let disconnected = streamer.run(["disconnect", "--tenant", "acme"]).await?;
    assert!(
        disconnected.success && disconnected.out == "1 closed, 0 already gone, 0 failed\n",
        "{disconnected:?}"
    );
    assert!(socket.next(LIMIT).await.is_err(), "the socket is closed");
    assert_eq!(streamer.run(["connections"]).await?.out, "0 connections\n");

    let unknown = streamer.run(["logs", "unknown"]).await?;
    assert!(unknown.err.contains("there is no function `unknown`: choose one of connect, "), "{unknown:?}");

    assert_eq!(streamer.run(["down"]).await?.out, "the stack is down\n");
    assert_nothing_left(&streamer, free_port).await
}

/// Starts a detached stack on a port, and checks that a second one is refused.
async fn start_detached(streamer: &Streamer, free_port: u16) -> anyhow::Result<Value> {
    let started = streamer.run(["up", "--detach", "--json", "--port", &free_port.to_string()]).await?;
    assert!(started.success, "{started:?}");
    let up: Value = serde_json::from_str(&started.out)?;
    assert_eq!(port(&up), free_port);
    for field in ["region", "management_endpoint", "queue_url", "dead_letter_queue_url", "connections_table"]
    {
        assert!(!text(&up, field).is_empty(), "{field}");
    }
    for function in ["connect", "disconnect", "delivery", "router"] {
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
    let expired =
        |log: &str| log.lines().any(|line| line.contains("\"late\"") && line.contains("\"expired\""));
    eventually("the worker has logged the expiry", async || {
        Ok(expired(&streamer.run(["logs", "delivery"]).await?.out))
    })
    .await
}

/// Returns the connection whose `$connect` was logged.
async fn logged_connection(streamer: &Streamer) -> anyhow::Result<String> {
    let mut found = None;
    eventually("a connection is logged", async || {
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
async fn shell_uses_stack_through_env() -> anyhow::Result<()> {
    const PRINT: &str = r#"
        eval "$(streamer env)"
        printf '%s\n' "$AWS_ENDPOINT_URL" "$QUEUE_URL" "$DEAD_LETTER_QUEUE_URL" "$CONNECTIONS_TABLE" "$WEBSOCKET_URL"
        eval "$(streamer env --unset)"
        echo "${QUEUE_URL-unset} ${AWS_ACCESS_KEY_ID-unset}""#;
    let streamer = Streamer::new("env").await?;
    let up = start(&streamer).await?;
    let printed = streamer.run_script(PRINT).await?;
    let fields =
        ["endpoint_url", "queue_url", "dead_letter_queue_url", "connections_table", "websocket_url"];
    let expected: Vec<_> = fields.iter().map(|field| text(&up, field)).chain(["unset unset"]).collect();
    assert_eq!(printed.out.lines().collect::<Vec<_>>(), expected, "{printed:?}");
    let object: Value = serde_json::from_str(&streamer.run(["env", "--json"]).await?.out)?;
    assert_eq!(object["QUEUE_URL"], up["queue_url"]);

    let aws = streamer.run_script(r#"eval "$(streamer env)"; streamer connections --aws"#).await?;
    assert!(aws.success && aws.out == "0 connections\n", "{aws:?}");
    assert!(aws.err.contains("--aws means the stack on this machine here"), "{aws:?}");

    // The variables of a stack that is down are no endpoint of the user's.
    let again =
        r#"eval "$(streamer env)"; streamer down >&2; streamer env; streamer up --detach --json"#;
    let again = streamer.run_script(again).await?;
    assert!(again.success && again.err.contains("no stack is up on this machine"), "{again:?}");
    let second: Value = serde_json::from_str(&again.out)?;
    assert_ne!(second["pid"], up["pid"]);
    assert_eq!(streamer.run(["down"]).await?.out, "the stack is down\n");
    assert_nothing_left(&streamer, port(&second)).await
}

#[tokio::test]
async fn up_refuses_an_unfit_router() -> anyhow::Result<()> {
    let streamer = Streamer::new("router").await?;
    let missing = streamer.folder().join("missing").display().to_string();
    let readme = paths::workspace().join("README.md").display().to_string();
    for (router, reason) in [
        (readme.as_str(), "the file is neither a program nor a script that starts with `#!`"),
        ("/tmp", "it is a folder: name the router's binary in it"),
        ("/dev/zero", "it is no regular file"),
        (missing.as_str(), "No such file or directory"),
    ] {
        let up = streamer.run(["up", "--router", router]).await?;
        assert!(!up.success && up.err.contains(reason) && up.err.contains(router), "{up:?}");
        assert!(up.out.is_empty() && !streamer.folder().exists(), "{up:?}");
    }
    Ok(())
}

/// Without a stack, every command fails and says what to do.
#[tokio::test]
async fn commands_without_a_stack_explain_themselves() -> anyhow::Result<()> {
    let streamer = Streamer::new("without").await?;
    let no_stack = "no stack is up on this machine: start one with `streamer up`";
    for result in [
        streamer.run(["token", "--user", "anna", "--tenant", "acme"]).await?,
        streamer.run(["logs"]).await?,
        streamer.run(["env"]).await?,
        streamer.run(["send", "--connection", "c", "--payload", "1"]).await?,
        streamer.run(["connections"]).await?,
        streamer.run(["disconnect", "--tenant", "acme"]).await?,
    ] {
        assert!(!result.success && result.err.contains(no_stack), "{result:?}");
    }
    let aws = streamer.run(["send", "--aws", "--connection", "c", "--payload", "1"]).await?;
    assert!(!aws.success && aws.err.contains("--aws needs the queue: --queue-url"), "{aws:?}");
    let aws = streamer.run(["connections", "--aws"]).await?;
    assert!(!aws.success && aws.err.contains("--aws needs the table: --table"), "{aws:?}");
    Ok(())
}

#[tokio::test]
async fn up_refuses_a_taken_port() -> anyhow::Result<()> {
    let streamer = Streamer::new("port").await?;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = taken.local_addr()?.port().to_string();
    let result = streamer.run(["up", "--port", &port]).await?;
    let error = format!(
        "port {port} is taken: stop the process that listens there, or choose another port with --port"
    );
    assert!(!result.success && result.err.contains(&error), "{result:?}");
    Ok(())
}

/// With `AWS_ENDPOINT_URL`, the demo uses that endpoint, and removes every resource from it.
#[tokio::test]
async fn demo_cleans_up_an_external_endpoint() -> anyhow::Result<()> {
    let streamer = Streamer::new("external").await?;
    let emulator = Endpoint::start_own(&install(&MINISTACK).await?, "external").await?;
    let up = streamer.run_at(emulator.url(), ["up"]).await?;
    assert!(!up.success && up.err.contains("`up` starts its own endpoint: unset the variable"), "{up:?}");
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
async fn help_lists_every_command() -> anyhow::Result<()> {
    let streamer = Streamer::new("help").await?;
    let help = streamer.run(["--help"]).await?.out;
    for command in
        ["up", "down", "logs", "token", "env", "send", "connections", "disconnect", "package", "redrive", "status"]
    {
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
    let connect = |_| async { stack.connect("kills", "crowd").await };
    let sockets: Vec<_> = stream::iter(0..SOCKETS).map(connect).buffer_unordered(20).try_collect().await?;
    let (tenant, user) = (TenantId::new("kills")?, UserId::new("crowd")?);
    let rows = stack.table().by_user(&tenant, &user, None, std::time::SystemTime::now()).await?.connections;
    let ids: Vec<_> = rows.into_iter().map(|row| row.connection_id).collect();
    assert_eq!(ids.len(), SOCKETS);

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
