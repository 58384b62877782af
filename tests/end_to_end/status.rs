//! `streamer status`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, time::SystemTime};

use aws_sdk_lambda::primitives::Blob;
use serde_json::Value;
use streamer_producer::Message;
use streamer_tests::{
    command::{Output, output},
    emulator::producer,
    eventually,
};

use crate::{
    connected,
    redrive::{AGE, Deployment},
};

/// Runs `streamer status` on the deployment whose functions' names begin with `name`.
async fn status<const N: usize>(
    deployment: &Deployment,
    name: &str,
    arguments: [&str; N],
) -> anyhow::Result<Output> {
    let all = ["status", "--aws", "--name", name].into_iter().chain(arguments);
    output(deployment.streamer.spawn_at(&deployment.stack.deployed.endpoint_url, all)?).await
}

/// Returns the words of the line that begins with `start`.
fn line<'a>(output: &'a Output, start: &str) -> Vec<&'a str> {
    let line = output.out.lines().find(|line| line.trim().starts_with(start));
    line.unwrap_or_else(|| panic!("no {start}: {output:?}")).split_whitespace().collect()
}

/// Shows queues, dead letters, connections, functions and circuit.
#[tokio::test]
async fn shows_a_whole_deployment() -> anyhow::Result<()> {
    let deployment = Deployment::new("status").await?;
    let (_client, id) = connected(&deployment.stack, "seen").await?;
    // On AWS a prefix names a deployment. Here the functions have a suffix.
    let name = deployment.delivery.function.trim_end_matches("-delivery");
    let wrong = status(&deployment, "none", []).await?;
    assert!(
        !wrong.success && wrong.err.contains("there is no function none-delivery: check --name"),
        "{wrong:?}"
    );
    let before = status(&deployment, name, []).await?;
    assert!(
        before.success && !before.out.contains("\n connect "),
        "the deployment has only a worker: {before:?}"
    );

    // The other functions, so that the deployment is complete.
    let lambda = aws_sdk_lambda::Client::new(&deployment.stack.config);
    for other in ["connect", "disconnect"] {
        let package = streamer_cli::stack::build::build().await?.zip(&format!("{other}-handler"))?;
        let code = aws_sdk_lambda::types::FunctionCode::builder().zip_file(Blob::new(package)).build();
        let create = lambda.create_function().function_name(format!("{name}-{other}")).code(code);
        let create = create.runtime(aws_sdk_lambda::types::Runtime::Providedal2023).handler("bootstrap");
        create.role("arn:aws:iam::000000000000:role/streamer").send().await?;
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as u64;
    let since = (now - AGE.as_millis() as u64).to_string();
    for reason in ["exhausted", "exhausted", "rejected"] {
        deployment.send_dead_letter("{}", &[("reason", reason), ("since", &since)]).await?;
    }
    let sqs = aws_sdk_sqs::Client::new(&deployment.stack.config);
    sqs.send_message().queue_url(&deployment.delivery.receipts_queue_url).message_body("{}").send().await?;
    // An invalid event. The emulator measures direct invocations only.
    let invoke = lambda.invoke().function_name(&deployment.delivery.function).payload(Blob::new("1"));
    assert!(invoke.send().await?.function_error.is_some());
    let producer = producer(&deployment.stack.config, &deployment.delivery.queue_url);
    producer.send(Message::connection(&id).response("hello")?).await?;
    eventually("the worker has logged the state of its circuit, and the queue is empty", async || {
        let circuit = line(&status(&deployment, name, []).await?, "circuit") == ["circuit", "closed"];
        Ok(circuit && deployment.stack.is_empty(&deployment.delivery.queue_url).await?)
    })
    .await?;

    let shown = status(&deployment, name, []).await?;
    assert!(shown.success, "{shown:?}");
    assert_eq!(line(&shown, "outbound"), ["outbound", "0", "0", "0", "-"]);
    assert_eq!(line(&shown, "receipts"), ["receipts", "1", "0", "0", "unknown"]);
    assert_eq!(line(&shown, "dead letters"), ["dead", "letters", "3", "0", "0", "1day", "1h"]);
    assert_eq!(line(&shown, "exhausted"), ["exhausted", "2"]);
    assert_eq!(line(&shown, "rejected"), ["rejected", "1"]);
    assert_eq!(line(&shown, "delivery")[..4], ["delivery", "1", "1", "0"]);
    assert_eq!(line(&shown, "connect ")[..4], ["connect", "-", "-", "-"]);
    let live: usize = line(&shown, "connections")[1].parse()?;
    assert!(live >= 1, "{shown:?}");
    assert_eq!(deployment.dead_letters().await?, (3, 0), "letters are still hidden");

    let object: Value = serde_json::from_str(&status(&deployment, name, ["--json"]).await?.out)?;
    assert_eq!((&object["dead_letters"]["waiting"], &object["receipts"]["waiting"]), (&3.into(), &1.into()));
    assert_eq!(object["reasons"], serde_json::json!({ "exhausted": 2, "rejected": 1 }));
    assert_eq!(object["functions"]["delivery"]["errors"], 1);
    assert_eq!(object["circuit"], serde_json::json!({ "open": false, "opened": 0 }));
    let functions: BTreeMap<String, Value> = serde_json::from_value(object["functions"].clone())?;
    assert!(functions.values().all(|function| !function["code_sha256"].as_str().unwrap().is_empty()));
    Ok(())
}
