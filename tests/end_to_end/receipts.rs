//! `streamer receipts` and `send --wait`, on queues of their own. The test sends the receipts, as a worker does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use aws_sdk_sqs::{Client, types::QueueAttributeName};
use serde_json::{Value, json};
use streamer_tests::{
    command::{Output, Streamer, output, printed, signal},
    emulator::stack,
    eventually,
};
use sysinfo::Signal;
use tokio::process::Child;

/// An outbound queue without a worker, a receipts queue, and the command.
pub(crate) struct Queues {
    pub streamer: Streamer,
    pub endpoint: String,
    sqs: Client,
    outbound: String,
    receipts: String,
}

/// Returns the event of a receipt of message `id`, with further fields.
pub(crate) fn receipt(id: &str, outcome: &str, more: &Value) -> String {
    let mut data = json!({"version": 1, "id": id, "at": 1_764_000_000_000_u64, "outcome": outcome});
    data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (event, source) = (format!("event of {id}"), "/streamer/test");
    json!({"specversion": "1.0", "id": event, "source": source, "type": "streamer.receipt", "data": data})
        .to_string()
}

impl Queues {
    pub(crate) async fn new(name: &str) -> anyhow::Result<Self> {
        let stack = stack().await?;
        let sqs = Client::new(&stack.config);
        let create = async |kind: &str| -> anyhow::Result<String> {
            let created = sqs.create_queue().queue_name(format!("{kind}-{name}")).send().await?;
            Ok(created.queue_url.unwrap_or_default())
        };
        let (outbound, receipts) = (create("outbound").await?, create("receipts").await?);
        let (streamer, endpoint) = (Streamer::new(name).await?, stack.deployed.endpoint_url.clone());
        Ok(Self { streamer, endpoint, sqs, outbound, receipts })
    }

    pub(crate) async fn send_receipt(&self, body: &str) -> anyhow::Result<()> {
        self.sqs.send_message().queue_url(&self.receipts).message_body(body).send().await?;
        Ok(())
    }

    /// Returns the arguments that list the receipts queue.
    pub(crate) fn receipts(&self) -> [&str; 4] {
        ["receipts", "--aws", "--receipts-queue-url", &self.receipts]
    }

    fn spawn_list<const N: usize>(&self, more: [&str; N]) -> anyhow::Result<Child> {
        self.streamer.spawn_at(&self.endpoint, self.receipts().into_iter().chain(more))
    }

    async fn list<const N: usize>(&self, more: [&str; N]) -> anyhow::Result<Output> {
        output(self.spawn_list(more)?).await
    }

    /// Starts `send --wait` with a payload for connection `c=`, and returns while it runs.
    fn spawn_send(&self, id: &str, wait: &str) -> anyhow::Result<Child> {
        let queues = ["send", "--aws", "--queue-url", &self.outbound, "--receipts-queue-url", &self.receipts];
        let message = ["--connection", "c=", "--payload", "1", "--id", id, "--wait", wait];
        self.streamer.spawn_at(&self.endpoint, queues.into_iter().chain(message))
    }

    /// Waits for the message on the outbound queue, deletes it, and returns its body.
    async fn take_message(&self) -> anyhow::Result<Value> {
        let mut body = Value::Null;
        eventually("the message is on the queue", async || {
            let receive = self.sqs.receive_message().queue_url(&self.outbound).wait_time_seconds(1);
            let Some(message) = receive.send().await?.messages.unwrap_or_default().pop() else {
                return Ok(false);
            };
            let delete = self.sqs.delete_message().queue_url(&self.outbound);
            delete.set_receipt_handle(message.receipt_handle).send().await?;
            body = serde_json::from_str(&message.body.unwrap_or_default())?;
            Ok(true)
        })
        .await?;
        Ok(body)
    }

    /// Returns the numbers of visible and of hidden messages on the receipts queue.
    async fn counts(&self) -> anyhow::Result<(usize, usize)> {
        use QueueAttributeName::{ApproximateNumberOfMessages, ApproximateNumberOfMessagesNotVisible};

        let get = self.sqs.get_queue_attributes().queue_url(&self.receipts);
        let counts =
            get.attribute_names(QueueAttributeName::All).send().await?.attributes.unwrap_or_default();
        let count = |name| counts[&name].parse::<usize>();
        Ok((count(ApproximateNumberOfMessages)?, count(ApproximateNumberOfMessagesNotVisible)?))
    }
}

#[tokio::test]
async fn receipts_stay_until_they_are_consumed() -> anyhow::Result<()> {
    let queues = Queues::new("receipts-list").await?;
    let empty = queues.list([]).await?;
    assert!(
        empty.success && empty.out.starts_with("no receipts: `streamer send --receipt` asks"),
        "{empty:?}"
    );

    let to = json!({"user": {"tenant": "acme", "user": "anna"}});
    let counts = json!({"to": to, "connections": {"delivered": 2, "gone": 1}});
    queues.send_receipt(&receipt("a", "delivered", &counts)).await?;
    queues.send_receipt(&receipt("b", "rejected", &json!({"to": to, "cause": "413"}))).await?;
    queues.send_receipt("{\"s3cret\":1}").await?;
    for _ in 0..2 {
        let listed = queues.list([]).await?;
        assert!(listed.success, "{listed:?}");
        for line in [
            "2025-11-24 16:00:00.000  delivered     a  user anna of acme  2 delivered, 1 gone\n",
            "2025-11-24 16:00:00.000  rejected      b  user anna of acme  (413)\n",
            "2 receipts; nothing was deleted, --consume deletes\n",
        ] {
            assert!(listed.out.contains(line), "{line}: {listed:?}");
        }
        assert!(listed.err.starts_with("1 message is no receipt (SQS's id "), "{listed:?}");
        assert!(!listed.err.contains("s3cret"), "{listed:?}");
        assert_eq!(queues.counts().await?, (3, 0));
    }

    let json = queues.list(["--json", "--id", "b"]).await?;
    let event: Value = serde_json::from_str(&json.out)?;
    assert_eq!((&event["type"], &event["data"]["cause"]), (&json!("streamer.receipt"), &json!("413")));
    let limited = queues.list(["--limit", "1"]).await?;
    assert!(
        limited.out.contains("\nabout 1 more not inspected: --limit\n") || limited.out.contains("receipts")
    );
    assert_eq!(queues.counts().await?, (3, 0));

    let consumed = queues.list(["--consume", "--id", "b"]).await?;
    let summary = "2 receipts, of message b: 1; deleted after printing\n";
    assert!(consumed.success && consumed.out.ends_with(summary), "{consumed:?}");
    assert_eq!(queues.counts().await?, (2, 0));
    let consumed = queues.list(["--consume"]).await?;
    assert!(consumed.out.ends_with("1 receipt; deleted after printing\n"), "{consumed:?}");
    assert_eq!(queues.counts().await?, (1, 0), "the message that is no receipt stays");
    Ok(())
}

#[tokio::test]
async fn interrupted_follow_releases_receipts() -> anyhow::Result<()> {
    let queues = Queues::new("receipts-follow").await?;
    let mut follow = queues.spawn_list(["--follow"])?;
    for id in ["first", "second"] {
        queues.send_receipt(&receipt(id, "kept", &json!({}))).await?;
        let line = printed(&mut follow, &format!("  kept          {id}\n")).await?;
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(queues.counts().await?.1 > 0, "it is not hidden");
    }
    signal(&follow, Signal::Interrupt)?;
    let ended = output(follow).await?;
    assert_eq!((ended.code, ended.out.as_str()), (Some(130), ""), "{ended:?}");
    assert!(ended.err.ends_with("streamer: interrupted by Ctrl-C\n"), "{ended:?}");
    assert_eq!(queues.counts().await?, (2, 0));
    Ok(())
}

#[tokio::test]
async fn wait_takes_only_its_own_receipt() -> anyhow::Result<()> {
    let queues = Queues::new("receipts-wait").await?;
    for other in 0..12 {
        queues.send_receipt(&receipt(&format!("other {other}"), "gone", &json!({}))).await?;
    }
    for (outcome, code) in [("delivered", 0), ("gone", 3)] {
        let send = queues.spawn_send("mine", "120s")?;
        assert_eq!(queues.take_message().await?["receipt"], json!(true));
        let counts = json!({"connections": {outcome: 1}});
        queues.send_receipt(&receipt("mine", outcome, &counts)).await?;
        let sent = output(send).await?;
        assert_eq!(sent.code, Some(code), "{sent:?}");
        assert_eq!(sent.out, format!("queued mine\n{outcome:<12} c=\n"));
        assert_eq!(queues.counts().await?, (12, 0));
    }
    Ok(())
}

#[tokio::test]
async fn wait_explains_a_missing_receipt() -> anyhow::Result<()> {
    let queues = Queues::new("receipts-missing").await?;
    queues.send_receipt(&receipt("other", "gone", &json!({}))).await?;
    let sent = output(queues.spawn_send("mine", "1s")?).await?;
    assert_eq!((sent.code, sent.out.as_str()), (Some(3), "queued mine\n"), "{sent:?}");
    assert!(sent.err.contains("no receipt after 1s: the worker may still be trying"), "{sent:?}");
    assert!(sent.err.contains("another consumer has taken the receipt"), "{sent:?}");
    assert_eq!(queues.counts().await?, (1, 0));

    let mut send = queues.spawn_send("mine", "120s")?;
    printed(&mut send, "queued mine\n").await?;
    signal(&send, Signal::Interrupt)?;
    let sent = output(send).await?;
    assert_eq!(sent.code, Some(130), "{sent:?}");
    assert!(sent.err.contains("interrupted while waiting for the outcome"), "{sent:?}");
    assert_eq!(queues.counts().await?, (1, 0));
    Ok(())
}

/// Without a receipts queue, nothing is sent.
#[tokio::test]
async fn wait_needs_the_receipts_queue() -> anyhow::Result<()> {
    let queues = Queues::new("receipts-refused").await?;
    let send = ["send", "--aws", "--queue-url", &queues.outbound, "--connection", "c=", "--payload", "1"];
    for arguments in [&[&send[..], &["--wait"]].concat()[..], &["receipts", "--aws"]] {
        let refused = output(queues.streamer.spawn_at(&queues.endpoint, arguments.iter().copied())?).await?;
        assert_eq!((refused.code, refused.out.as_str()), (Some(2), ""), "{refused:?}");
        for remedy in ["--receipts-queue-url", "RECEIPTS_QUEUE_URL", "`receipts = true` in Terraform"] {
            assert!(refused.err.contains(remedy), "{remedy}: {refused:?}");
        }
    }
    let received = queues.sqs.receive_message().queue_url(&queues.outbound).send().await?;
    assert!(received.messages.unwrap_or_default().is_empty(), "a message was sent");
    Ok(())
}
