//! Routers in other languages.

use super::*;

/// Returns the frames that answer a request, up to its end.
async fn answers(socket: &mut Socket, request: &Value) -> anyhow::Result<Vec<Value>> {
    socket.send(request).await?;
    let mut frames = Vec::new();
    loop {
        let frame: Value = socket.next(LIMIT).await?.json()?;
        assert_eq!(frame.get("request_id"), request.get("request_id"), "{frame}");
        let is_update = frame["type"] == "progress" || frame["type"] == "acknowledgment";
        frames.push(frame);
        if !is_update {
            return Ok(frames);
        }
    }
}

/// The router for Node is a folder with a handler.
#[tokio::test]
async fn node_router_answers_every_request() -> anyhow::Result<()> {
    let router = std::env::temp_dir().join(format!("streamer-node-router-{}", std::process::id()));
    match node::write_router(&router).await {
        Ok(()) => router_answers_every_request("node-router", &router).await,
        Err(error) => skip(error),
    }
}

#[tokio::test]
async fn python_router_answers_every_request() -> anyhow::Result<()> {
    let router = std::env::temp_dir().join(format!("streamer-python-router-{}", std::process::id()));
    let packages = match boto3::install().await {
        Ok((_, packages)) => packages,
        Err(error) => return skip(error),
    };
    python::write_router(&router, packages.as_ref())?;
    router_answers_every_request("python-router", &router).await
}

/// Runs the demo with this router, then requests of each kind on its stack, and removes its folder.
async fn router_answers_every_request(name: &str, router: &Path) -> anyhow::Result<()> {
    let streamer = Streamer::new(name).await?;
    let path = router.to_str().unwrap();
    let demo = streamer.run(["--router", path]).await?;
    assert!(demo.success && demo.out.contains(path) && demo.out.contains("PASS 11/11"), "{demo:?}");

    let up = streamer.run(["up", "--detach", "--json", "--router", path]).await?;
    assert!(up.success, "{up:?}");
    let up = serde_json::from_str(&up.out)?;
    let mut socket = connect(&streamer, &up).await?;
    for (request, kind, field, value) in [
        (
            json!({"type": "echo", "request_id": "r1", "text": "h\u{e4}llo"}),
            "response",
            "data",
            json!("h\u{e4}llo"),
        ),
        (json!({"type": "ping"}), "response", "data", json!("pong")),
        (json!({"type": "report", "request_id": "r2"}), "complete", "result", json!({"rows": 1280})),
    ] {
        let frames = answers(&mut socket, &request).await?;
        let end = frames.last().unwrap();
        assert_eq!((end["type"].as_str(), &end[field]), (Some(kind), &value), "{end}");
        let is_report = request["type"] == "report";
        assert_eq!(frames.iter().any(|frame| frame["type"] == "progress"), is_report, "{frames:?}");
    }
    for invalid in [json!({"type": "echo"}), json!(7), json!({"type": "ping", "request_id": ""})] {
        socket.send(&invalid).await?;
        let frame = loop {
            let frame: Value = socket.next(LIMIT).await?.json()?;
            // On a standard queue, an update may arrive after the end of its request.
            if frame["type"] != "progress" {
                break frame;
            }
        };
        assert_eq!(frame["error"]["code"], "invalid_request", "{frame}");
    }
    // The result of a kept report waits for a device that reads the mailbox.
    socket.send(&json!({"type": "report", "request_id": "r3", "keep": true})).await?;
    eventually("the result is kept", async || {
        let kept = streamer.run(["mailbox", "--tenant", "acme", "--user", "anna"]).await?;
        Ok(kept.success && kept.out.contains("\n1 message of "))
    })
    .await?;
    assert_eq!(streamer.run(["down"]).await?.out, "the stack is down\n");
    Ok(fs::remove_dir_all(router)?)
}
