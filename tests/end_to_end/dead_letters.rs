//! `streamer redrive --json`, `--show` and `--drop`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use streamer_tests::{
    command::{Output, output, signal},
    eventually,
};
use sysinfo::Signal;

use crate::{connected, redrive::Deployment};

/// Returns the JSON objects of the letters, and the totals.
fn objects(output: &Output) -> anyhow::Result<(Vec<Value>, Value)> {
    let lines = output.out.lines().map(serde_json::from_str::<Value>);
    let mut lines = lines.collect::<Result<Vec<_>, _>>()?;
    let totals = lines.pop().unwrap()["totals"].take();
    Ok((lines, totals))
}

fn ids(letters: &[Value]) -> Vec<&str> {
    let mut ids: Vec<_> = letters.iter().map(|letter| letter["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn json_has_letters_and_totals() -> anyhow::Result<()> {
    let deployment = Deployment::new("letters-json").await?;
    let user = r#"{"version":1,"id":"a","to":{"user":{"tenant":"acme","user":"anna"}},"payload":1}"#;
    let cause = format!("{}the end", "a long cause ".repeat(70));
    deployment
        .send_dead_letter(user, &[("reason", "rejected"), ("detail", &cause), ("since", "1764000000000")])
        .await?;
    deployment.send_dead_letter("no message", &[("reason", "poison")]).await?;

    let listed = deployment.redrive(["--json"]).await?;
    assert!(listed.success && listed.err.is_empty(), "{listed:?}");
    let (letters, totals) = objects(&listed)?;
    let letter = letters.iter().find(|letter| letter["id"] == "a").unwrap();
    let expected = json!({
        "id": "a",
        "message_id": letter["message_id"],
        "reason": "rejected",
        "cause": cause,
        "tenant": "acme",
        "to": { "user": { "tenant": "acme", "user": "anna" } },
        "group": null,
        "first_received_at": "2025-11-24T16:00:00.000Z",
        "receives": letter["receives"],
        "bytes": user.len(),
        "outcome": "listed",
    });
    assert_eq!(*letter, expected);
    let poison = letters.iter().find(|letter| letter["reason"] == "poison").unwrap();
    assert_eq!((&poison["id"], &poison["to"]), (&poison["message_id"], &Value::Null));
    assert_eq!(
        (&totals["inspected"], &totals["matching"], &totals["sent"]),
        (&json!(2), &json!(2), &json!(0))
    );

    // The text has the whole cause, too.
    assert!(deployment.redrive([]).await?.out.contains(&cause));
    let none = objects(&deployment.redrive(["--json", "--reason", "exhausted"]).await?)?;
    assert_eq!((none.0.len(), &none.1["inspected"], &none.1["matching"]), (0, &json!(2), &json!(0)));
    Ok(())
}

/// The body goes to standard output byte for byte, and everything else to standard error.
#[tokio::test]
async fn show_prints_one_whole_body() -> anyhow::Result<()> {
    let deployment = Deployment::new("letters-show").await?;
    let body = "{ \"no\":\n\t\"message\u{202e} é\"}\n";
    deployment.send_dead_letter(body, &[("reason", "poison"), ("detail", "version is missing")]).await?;
    deployment.send_dead_letter("other", &[("reason", "poison")]).await?;
    let (letters, _) = objects(&deployment.redrive(["--json"]).await?)?;
    let letter = letters.iter().find(|letter| letter["bytes"] == body.len()).unwrap();
    let id = letter["message_id"].as_str().unwrap();

    let shown = deployment.redrive(["--show", id]).await?;
    assert!(shown.success, "{shown:?}");
    assert_eq!(shown.out, body);
    for header in [id, "poison", "version is missing", "first received"] {
        assert!(shown.err.contains(header), "{header}: {shown:?}");
    }
    let object: Value = serde_json::from_str(&deployment.redrive(["--show", id, "--json"]).await?.out)?;
    assert_eq!((object["body"].as_str(), object["reason"].as_str()), (Some(body), Some("poison")));
    assert_eq!(deployment.dead_letters().await?, (2, 0), "letters are still hidden");

    let missing = deployment.redrive(["--show", "missing"]).await?;
    assert!(!missing.success && missing.out.is_empty(), "{missing:?}");
    assert!(missing.err.contains("none of 2 dead letters has the id missing"), "{missing:?}");
    let both = deployment.redrive(["--show", id, "--send"]).await?;
    assert!(!both.success && both.err.contains("cannot be used with"), "{both:?}");
    Ok(())
}

#[tokio::test]
async fn drop_needs_confirmation() -> anyhow::Result<()> {
    let deployment = Deployment::new("letters-drop").await?;
    for (body, reason) in [("a", "poison"), ("b", "poison"), ("c", "exhausted")] {
        deployment.send_dead_letter(body, &[("reason", reason)]).await?;
    }
    let listed = deployment.redrive(["--reason", "poison", "--drop"]).await?;
    let expected =
        "3 dead letters, matching: 2; nothing was dropped, use --drop --yes to delete them for good";
    assert!(listed.success && listed.out.contains(expected), "{listed:?}");
    assert_eq!(deployment.dead_letters().await?, (3, 0));
    for invalid in [&["--yes"][..], &["--drop", "--send"], &["--drop", "--show", "a"]] {
        let arguments = ["redrive"].into_iter().chain(invalid.iter().copied());
        let refused = deployment.streamer.run_all(arguments).await?;
        assert!(!refused.success && refused.err.contains("error: "), "{invalid:?}: {refused:?}");
    }

    let dropped = deployment.redrive(["--reason", "poison", "--drop", "--yes"]).await?;
    assert!(
        dropped.success && dropped.out.contains("3 dead letters, matching: 2, dropped: 2\n"),
        "{dropped:?}"
    );
    assert_eq!(deployment.dead_letters().await?, (1, 0));
    let (letters, totals) = objects(&deployment.redrive(["--drop", "--yes", "--json"]).await?)?;
    assert_eq!((&letters[0]["outcome"], &totals["dropped"]), (&json!("dropped"), &json!(1)));
    assert_eq!(deployment.dead_letters().await?, (0, 0));
    assert!(deployment.stack.is_empty(&deployment.delivery.queue_url).await?, "a letter was sent");
    Ok(())
}

/// One of five letters fails again while the others are sent: they are five, and it is named apart.
#[tokio::test]
async fn five_letters_are_called_five() -> anyhow::Result<()> {
    let deployment = Deployment::new("letters-five").await?;
    let (_client, id) = connected(&deployment.stack, "five").await?;
    deployment.send_dead_letters(4, &id).await?;
    deployment.send_dead_letter("fails again", &[("reason", "poison")]).await?;
    let sent = deployment.redrive(["--send"]).await?;
    assert!(sent.success && sent.out.contains("5 dead letters, matching: 5, sent back: 5\n"), "{sent:?}");
    Ok(())
}

/// Letters of an interrupted drop are either gone or can be received at once.
#[tokio::test]
async fn interrupted_drop_releases_the_rest() -> anyhow::Result<()> {
    const LETTERS: usize = 500;
    let deployment = Deployment::new("letters-interrupted").await?;
    let (_client, id) = connected(&deployment.stack, "interrupted").await?;
    deployment.send_dead_letters(LETTERS, &id).await?;
    deployment.send_dead_letter("kept", &[("reason", "poison")]).await?;
    let drop = deployment.spawn_redrive(["--reason", "crashed_or_throttled", "--drop", "--yes", "--json"])?;
    eventually("the first letters are dropped", async || {
        let (visible, hidden) = deployment.dead_letters().await?;
        Ok(visible + hidden < LETTERS)
    })
    .await?;
    signal(&drop, Signal::Interrupt)?;
    let ended = output(drop).await?;
    assert!(!ended.success && ended.err.contains("interrupted"), "{ended:?}");

    let (letters, totals) = objects(&ended)?;
    let (visible, hidden) = deployment.dead_letters().await?;
    assert_eq!((hidden, totals["dropped"].as_u64()), (0, Some(letters.len() as u64)));
    assert_eq!(visible, LETTERS + 1 - letters.len());
    let kept = objects(&deployment.redrive(["--reason", "poison", "--json"]).await?)?;
    assert_eq!(kept.0.len(), 1);
    assert!(!ids(&letters).contains(&kept.0[0]["id"].as_str().unwrap()));
    Ok(())
}
