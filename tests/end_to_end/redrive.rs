//! `streamer redrive`, on queues of its own and with a worker of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::{Duration, SystemTime},
};

use aws_sdk_sqs::{
    Client,
    types::{MessageAttributeValue, QueueAttributeName, SendMessageBatchRequestEntry},
};
use streamer_cli::stack::{
    Stack,
    build::build,
    deploy::{Delivery, Overrides, deploy_delivery},
};
use streamer_message::ConnectionId;
use streamer_producer::Message;
use streamer_tests::{
    command::{Output, Streamer, output, signal},
    doubles::QueueDouble,
    emulator::stack,
    eventually,
};
use sysinfo::Signal;
use tokio::process::Child;

use crate::{arrivals::Arrivals, connected, connected_socket};

/// How long ago a worker received the dead letters. Ages show days and hours here, so a slow run does not change them.
pub(crate) const AGE: Duration = Duration::from_secs(25 * 3600 + 1800);

/// Queues and a worker of the test's own, and the command.
pub(crate) struct Deployment {
    pub stack: Stack,
    pub sqs: Client,
    pub delivery: Delivery,
    pub streamer: Streamer,
}

impl Deployment {
    pub(crate) async fn new(name: &str) -> anyhow::Result<Self> {
        let stack = stack().await?;
        let overrides = Overrides {
            // No test needs a second receive, so it is as long as the worker may run.
            visibility_timeout: Some(Duration::from_secs(30)),
            environment: BTreeMap::from([(
                "delivery",
                BTreeMap::from([("CONNECT_GRACE_SECONDS", "0".to_owned())]),
            )]),
            ..Overrides::default()
        };
        let endpoint = &stack.deployed.management_endpoint;
        let binaries = build().await?;
        let delivery =
            deploy_delivery(&stack.config, &format!("-{name}"), &overrides, &binaries, endpoint).await?;
        let (sqs, streamer) = (Client::new(&stack.config), Streamer::new(name).await?);
        Ok(Self { stack, sqs, delivery, streamer })
    }

    /// Returns the body of a message as the producer sends it.
    pub(crate) async fn body(id: &str, connection: &ConnectionId) -> anyhow::Result<String> {
        let queue = QueueDouble::taking();
        let producer = streamer_producer::Producer::new(&queue.client(), "https://sqs.example.com/outbound");
        producer.send(Message::connection(connection).id(id).response("redriven")?).await?;
        Ok(queue.entries()[0].message_body.clone())
    }

    /// Sends a dead letter, as the worker does.
    pub(crate) async fn send_dead_letter(
        &self,
        body: &str,
        attributes: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let mut send =
            self.sqs.send_message().queue_url(&self.delivery.dead_letter_queue_url).message_body(body);
        for (name, value) in attributes {
            let value = MessageAttributeValue::builder().data_type("String").string_value(*value).build()?;
            send = send.message_attributes(format!("streamer.{name}"), value);
        }
        send.send().await?;
        Ok(())
    }

    /// Sends many dead letters for a connection, with the ids from 0 on, as if SQS had moved them.
    pub(crate) async fn send_dead_letters(
        &self,
        number: usize,
        connection: &ConnectionId,
    ) -> anyhow::Result<()> {
        for part in (0..number).collect::<Vec<_>>().chunks(10) {
            let mut batch = self.sqs.send_message_batch().queue_url(&self.delivery.dead_letter_queue_url);
            for letter in part {
                let entry = SendMessageBatchRequestEntry::builder().id(letter.to_string());
                let body = Self::body(&letter.to_string(), connection).await?;
                batch = batch.entries(entry.message_body(body).build()?);
            }
            batch.send().await?;
        }
        Ok(())
    }

    pub(crate) async fn redrive<const N: usize>(&self, arguments: [&str; N]) -> anyhow::Result<Output> {
        output(self.spawn_redrive(arguments)?).await
    }

    /// Starts `streamer redrive`, and returns while it runs.
    pub(crate) fn spawn_redrive<const N: usize>(&self, arguments: [&str; N]) -> anyhow::Result<Child> {
        let mut all = vec!["redrive", "--aws", "--queue-url", &self.delivery.queue_url];
        all.extend(arguments);
        self.streamer.spawn_at(&self.stack.deployed.endpoint_url, all)
    }

    /// Returns the numbers of visible and of hidden dead letters.
    pub(crate) async fn dead_letters(&self) -> anyhow::Result<(usize, usize)> {
        use QueueAttributeName::{ApproximateNumberOfMessages, ApproximateNumberOfMessagesNotVisible};

        let get = self.sqs.get_queue_attributes().queue_url(&self.delivery.dead_letter_queue_url);
        let counts =
            get.attribute_names(QueueAttributeName::All).send().await?.attributes.unwrap_or_default();
        let count = |name| counts[&name].parse::<usize>();
        Ok((count(ApproximateNumberOfMessages)?, count(ApproximateNumberOfMessagesNotVisible)?))
    }
}

/// Lists dead letters by reason and cause, and sends back those that the options select.
#[tokio::test]
async fn lists_and_redrives_selected_dead_letters() -> anyhow::Result<()> {
    let deployment = Deployment::new("redrive").await?;
    let (mut client, id) = connected(&deployment.stack, "redriven").await?;
    let since = (SystemTime::now() - AGE).duration_since(SystemTime::UNIX_EPOCH)?.as_millis().to_string();
    let exhausted = |cause| [("reason", "exhausted"), ("detail", cause), ("since", since.as_str())];
    for (letter, cause) in [("a", "503"), ("b", "503"), ("c", "timeout")] {
        deployment.send_dead_letter(&Deployment::body(letter, &id).await?, &exhausted(cause)).await?;
    }
    for (letter, bytes) in [("large", 140_000), ("larger", 150_000)] {
        let detail = format!("the payload has {bytes} bytes, at most 131072 are posted");
        deployment
            .send_dead_letter(
                &Deployment::body(letter, &id).await?,
                &[("reason", "rejected"), ("detail", &detail)],
            )
            .await?;
    }
    deployment.send_dead_letter(&Deployment::body("moved", &id).await?, &[]).await?;

    // Listing leaves the letters where they are.
    for _ in 0..2 {
        let listed = deployment.redrive([]).await?;
        assert!(listed.success, "{listed:?}");
        let lines: Vec<Vec<_>> = listed.out.lines().map(|line| line.split_whitespace().collect()).collect();
        let has = |start: &[&str], end: &str| {
            let ends = end.split(' ').collect::<Vec<_>>();
            lines.iter().any(|line| line.starts_with(start) && line.ends_with(&ends))
        };
        assert!(has(&["2", "exhausted", "1day", "1h"], &format!("to {id} 503")), "{}", listed.out);
        assert!(has(&["1", "exhausted", "1day", "1h"], &format!("to {id} timeout")), "{}", listed.out);
        assert!(has(&["2", "rejected"], "has 140000 bytes, at most 131072 are posted"), "{}", listed.out);
        assert!(has(&["1", "crashed_or_throttled"], &format!("moved to {id} -")), "{}", listed.out);
        assert!(listed.out.contains("6 dead letters, matching: 6; nothing was sent"), "{}", listed.out);
        assert_eq!(deployment.dead_letters().await?, (6, 0));
    }
    for (selection, number) in [
        (["--reason", "exhausted"], 3),
        (["--older-than", "1h"], 3),
        (["--newer-than", "1h"], 3),
        (["--id", "b"], 1),
    ] {
        let listed = deployment.redrive(selection).await?;
        let selected = format!("6 dead letters, matching: {number}; ");
        assert!(listed.out.contains(&selected), "{selection:?}: {listed:?}");
    }
    assert!(
        deployment.redrive(["--tenant", "acme"]).await?.out.contains("6 dead letters, none of them matches")
    );
    let unknown = deployment.redrive(["--reason", "nonsense"]).await?;
    assert!(!unknown.success && unknown.err.contains("crashed_or_throttled"), "{unknown:?}");

    let sent = deployment.redrive(["--reason", "exhausted", "--send"]).await?;
    assert!(sent.success && sent.out.contains("6 dead letters, matching: 3, sent back: 3"), "{sent:?}");
    let mut arrived = BTreeSet::new();
    while arrived.len() < 3 {
        let frame = client.next(&format!("a redriven message, after {arrived:?},")).await?;
        arrived.insert(frame.json()?["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(arrived, ["a", "b", "c"].map(str::to_owned).into());
    assert_eq!(deployment.dead_letters().await?, (3, 0));
    let again = deployment.redrive(["--reason", "exhausted", "--send"]).await?;
    assert!(again.out.contains("3 dead letters, none of them matches"), "{again:?}");

    let rest = deployment.redrive(["--send"]).await?;
    assert!(rest.success && rest.out.contains("sent back: 3"), "{rest:?}");
    assert_eq!(deployment.redrive([]).await?.out, "no dead letters\n");
    Ok(())
}

/// A message of a newer version becomes a dead letter, and is sent back unchanged for a worker that knows it.
#[tokio::test]
async fn newer_message_version_is_redriven_unchanged() -> anyhow::Result<()> {
    let deployment = Deployment::new("redrive-version").await?;
    let body = r#"{"version":2,"id":"later","to":{"everyone":true},"payload":1}"#;
    let outbound = &deployment.delivery.queue_url;
    deployment.sqs.send_message().queue_url(outbound).message_body(body).send().await?;
    let is_dead_letter = async || {
        let (visible, hidden) = deployment.dead_letters().await?;
        Ok(deployment.stack.is_empty(outbound).await? && visible > 0 && hidden == 0)
    };
    eventually("the message is a dead letter", is_dead_letter).await?;
    let listed = deployment.redrive([]).await?;
    assert!(
        listed.out.contains("poison") && listed.out.contains("version 2 is not known here"),
        "{listed:?}"
    );

    // The worker does not know the version this time either: the message becomes a dead letter once more.
    let sent = deployment.redrive(["--reason", "poison", "--send"]).await?;
    assert!(sent.success && sent.out.contains("sent back: 1"), "{sent:?}");
    eventually("the message is a dead letter again", is_dead_letter).await?;
    let receive =
        deployment.sqs.receive_message().queue_url(&deployment.delivery.dead_letter_queue_url).send().await?;
    assert_eq!(receive.messages()[0].body(), Some(body));

    // A worker that knows the version delivers the message. An older worker would report version 1 as poison, too.
    let (mut client, id) = connected(&deployment.stack, "upgraded-worker").await?;
    deployment.send_dead_letter(&Deployment::body("known", &id).await?, &[("reason", "poison")]).await?;
    let sent = deployment.redrive(["--reason", "poison", "--send"]).await?;
    assert!(sent.success, "{sent:?}");
    assert_eq!(client.next("the redriven message").await?.json()?["id"], "known");
    Ok(())
}

/// Ends a redrive of many letters in the middle, runs it again, and counts the letters.
async fn loses_nothing(name: &str, end: Signal) -> anyhow::Result<()> {
    const LETTERS: usize = 2000;
    let deployment = Deployment::new(name).await?;
    let (socket, id) = connected_socket(&deployment.stack, name).await?;
    deployment.send_dead_letters(LETTERS, &id).await?;
    let redrive = deployment.spawn_redrive(["--send"])?;
    eventually("the first letters are sent back", async || {
        let (visible, hidden) = deployment.dead_letters().await?;
        Ok(visible + hidden < LETTERS)
    })
    .await?;
    signal(&redrive, end)?;
    let ended = output(redrive).await?;
    assert!(!ended.success, "it ended before the signal: {ended:?}");
    if end == Signal::Interrupt {
        assert_eq!(ended.code, Some(130), "{ended:?}");
        let state = "interrupted by Ctrl-C: the remaining dead letters are unchanged";
        assert!(ended.err.contains(state), "{ended:?}");
        assert_eq!(deployment.dead_letters().await?.1, 0, "letters are still hidden");
    }

    // A killed process leaves its last letters hidden, and the emulator may still be serving its last calls.
    let (mut arrivals, mut arrived) = (Arrivals::of([socket]), HashSet::new());
    let hidden = loop {
        let (visible, hidden) = deployment.dead_letters().await?;
        if visible > 0 {
            let again = deployment.redrive(["--send"]).await?;
            assert!(again.success && !again.out.contains("sent back: 0"), "{again:?}");
        } else if arrived.len() + hidden >= LETTERS {
            break hidden;
        } else {
            let progress = || format!("{} of {LETTERS} arrived, {hidden} are hidden", arrived.len());
            let mut frame = Some(arrivals.next(progress).await?);
            while let Some((_, text)) = frame {
                arrived.insert(text);
                frame = arrivals.try_next();
            }
        }
    };
    assert!(hidden <= 10, "{hidden} letters are hidden");
    assert!(end == Signal::Kill || hidden == 0, "{hidden} letters are hidden");
    Ok(())
}

#[tokio::test]
async fn interrupted_redrive_loses_nothing() -> anyhow::Result<()> {
    loses_nothing("redrive-interrupted", Signal::Interrupt).await
}

#[tokio::test]
async fn killed_redrive_loses_nothing() -> anyhow::Result<()> {
    loses_nothing("redrive-killed", Signal::Kill).await
}
