//! Producers in other languages: their messages follow the committed JSON Schemas and reach the client. Consumers in
//! other languages: they read the receipts.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Stdio};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use streamer_cli::{
    commands::env::shell_lines,
    paths,
    stack::{
        Stack,
        build::build,
        deploy::{Overrides, deploy_delivery},
    },
};
use streamer_message::ReceiptEvent;
use streamer_tests::{boto3::BOTO3, emulator::stack, eventually, node, skip};
use tokio::process::Command;

use crate::connected;

/// Characters that SQS rejects unescaped, and characters that a language may encode wrongly.
const TEXT: &str = "häppchen \" \\ \u{FFFE} \u{FFFF} \u{7f} 👩‍👩‍👧‍👦";

#[tokio::test]
async fn python_producer_follows_schema_and_delivers() -> anyhow::Result<()> {
    match python("publish.py").await {
        Ok(command) => publish(&command, "python").await,
        Err(error) => skip(error),
    }
}

#[tokio::test]
async fn node_producer_follows_schema_and_delivers() -> anyhow::Result<()> {
    match node("publish.mjs").await {
        Ok(command) => publish(&command, "node").await,
        Err(error) => skip(error),
    }
}

#[tokio::test]
async fn python_consumer_keeps_better_outcomes() -> anyhow::Result<()> {
    match python("receipts.py").await {
        Ok(command) => read_receipts(&command, "python").await,
        Err(error) => skip(error),
    }
}

#[tokio::test]
async fn node_consumer_keeps_better_outcomes() -> anyhow::Result<()> {
    match node("receipts.mjs").await {
        Ok(command) => read_receipts(&command, "node").await,
        Err(error) => skip(error),
    }
}

/// Returns the command that runs an example in Python.
async fn python(name: &str) -> anyhow::Result<std::process::Command> {
    let (python, _) = BOTO3.install().await?;
    let mut command = std::process::Command::new(python);
    command.arg(example(name));
    Ok(command)
}

/// Returns the command that runs a copy of the example in the folder of the Node packages, where Node finds them.
async fn node(name: &str) -> anyhow::Result<std::process::Command> {
    let script = node::folder().await?.join(name);
    fs::copy(example(name), &script)?;
    let mut command = std::process::Command::new("node");
    command.arg(script);
    Ok(command)
}

fn example(name: &str) -> PathBuf {
    paths::workspace().join("producer/examples").join(name)
}

/// Runs a command with only the variables that `streamer env` prints, and returns its output.
async fn run<const N: usize>(
    command: &std::process::Command,
    stack: &Stack,
    arguments: [&str; N],
) -> anyhow::Result<String> {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"eval "$LINES"; exec "$@""#, "sh"]);
    shell.arg(command.get_program()).args(command.get_args()).args(arguments);
    shell.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).stdin(Stdio::null());
    let output = shell.env("LINES", shell_lines(&stack.deployed)).kill_on_drop(true).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Lets a producer publish to a queue without a worker, where the test reads the message, and to the outbound queue.
async fn publish(command: &std::process::Command, user: &str) -> anyhow::Result<()> {
    let stack = stack().await?;
    let sqs = aws_sdk_sqs::Client::new(&stack.config);
    let queue = sqs.create_queue().queue_name(format!("language-{}", fastrand::u64(..))).send().await?;
    let queue = queue.queue_url.context("the queue has no URL")?;
    let (mut client, id) = connected(&stack, user).await?;
    for url in [&queue, &stack.deployed.queue_url] {
        run(command, &stack, [url, id.as_str(), TEXT]).await?;
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

/// Lets a consumer send a message to a worker with queues of its own, whose receipts queue has receipts already.
async fn read_receipts(command: &std::process::Command, user: &str) -> anyhow::Result<()> {
    let stack = stack().await?;
    let (suffix, endpoint) = (format!("-{user}-{}", std::process::id()), &stack.deployed.management_endpoint);
    let overrides = Overrides::default();
    let delivery = deploy_delivery(&stack.config, &suffix, &overrides, &build().await?, endpoint).await?;
    let sqs = aws_sdk_sqs::Client::new(&stack.config);
    for (id, outcome) in
        [("later", "gone"), ("earlier", "delivered"), ("later", "delivered"), ("earlier", "gone")]
    {
        let send = sqs.send_message().queue_url(&delivery.receipts_queue_url);
        send.message_body(receipt(id, outcome)?).send().await?;
    }
    let (mut client, id) = connected(&stack, &format!("{user}-receipts")).await?;
    let queues = [delivery.queue_url.as_str(), &delivery.receipts_queue_url];
    let printed = run(command, &stack, [queues[0], queues[1], id.as_str(), TEXT]).await?;

    assert_eq!(client.next("the message").await?.json()?["data"], TEXT);
    let lines: Vec<_> = printed.lines().collect();
    let [queued, outcomes @ ..] = &lines[..] else { panic!("it printed nothing") };
    let id = queued.strip_prefix("queued ").context("it queued no message")?;
    let expected = [id, "earlier", "later"].map(|id| format!(r#"delivered {id} {{"delivered":1}}"#));
    let printed: BTreeSet<_> = outcomes.iter().map(ToString::to_string).collect();
    assert_eq!(printed, expected.into());
    assert!(stack.is_empty(&delivery.receipts_queue_url).await?, "a receipt was not deleted");
    Ok(())
}

/// Returns the body of a receipt for one connection.
pub(crate) fn receipt(id: &str, outcome: &str) -> anyhow::Result<String> {
    let receipt = json!({
        "version": 1, "id": id, "at": 1_764_000_000_000_u64, "outcome": outcome, "connections": { outcome: 1 },
    });
    Ok(ReceiptEvent::new("local", serde_json::from_value(receipt)?).encode())
}

/// Validates a value against a committed schema.
pub(crate) fn validate(schema: &str, value: &Value) -> anyhow::Result<()> {
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
