//! Output on a terminal of 60 columns: no line is broken in the middle of a word.

use streamer_tests::command::{Output, Streamer};

use serde_json::json;

use crate::{
    connected,
    receipts::{Queues, receipt},
    redrive::Deployment,
};

const COLUMNS: u16 = 60;

/// Checks that the output has no line that the terminal would break, unless the line is one long word.
fn assert_fits(output: &str, what: &str) {
    for line in output.lines() {
        let fits = line.chars().count() <= usize::from(COLUMNS) || line.split_whitespace().count() == 1;
        assert!(fits, "{what}: {line}\n{output}");
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

#[tokio::test]
async fn help_fits_narrow_terminals() -> anyhow::Result<()> {
    let streamer = Streamer::new("narrow-help").await?;
    let deployments =
        ["send", "connections", "disconnect", "mailbox", "forget", "receipts", "redrive", "status"];
    let commands = ["up", "down", "logs", "token", "package"].into_iter().chain(deployments);
    for command in [None].into_iter().chain(commands.map(Some)) {
        let arguments: Vec<_> = command.into_iter().chain(["--help"]).collect();
        let narrow = streamer.run_in_terminal(COLUMNS, None, arguments.iter().copied()).await?;
        assert!(narrow.success, "{narrow:?}");
        assert_fits(&narrow.out, &format!("{command:?}"));
        let piped = streamer.run_all(arguments).await?;
        assert_eq!(words(&narrow.out), words(&piped.out), "{command:?}");
    }
    // Without a terminal, nothing is wrapped.
    let piped = streamer.run(["redrive", "--help"]).await?.out;
    assert!(piped.lines().any(|line| line.chars().count() > 100), "{piped}");
    Ok(())
}

#[tokio::test]
async fn errors_fit_narrow_terminals() -> anyhow::Result<()> {
    let streamer = Streamer::new("narrow-errors").await?;
    let commands: [&[&str]; 4] = [
        &["connections"],
        &["send", "--aws", "--connection", "c", "--payload", "1"],
        &["redrive", "--reason", "nonsense"],
        &["send", "--connection", "c", "--payload", "1", "--progress", "2", "--stdin"],
    ];
    for arguments in commands {
        let narrow = streamer.run_in_terminal(COLUMNS, None, arguments.iter().copied()).await?;
        assert!(!narrow.success && !narrow.err.is_empty(), "{narrow:?}");
        assert_fits(&narrow.err, &format!("{arguments:?}"));
        let piped = streamer.run_all(arguments.iter().copied()).await?;
        assert_eq!(words(&narrow.err), words(&piped.err), "{arguments:?}");
    }
    Ok(())
}

/// Tables move their last cells below a row, and keep every word.
#[tokio::test]
async fn tables_fit_narrow_terminals() -> anyhow::Result<()> {
    let deployment = Deployment::new("narrow-tables").await?;
    let (_client, id) = connected(&deployment.stack, "narrow").await?;
    let cause = "the payload has 140000 bytes, at most 131072 are posted";
    let body = Deployment::body("large", &id).await?;
    deployment.send_dead_letter(&body, &[("reason", "rejected"), ("detail", cause)]).await?;
    let Deployment { stack, streamer, delivery, .. } = &deployment;
    let endpoint = Some(stack.deployed.endpoint_url.as_str());
    let table = stack.deployed.connections_table.as_str();
    let commands: [(&[&str], Vec<&str>); 3] = [
        (&["redrive", "--aws", "--queue-url", &delivery.queue_url], words(cause)),
        (
            &["connections", "--aws", "--table", table, "--tenant", "path", "--user", "narrow"],
            vec![id.as_str()],
        ),
        (&["disconnect", "--aws", "--table", table, "--tenant", "path", "--user", "narrow"], vec!["narrow"]),
    ];
    for (arguments, expected) in commands {
        let narrow: Output = streamer.run_in_terminal(COLUMNS, endpoint, arguments.iter().copied()).await?;
        assert!(narrow.success, "{narrow:?}");
        assert_fits(&narrow.out, &format!("{arguments:?}"));
        let shown = words(&narrow.out);
        for word in expected {
            assert!(shown.contains(&word), "{word}: {}", narrow.out);
        }
    }
    Ok(())
}

/// A receipt continues on the next line between two words, and keeps every word.
#[tokio::test]
async fn receipts_fit_narrow_terminals() -> anyhow::Result<()> {
    let queues = Queues::new("narrow-receipts").await?;
    let (id, user) = ("a".repeat(60), "b".repeat(60));
    let cause = "the payload has 140000 bytes, at most 131072 are posted";
    let to = json!({"user": {"tenant": "acme", "user": user}});
    queues.send_receipt(&receipt(&id, "rejected", &json!({"to": to, "cause": cause}))).await?;
    queues.send_receipt("no receipt").await?;
    let narrow = queues.streamer.run_in_terminal(COLUMNS, Some(&queues.endpoint), queues.receipts()).await?;
    assert!(narrow.success, "{narrow:?}");
    assert_fits(&narrow.out, "receipts");
    assert_fits(&narrow.err, "other messages");
    let shown = words(&narrow.out);
    for word in words(&format!("rejected {id} user {user} of acme ({cause})")) {
        assert!(shown.contains(&word), "{word}: {}", narrow.out);
    }
    Ok(())
}
