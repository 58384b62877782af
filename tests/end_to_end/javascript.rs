//! The JavaScript client in Node, against the real functions.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Stdio,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use streamer_cli::{
    paths,
    stack::{Stack, deploy::Overrides},
};
use streamer_mailbox::Stream;
use streamer_message::{TenantId, UserId};
use streamer_producer::Message;
use streamer_tests::{
    DEADLINE,
    emulator::{VISIBILITY, producer, stack},
    eventually, full, node, skip,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{TENANT, rows};

/// How long the storm may last.
const LIMIT: Duration = Duration::from_secs(900);

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
            let event = timeout(DEADLINE, self.next()).await;
            events.push(event.with_context(|| format!("only {events:?}"))??);
            if events.last().is_some_and(&is_last) {
                return Ok(events);
            }
        }
    }

    /// Returns the next event. No event is lost if the call is given up.
    async fn next(&mut self) -> anyhow::Result<Value> {
        let line = self.events.next_line().await?.context("the device has ended")?;
        Ok(serde_json::from_str(&line)?)
    }

    async fn until_state(&mut self, state: &str) -> anyhow::Result<Vec<Value>> {
        self.until(|event| event["event"] == "state" && event["state"] == state).await
    }
}

/// Copies the client and the device to the folder of the Node packages, and returns the device's path.
async fn device() -> anyhow::Result<PathBuf> {
    let folder = node::folder().await?;
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
        Err(error) => return skip(error),
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

/// A device, and the numbers and ids of the messages that it has shown.
struct Reader {
    device: Device,
    shown: Vec<(u64, String)>,
    gaps: usize,
}

impl Reader {
    /// Reads until it has shown so many messages and is caught up, and cuts its sockets now and then.
    async fn read(&mut self, messages: usize, random: &mut fastrand::Rng) -> anyhow::Result<usize> {
        let (mut cuts, mut cut_at) = (0, Instant::now());
        while self.shown.len() < messages {
            match timeout_at(cut_at, self.device.next()).await {
                Ok(event) => self.note(&event?),
                Err(_) => {
                    self.device.command("cut").await?;
                    cuts += 1;
                    cut_at = Instant::now() + Duration::from_millis(random.u64(200..5000));
                }
            }
        }
        // A message that is shown again comes before the client is caught up again.
        self.device.command("cut").await?;
        for state in ["waiting", "caughtUp"] {
            self.device.until_state(state).await?.iter().for_each(|event| self.note(event));
        }
        Ok(cuts)
    }

    fn note(&mut self, event: &Value) {
        match (event["event"].as_str(), event["seq"].as_u64(), event["id"].as_str()) {
            (Some("message"), Some(seq), Some(id)) => self.shown.push((seq, id.to_owned())),
            (Some("gap"), ..) => self.gaps += 1,
            _ => {}
        }
    }
}

/// Three devices read all kept messages of their user in the same order, once, and are told of no gap, while every
/// function is killed and their sockets are cut. Runs at full size only.
#[tokio::test]
async fn devices_in_node_survive_a_storm() -> anyhow::Result<()> {
    const USER: &str = "storm";
    const MESSAGES: usize = 1000;
    if !full() {
        return Ok(());
    }
    let script = match device().await {
        Ok(script) => script,
        Err(error) => return skip(error),
    };
    let worker = BTreeMap::from([("MAILBOX_MAX_MESSAGES", MESSAGES.to_string())]);
    let overrides = Overrides {
        visibility_timeout: Some(VISIBILITY),
        environment: BTreeMap::from([("delivery", worker)]),
        ..Overrides::default()
    };
    let stack = Stack::start("devices", &overrides).await?;
    let token = stack.issuer.token(TENANT, USER, HOUR)?;
    let messages = (0..MESSAGES).map(|number| Message::user(TENANT, USER).keep(HOUR).payload(&number));
    let messages = messages.collect::<Result<Vec<_>, _>>()?;
    let ids: BTreeSet<_> = messages.iter().map(|message| message.id().to_string()).collect();

    let reading = async {
        let devices = (1..=3).map(async |seed| {
            let device = Device::start(&script, &stack.deployed.websocket_url, &token)?;
            let mut reader = Reader { device, shown: Vec::new(), gaps: 0 };
            let cuts = reader.read(MESSAGES, &mut fastrand::Rng::with_seed(seed)).await?;
            anyhow::Ok((reader, cuts))
        });
        try_join_all(devices).await
    };
    let sending =
        async { anyhow::Ok(producer(&stack.config, &stack.deployed.queue_url).send_all(messages).await?) };
    let (mut random, mut kills) = (fastrand::Rng::with_seed(14), 0);
    let killing = async {
        loop {
            for function in ["delivery", "mailbox", "connect", "disconnect"] {
                kills += usize::from(stack.processes(function)?.kill_one(&mut random));
            }
            sleep(Duration::from_millis(random.u64(1000..5000))).await;
        }
    };
    let read = async { futures::try_join!(sending, reading) };
    let ((), readers) = tokio::select! {
        read = timeout(LIMIT, read) => read.context("messages are missing")??,
        killed = killing => return killed,
    };

    let cuts: usize = readers.iter().map(|(_, cuts)| cuts).sum();
    println!("3 devices, {MESSAGES} kept messages, {kills} functions killed, {cuts} sockets cut");
    for (reader, _) in &readers {
        assert_eq!(reader.shown, readers[0].0.shown, "another order");
        assert_eq!(reader.gaps, 0, "gaps");
    }
    let shown = &readers[0].0.shown;
    assert!(shown.is_sorted_by(|one, other| one.0 < other.0), "wrong order");
    assert_eq!(shown.len(), MESSAGES, "duplicates");
    assert_eq!(shown.iter().map(|(_, id)| id.clone()).collect::<BTreeSet<_>>(), ids, "lost");
    stack.end().await
}
