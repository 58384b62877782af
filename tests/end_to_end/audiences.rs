//! Audiences on the emulator: a message reaches every connection of its tenant or user and no other, even when workers
//! crash.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use streamer_producer::Message;
use streamer_tests::{
    emulator::{connect, producer, stack},
    eventually,
};

use crate::arrivals::Arrivals;

/// Connections of each tenant, all of one user. The first tenant has more than one message can name.
const TENANTS: [(&str, usize); 3] = [("many", 420), ("some", 79), ("one", 1)];

/// 500 connections of three tenants receive all messages of their tenant and no others, while workers are killed.
#[tokio::test]
async fn tenants_receive_only_their_own_messages() -> anyhow::Result<()> {
    const MESSAGES: usize = 3;
    let stack = stack().await?;
    let tenants: Vec<_> = TENANTS.iter().flat_map(|(tenant, number)| vec![*tenant; *number]).collect();
    let connect = |tenant: &'static str| connect(&stack, tenant, "anna");
    let sockets: Vec<_> = stream::iter(tenants.clone()).map(connect).buffered(25).try_collect().await?;
    let mut arrivals = Arrivals::of(sockets);

    let messages = TENANTS.iter().flat_map(|(tenant, _)| {
        (0..MESSAGES).map(move |number| {
            let id = format!("{tenant}-{number}");
            Message::tenant(*tenant).id(&id).payload(&json!({ "for": tenant, "id": id }))
        })
    });
    let to_user = TENANTS.iter().map(|(tenant, _)| {
        let id = format!("{tenant}-user");
        Message::user(*tenant, "anna").id(&id).payload(&json!({ "for": tenant, "id": id }))
    });
    let messages = messages.chain(to_user).collect::<Result<Vec<_>, _>>()?;
    producer(&stack.config, &stack.deployed.queue_url).send_all(messages).await?;

    let total: usize = TENANTS.iter().map(|(_, number)| number * (MESSAGES + 1)).sum();
    let is_for_tenant = |index: usize, text: &str| text.contains(&format!(r#""for":"{}""#, tenants[index]));
    let (mut counts, mut kills) = (HashMap::<(usize, String), usize>::new(), 0);
    while counts.len() < total {
        let arrived = counts.len();
        let (index, text) = arrivals.next(|| format!("{arrived} of {total} frames arrived")).await?;
        assert!(is_for_tenant(index, &text), "{} received {text}", tenants[index]);
        *counts.entry((index, text)).or_default() += 1;
        if [1, total / 3, total / 2].contains(&counts.len()) {
            kills += stack.processes("delivery")?.kill();
        }
    }
    assert!(kills > 0, "no worker was running");
    // A message of another tenant could still be on the queue.
    eventually("the queue is empty", async || stack.is_empty(&stack.deployed.queue_url).await).await?;
    let parts = &stack.deployed.parts_queue_url;
    eventually("the parts queue is empty", async || stack.is_empty(parts).await).await?;
    while let Some((index, text)) = arrivals.try_next() {
        assert!(is_for_tenant(index, &text), "{} received {text}", tenants[index]);
        *counts.entry((index, text)).or_default() += 1;
    }
    let repeated = counts.values().filter(|times| **times > 1).count();
    println!(
        "500 sockets of 3 tenants: {total} frames arrived, {repeated} of them again, {kills} workers killed"
    );
    assert_eq!(counts.len(), total);
    Ok(())
}
