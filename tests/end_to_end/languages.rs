//! Producers in other languages: their messages follow the committed JSON Schemas and reach the client.

use std::{fs, path::PathBuf, process::Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use streamer_cli::{commands::env::shell_lines, paths};
use streamer_tests::{boto3::BOTO3, emulator::stack, eventually, skip};
use tokio::{process::Command, sync::OnceCell};

use crate::connected;

/// Characters that SQS rejects unescaped, and characters that a language may encode wrongly.
const TEXT: &str = "häppchen \" \\ \u{FFFE} \u{FFFF} \u{7f} 👩‍👩‍👧‍👦";

#[tokio::test]
async fn python_producer_follows_schema_and_delivers() -> anyhow::Result<()> {
    let (python, _) = match BOTO3.install().await {
        Ok(installed) => installed,
        Err(error) => return skip(error),
    };
    let mut command = std::process::Command::new(python);
    command.arg(example("publish.py"));
    publish(&command, "python").await
}

#[tokio::test]
async fn node_producer_follows_schema_and_delivers() -> anyhow::Result<()> {
    let script = match node().await {
        Ok(script) => script,
        Err(error) => return skip(error),
    };
    let mut command = std::process::Command::new("node");
    command.arg(script);
    publish(&command, "node").await
}

fn example(name: &str) -> PathBuf {
    paths::workspace().join("producer/examples").join(name)
}

/// Returns a copy of the example in the folder of the Node packages, where Node finds them.
async fn node() -> anyhow::Result<PathBuf> {
    let script = node_folder().await?.join("publish.mjs");
    fs::copy(example("publish.mjs"), &script)?;
    Ok(script)
}

/// Installs the Node packages once, and returns their folder.
pub(crate) async fn node_folder() -> anyhow::Result<PathBuf> {
    static INSTALLED: OnceCell<PathBuf> = OnceCell::const_new();
    INSTALLED.get_or_try_init(install_node_packages).await.cloned()
}

async fn install_node_packages() -> anyhow::Result<PathBuf> {
    let (from, to) = (paths::workspace().join("tests/languages/node"), paths::shared("node"));
    fs::create_dir_all(&to)?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(from.join(file), to.join(file))?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund"]).current_dir(&to).stdin(Stdio::null());
    let output =
        npm.output().await.context("Node is not installed: install it (on Debian: apt-get install npm)")?;
    ensure!(output.status.success(), "npm ci: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(to)
}

/// Lets a producer publish to a queue without a worker, where the test reads the message, and to the outbound queue. It
/// has only the variables that `streamer env` prints.
async fn publish(command: &std::process::Command, user: &str) -> anyhow::Result<()> {
    let stack = stack().await?;
    let sqs = aws_sdk_sqs::Client::new(&stack.config);
    let queue = sqs.create_queue().queue_name(format!("language-{}", fastrand::u64(..))).send().await?;
    let queue = queue.queue_url.context("the queue has no URL")?;
    let (mut client, id) = connected(&stack, user).await?;
    for url in [&queue, &stack.deployed.queue_url] {
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"eval "$LINES"; exec "$@""#, "sh"]);
        shell.arg(command.get_program()).args(command.get_args()).args([url, id.as_str(), TEXT]);
        shell.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).stdin(Stdio::null());
        let output = shell.env("LINES", shell_lines(&stack.deployed)).output().await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    let mut body = String::new();
    eventually("the message is on the queue", async || {
        let received = sqs.receive_message().queue_url(&queue).send().await?.messages.unwrap_or_default();
        body = received.into_iter().find_map(|message| message.body).unwrap_or_default();
        Ok(!body.is_empty())
    })
    .await?;
    let message: Value = serde_json::from_str(&body)?;
    validate("outbound-message.v1.json", &message)?;
    validate("client-message.json", &message["payload"])?;
    let frame = client.next("the message").await?.json()?;
    validate("client-message.json", &frame)?;
    assert_eq!((frame["data"].as_str(), frame["type"].as_str()), (Some(TEXT), Some("response")));
    Ok(())
}

/// Validates a value against a committed schema.
fn validate(schema: &str, value: &Value) -> anyhow::Result<()> {
    let schema = fs::read_to_string(paths::workspace().join("message/schema").join(schema))?;
    let validator = jsonschema::validator_for(&serde_json::from_str(&schema)?)?;
    validator.validate(value).map_err(|error| anyhow::anyhow!("{error}"))
}

#[test]
fn schema_rejects_invalid_messages() {
    let good = serde_json::json!({ "version": 1, "id": "m", "to": { "connection": "c" }, "payload": 1 });
    validate("outbound-message.v1.json", &good).unwrap();
    for (field, wrong) in [("version", 2.into()), ("id", "".into()), ("to", Value::Null)] {
        let mut message = good.clone();
        message[field] = wrong;
        assert!(validate("outbound-message.v1.json", &message).is_err(), "{message}");
    }
}
