//! `streamer mailbox`, `streamer forget` and `streamer send --keep`, as on AWS.

use serde_json::Value;
use streamer_cli::stack::Stack;
use streamer_tests::{
    command::{Output, Streamer},
    emulator::stack,
    eventually,
};

use super::{
    device::{Device, State},
    listing, stored,
};
use crate::{TENANT, rows};

/// The command and the stack that it works on.
struct Commands {
    stack: Stack,
    streamer: Streamer,
}

impl Commands {
    async fn new(name: &str) -> anyhow::Result<Self> {
        Ok(Self { stack: stack().await?, streamer: Streamer::new(name).await? })
    }

    /// Runs a command about a user.
    async fn run<const N: usize>(
        &self,
        command: &str,
        user: &str,
        options: [&str; N],
    ) -> anyhow::Result<Output> {
        let deployed = &self.stack.deployed;
        let mut all = vec![command, "--aws", "--table", &deployed.connections_table];
        all.extend(["--mailbox-table", &deployed.mailbox_table, "--queue-url", &deployed.queue_url]);
        all.extend(["--tenant", TENANT, "--user", user]);
        all.extend(options);
        let child = self.streamer.spawn_at(&deployed.endpoint_url, all)?;
        streamer_tests::command::output(child).await
    }

    /// Sends a message that is kept for a day.
    async fn send(&self, user: &str, id: &str, payload: &str) -> anyhow::Result<()> {
        let before = listing(&self.stack, user).await?.map_or(0, |listing| listing.top);
        let sent = self.run("send", user, ["--keep", "1d", "--id", id, "--payload", payload]).await?;
        anyhow::ensure!(sent.success, "{sent:?}");
        stored(&self.stack, user, before + 1).await
    }
}

#[tokio::test]
async fn mailbox_lists_kept_messages_and_devices() -> anyhow::Result<()> {
    const USER: &str = "kept-listed";
    let commands = Commands::new("mailbox").await?;
    let nothing = commands.run("mailbox", USER, []).await?;
    assert_eq!(nothing.out, "0 messages of 0 bytes, 0 devices\n", "{nothing:?}");
    commands.send(USER, "order-1", r#"{ "s3cret":1.0 }"#).await?;
    commands.send(USER, "order-2", "[2]").await?;
    let _device = Device::connect(&commands.stack, USER, State::default()).await?;
    eventually("the device is listed", async || {
        Ok(commands.run("mailbox", USER, []).await?.out.ends_with("2 messages of 19 bytes, 1 device\n"))
    })
    .await?;

    let listed = commands.run("mailbox", USER, []).await?;
    let row = |start: &[&str]| {
        let mut rows = listed.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.any(|row| row.starts_with(start))
    };
    assert!(row(&["1", "order-1"]) && row(&["2", "order-2"]), "{listed:?}");
    assert!(!listed.out.contains("s3cret"), "{listed:?}");
    let object: Value = serde_json::from_str(&commands.run("mailbox", USER, ["--json"]).await?.out)?;
    assert_eq!((&object["newest"], &object["messages"][1]["id"]), (&2.into(), &"order-2".into()));
    assert_eq!(object["devices"].as_array().map(Vec::len), Some(1));

    for id in ["order-1", "1"] {
        let shown = commands.run("mailbox", USER, ["--show", id]).await?;
        assert_eq!(shown.out, r#"{ "s3cret":1.0 }"#);
        assert!(shown.err.contains("order-1") && !shown.err.contains("s3cret"), "{shown:?}");
    }
    let unknown = commands.run("mailbox", USER, ["--show", "order-3"]).await?;
    assert!(!unknown.success && unknown.err.contains("has the id or the number order-3"), "{unknown:?}");
    Ok(())
}

#[tokio::test]
async fn missing_mailbox_is_explained() -> anyhow::Result<()> {
    let commands = Commands::new("no-mailbox").await?;
    let user = ["--aws", "--tenant", "acme", "--user", "anna"];
    for command in ["mailbox", "forget"] {
        let unnamed = commands.streamer.run_all([command].into_iter().chain(user)).await?;
        let expected = "--aws needs the mailbox table: --mailbox-table, or the variable MAILBOX_TABLE";
        assert!(!unnamed.success && unnamed.err.contains(expected), "{unnamed:?}");
        let missing = commands.run(command, "anna", ["--mailbox-table", "none"]).await?;
        assert!(!missing.success && missing.err.contains("cannot be used multiple times"), "{missing:?}");
    }
    let deployed = &commands.stack.deployed;
    let missing = ["mailbox", "--mailbox-table", "none"].into_iter().chain(user);
    let missing = commands.streamer.spawn_at(&deployed.endpoint_url, missing)?;
    let missing = streamer_tests::command::output(missing).await?;
    assert!(missing.err.contains("there is no mailbox table none: "), "{missing:?}");
    assert!(missing.err.ends_with("or deploy it with `mailbox = true` in Terraform\n"), "{missing:?}");
    Ok(())
}

/// The dry run changes nothing. `--yes` erases the user's data, and leaves those of others.
#[tokio::test]
async fn forget_erases_one_user() -> anyhow::Result<()> {
    const USER: &str = "kept-forgotten";
    const OTHER: &str = "kept-remembered";
    let commands = Commands::new("forget").await?;
    let mut device = Device::connect(&commands.stack, USER, State::default()).await?;
    assert!(device.step(streamer_tests::DEADLINE).await?);
    let _other = Device::connect(&commands.stack, OTHER, State::default()).await?;
    for user in [USER, OTHER] {
        commands.send(user, "order-1", "1").await?;
    }

    let dry = commands.run("forget", USER, []).await?;
    let counts = "1 connection, 1 message of 1 bytes, 1 device; nothing was erased, use --yes to erase\n";
    assert!(dry.success && dry.out.starts_with(counts), "{dry:?}");
    assert!(dry.out.contains("not covered: messages on the queue"), "{dry:?}");
    let dry: Value = serde_json::from_str(&commands.run("forget", USER, ["--json"]).await?.out)?;
    assert_eq!((&dry["messages"], &dry["erased"]), (&1.into(), &false.into()));

    let erased = commands.run("forget", USER, ["--yes", "--json"]).await?;
    assert!(erased.success, "{erased:?}");
    let object: Value = serde_json::from_str(&erased.out)?;
    // The head, the message and the device.
    assert_eq!((&object["connections"]["closed"], &object["items"]), (&1.into(), &3.into()), "{object}");
    assert!(rows(&commands.stack, USER).await?.is_empty());
    assert_eq!(listing(&commands.stack, USER).await?, None);
    assert_eq!(rows(&commands.stack, OTHER).await?.len(), 1);
    assert_eq!(listing(&commands.stack, OTHER).await?.unwrap().messages.len(), 1);

    let again = commands.run("forget", USER, ["--yes"]).await?;
    assert!(
        again.out.starts_with("connections: 0 closed, 0 already gone, 0 failed\nmailbox: 0 items erased\n")
    );
    Ok(())
}
