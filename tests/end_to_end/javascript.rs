//! The JavaScript client in Node, against the real functions.

use std::{
    fs,
    path::PathBuf,
    process::Stdio,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use streamer_cli::paths;
use streamer_mailbox::Stream;
use streamer_message::{TenantId, UserId};
use streamer_producer::Message;
use streamer_tests::{
    DEADLINE,
    emulator::{producer, stack},
    eventually,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::{TENANT, languages, rows};

const HOUR: Duration = Duration::from_secs(3600);

/// A running `device.mjs`.
struct Device {
    process: Child,
    events: Lines<BufReader<ChildStdout>>,
}

impl Device {
    fn start(script: &PathBuf, url: &str, token: &str) -> anyhow::Result<Self> {
        let mut command = Command::new("node");
        command
            .arg(script)
            .args([url, token])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut process = command.spawn()?;
        let output = process.stdout.take().context("no output")?;
        Ok(Self { process, events: BufReader::new(output).lines() })
    }

    async fn command(&mut self, command: &str) -> anyhow::Result<()> {
        let input = self.process.stdin.as_mut().context("no input")?;
        Ok(input.write_all(format!("{command}\n").as_bytes()).await?)
    }

    /// Returns the events up to the first one for which `is_last` is true.
    async fn until(&mut self, is_last: impl Fn(&Value) -> bool) -> anyhow::Result<Vec<Value>> {
        let mut events = Vec::new();
        loop {
            let line = timeout(DEADLINE, self.events.next_line()).await;
            let line = line.with_context(|| format!("only {events:?}"))??.context("the device has ended")?;
            events.push(serde_json::from_str(&line)?);
            if events.last().is_some_and(&is_last) {
                return Ok(events);
            }
        }
    }

    async fn until_state(&mut self, state: &str) -> anyhow::Result<Vec<Value>> {
        self.until(|event| event["event"] == "state" && event["state"] == state).await
    }
}

/// Copies the client and the device to the folder of the Node packages, and returns the device's path.
async fn device() -> anyhow::Result<PathBuf> {
    let folder = languages::node_folder().await?;
    let target = folder.join("streamer-client");
    fs::create_dir_all(&target)?;
    for entry in fs::read_dir(paths::workspace().join("client"))? {
        let path = entry?.path();
        if let (Some(name), true) = (path.file_name(), path.extension().is_some_and(|kind| kind == "js")) {
            fs::copy(&path, target.join(name))?;
        }
    }
    let script = folder.join("device.mjs");
    fs::copy(paths::workspace().join("tests/languages/node/device.mjs"), &script)?;
    Ok(script)
}

fn of(events: &[Value], name: &str) -> Vec<Value> {
    events.iter().filter(|event| event["event"] == name).cloned().collect()
}

/// A report is read to its end although the workers are killed. Messages that are kept while the device is away arrive in
/// order, once.
#[tokio::test]
async fn client_in_node_misses_nothing() -> anyhow::Result<()> {
    const USER: &str = "javascript";
    let script = match device().await {
        Ok(script) => script,
        Err(error) => return languages::skip(error),
    };
    let stack = stack().await?;
    let token = stack.issuer.token(TENANT, USER, HOUR)?;
    let mut device = Device::start(&script, &stack.deployed.websocket_url, &token)?;
    device.until_state("caughtUp").await?;

    device.command("report").await?;
    device.until(|event| event["event"] == "progress").await?;
    _ = stack.processes("delivery")?.kill();
    let report = device.until(|event| event["event"] == "result").await?;
    let progress: Vec<_> =
        of(&report, "progress").iter().filter_map(|event| event["progress"].as_u64()).collect();
    assert!(progress.is_sorted_by(|one, other| one < other), "{progress:?}");
    assert!(report.last().unwrap()["result"]["rows"].is_u64(), "{report:?}");

    device.command("offline").await?;
    device.until_state("waiting").await?;
    let stream = Stream { tenant: TenantId::new(TENANT)?, user: UserId::new(USER)? };
    for number in 1..=3 {
        let message = Message::user(TENANT, USER).keep(HOUR).payload(&number)?;
        producer(&stack.config, &stack.deployed.queue_url).send(message).await?;
        eventually("the message is stored", async || {
            let listing = stack.mailbox().list(&stream, SystemTime::now()).await?;
            Ok(listing.is_some_and(|listing| listing.top == number))
        })
        .await?;
    }
    device.command("online").await?;
    let mut events = device.until(|event| event["event"] == "caughtUp").await?;
    let messages = of(&events, "message");
    let data: Vec<_> = messages.iter().map(|message| message["data"].clone()).collect();
    assert_eq!(data, [json!(1), json!(2), json!(3)], "{events:?}");
    assert!(messages.iter().all(|message| message["replayed"] == true && message["kept"] == true));
    assert_eq!(events.last().unwrap()["replayed"], 3);

    device.command("close").await?;
    events.extend(device.until_state("closed").await?);
    assert!(of(&events, "gap").is_empty() && of(&events, "error").is_empty(), "{events:?}");
    drop(device.process.stdin.take());
    let status = timeout(DEADLINE, device.process.wait()).await??;
    ensure!(status.success(), "{status}");
    eventually("the rows are removed", async || Ok(rows(&stack, USER).await?.is_empty())).await
}
