//! `streamer status`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, time::SystemTime};

use aws_sdk_lambda::primitives::Blob;
use serde_json::Value;
use streamer_producer::Message;
use streamer_tests::{
    command::{Said, said},
    eventually,
};

use crate::{connected, redrive::Bench};

/// Looks at the deployment whose functions' names begin with `name`.
async fn status<const N: usize>(bench: &Bench, name: &str, arguments: [&str; N]) -> anyhow::Result<Said> {
    let all = ["status", "--aws", "--name", name].into_iter().chain(arguments);
    said(bench.streamer.spawn_at(&bench.stack.deployed.endpoint_url, all)?).await
}

/// The words of the line that begins with `start`.
fn line<'a>(said: &'a Said, start: &str) -> Vec<&'a str> {
    let line = said.out.lines().find(|line| line.trim().starts_with(start));
    line.unwrap_or_else(|| panic!("no {start}: {said:?}")).split_whitespace().collect()
}

#[tokio::test]
async fn a_deployment_is_shown_with_queues_dead_letters_connections_functions_and_circuit()
-> anyhow::Result<()> {
    let bench = Bench::new("status").await?;
    let (_socket, id) = connected(&bench.stack, "seen").await?;
    // The functions of this deployment have a suffix in the place of the prefix that names it on AWS.
    let name = bench.delivery.function.trim_end_matches("-delivery");
    let before = status(&bench, name, []).await?;
    assert!(!before.success, "it has a worker alone: {before:?}");
    assert!(before.err.contains(&format!("there is no function {name}-connect: check --name")), "{before:?}");

    // Beside the stack that all tests share: its own worker, queues and dead letters.
    let lambda = aws_sdk_lambda::Client::new(&bench.stack.config);
    for other in ["connect", "disconnect"] {
        let package = streamer_cli::stack::build::build().await?.zip(&format!("{other}-handler"))?;
        let code = aws_sdk_lambda::types::FunctionCode::builder().zip_file(Blob::new(package)).build();
        let create = lambda.create_function().function_name(format!("{name}-{other}")).code(code);
        let create = create.runtime(aws_sdk_lambda::types::Runtime::Providedal2023).handler("bootstrap");
        create.role("arn:aws:iam::000000000000:role/streamer").send().await?;
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as u64;
    let since = (now - 7_500_000).to_string();
    for reason in ["exhausted", "exhausted", "rejected"] {
        bench.dead("{}", &[("reason", reason), ("since", &since)]).await?;
    }
    // A direct invocation, which the emulator measures, of something that is no event.
    let invoke = lambda.invoke().function_name(&bench.delivery.function).payload(Blob::new("1"));
    assert!(invoke.send().await?.function_error.is_some());
    let producer = streamer_producer::Producer::new(&bench.sqs, &bench.delivery.queue_url);
    producer.send(Message::connection(&id).response("seen")?).await?;
    eventually("the worker has said how its circuit is", async || {
        Ok(line(&status(&bench, name, []).await?, "circuit") == ["circuit", "closed"])
    })
    .await?;

    let seen = status(&bench, name, []).await?;
    assert!(seen.success, "{seen:?}");
    assert_eq!(line(&seen, "outbound"), ["outbound", "0", "0", "0", "-"]);
    assert_eq!(line(&seen, "dead letters"), ["dead", "letters", "3", "0", "0", "2h", "5m"]);
    assert_eq!(line(&seen, "exhausted"), ["exhausted", "2"]);
    assert_eq!(line(&seen, "rejected"), ["rejected", "1"]);
    assert_eq!(line(&seen, "delivery")[..4], ["delivery", "1", "1", "0"]);
    assert_eq!(line(&seen, "connect ")[..4], ["connect", "-", "-", "-"]);
    let live: usize = line(&seen, "connections")[1].parse()?;
    assert!(live >= 1, "{seen:?}");
    assert_eq!(bench.letters().await?, (3, 0), "it let go of what it looked at");

    let object: Value = serde_json::from_str(&status(&bench, name, ["--json"]).await?.out)?;
    assert_eq!(object["dead_letters"]["waiting"], 3);
    assert_eq!(object["reasons"], serde_json::json!({ "exhausted": 2, "rejected": 1 }));
    assert_eq!(object["functions"]["delivery"]["errors"], 1);
    assert_eq!(object["circuit"], serde_json::json!({ "open": false, "opened": 0 }));
    let functions: BTreeMap<String, Value> = serde_json::from_value(object["functions"].clone())?;
    assert!(functions.values().all(|function| !function["code_sha256"].as_str().unwrap().is_empty()));
    Ok(())
}
