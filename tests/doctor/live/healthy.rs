//! Deployments that work.

use streamer_tests::command::{output, printed, signal};
use sysinfo::Signal;

use super::Patient;

/// Every check of a whole deployment is ok, apart from those that the emulator cannot show, and the queues and tables are
/// as before, also after a second run.
#[tokio::test]
async fn healthy_deployment_passes_twice() -> anyhow::Result<()> {
    let patient = Patient::whole("doctor-healthy").await?;
    for _ in 0..2 {
        let report = patient.examine().await?;
        let live = ["endpoint.", "connect.", "delivery.", "post.", "mailbox.", "permissions.", "cleanup."];
        let checks =
            report.checks.iter().filter(|(name, _)| live.iter().any(|prefix| name.starts_with(prefix)));
        let mut others = Vec::new();
        for (name, check) in checks {
            if check["verdict"] != "ok" {
                others.push((name.as_str(), check["verdict"].as_str().unwrap_or_default()));
            }
            assert!(check["expected"].as_str().is_some_and(|text| !text.is_empty()), "{check}");
        }
        let expected = [
            ("endpoint.alpn", "skipped"),
            ("endpoint.http2", "skipped"),
            ("post.malformed_id", "warning"),
            ("post.over_128_kib", "warning"),
        ];
        assert_eq!(others, expected, "{:?}", report.output);
        let queue = report.values("delivery.queue");
        assert_eq!(queue["arrived"], 50, "{queue}");
        assert!(
            queue["p50_ms"].as_f64().is_some_and(|ms| ms > 0.0) && queue["p99_ms"].is_number(),
            "{queue}"
        );
        let parts = report.values("delivery.parts");
        assert!(parts["send_p50_ms"].is_number() && parts["post_p50_ms"].is_number(), "{parts}");
        assert_eq!(report.values("post.128_kib")["frames"], 1);
        assert_eq!(report.values("post.gone")["error_type"], "GoneException");
        patient.assert_nothing_left().await?;
    }
    Ok(())
}

#[tokio::test]
async fn interrupted_run_leaves_nothing() -> anyhow::Result<()> {
    let patient = Patient::whole("doctor-interrupted").await?;
    let mut command = patient.spawn(&[])?;
    printed(&mut command, "delivery.first").await?;
    signal(&command, Signal::Interrupt)?;
    let ended = output(command).await?;
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.out.contains("cleanup.complete") && !ended.out.contains("permissions."), "{ended:?}");
    assert!(ended.err.contains("interrupted by Ctrl-C"), "{ended:?}");
    patient.assert_nothing_left().await
}

/// On the stack of `up`, without any flag, for people.
#[tokio::test]
async fn local_stack_is_examined_for_people() -> anyhow::Result<()> {
    let patient = Patient::whole("doctor-local").await?;
    let missing = patient.streamer.run(["doctor"]).await?;
    assert!(!missing.success && missing.err.contains("no stack is up on this machine"), "{missing:?}");

    let up = patient.streamer.run(["up", "--detach", "--json"]).await?;
    assert!(up.success, "{up:?}");
    let plan = patient.streamer.run(["doctor", "--plan"]).await?;
    assert!(plan.success && plan.out.is_empty() && plan.err.contains("dead letter"), "{plan:?}");
    assert!(plan.err.contains("as user streamer-doctor of tenant streamer-doctor"), "{plan:?}");
    let shown = patient.streamer.run_in_terminal(80, None, ["doctor"]).await?;
    let failed: Vec<_> = shown.out.lines().filter(|line| line.starts_with("FAILED")).collect();
    assert!(failed.is_empty() && shown.success, "{shown:?}");
    assert!(shown.out.lines().all(|line| line.chars().count() <= 80), "{}", shown.out);
    assert!(
        shown.out.contains("ok        cleanup.complete") && shown.out.contains(" 0 failed"),
        "{}",
        shown.out
    );
    let down = patient.streamer.run(["down"]).await?;
    assert!(down.success, "{down:?}");
    Ok(())
}
