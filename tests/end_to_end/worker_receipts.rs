//! Receipts of the real worker, read from the emulator's receipts queue.
//!
//! A slow run exceeds the visibility timeout, and SQS delivers a message again. So a message may have several receipts,
//! of which the best one counts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod consumer;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::future::try_join_all;
use serde_json::{Value, json};
use streamer_cli::stack::{deploy::Overrides, processes::Processes};
use streamer_message::{Receipt, ReceiptOutcome, ReceiptTally};
use streamer_producer::Message;
use streamer_tests::{
    emulator::producer,
    eventually,
    wire::{Reply, Request},
};
use tokio::sync::watch;

use crate::{
    languages::validate,
    outcomes::{Deployment, message, ok},
};

/// The receipts of one message.
#[derive(Debug, Default)]
pub(crate) struct Received {
    receipts: Vec<Receipt>,
    tally: ReceiptTally,
}

impl Received {
    /// Returns the best receipt.
    fn best(&self) -> &Receipt {
        self.receipts.iter().min_by_key(|receipt| receipt.outcome).unwrap()
    }

    /// Returns the number of connections for each outcome, over all parts.
    pub(crate) fn connections(&self) -> Value {
        json!(self.tally.connections())
    }
}

/// Reads and deletes receipts until those of each message are there.
pub(crate) async fn receipts<'a>(
    deployment: &Deployment,
    ids: impl IntoIterator<Item = &'a str>,
) -> anyhow::Result<BTreeMap<String, Received>> {
    let (sqs, url) = (&deployment.sqs, &deployment.delivery.receipts_queue_url);
    let (mut received, ids) = (BTreeMap::<String, Received>::new(), ids.into_iter().collect::<Vec<_>>());
    eventually("each message has its receipts", async || {
        let receive = sqs.receive_message().queue_url(url).max_number_of_messages(10);
        for found in receive.send().await?.messages.unwrap_or_default() {
            let body = found.body.unwrap_or_default();
            let event: Value = serde_json::from_str(&body)?;
            validate("receipt.v1.json", &event["data"])?;
            let receipt = Receipt::decode(&body)?;
            let of_message = received.entry(receipt.id.to_string()).or_default();
            of_message.tally.add(receipt.clone());
            of_message.receipts.push(receipt);
            sqs.delete_message().queue_url(url).set_receipt_handle(found.receipt_handle).send().await?;
        }
        Ok(ids.iter().all(|id| received.get(*id).is_some_and(|of_message| of_message.tally.is_complete())))
    })
    .await?;
    Ok(received)
}

/// Builds a message that asks for a receipt.
pub(crate) fn asking(id: &str, to: Value) -> Value {
    with(id, to, "receipt", true.into())
}

/// Builds a message that asks for a receipt, with a further field.
fn with(id: &str, to: Value, field: &str, value: Value) -> Value {
    let mut body = message(id, to);
    body["receipt"] = true.into();
    body[field] = value;
    body
}

/// Answers each connection with the status in its name, such as `429-a`.
fn by_name(_: usize, request: &Request) -> Reply {
    let status = request.connection().get(..3).and_then(|status| status.parse().ok());
    Reply::Answer(status.unwrap_or(200), String::new())
}

#[tokio::test]
async fn each_outcome_has_its_receipt() -> anyhow::Result<()> {
    let deployment = Deployment::with("receipts", false, &[("AWAY_GRACE_SECONDS", "1")], by_name).await?;
    let to = |connection: &str| json!({ "connection": connection });
    let away = json!({ "user": { "tenant": "receipts", "user": "away" } });
    let retry = json!({ "count": 9, "receives": 0, "since": 0, "cause": "429" });
    let mut poison = asking("poison", to("200-a"));
    poison.as_object_mut().unwrap().remove("payload");
    let several = json!({ "connections": ["200-a", "200-b", "410-c"] });
    for body in [
        asking("delivered", several.clone()),
        asking("gone", to("410-a")),
        with("expired", to("200-a"), "expires_at", 1_764_000_000_000_u64.into()),
        asking("no_recipient", away.clone()),
        with("kept", away, "keep", 3600.into()),
        asking("rejected", to("413-a")),
        with("exhausted", to("429-a"), "retry", retry),
        poison,
        message("unasked", to("200-a")),
    ] {
        deployment.send(&body).await?;
    }

    let expected = [
        ("delivered", json!({ "delivered": 2, "gone": 1 })),
        ("gone", json!({ "gone": 1 })),
        ("expired", json!({ "expired": 1 })),
        ("no_recipient", json!({})),
        ("kept", json!({})),
        ("rejected", json!({ "rejected": 1 })),
        ("exhausted", json!({ "exhausted": 1 })),
        ("poison", json!({})),
    ];
    let received = receipts(&deployment, expected.iter().map(|(id, _)| *id)).await?;
    for (id, connections) in &expected {
        let found = &received[*id];
        assert_eq!((found.best().outcome.as_str(), &found.connections()), (*id, connections), "{found:?}");
        let has_cause = ["rejected", "exhausted", "poison"].contains(id);
        assert_eq!(found.best().cause.is_some(), has_cause, "{found:?}");
        assert!(found.best().attempts >= Some(1), "{found:?}");
    }
    assert_eq!(json!(received["delivered"].best().to), several);
    assert!(received["kept"].best().kept.is_some(), "a kept message has a position");

    deployment.wait_until_empty().await?;
    assert!(deployment.stack.is_empty(&deployment.delivery.receipts_queue_url).await?);
    assert!(!received.contains_key("unasked"));
    Ok(())
}

/// Two updates wait on a FIFO queue behind a message whose post is not answered yet. One batch holds both.
#[tokio::test]
async fn superseded_update_has_its_receipt() -> anyhow::Result<()> {
    let (release, released) = watch::channel(false);
    let script = move |place: usize, _: &Request| match place {
        0 => Reply::Held(released.clone(), 200),
        _ => ok(),
    };
    let deployment = Deployment::with("receipts-fifo", true, &[], script).await?;
    let [first, second, third] = [("first", 0), ("second", 1), ("third", 2)].map(|(id, seq)| {
        let request = json!({ "id": "r", "seq": seq });
        let mut body = with(id, json!({ "connection": "a" }), "request", request);
        body["supersedable"] = json!(seq > 0);
        body
    });
    deployment.send_to_group("g", &[&first]).await?;
    eventually("the first message is posted", async || Ok(!deployment.posts().is_empty())).await?;
    deployment.send_to_group("g", &[&second, &third]).await?;
    release.send(true)?;
    let received = receipts(&deployment, ["first", "second", "third"]).await?;
    let outcomes = ["first", "second", "third"].map(|id| received[id].best().outcome.as_str());
    assert_eq!(outcomes, ["delivered", "superseded", "delivered"]);
    assert_eq!(json!(received["second"].best().request), json!({ "id": "r", "seq": 1 }));
    Ok(())
}

#[tokio::test]
async fn parts_of_large_audiences_add_up() -> anyhow::Result<()> {
    const TENANT: &str = "receipts-parts";
    let deployment = Deployment::with("receipts-parts", false, &[], by_name).await?;
    // A worker expands a user with up to 200 connections itself, and a producer's body names up to 100.
    let names = (0..240).map(|number| format!("{}-part-{number}", if number % 12 == 0 { 410 } else { 200 }));
    let names: Vec<_> = names.collect();
    try_join_all(names.iter().map(|name| deployment.row_of(TENANT, "anna", name))).await?;

    deployment.send(&asking("tenant", json!({ "tenant": TENANT }))).await?;
    let received = receipts(&deployment, ["tenant"]).await?;
    let tenant = &received["tenant"];
    let expanded = tenant.receipts.iter().find(|receipt| receipt.part.is_none()).unwrap();
    assert_eq!(
        (expanded.outcome, tenant.tally.outcome()),
        (ReceiptOutcome::Expanded, Some(ReceiptOutcome::Delivered))
    );
    assert_eq!(tenant.connections(), json!({ "delivered": 220, "gone": 20 }));
    for receipt in &tenant.receipts {
        assert_eq!(json!(receipt.to), json!({ "tenant": TENANT }), "{receipt:?}");
    }

    // The tenant's message has removed the rows of the connections that were gone.
    deployment.send(&asking("user", json!({ "user": { "tenant": TENANT, "user": "anna" } }))).await?;
    let named = Message::connections(names.iter().map(String::as_str)).id("named").receipt();
    producer(&deployment.stack.config, &deployment.delivery.queue_url).send(named.payload(&1)?).await?;
    let received = receipts(&deployment, ["user", "named"]).await?;
    assert_eq!(received["user"].connections(), json!({ "delivered": 220 }));
    assert!(received["user"].receipts.iter().any(|receipt| receipt.outcome == ReceiptOutcome::Expanded));
    assert_eq!(received["named"].connections(), json!({ "delivered": 220, "gone": 20 }));
    let parts: BTreeSet<_> =
        received["named"].receipts.iter().filter_map(|receipt| receipt.part.as_deref()).collect();
    assert_eq!(parts, BTreeSet::from(["1/3", "2/3", "3/3"]));
    Ok(())
}

/// A worker is killed while one of its posts is not answered. The messages of its batch are delivered again, and some
/// of them are handed back: each receipt still counts each connection once.
#[tokio::test]
async fn killed_worker_loses_no_receipt() -> anyhow::Result<()> {
    const MESSAGES: usize = 25;
    let (release, released) = watch::channel(false);
    let throttled = Mutex::new(HashSet::new());
    let script = move |place: usize, request: &Request| {
        let connection = request.connection();
        let mut throttled = throttled.lock().unwrap_or_else(PoisonError::into_inner);
        match connection {
            "held" => Reply::Held(released.clone(), 200),
            _ if connection.starts_with("slow") && throttled.insert(connection.to_owned()) => {
                Reply::Answer(429, String::new())
            }
            _ => by_name(place, request),
        }
    };
    let overrides = Overrides { visibility_timeout: Some(Duration::from_secs(4)), ..Overrides::default() };
    let deployment = Deployment::of("receipts-killed", overrides, script).await?;
    let ids: Vec<_> = (0..MESSAGES).map(|number| format!("m{number}")).collect();
    for (number, id) in ids.iter().enumerate() {
        let last = if number == 0 { "held".to_owned() } else { format!("slow-{number}") };
        let to = json!({ "connections": [format!("200-{number}"), format!("410-{number}"), last] });
        deployment.send(&asking(id, to)).await?;
    }
    eventually("a post is not answered", async || Ok(deployment.posts().iter().any(|post| post == "held")))
        .await?;
    let endpoint = &deployment.stack.deployed.endpoint_url;
    assert!(Processes::of_function(&deployment.delivery.function, endpoint)?.kill() > 0);
    release.send(true)?;

    let received = receipts(&deployment, ids.iter().map(String::as_str)).await?;
    for id in &ids {
        let found = &received[id];
        assert_eq!(found.connections(), json!({ "delivered": 2, "gone": 1 }), "{found:?}");
        assert_eq!(found.tally.outcome(), Some(ReceiptOutcome::Delivered));
    }
    let held = deployment.posts().iter().filter(|post| *post == "held").count();
    assert!(held >= 2, "the message was not delivered again");
    Ok(())
}
