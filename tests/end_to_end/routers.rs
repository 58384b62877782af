//! The routers of the guide and of the demo, with requests that are not valid.

use std::process::Stdio;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use streamer_cli::{
    package::runtime_api::{Answer, RuntimeApi},
    paths,
    stack::logs::Logs,
};
use streamer_tests::{emulator::stack, eventually};
use tokio::{io::AsyncReadExt as _, process::Command};

use crate::connected;

/// Frames of clients that are not valid requests.
fn invalid() -> [String; 5] {
    let long = json!({ "type": "echo", "text": "x", "request_id": "r".repeat(129) });
    ["no json", "", "7", r#"{"type": "echo", "text": "s3cret"#, &long.to_string()].map(str::to_owned)
}

fn assert_is_refusal(frame: &Value) {
    assert_eq!(
        (&frame["type"], &frame["error"]["code"]),
        (&json!("error"), &json!("invalid_request")),
        "{frame}"
    );
    let message = frame["error"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("expected a JSON object with"), "{frame}");
    assert!(
        ["::", "struct", "enum", "serde", "Request"].iter().all(|word| !message.contains(word)),
        "{frame}"
    );
}

#[tokio::test]
async fn invalid_request_gets_an_error_and_is_logged() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (mut client, _) = connected(&stack, "invalid").await?;
    for request in invalid().into_iter().filter(|request| !request.is_empty()) {
        client.send_text(&request).await?;
        assert_is_refusal(&client.next(&format!("the error for {request}")).await?.json()?);
    }
    let (mut logs, mut lines) = (Logs::of(&stack, Some("router"))?, Vec::new());
    eventually("the router has logged it", async || {
        lines.extend(logs.next().await?.into_iter().map(|line| line.text));
        Ok(lines.iter().filter(|line| line.contains("invalid request (line ")).count() >= 4)
    })
    .await?;
    assert!(lines.iter().all(|line| !line.contains("s3cret")), "{lines:?}");
    Ok(())
}

/// The guide's router runs behind a stub of the Runtime API, and sends through the stack's queue.
#[tokio::test]
async fn router_of_the_guide_answers_invalid_requests() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (mut client, connection) = connected(&stack, "guide").await?;
    let mut api = RuntimeApi::listen().await?;
    let mut router = Command::new(build_example("hello").await?)
        .env_clear()
        .envs(api.variables()?)
        .envs([
            ("QUEUE_URL", stack.deployed.queue_url.as_str()),
            ("AWS_ENDPOINT_URL", &stack.deployed.endpoint_url),
            ("AWS_REGION", &stack.deployed.region),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    api.poll().await?;
    let context = json!({ "connectionId": connection, "connectedAt": 0, "requestTimeEpoch": 0 });
    let requests = invalid().into_iter().chain([r#"{"request_id": "r"}"#.to_owned()]);
    for request in requests {
        let event = json!({ "requestContext": context, "body": request, "isBase64Encoded": false });
        let answer = api.invoke(&event.to_string()).await?;
        ensure!(answer == Answer::Response(r#"{"statusCode":200}"#.to_owned()), "{request}: {answer:?}");
        api.poll().await?;
        let frame = client.next(&format!("the answer to {request}")).await?.json()?;
        match request.contains(r#""r""#) {
            true => assert_eq!((&frame["data"], &frame["request_id"]), (&json!("hello"), &json!("r"))),
            false => assert_is_refusal(&frame),
        }
    }
    router.start_kill()?;
    let mut log = String::new();
    router.stdout.take().context("no output")?.read_to_string(&mut log).await?;
    router.wait().await?;
    assert_eq!(log.matches("invalid request from ").count(), invalid().len(), "{log}");
    assert!(!log.contains("s3cret"), "{log}");
    Ok(())
}

/// Builds an example with the features of the other binaries, so that no crate is built twice.
pub(crate) async fn build_example(name: &str) -> anyhow::Result<std::path::PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(paths::workspace())
        .args(["build", "--workspace", "--bins", "--example", name, "--message-format", "json"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let artifacts = String::from_utf8(output.stdout)?;
    let artifacts = artifacts.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let example = artifacts
        .filter(|artifact| artifact["target"]["name"] == name)
        .find_map(|artifact| Some(artifact["executable"].as_str()?.into()));
    example.context("cargo built no example")
}
