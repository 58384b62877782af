//! Each outcome on the emulator's queue: the real worker posts to a scripted gateway.
//!
//! A slow run exceeds the visibility timeout, and SQS delivers a message again. So the tests require each post and each
//! dead letter at least once, and exclude all others.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime},
};

use aws_sdk_sqs::types::{Message, SendMessageBatchRequestEntry};
use serde_json::{Value, json};
use streamer_cli::stack::{
    Stack,
    build::build,
    deploy::{Delivery, Overrides, deploy_delivery},
};
use streamer_connections::Connection;
use streamer_tests::{
    emulator::stack,
    eventually,
    wire::{Reply, Request, WireGateway},
};
use tokio::sync::watch;

/// The queues' visibility timeout. No test needs a second receive, so it is as long as the worker may run.
const VISIBILITY: Duration = Duration::from_secs(30);

/// Queues and a worker of the test's own, and the gateway that the worker posts to.
pub(crate) struct Deployment {
    pub(crate) stack: Stack,
    pub(crate) sqs: aws_sdk_sqs::Client,
    pub(crate) delivery: Delivery,
    pub(crate) gateway: WireGateway,
}

impl Deployment {
    pub(crate) async fn start(
        name: &str,
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        Self::with(name, false, &[], script).await
    }

    pub(crate) async fn with(
        name: &str,
        fifo: bool,
        variables: &[(&'static str, &str)],
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let variables = variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let overrides = Overrides {
            fifo,
            environment: BTreeMap::from([("delivery", variables)]),
            ..Overrides::default()
        };
        Self::of(name, overrides, script).await
    }

    /// Deploys with these settings, and the tests' visibility timeout unless they have one.
    pub(crate) async fn of(
        name: &str,
        overrides: Overrides,
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let stack = stack().await?;
        let gateway = WireGateway::answering(script).await?;
        let visibility_timeout = overrides.visibility_timeout.or(Some(VISIBILITY));
        let overrides = Overrides { visibility_timeout, ..overrides };
        let (suffix, endpoint) = (format!("-{name}-{}", std::process::id()), gateway.endpoint());
        let delivery =
            deploy_delivery(&stack.config, &suffix, &overrides, &build().await?, &endpoint).await?;
        let sqs = aws_sdk_sqs::Client::new(&stack.config);
        Ok(Self { stack, sqs, delivery, gateway })
    }

    pub(crate) async fn send(&self, body: &Value) -> anyhow::Result<()> {
        let send = self.sqs.send_message().queue_url(&self.delivery.queue_url).message_body(body.to_string());
        send.send().await?;
        Ok(())
    }

    /// Sends messages of one group in a single call, so that a batch holds all of them or none.
    pub(crate) async fn send_to_group(&self, group: &str, bodies: &[&dyn ToString]) -> anyhow::Result<()> {
        let mut send = self.sqs.send_message_batch().queue_url(&self.delivery.queue_url);
        for (index, body) in bodies.iter().enumerate() {
            let entry = SendMessageBatchRequestEntry::builder().id(index.to_string()).message_group_id(group);
            let entry = entry.message_deduplication_id(fastrand::u64(..).to_string());
            send = send.entries(entry.message_body(body.to_string()).build()?);
        }
        let failed = send.send().await?.failed;
        anyhow::ensure!(failed.is_empty(), "{failed:?}");
        Ok(())
    }

    /// Sends a message, and waits until the queues are empty again.
    async fn send_and_settle(&self, body: &Value) -> anyhow::Result<()> {
        self.send(body).await?;
        self.wait_until_empty().await
    }

    pub(crate) async fn wait_until_empty(&self) -> anyhow::Result<()> {
        let Delivery { queue_url, parts_queue_url, .. } = &self.delivery;
        // Messages leave the outbound queue for the parts queue.
        for url in [queue_url, parts_queue_url].into_iter().filter(|url| !url.is_empty()) {
            eventually("the queue is empty", async || self.stack.is_empty(url).await).await?;
        }
        Ok(())
    }

    pub(crate) async fn dead_letters(&self) -> anyhow::Result<Vec<Message>> {
        let receive = self.sqs.receive_message().queue_url(&self.delivery.dead_letter_queue_url);
        let receive = receive.max_number_of_messages(10).message_attribute_names("All").visibility_timeout(0);
        Ok(receive.send().await?.messages.unwrap_or_default())
    }

    /// Returns the dead letter. Further ones have to have the same body.
    async fn dead_letter(&self) -> anyhow::Result<Message> {
        let letters = self.dead_letters().await?;
        let bodies: BTreeSet<_> = letters.iter().map(|letter| letter.body().unwrap_or_default()).collect();
        anyhow::ensure!(bodies.len() == 1, "dead letters: {letters:?}");
        Ok(letters[0].clone())
    }

    /// The connections that were posted to, one per post.
    pub(crate) fn posts(&self) -> Vec<String> {
        self.gateway.requests().iter().map(|request| request.connection().to_owned()).collect()
    }

    /// The connections that were posted to, each once.
    fn recipients(&self) -> BTreeSet<String> {
        self.posts().into_iter().collect()
    }

    /// Writes the row of a connection that this gateway accepted a minute ago.
    async fn row(&self, connection: &str, user: &str) -> anyhow::Result<()> {
        self.row_of("outcomes", user, connection).await
    }

    /// Writes the row of a user's connection that this gateway accepted a minute ago.
    pub(crate) async fn row_of(&self, tenant: &str, user: &str, connection: &str) -> anyhow::Result<()> {
        let connection = Connection {
            connection_id: connection.try_into()?,
            user_id: user.try_into()?,
            tenant_id: tenant.try_into()?,
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

pub(crate) fn message(id: &str, to: Value) -> Value {
    json!({ "version": 1, "id": id, "to": to, "payload": id, "note": [1.0] })
}

fn attribute<'a>(letter: &'a Message, name: &str) -> &'a str {
    let attributes = letter.message_attributes.as_ref();
    attributes.and_then(|attributes| attributes.get(name)?.string_value()).unwrap_or_default()
}

pub(crate) fn ok() -> Reply {
    Reply::Answer(200, String::new())
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[tokio::test]
async fn delivered() -> anyhow::Result<()> {
    let deployment = Deployment::start("delivered", |_, _| ok()).await?;
    deployment.send_and_settle(&message("m", json!({ "connections": ["a", "b"] }))).await?;
    assert_eq!(deployment.recipients(), set(["a", "b"]));
    assert!(deployment.dead_letters().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn gone() -> anyhow::Result<()> {
    let deployment = Deployment::start("gone", |_, _| Reply::Answer(410, String::new())).await?;
    deployment.row("outcome-gone", "gone").await?;
    deployment.send_and_settle(&message("m", json!({ "connection": "outcome-gone" }))).await?;
    let row = deployment.stack.table().get(&"outcome-gone".try_into()?, SystemTime::now()).await?;
    assert_eq!((row, deployment.recipients()), (None, set(["outcome-gone"])));
    assert!(deployment.dead_letters().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn expired() -> anyhow::Result<()> {
    let deployment = Deployment::start("expired", |_, _| ok()).await?;
    let mut body = message("m", json!({ "connection": "a" }));
    body["expires_at"] = json!(1_764_000_000_000_u64);
    deployment.send_and_settle(&body).await?;
    assert!(deployment.posts().is_empty() && deployment.dead_letters().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn superseded() -> anyhow::Result<()> {
    // Two updates wait on a FIFO queue behind a message whose post is not answered yet. One batch holds both.
    let (release, released) = watch::channel(false);
    let script = move |place: usize, _: &Request| match place {
        0 => Reply::Held(released.clone(), 200),
        _ => ok(),
    };
    let deployment = Deployment::with("superseded", true, &[], script).await?;
    let [first, second, third] = [0, 1, 2].map(|seq| {
        let mut body = message(&seq.to_string(), json!({ "connection": "a" }));
        body["request"] = json!({ "id": "r", "seq": seq });
        body["supersedable"] = json!(seq > 0);
        body
    });
    deployment.send_to_group("g", &[&first]).await?;
    eventually("the first message is posted", async || Ok(!deployment.posts().is_empty())).await?;
    deployment.send_to_group("g", &[&second, &third]).await?;
    release.send(true)?;
    deployment.wait_until_empty().await?;
    let mut posted: Vec<_> = deployment.gateway.requests().into_iter().map(|request| request.body).collect();
    posted.dedup();
    assert_eq!(posted, [b"\"0\"", b"\"2\""]);
    Ok(())
}

#[tokio::test]
async fn no_recipient() -> anyhow::Result<()> {
    let variables = [("AWAY_GRACE_SECONDS", "1")];
    let deployment = Deployment::with("no-recipient", false, &variables, |_, _| ok()).await?;
    let to = |user: &str| json!({ "user": { "tenant": "outcomes", "user": user } });
    deployment.row("outcome-here", "here").await?;
    deployment.send(&message("here", to("here"))).await?;
    deployment.send_and_settle(&message("away", to("away"))).await?;
    assert_eq!(deployment.recipients(), set(["outcome-here"]));
    assert!(deployment.dead_letters().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn rejected() -> anyhow::Result<()> {
    let deployment = Deployment::start("rejected", |_, request| match request.connection() {
        "a" => ok(),
        _ => Reply::Answer(413, "{\"message\":\"too large\"}".to_owned()),
    })
    .await?;
    deployment.send_and_settle(&message("m", json!({ "connections": ["a", "b"] }))).await?;
    let letter = deployment.dead_letter().await?;
    let body: Value = serde_json::from_str(letter.body().unwrap_or_default())?;
    assert_eq!(body, message("m", json!({ "connection": "b" })));
    assert_eq!(attribute(&letter, "streamer.reason"), "rejected");
    assert_eq!(attribute(&letter, "streamer.detail"), "413: {\"message\":\"too large\"}");
    Ok(())
}

#[tokio::test]
async fn poison() -> anyhow::Result<()> {
    let deployment = Deployment::start("poison", |_, _| ok()).await?;
    let body = json!("nothing\tthat \u{e9} is a message");
    deployment.send_and_settle(&body).await?;
    let letter = deployment.dead_letter().await?;
    assert_eq!(letter.body(), Some(body.to_string().as_str()));
    assert_eq!(attribute(&letter, "streamer.reason"), "poison");
    assert!(attribute(&letter, "streamer.attempts").parse::<usize>()? >= 1);
    Ok(())
}

#[tokio::test]
async fn exhausted() -> anyhow::Result<()> {
    let throttled = |_: usize, _: &Request| Reply::Answer(429, String::new());
    let variables = [("MAX_AGE_SECONDS", "5"), ("AWAY_GRACE_SECONDS", "5")];
    let deployment = Deployment::with("exhausted", false, &variables, throttled).await?;
    deployment.send_and_settle(&message("m", json!({ "connection": "a" }))).await?;
    let letter = deployment.dead_letter().await?;
    let body: Value = serde_json::from_str(letter.body().unwrap_or_default())?;
    assert_eq!(body, message("m", json!({ "connection": "a" })));
    assert_eq!(attribute(&letter, "streamer.reason"), "exhausted");
    assert_eq!(attribute(&letter, "streamer.detail"), "429");
    // An attempt is a receive, of which each posts. A second dead letter has attempts of its own.
    let attempts = attribute(&letter, "streamer.attempts").parse()?;
    assert!((2..=deployment.posts().len()).contains(&attempts), "{attempts} attempts");
    assert_eq!(deployment.recipients(), set(["a"]));
    Ok(())
}

#[tokio::test]
async fn handed_back() -> anyhow::Result<()> {
    let throttled = AtomicUsize::new(0);
    let deployment = Deployment::start("handed-back", move |_, request| match request.connection() {
        "slow" if throttled.fetch_add(1, Ordering::Relaxed) < 3 => Reply::Answer(429, String::new()),
        _ => ok(),
    })
    .await?;
    deployment.send_and_settle(&message("m", json!({ "connections": ["a", "slow", "b"] }))).await?;
    let posts = deployment.posts();
    let times = |wanted: &str| posts.iter().filter(|connection| *connection == wanted).count();
    let (first, slow, last) = (times("a"), times("slow"), times("b"));
    assert!(first >= 1 && last >= 1, "{posts:?}");
    // A message that is received again is posted to all three, a hand-back only to the unfinished connection.
    assert!(slow >= first + 3 && slow >= last + 3, "{posts:?}");
    assert_eq!(deployment.recipients(), set(["a", "b", "slow"]));
    assert!(deployment.gateway.requests().iter().all(|request| request.body == b"\"m\""));
    assert!(deployment.dead_letters().await?.is_empty());
    Ok(())
}

/// A FIFO queue keeps the message, and the worker posts it again.
///
/// The emulator delivers the messages behind a hidden one, AWS does not. Tests on a queue in memory cover the order.
#[tokio::test]
async fn handed_back_on_a_fifo_queue() -> anyhow::Result<()> {
    let failed = AtomicUsize::new(0);
    let script = move |_: usize, _: &Request| match failed.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => Reply::Answer(429, String::new()),
        _ => ok(),
    };
    let deployment = Deployment::with("fifo", true, &[], script).await?;
    deployment.send_to_group("g", &[&message("m", json!({ "connection": "a" }))]).await?;
    deployment.send_to_group("h", &[&"no message"]).await?;
    deployment.wait_until_empty().await?;
    assert!(deployment.posts().len() >= 3, "{:?}", deployment.posts());
    assert_eq!(deployment.recipients(), set(["a"]));
    let letter = deployment.dead_letter().await?;
    assert_eq!((letter.body(), attribute(&letter, "streamer.reason")), (Some("no message"), "poison"));
    Ok(())
}
