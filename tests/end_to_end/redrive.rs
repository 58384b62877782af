//! `streamer redrive`, on queues and with a worker of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
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
    command::{Said, Streamer, said, signal},
    doubles::QueueDouble,
    emulator::stack,
    eventually,
};
use sysinfo::Signal;
use tokio::time::{sleep, timeout};

use crate::{LIMIT, connected};

/// Queues and a worker, and the command beside them.
pub struct Bench {
    pub stack: Stack,
    pub sqs: Client,
    pub delivery: Delivery,
    pub streamer: Streamer,
}

impl Bench {
    pub async fn new(name: &str) -> anyhow::Result<Self> {
        let stack = stack().await?;
        let overrides = Overrides {
            visibility_timeout: Some(Duration::from_secs(3)),
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

    /// The body of a message as it lies on the queue.
    async fn body(id: &str, connection: &ConnectionId) -> anyhow::Result<String> {
        let queue = QueueDouble::taking();
        let producer = streamer_producer::Producer::new(&queue.client(), "https://sqs.example.com/outbound");
        producer.send(Message::connection(connection).id(id).response("redriven")?).await?;
        Ok(queue.entries()[0].message_body.clone())
    }

    /// Puts a letter into the dead-letter queue, as the worker would.
    pub async fn dead(&self, body: &str, attributes: &[(&str, &str)]) -> anyhow::Result<()> {
        let mut send =
            self.sqs.send_message().queue_url(&self.delivery.dead_letter_queue_url).message_body(body);
        for (name, value) in attributes {
            let value = MessageAttributeValue::builder().data_type("String").string_value(*value).build()?;
            send = send.message_attributes(format!("streamer.{name}"), value);
        }
        send.send().await?;
        Ok(())
    }

    pub async fn redrive<const N: usize>(&self, arguments: [&str; N]) -> anyhow::Result<Said> {
        let mut all = vec!["redrive", "--aws", "--queue-url", &self.delivery.queue_url];
        all.extend(arguments);
        said(self.streamer.spawn_at(&self.stack.deployed.endpoint_url, all)?).await
    }

    /// Letters that anybody can see, and letters that somebody holds.
    pub async fn letters(&self) -> anyhow::Result<(usize, usize)> {
        use QueueAttributeName::{ApproximateNumberOfMessages, ApproximateNumberOfMessagesNotVisible};

        let get = self.sqs.get_queue_attributes().queue_url(&self.delivery.dead_letter_queue_url);
        let counts =
            get.attribute_names(QueueAttributeName::All).send().await?.attributes.unwrap_or_default();
        let count = |name| counts[&name].parse::<usize>();
        Ok((count(ApproximateNumberOfMessages)?, count(ApproximateNumberOfMessagesNotVisible)?))
    }
}

#[tokio::test]
async fn dead_letters_are_told_by_reason_and_cause_and_those_that_are_meant_go_back() -> anyhow::Result<()> {
    let bench = Bench::new("redrive").await?;
    let (mut socket, id) = connected(&bench.stack, "redriven").await?;
    let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3700);
    let since = hour_ago.duration_since(std::time::UNIX_EPOCH)?.as_millis().to_string();
    let exhausted = |cause| [("reason", "exhausted"), ("detail", cause), ("since", since.as_str())];
    for (letter, cause) in [("a", "503"), ("b", "503"), ("c", "timeout")] {
        bench.dead(&Bench::body(letter, &id).await?, &exhausted(cause)).await?;
    }
    for (letter, bytes) in [("large", 140_000), ("larger", 150_000)] {
        let detail = format!("the payload has {bytes} bytes, API Gateway delivers 131072");
        bench.dead(&Bench::body(letter, &id).await?, &[("reason", "rejected"), ("detail", &detail)]).await?;
    }
    bench.dead(&Bench::body("moved", &id).await?, &[]).await?;

    // To look changes nothing, however often.
    for _ in 0..2 {
        let told = bench.redrive([]).await?;
        assert!(told.success, "{told:?}");
        let lines: Vec<Vec<_>> = told.out.lines().map(|line| line.split_whitespace().collect()).collect();
        let has = |start: &[&str], end: &str| {
            let ends = end.split(' ').collect::<Vec<_>>();
            lines.iter().any(|line| line.starts_with(start) && line.ends_with(&ends))
        };
        assert!(has(&["2", "exhausted", "1h", "1m"], &format!("to {id} 503")), "{}", told.out);
        assert!(has(&["1", "exhausted", "1h", "1m"], &format!("to {id} timeout")), "{}", told.out);
        assert!(has(&["2", "rejected"], "has 140000 bytes, API Gateway delivers 131072"), "{}", told.out);
        assert!(has(&["1", "crashed_or_throttled"], &format!("moved to {id} -")), "{}", told.out);
        assert!(told.out.contains("6 dead letters, matching: 6; nothing was sent"), "{}", told.out);
        assert_eq!(bench.letters().await?, (6, 0));
    }
    for (meant, number) in [
        (["--reason", "exhausted"], 3),
        (["--older-than", "1h"], 3),
        (["--newer-than", "1h"], 3),
        (["--id", "b"], 1),
    ] {
        let told = bench.redrive(meant).await?;
        assert!(told.out.contains(&format!("6 dead letters, matching: {number}; ")), "{meant:?}: {told:?}");
    }
    assert!(bench.redrive(["--tenant", "acme"]).await?.out.contains("6 dead letters, none of them matches"));
    let unknown = bench.redrive(["--reason", "nonsense"]).await?;
    assert!(!unknown.success && unknown.err.contains("crashed_or_throttled"), "{unknown:?}");

    let sent = bench.redrive(["--reason", "exhausted", "--send"]).await?;
    assert!(sent.success && sent.out.contains("6 dead letters, matching: 3, sent back: 3"), "{sent:?}");
    let mut arrived = BTreeSet::new();
    while arrived.len() < 3 {
        arrived.insert(socket.next(LIMIT).await?.json()?["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(arrived, ["a", "b", "c"].map(str::to_owned).into());
    assert_eq!(bench.letters().await?, (3, 0));
    let again = bench.redrive(["--reason", "exhausted", "--send"]).await?;
    assert!(again.out.contains("3 dead letters, none of them matches"), "{again:?}");

    // All the rest.
    let rest = bench.redrive(["--send"]).await?;
    assert!(rest.success && rest.out.contains("sent back: 3"), "{rest:?}");
    assert_eq!(bench.redrive([]).await?.out, "no dead letters\n");
    Ok(())
}

#[tokio::test]
async fn a_message_of_a_later_version_is_a_dead_letter_and_goes_back_as_it_is() -> anyhow::Result<()> {
    let bench = Bench::new("redrive-version").await?;
    let body = r#"{"version":2,"id":"later","to":{"everyone":true},"payload":1}"#;
    let outbound = &bench.delivery.queue_url;
    bench.sqs.send_message().queue_url(outbound).message_body(body).send().await?;
    eventually("it is a dead letter", async || Ok(bench.letters().await? == (1, 0))).await?;
    let told = bench.redrive([]).await?;
    assert!(told.out.contains("poison") && told.out.contains("version 2 is not known here"), "{told:?}");

    // The same worker does not know it any better: it comes back, and is not sent in circles.
    let sent = bench.redrive(["--reason", "poison", "--send"]).await?;
    assert!(sent.success && sent.out.contains("sent back: 1"), "{sent:?}");
    eventually("it is back", async || Ok(bench.letters().await? == (1, 0))).await?;
    let receive = bench.sqs.receive_message().queue_url(&bench.delivery.dead_letter_queue_url).send().await?;
    assert_eq!(receive.messages()[0].body(), Some(body));

    // One that does know it delivers it: of this version, an older worker would have said the same.
    let (mut socket, id) = connected(&bench.stack, "upgraded-worker").await?;
    bench.dead(&Bench::body("known", &id).await?, &[("reason", "poison")]).await?;
    let sent = bench.redrive(["--reason", "poison", "--send"]).await?;
    assert!(sent.success, "{sent:?}");
    assert_eq!(socket.next(LIMIT).await?.json()?["id"], "known");
    Ok(())
}

/// Ends a redrive of many letters in the middle, and counts.
async fn is_ended_in_the_middle(name: &str, with: Signal) -> anyhow::Result<()> {
    const LETTERS: usize = 2000;
    let bench = Bench::new(name).await?;
    let (mut socket, id) = connected(&bench.stack, name).await?;
    for part in (0..LETTERS).collect::<Vec<_>>().chunks(10) {
        let mut batch = bench.sqs.send_message_batch().queue_url(&bench.delivery.dead_letter_queue_url);
        for letter in part {
            let entry = SendMessageBatchRequestEntry::builder().id(letter.to_string());
            batch = batch.entries(entry.message_body(Bench::body(&letter.to_string(), &id).await?).build()?);
        }
        batch.send().await?;
    }
    let arguments = ["redrive", "--aws", "--queue-url", &bench.delivery.queue_url, "--send"];
    let redrive = bench.streamer.spawn_at(&bench.stack.deployed.endpoint_url, arguments)?;
    let mut arrived = HashSet::from([socket.next(LIMIT).await?.json()?["id"].to_string()]);
    signal(&redrive, with)?;
    let ended = said(redrive).await?;
    assert!(!ended.success, "it was not in the middle: {ended:?}");
    // A call of a process that was killed may still be served.
    let mut held = bench.letters().await?.1;
    eventually("the queue rests", async || {
        sleep(Duration::from_millis(500)).await;
        Ok(std::mem::replace(&mut held, bench.letters().await?.1) == held)
    })
    .await?;
    if with == Signal::Interrupt {
        assert!(ended.err.contains("interrupted: the remaining dead letters are unchanged"), "{ended:?}");
        assert_eq!(held, 0, "it let go of all that it held");
    }
    let again = bench.redrive(["--send"]).await?;
    assert!(again.success, "{again:?}");
    // What a killed process held is hidden for a while, and still there.
    while arrived.len() + held < LETTERS {
        arrived.insert(timeout(LIMIT, socket.next(LIMIT)).await??.json()?["id"].to_string());
    }
    assert_eq!(bench.letters().await?, (0, held));
    assert!(held <= 10, "it held {held}");
    Ok(())
}

#[tokio::test]
async fn a_redrive_that_is_interrupted_loses_nothing_and_goes_on_when_it_is_run_again() -> anyhow::Result<()>
{
    is_ended_in_the_middle("redrive-interrupted", Signal::Interrupt).await
}

#[tokio::test]
async fn a_redrive_that_is_killed_loses_nothing_and_goes_on_when_it_is_run_again() -> anyhow::Result<()> {
    is_ended_in_the_middle("redrive-killed", Signal::Kill).await
}
