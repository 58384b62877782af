//! Each outcome on the emulator's queue: our real worker, whose posts go to a gateway that answers as it is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime},
};

use aws_sdk_sqs::types::Message;
use serde_json::{Value, json};
use streamer_cli::stack::{
    Stack,
    build::build,
    deploy::{Delivery, Overrides, deploy_delivery},
};
use streamer_connections::Connection;
use streamer_tests::{
    emulator::{VISIBILITY, stack},
    eventually,
    wire::{Reply, Request, WireGateway},
};

/// Queues and a worker of the test's own.
struct Side {
    stack: Stack,
    sqs: aws_sdk_sqs::Client,
    delivery: Delivery,
    gateway: WireGateway,
}

impl Side {
    async fn start(
        name: &str,
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        Self::with(name, false, &[], script).await
    }

    async fn with(
        name: &str,
        fifo: bool,
        variables: &[(&'static str, &str)],
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let stack = stack().await?;
        let gateway = WireGateway::answering(script).await?;
        let variables = variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let overrides = Overrides {
            visibility_timeout: Some(VISIBILITY),
            fifo,
            environment: BTreeMap::from([("delivery", variables)]),
            ..Overrides::default()
        };
        let (suffix, endpoint) = (format!("-{name}-{}", std::process::id()), gateway.endpoint());
        let delivery =
            deploy_delivery(&stack.config, &suffix, &overrides, &build().await?, &endpoint).await?;
        let sqs = aws_sdk_sqs::Client::new(&stack.config);
        Ok(Self { stack, sqs, delivery, gateway })
    }

    async fn send(&self, body: &Value) -> anyhow::Result<()> {
        let send = self.sqs.send_message().queue_url(&self.delivery.queue_url).message_body(body.to_string());
        send.send().await?;
        Ok(())
    }

    /// Puts a message on the queue, and waits until it is no longer there.
    async fn settles(&self, body: &Value) -> anyhow::Result<()> {
        self.send(body).await?;
        self.is_empty().await
    }

    async fn is_empty(&self) -> anyhow::Result<()> {
        eventually("the queue is empty", async || self.stack.is_empty(&self.delivery.queue_url).await).await
    }

    async fn dead_letters(&self) -> anyhow::Result<Vec<Message>> {
        let receive = self.sqs.receive_message().queue_url(&self.delivery.dead_letter_queue_url);
        let receive = receive.max_number_of_messages(10).message_attribute_names("All").visibility_timeout(0);
        Ok(receive.send().await?.messages.unwrap_or_default())
    }

    /// The connections that were posted to.
    fn posted(&self) -> Vec<String> {
        self.gateway.requests().iter().map(|request| request.connection().to_owned()).collect()
    }

    /// A row of a connection to this gateway that was made a while ago.
    async fn row(&self, connection: &str, user: &str) -> anyhow::Result<()> {
        let connection = Connection {
            connection_id: connection.try_into()?,
            user_id: user.try_into()?,
            tenant_id: "outcomes".try_into()?,
            endpoint: self.gateway.endpoint(),
            connected_at: SystemTime::now() - Duration::from_secs(60),
            expires_at: SystemTime::now() + Duration::from_secs(3600),
            permissions: BTreeSet::new(),
            source_ip: None,
            user_agent: None,
        };
        Ok(self.stack.table().put(&connection).await?)
    }
}

fn message(id: &str, to: Value) -> Value {
    json!({ "version": 1, "id": id, "to": to, "payload": id, "note": [1.0] })
}

fn attribute<'a>(letter: &'a Message, name: &str) -> &'a str {
    let attributes = letter.message_attributes.as_ref();
    attributes.and_then(|attributes| attributes.get(name)?.string_value()).unwrap_or_default()
}

fn ok() -> Reply {
    Reply::Answer(200, String::new())
}

#[tokio::test]
async fn delivered() -> anyhow::Result<()> {
    let side = Side::start("delivered", |_, _| ok()).await?;
    side.settles(&message("m", json!({ "connections": ["a", "b"] }))).await?;
    assert_eq!(side.posted().into_iter().collect::<BTreeSet<_>>(), ["a".to_owned(), "b".to_owned()].into());
    assert!(side.dead_letters().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn gone() -> anyhow::Result<()> {
    let side = Side::start("gone", |_, _| Reply::Answer(410, String::new())).await?;
    side.row("outcome-gone", "gone").await?;
    side.settles(&message("m", json!({ "connection": "outcome-gone" }))).await?;
    let row = side.stack.table().get(&"outcome-gone".try_into()?, SystemTime::now()).await?;
    assert_eq!((row, side.posted().len()), (None, 1));
    Ok(())
}

#[tokio::test]
async fn expired() -> anyhow::Result<()> {
    let side = Side::start("expired", |_, _| ok()).await?;
    let mut body = message("m", json!({ "connection": "a" }));
    body["expires_at"] = json!(1);
    side.settles(&body).await?;
    assert!(side.posted().is_empty() && side.dead_letters().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn superseded() -> anyhow::Result<()> {
    // On a FIFO queue the two wait together behind a message that takes its time, so one batch holds both.
    let late = |place: usize, _: &Request| match place {
        0 => Reply::Late(Duration::from_secs(1), 200),
        _ => ok(),
    };
    let side = Side::with("superseded", true, &[], late).await?;
    for seq in 0..3 {
        let mut body = message(&seq.to_string(), json!({ "connection": "a" }));
        body["request"] = json!({ "id": "r", "seq": seq });
        body["supersedable"] = json!(seq > 0);
        let send = side.sqs.send_message().queue_url(&side.delivery.queue_url).message_body(body.to_string());
        send.message_group_id("g").message_deduplication_id(seq.to_string()).send().await?;
        eventually("the first is posted", async || Ok(!side.posted().is_empty())).await?;
    }
    side.is_empty().await?;
    let posted: Vec<_> = side.gateway.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(posted, [b"\"0\"", b"\"2\""]);
    Ok(())
}

#[tokio::test]
async fn no_recipient() -> anyhow::Result<()> {
    let side = Side::with("no-recipient", false, &[("AWAY_GRACE_SECONDS", "1")], |_, _| ok()).await?;
    let to = |user: &str| json!({ "user": { "tenant": "outcomes", "user": user } });
    side.row("outcome-here", "here").await?;
    side.send(&message("here", to("here"))).await?;
    side.settles(&message("nobody", to("nobody"))).await?;
    assert_eq!(side.posted(), ["outcome-here"]);
    assert!(side.dead_letters().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn rejected() -> anyhow::Result<()> {
    let side = Side::start("rejected", |_, request| match request.connection() {
        "a" => ok(),
        _ => Reply::Answer(413, "{\"message\":\"too large\"}".to_owned()),
    })
    .await?;
    side.settles(&message("m", json!({ "connections": ["a", "b"] }))).await?;
    let letters = side.dead_letters().await?;
    assert_eq!(letters.len(), 1);
    let body: Value = serde_json::from_str(letters[0].body().unwrap_or_default())?;
    assert_eq!(body, message("m", json!({ "connection": "b" })));
    assert_eq!(attribute(&letters[0], "streamer.reason"), "rejected");
    assert_eq!(attribute(&letters[0], "streamer.detail"), "413: {\"message\":\"too large\"}");
    Ok(())
}

#[tokio::test]
async fn poison() -> anyhow::Result<()> {
    let side = Side::start("poison", |_, _| ok()).await?;
    side.settles(&json!("nothing\tthat \u{e9} is a message")).await?;
    let letters = side.dead_letters().await?;
    assert_eq!(letters[0].body(), Some(json!("nothing\tthat \u{e9} is a message").to_string().as_str()));
    assert_eq!(attribute(&letters[0], "streamer.reason"), "poison");
    assert_eq!(attribute(&letters[0], "streamer.attempts"), "1");
    Ok(())
}

#[tokio::test]
async fn exhausted() -> anyhow::Result<()> {
    let throttled = |_: usize, _: &Request| Reply::Answer(429, String::new());
    let side =
        Side::with("exhausted", false, &[("MAX_AGE_SECONDS", "5"), ("AWAY_GRACE_SECONDS", "5")], throttled)
            .await?;
    side.settles(&message("m", json!({ "connection": "a" }))).await?;
    let letters = side.dead_letters().await?;
    assert_eq!(letters.len(), 1);
    let body: Value = serde_json::from_str(letters[0].body().unwrap_or_default())?;
    assert_eq!(body, message("m", json!({ "connection": "a" })));
    assert_eq!(attribute(&letters[0], "streamer.reason"), "exhausted");
    assert_eq!(attribute(&letters[0], "streamer.detail"), "429");
    assert_eq!(attribute(&letters[0], "streamer.attempts"), side.posted().len().to_string());
    assert!(side.posted().len() >= 2, "it was tried again");
    Ok(())
}

#[tokio::test]
async fn handed_back() -> anyhow::Result<()> {
    let throttled = AtomicUsize::new(0);
    let side = Side::start("handed-back", move |_, request| match request.connection() {
        "slow" if throttled.fetch_add(1, Ordering::Relaxed) < 3 => Reply::Answer(429, String::new()),
        _ => ok(),
    })
    .await?;
    side.settles(&message("m", json!({ "connections": ["a", "slow", "b"] }))).await?;
    let posted = side.posted();
    let times = |wanted: &str| posted.iter().filter(|connection| *connection == wanted).count();
    assert_eq!((times("a"), times("slow"), times("b")), (1, 4, 1), "only the unfinished is posted to again");
    assert!(side.gateway.requests().iter().all(|request| request.body == b"\"m\""));
    assert!(side.dead_letters().await?.is_empty());
    Ok(())
}

/// Here the emulator is laxer than AWS: it delivers what follows a message that waits. The worker's own rules are
/// held by tests on a queue in memory that is as strict as AWS's.
#[tokio::test]
async fn handed_back_on_a_fifo_queue() -> anyhow::Result<()> {
    let failed = AtomicUsize::new(0);
    let side = Side::with("fifo", true, &[], move |_, _| match failed.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => Reply::Answer(429, String::new()),
        _ => ok(),
    })
    .await?;
    let send = side.sqs.send_message().queue_url(&side.delivery.queue_url);
    let body = message("m", json!({ "connection": "a" })).to_string();
    send.message_body(body).message_group_id("g").message_deduplication_id("m").send().await?;
    let poison = side.sqs.send_message().queue_url(&side.delivery.queue_url);
    poison.message_body("no message").message_group_id("h").message_deduplication_id("n").send().await?;
    side.is_empty().await?;
    assert_eq!(side.posted().len(), 3, "it waited in its place, and was posted again");
    let letters = side.dead_letters().await?;
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (letters[0].body(), attribute(&letters[0], "streamer.reason")),
        (Some("no message"), "poison")
    );
    Ok(())
}
