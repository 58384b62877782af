//! The parts queue on the emulator: a reply beside a broadcast, a worker that is killed, and dead letters of parts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use anyhow::Context as _;
use aws_sdk_lambda::types::ScalingConfig;
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::{Value, json};
use streamer_cli::stack::{
    Stack,
    build::build,
    deploy::{Delivery, Overrides, deploy_delivery},
    processes::Processes,
};
use streamer_producer::Message;
use streamer_tests::{
    command::{Streamer, output},
    emulator::{connect, producer, stack},
    eventually,
    wire::{Reply, Request},
};
use tokio::sync::watch;

use crate::{
    arrivals::Arrivals,
    outcomes::{Deployment, message, ok},
    worker_receipts::{asking, receipts},
};

/// The smallest maximum concurrency of a mapping.
const INVOCATIONS: i32 = 2;

/// Limits each of the worker's mappings as in a deployment in the smallest account.
async fn limit_mappings(stack: &Stack, delivery: &Delivery) -> anyhow::Result<()> {
    let lambda = aws_sdk_lambda::Client::new(&stack.config);
    let list = lambda.list_event_source_mappings().function_name(&delivery.function).send().await?;
    let mappings = list.event_source_mappings.unwrap_or_default();
    anyhow::ensure!(mappings.len() == 2, "{mappings:?}");
    for mapping in mappings {
        let scaling = ScalingConfig::builder().maximum_concurrency(INVOCATIONS).build();
        let update = lambda.update_event_source_mapping().set_uuid(mapping.uuid);
        update.scaling_config(scaling).send().await?;
    }
    Ok(())
}

/// Broadcasts make more parts than all invocations of a mapping take, and each environment posts once a second. A reply
/// that is published then arrives before half of the broadcasts, and every socket receives each message once.
#[tokio::test]
async fn reply_arrives_in_the_middle_of_broadcasts() -> anyhow::Result<()> {
    const TENANT: &str = "parts-broadcast";
    const SOCKETS: usize = 8;
    const BROADCASTS: usize = 5;
    let stack = stack().await?;
    let environment = BTreeMap::from([("MAX_POSTS_PER_SECOND", "1".to_owned())]);
    let overrides = Overrides {
        // SQS delivers no message again while a slow run lasts.
        visibility_timeout: Some(Duration::from_secs(600)),
        environment: [("delivery", environment)].into(),
        ..Overrides::default()
    };
    let (suffix, endpoint) =
        (format!("-{TENANT}-{}", std::process::id()), &stack.deployed.management_endpoint);
    let delivery = deploy_delivery(&stack.config, &suffix, &overrides, &build().await?, endpoint).await?;
    limit_mappings(&stack, &delivery).await?;
    let mut sockets = Vec::new();
    for user in 0..SOCKETS {
        sockets.push(connect(&stack, TENANT, &format!("user-{user}")).await?);
    }
    let mut arrivals = Arrivals::of(sockets);

    let producer = producer(&stack.config, &delivery.queue_url);
    let broadcasts = (0..BROADCASTS).map(|number| Message::tenant(TENANT).payload(&format!("news-{number}")));
    producer.send_all(broadcasts.collect::<Result<Vec<_>, _>>()?).await?;
    let mut frames = vec![arrivals.next(|| "no frame of a broadcast".to_owned()).await?];
    eventually("every broadcast is parts", async || stack.is_empty(&delivery.queue_url).await).await?;
    assert!(!stack.is_empty(&delivery.parts_queue_url).await?, "no part is on the parts queue");
    while let Some(frame) = arrivals.try_next() {
        frames.push(frame);
    }
    let published = frames.len();
    producer.send(Message::user(TENANT, "user-3").payload(&"reply")?).await?;

    let total = SOCKETS * BROADCASTS + 1;
    while frames.len() < total {
        let arrived = frames.len();
        frames.push(arrivals.next(|| format!("{arrived} of {total} frames arrived")).await?);
    }
    for url in [&delivery.queue_url, &delivery.parts_queue_url] {
        eventually("the queue is empty", async || stack.is_empty(url).await).await?;
    }
    assert_eq!(arrivals.try_next(), None, "after {frames:?}");
    let place = frames.iter().position(|frame| *frame == (3, "\"reply\"".to_owned())).unwrap();
    let (before, after) = (place - published, frames.len() - 1 - place);
    println!("a reply arrived after {before} frames of broadcasts, and before {after}");
    assert!(before < after, "{before} frames passed the reply, and {after} came after it");

    let mut counts = HashMap::<(usize, String), usize>::new();
    for frame in frames {
        *counts.entry(frame).or_default() += 1;
    }
    assert_eq!((counts.len(), counts.values().max()), (total, Some(&1)), "{counts:?}");
    assert!(stack.is_empty(&delivery.dead_letter_queue_url).await?, "a dead letter");
    Ok(())
}

/// Kills the workers of a deployment, and returns their number.
fn kill(deployment: &Deployment) -> anyhow::Result<usize> {
    let endpoint = &deployment.stack.deployed.endpoint_url;
    Ok(Processes::of_function(&deployment.delivery.function, endpoint)?.kill())
}

/// Returns settings with which the parts of a killed worker soon return.
fn soon_visible() -> Overrides {
    Overrides { visibility_timeout: Some(Duration::from_secs(4)), ..Overrides::default() }
}

/// Half of a tenant's connections have their message when the worker is killed.
#[tokio::test]
async fn killed_worker_loses_no_part() -> anyhow::Result<()> {
    const TENANT: &str = "parts-killed";
    let (release, released) = watch::channel(false);
    let script = move |_: usize, request: &Request| match request.connection().starts_with("held") {
        true => Reply::Held(released.clone(), 200),
        false => ok(),
    };
    let deployment = Deployment::of(TENANT, soon_visible(), script).await?;
    let names: Vec<_> =
        (0..24).map(|number| format!("{}-{number}", if number % 2 == 0 { "held" } else { "now" })).collect();
    for name in &names {
        deployment.row_of(TENANT, name, name).await?;
    }
    deployment.send(&asking("all", json!({ "tenant": TENANT }))).await?;
    let posted = |start: &str| deployment.posts().iter().any(|name| name.starts_with(start));
    eventually("the worker is in the middle", async || Ok(posted("held") && posted("now"))).await?;
    eventually("the tenant's message is parts", async || {
        deployment.stack.is_empty(&deployment.delivery.queue_url).await
    })
    .await?;
    assert!(kill(&deployment)? > 0, "no worker was running");
    release.send(true)?;

    let received = receipts(&deployment, ["all"]).await?;
    assert_eq!(received["all"].connections(), json!({ "delivered": names.len() }));
    deployment.wait_until_empty().await?;
    let posts: BTreeSet<_> = deployment.posts().into_iter().collect();
    assert_eq!(posts, names.into_iter().collect());
    assert!(deployment.dead_letters().await?.is_empty());
    Ok(())
}

/// SQS moves a part to the dead-letter queue when workers crash with it, and `streamer redrive` sends it to the outbound
/// queue.
#[tokio::test]
async fn part_of_crashing_workers_is_redriven() -> anyhow::Result<()> {
    const NAME: &str = "parts-crashing";
    let (release, released) = watch::channel(false);
    let script = move |_: usize, _: &Request| Reply::Held(released.clone(), 200);
    let deployment = Deployment::of(NAME, soon_visible(), script).await?;
    let Delivery { queue_url, parts_queue_url, .. } = &deployment.delivery;
    // Two receives instead of ten, to save time.
    let (sqs, policy) = (&deployment.sqs, QueueAttributeName::RedrivePolicy);
    let get =
        sqs.get_queue_attributes().queue_url(parts_queue_url).attribute_names(policy.clone()).send().await?;
    let found = get.attributes.and_then(|mut all| all.remove(&policy)).context("no redrive policy")?;
    let mut fewer: Value = serde_json::from_str(&found)?;
    fewer["maxReceiveCount"] = 2.into();
    sqs.set_queue_attributes()
        .queue_url(parts_queue_url)
        .attributes(policy, fewer.to_string())
        .send()
        .await?;

    let part = message("part", json!({ "connections": ["a", "b"] }));
    sqs.send_message().queue_url(parts_queue_url).message_body(part.to_string()).send().await?;
    let (mut posts, mut kills) = (0, 0);
    eventually("SQS moves the part to the dead-letter queue", async || {
        if deployment.posts().len() > posts {
            kills += kill(&deployment)?;
            posts = deployment.posts().len();
        }
        Ok(!deployment.dead_letters().await?.is_empty())
    })
    .await?;
    assert!(kills >= 2 && deployment.stack.is_empty(parts_queue_url).await?, "{kills} workers were killed");

    let streamer = Streamer::new(NAME).await?;
    let redrive = async |more: &[&str]| {
        let arguments =
            ["redrive", "--aws", "--queue-url", queue_url].into_iter().chain(more.iter().copied());
        output(streamer.spawn_at(&deployment.stack.deployed.endpoint_url, arguments)?).await
    };
    let listed = redrive(&[]).await?;
    assert!(listed.out.contains("crashed_or_throttled"), "{listed:?}");
    release.send(true)?;
    let posts = deployment.posts().len();
    let sent = redrive(&["--send"]).await?;
    assert!(sent.success && sent.out.contains("sent back: 1"), "{sent:?}");
    eventually("the redriven part is posted", async || {
        Ok(deployment.posts()[posts..].iter().collect::<BTreeSet<_>>().len() == 2)
    })
    .await?;
    deployment.wait_until_empty().await?;
    assert!(deployment.stack.is_empty(&deployment.delivery.dead_letter_queue_url).await?);
    Ok(())
}
