//! The demo: kept, interrupted, and on an external endpoint.

use super::*;

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
    assert_eq!(timeout(LIMIT, demo.wait()).await??.code(), Some(143));
    assert_nothing_left(&streamer, port(&up)).await
}

/// With `AWS_ENDPOINT_URL`, the demo uses that endpoint, and removes every resource from it.
#[tokio::test]
async fn demo_cleans_up_an_external_endpoint() -> anyhow::Result<()> {
    let streamer = Streamer::new("external").await?;
    let emulator = Endpoint::start_own(&install(&MINISTACK).await?, "external").await?;
    let up = streamer.run_at(emulator.url(), ["up"]).await?;
    assert!(!up.success && up.err.contains("`up` starts its own endpoint: unset the variable"), "{up:?}");
    let demo = streamer.run_at(emulator.url(), []).await?;
    assert!(demo.success && demo.out.contains("PASS 11/11"), "{demo:?}");
    // The path of the logs depends on the state folder.
    for line in demo.out.lines().filter(|line| !line.starts_with(" logs: ")) {
        assert!(line.chars().count() <= 60, "a narrow terminal would break this line: {line}");
    }

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

/// Ctrl-C in the middle of the demo.
#[tokio::test]
async fn interrupted_demo_tells_how_far_it_came() -> anyhow::Result<()> {
    let streamer = Streamer::new("demo-ctrl-c").await?;
    let mut demo = streamer.spawn([])?;
    printed(&mut demo, "  3 ping ").await?;
    assert_eq!(streamer.demos().len(), 1);
    signal(&demo, Signal::Interrupt)?;
    let ended = output(demo).await?;
    assert_eq!(ended.code, Some(130), "{ended:?}");
    let (_, verdict) = ended.out.split_once(" INTERRUPTED ").unwrap_or_else(|| panic!("{ended:?}"));
    let passed: usize = verdict.split('/').next().unwrap().parse()?;
    assert!((3..11).contains(&passed), "{ended:?}");
    assert!(!ended.out.contains("FAIL") && !ended.out.contains("outage)"), "{ended:?}");
    let state = format!("streamer: interrupted by Ctrl-C: {passed} of 11 steps passed, `");
    assert!(ended.err.starts_with(&state), "{ended:?}");
    assert!(ended.err.ends_with("` was running; the stack is down\n"), "{ended:?}");
    assert!(streamer.demos().is_empty(), "the emulator is still up");
    Ok(())
}

#[tokio::test]
async fn demo_terminated_during_start_cleans_up() -> anyhow::Result<()> {
    let streamer = Streamer::new("demo-sigterm").await?;
    let demo = streamer.spawn([])?;
    eventually("the emulator starts", async || Ok(!streamer.demos().is_empty())).await?;
    signal(&demo, Signal::Term)?;
    let ended = output(demo).await?;
    assert_eq!(ended.code, Some(143), "{ended:?}");
    assert_eq!(ended.err, "streamer: ended by SIGTERM: no step ran; the stack is down\n");
    assert!(streamer.demos().is_empty(), "the emulator is still up");
    Ok(())
}
