//! `streamer send`, run as a process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs};

use serde_json::Value;
use streamer_cli::stack::socket::Socket;
use streamer_tests::{
    DEADLINE,
    command::{Output, Streamer, output, signal},
    eventually,
};
use sysinfo::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{connected, redrive::Deployment};

/// Starts a stack of the command's own, and connects user anna of tenant acme.
async fn up(name: &str) -> anyhow::Result<(Streamer, Socket, String)> {
    let streamer = Streamer::new(name).await?;
    let up = streamer.run(["up", "--detach", "--json"]).await?;
    assert!(up.success, "{up:?}");
    let up: Value = serde_json::from_str(&up.out)?;
    let token = streamer.run(["token", "--user", "anna", "--tenant", "acme"]).await?.out;
    let socket = Socket::connect(up["websocket_url"].as_str().unwrap(), Some(token.trim())).await?;
    let live = streamer.run(["connections", "--json"]).await?.out;
    let live: Value = serde_json::from_str(&live)?;
    Ok((streamer, socket, live["connection"].as_str().unwrap().to_owned()))
}

/// `--wait` prints the outcome of a message from its receipts, and `receipts` lists those of other messages.
#[tokio::test]
async fn wait_tells_gone_from_delivered() -> anyhow::Result<()> {
    let (streamer, mut socket, id) = up("wait").await?;
    let time = format!("{}s", DEADLINE.as_secs());
    let send = async |recipients: &[&str], more: &[&str]| {
        let all = ["send", "--wait", &time].into_iter();
        streamer.run_all(all.chain(recipients.iter().chain(more).copied())).await
    };
    let payload = ["--payload", "\"waited\""];

    for (recipients, audience) in [
        (&["--connection", &id][..], id.as_str()),
        (&["--tenant", "acme", "--user", "anna"], "user anna of tenant acme"),
        (&["--tenant", "acme"], "tenant acme"),
    ] {
        let sent = send(recipients, &payload).await?;
        assert!(sent.success && sent.out.starts_with("queued "), "{sent:?}");
        assert!(sent.out.ends_with(&format!("\ndelivered    {audience}\n")), "{sent:?}");
        assert_eq!(socket.next(DEADLINE).await?.text, "\"waited\"");
    }

    let sent = send(&["--connections", &format!("{id},mistyped")], &payload).await?;
    assert_eq!(sent.code, Some(3), "{sent:?}");
    assert!(sent.out.ends_with("\ndelivered    2 connections\n1 delivered, 1 gone\n"), "{sent:?}");
    assert!(sent.err.contains("gone: the connection has ended or never existed"), "{sent:?}");

    let sent = send(&["--tenant", "nowhere"], &payload).await?;
    assert!(sent.code == Some(3) && sent.out.ends_with("\nno_recipient tenant nowhere\n"), "{sent:?}");
    let sent = send(&["--connection", &id], &["--payload", "1", "--expires-in", "0s"]).await?;
    assert!(sent.code == Some(3) && sent.out.contains("\nexpired "), "{sent:?}");

    let away = ["send", "--tenant", "acme", "--user", "bob", "--payload", "1", "--wait", "2s"];
    let sent = streamer.run(away).await?;
    assert_eq!(sent.code, Some(3), "{sent:?}");
    assert!(sent.err.contains("2s"), "{sent:?}");

    let lines = ["send", "--connection", &id, "--stdin", "--wait", &time];
    let sent = streamer.run_with(lines, "1\n2\n3\n").await?;
    assert!(sent.success && sent.out.ends_with("\n3 delivered\n"), "{sent:?}");

    let arguments = ["send", "--connection", &id, "--payload", "1", "--id", "asked", "--receipt"];
    assert_eq!(streamer.run(arguments).await?.out, "queued asked\n");
    eventually("the receipt is listed", async || {
        let listed = streamer.run(["receipts", "--id", "asked"]).await?;
        Ok(listed.out.contains(&format!("  delivered     asked  {id}\n")))
    })
    .await?;
    assert!(streamer.run(["down"]).await?.success);
    Ok(())
}

/// Arguments for a queue on the emulator, as if it were AWS.
fn to_queue<'a>(queue_url: &'a str, recipients: [&'a str; 2]) -> Vec<&'a str> {
    vec!["send", "--aws", "--queue-url", queue_url, recipients[0], recipients[1], "--stdin"]
}

/// A line arrives while the input is open, and Ctrl-C ends the command with the lines that it has read.
#[tokio::test]
async fn interrupt_names_what_is_left() -> anyhow::Result<()> {
    let deployment = Deployment::new("send-lines").await?;
    let (mut client, id) = connected(&deployment.stack, "send-lines").await?;
    let endpoint = &deployment.stack.deployed.endpoint_url;
    for (number, code) in [(Signal::Interrupt, 130), (Signal::Term, 143)] {
        let arguments = to_queue(&deployment.delivery.queue_url, ["--connection", id.as_str()]);
        let mut command = deployment.streamer.spawn_at(endpoint, arguments)?;
        let mut stdin = command.stdin.take().unwrap();
        for line in ["first", "second"] {
            let text = format!("\"{line} before {number}\"");
            stdin.write_all(format!("{text}\n").as_bytes()).await?;
            assert_eq!(client.next(&text).await?.text, text);
        }
        stdin.write_all(b"\"cut").await?;
        stdin.flush().await?;
        signal(&command, number)?;
        let ended = output(command).await?;
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(ended.out.contains(": 2 queued ("), "{ended:?}");
        assert!(ended.err.contains("interrupted\nthe input after line 2 was not read"), "{ended:?}");
        drop(stdin);
    }
    Ok(())
}

/// A queue that does not exist ends the command at its first answer. `--retry` sends what `--failed` kept.
#[tokio::test]
async fn failed_messages_are_sent_with_retry() -> anyhow::Result<()> {
    let deployment = Deployment::new("send-failed").await?;
    let (mut client, id) = connected(&deployment.stack, "send-failed").await?;
    let (endpoint, queue_url) = (&deployment.stack.deployed.endpoint_url, &deployment.delivery.queue_url);
    let file = deployment.streamer.folder().with_extension("jsonl");
    let path = file.to_str().unwrap();

    let missing = format!("{queue_url}-missing");
    let arguments = to_queue(&missing, ["--connection", id.as_str()]).into_iter().chain(["--failed", path]);
    let mut command = deployment.streamer.spawn_at(endpoint, arguments)?;
    let mut stdin = command.stdin.take().unwrap();
    // The input stays open: only the queue ends the command.
    stdin.write_all(b"{ \"a\": 1.0 }\nhello\n\"last\"\n").await?;
    stdin.flush().await?;
    let ended = output(command).await?;
    drop(stdin);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.out.contains(": 0 queued (0 per second), 2 failed, 1 invalid"), "{ended:?}");
    for text in [
        "line 2: not JSON",
        "check the name, the Region",
        "`streamer send --retry ",
        "not in that file (line 2)",
    ] {
        assert!(ended.err.contains(text), "{text}: {ended:?}");
    }
    let kept = fs::read_to_string(&file)?;
    let id_of = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].to_string();
    let ids: BTreeSet<_> = kept.lines().map(id_of).collect();
    assert_eq!(ids.len(), 2, "{kept}");

    let retry = ["send", "--aws", "--queue-url", queue_url, "--retry", path];
    let sent = output(deployment.streamer.spawn_at(endpoint, retry)?).await?;
    assert!(sent.success && sent.out.contains(": 2 queued ("), "{sent:?}");
    let payloads = BTreeSet::from([client.next("one").await?.text, client.next("other").await?.text]);
    assert_eq!(payloads, BTreeSet::from(["{ \"a\": 1.0 }".to_owned(), "\"last\"".to_owned()]));
    Ok(())
}

/// A reader that closes standard output, such as `head`, ends no send.
#[tokio::test]
async fn closed_output_does_not_stop_lines() -> anyhow::Result<()> {
    let deployment = Deployment::new("send-closed").await?;
    let (mut client, id) = connected(&deployment.stack, "send-closed").await?;
    let arguments = to_queue(&deployment.delivery.queue_url, ["--connection", id.as_str()]);
    let mut command = deployment.streamer.spawn_at(&deployment.stack.deployed.endpoint_url, arguments)?;
    drop(command.stdout.take());
    let mut stdin = command.stdin.take().unwrap();
    stdin.write_all(b"\"one\"\r\n\"two\"").await?;
    drop(stdin);
    let frames = BTreeSet::from([client.next("one").await?.text, client.next("two").await?.text]);
    assert_eq!(frames, BTreeSet::from(["\"one\"".to_owned(), "\"two\"".to_owned()]));
    let mut error = String::new();
    command.stderr.take().unwrap().read_to_string(&mut error).await?;
    assert!(command.wait().await?.success(), "{error}");
    Ok(())
}

/// Every error of an argument says how to write it.
#[tokio::test]
async fn errors_show_how_to_write_arguments() -> anyhow::Result<()> {
    let streamer = Streamer::new("send-errors").await?;
    let with = async |arguments: &[&str]| -> anyhow::Result<Output> {
        streamer.run_all(["send"].iter().chain(arguments).copied()).await
    };
    for (arguments, text) in [
        (
            &["--connection", "c", "--payload", "hello"][..],
            "write a string in double quotes: --payload '\"hello\"'",
        ),
        (&["--connection", "c", "--payload", "{a:1}"], "as in --payload '{\"hello\":\"world\"}'"),
        (&["--connection", "", "--payload", "1"], "`streamer connections` lists them"),
        (&["--connections", "a,,b", "--payload", "1"], "a connection id must have 1 to 128 characters"),
        (&["--tenant", "", "--payload", "1"], "a tenant id must have 1 to 256 bytes"),
        (&["--tenant", "t", "--user", "", "--payload", "1"], "a user id must have 1 to 256 bytes"),
        (&["--connection", "c", "--progress", "120"], "write a whole number from 0 to 100, without %"),
        (&["--connection", "c", "--progress", "40%"], "write a whole number from 0 to 100, without %"),
        (&["--connection", "c", "--payload", "1", "--id", ""], "a message id must have 1 to 128 characters"),
        (
            &["--connection", "c", "--payload", "1", "--request", ""],
            "a request id must have 1 to 128 characters",
        ),
        (&["--payload", "1"], "--tenant <ID>"),
        (&["--connection", "c"], "--payload <JSON>"),
        (&["--retry", "f", "--connection", "c"], "cannot be used with"),
        (&["--retry", "f", "--receipt"], "cannot be used with"),
    ] {
        let failed = with(arguments).await?;
        assert!(failed.code == Some(2) && failed.err.contains(text), "{arguments:?}: {failed:?}");
    }
    let arguments = to_queue("http://127.0.0.1:9/q", ["--connection", "c"]);
    let mut command = streamer.spawn_at("http://127.0.0.1:9", arguments)?;
    drop(command.stdin.take());
    assert!(output(command).await?.success, "an empty input is no error");
    Ok(())
}
