//! Delivery from a FIFO queue. The worker hands nothing back, because a message sent again would go to the end of
//! its message group: it reports the record and all later ones of the group.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use delivery_worker::admission::Gate;
use serde_json::{Value, json};
use streamer_events::SqsEvent;
use streamer_queue::QueueKind;
use streamer_tests::{
    doubles::{Entry, QueueDouble, TableDouble},
    event::{EPOCH_MILLIS, batch, message},
    gateway::{MemoryGateway, status},
    worker::Rig,
};

use crate::{answering, ids, long_ago};

/// Builds an event of messages with their message groups. A string is a body that is no message.
fn grouped<const N: usize>(messages: [(&str, Value); N]) -> SqsEvent {
    let (groups, bodies): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
    let mut event = batch(bodies.iter().map(|body| match body {
        Value::String(body) => body.clone(),
        message => message.to_string(),
    }));
    for (record, group) in event.records.iter_mut().zip(groups) {
        record.attributes.insert("MessageGroupId".to_owned(), group.to_owned());
    }
    event
}

/// Returns the ids of the messages that were posted, in order of the posts.
fn posted(rig: &Rig) -> Vec<String> {
    let id = |payload: &[u8]| String::from_utf8_lossy(payload).replace('"', "");
    rig.worker.gateway.posts().iter().map(|post| id(&post.payload)).collect()
}

/// Builds a worker whose posts to one connection get the status `code`.
fn failing(failing: &'static str, code: u16) -> Rig {
    Rig::fifo(answering(move |connection| status(if connection == failing { code } else { 200 })))
}

/// A message group is one lane for all its connections; the lanes of different groups run in parallel.
#[tokio::test(start_paused = true)]
async fn groups_run_in_order_and_in_parallel() -> anyhow::Result<()> {
    let rig = Rig::fifo(MemoryGateway::scripted(|connection, _| {
        (Duration::from_millis(if connection == "slow" { 100 } else { 10 }), status(200))
    }));
    let event = grouped([
        ("g", message("1", &["slow", "a"])),
        ("g", message("2", &["b"])),
        ("h", message("3", &["a", "b"])),
        ("g", message("4", &["slow"])),
    ]);
    assert_eq!(rig.invoke(event).await?, ids([]));
    assert_eq!(posted(&rig), ["1", "1", "3", "3", "2", "4"]);
    Ok(())
}

/// The failed record and all later ones of its group are reported, and hidden for the same time.
#[tokio::test(start_paused = true)]
async fn failure_reports_rest_of_group() -> anyhow::Result<()> {
    let rig = failing("b", 429);
    let event = grouped([
        ("g", message("1", &["a"])),
        ("g", message("2", &["a", "b"])),
        ("h", message("3", &["a"])),
        ("g", message("4", &["a"])),
        ("g", message("5", &["c"])),
    ]);
    assert_eq!(rig.invoke(event).await?, ids(["record-1", "record-3", "record-4"]));
    let mut posted = posted(&rig);
    posted.sort_unstable();
    assert_eq!(posted, ["1", "2", "2", "3"], "no later message of the group is posted");
    assert!(rig.handed_back().is_empty() && rig.dead().is_empty(), "nothing is handed back");
    let hidden = rig.outbound.waits();
    let (receipts, seconds): (Vec<_>, BTreeSet<_>) =
        hidden.iter().map(|(receipt, seconds)| (receipt.as_str(), *seconds)).unzip();
    assert_eq!(receipts, ["receipt-1", "receipt-3", "receipt-4"]);
    assert!(seconds.len() == 1 && seconds.iter().all(|seconds| (0..=1).contains(seconds)), "{seconds:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn visibility_timeout_grows_with_receive_count() -> anyhow::Result<()> {
    let mut delays = BTreeSet::new();
    for seed in 0..200 {
        fastrand::seed(seed);
        let rig = failing("a", 503);
        let mut event = grouped([("g", message("1", &["a"]))]);
        event.records[0].attributes.insert("ApproximateReceiveCount".to_owned(), "4".to_owned());
        rig.invoke(event).await?;
        delays.extend(rig.outbound.waits().into_iter().map(|(_, seconds)| seconds));
    }
    assert_eq!(delays, (0..=8).collect());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn high_receive_count_exhausts_no_message() -> anyhow::Result<()> {
    let rig = failing("a", 503);
    let mut event = grouped([("g", message("1", &["a"]))]);
    event.records[0].attributes.insert("ApproximateReceiveCount".to_owned(), "900".to_owned());
    assert_eq!(rig.invoke(event).await?, ids(["record-0"]));
    assert!(rig.dead().is_empty());
    Ok(())
}

/// The message is not posted, and later messages of its group wait until the next invocation.
#[tokio::test(start_paused = true)]
async fn message_past_max_age_becomes_dead_letter() -> anyhow::Result<()> {
    let rig = Rig::fifo(MemoryGateway::always(status(200)));
    let mut event =
        grouped([("g", message("1", &["a"])), ("g", message("2", &["a"])), ("h", message("3", &["a"]))]);
    let first_received = (EPOCH_MILLIS - 7_800_000).to_string();
    event.records[0].attributes.insert("ApproximateFirstReceiveTimestamp".to_owned(), first_received);
    assert_eq!(rig.invoke(event).await?, ids(["record-1"]));
    assert_eq!(posted(&rig), ["3"]);
    let dead = rig.dead();
    assert_eq!((dead.len(), dead[0].json()), (1, message("1", &["a"])));
    assert_eq!(dead[0].attribute("streamer.reason"), "exhausted");
    assert_eq!(
        (dead[0].group.as_deref(), dead[0].delay),
        (Some("g"), None),
        "a FIFO queue accepts no delay for a message"
    );
    assert!(dead[0].deduplication_id.is_some());
    Ok(())
}

/// Poison and rejected messages keep their group; the later messages of the group are reported.
#[tokio::test(start_paused = true)]
async fn dead_letter_keeps_group_and_delays_rest() -> anyhow::Result<()> {
    for (second, reason) in [(json!("no message"), "poison"), (message("2", &["b"]), "rejected")] {
        let rig = failing("b", 413);
        let event = grouped([("g", message("1", &["a"])), ("g", second), ("g", message("3", &["a"]))]);
        assert_eq!(rig.invoke(event).await?, ids(["record-2"]), "{reason}");
        assert!(!posted(&rig).contains(&"3".to_owned()));
        let dead = rig.dead();
        assert_eq!((dead.len(), dead[0].attribute("streamer.reason")), (1, reason));
        assert_eq!(dead[0].group.as_deref(), Some("g"));
        let hidden = rig.outbound.waits();
        assert!(hidden.len() == 1 && hidden[0].0 == "receipt-2" && hidden[0].1 <= 1, "{hidden:?}");
    }
    Ok(())
}

/// Poison keeps its position in the group: it becomes a dead letter only after the earlier messages.
#[tokio::test(start_paused = true)]
async fn poison_behind_a_failure_waits() -> anyhow::Result<()> {
    let rig = failing("b", 429);
    let event =
        grouped([("g", message("1", &["b"])), ("g", json!("no message")), ("h", json!("no message"))]);
    assert_eq!(rig.invoke(event).await?, ids(["record-0", "record-1"]));
    assert_eq!(rig.dead().len(), 1, "only the poison of the other group");
    Ok(())
}

/// The record of the unconfirmed dead letter is reported too.
#[tokio::test(start_paused = true)]
async fn unconfirmed_dead_letter_reports_rest_of_group() -> anyhow::Result<()> {
    let rig = Rig::of(
        QueueKind::Fifo,
        answering(|connection| status(if connection == "b" { 413 } else { 200 })),
        TableDouble::default(),
        QueueDouble::taking(),
        QueueDouble::new(|_| Entry::NotTaken),
    );
    let event =
        grouped([("g", message("1", &["a"])), ("g", message("2", &["b"])), ("g", message("3", &["a"]))]);
    assert_eq!(rig.invoke(event).await?, ids(["record-1", "record-2"]));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn absent_user_holds_up_group() -> anyhow::Result<()> {
    let rig = Rig::fifo(MemoryGateway::always(status(200)));
    let to = json!({ "user": { "tenant": "acme", "user": "anna" } });
    let away = json!({ "version": 1, "id": "2", "to": to, "payload": 1 });
    let event = grouped([("g", message("1", &["a"])), ("g", away), ("g", message("3", &["a"]))]);
    assert_eq!(rig.invoke(event).await?, ids(["record-1", "record-2"]));
    assert_eq!(posted(&rig), ["1"]);
    Ok(())
}

/// Later messages of the batch are not posted to the gone connection.
#[tokio::test(start_paused = true)]
async fn gone_connection_does_not_hold_up_group() -> anyhow::Result<()> {
    let rig = failing("b", 410);
    let event = grouped([("g", message("1", &["a", "b"])), ("g", message("2", &["a", "b"]))]);
    assert_eq!(rig.invoke(event).await?, ids([]));
    assert_eq!(posted(&rig), ["1", "1", "2"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn panic_holds_up_only_its_group() -> anyhow::Result<()> {
    let rig = Rig::fifo(answering(|connection| match connection {
        "b" => panic!("scripted panic"),
        _ => status(200),
    }));
    let event =
        grouped([("g", message("1", &["b"])), ("h", message("2", &["a"])), ("g", message("3", &["a"]))]);
    assert_eq!(rig.invoke(event).await?, ids(["record-0", "record-2"]));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn user_with_gone_connections_holds_up_group() -> anyhow::Result<()> {
    let rig = Rig::of(
        QueueKind::Fifo,
        answering(|connection| status(if connection == "stale" { 410 } else { 200 })),
        TableDouble::of_user([("stale", crate::long_ago())], || true),
        QueueDouble::taking(),
        QueueDouble::taking(),
    );
    let to = json!({ "user": { "tenant": "acme", "user": "anna" } });
    let user = json!({ "version": 1, "id": "1", "to": to, "payload": 1 });
    assert_eq!(
        rig.invoke(grouped([("g", user), ("g", message("2", &["a"]))])).await?,
        ids(["record-0", "record-1"])
    );
    assert_eq!(posted(&rig), ["1"]);
    Ok(())
}

/// Builds a worker with 10 posts a second, and a user with 400 connections: an invocation reaches 280 of them.
fn large_user() -> Rig {
    let names: Vec<_> = (0..400).map(|number| format!("c{number}")).collect();
    let table = TableDouble::of_user(names.iter().map(|name| (name.as_str(), long_ago())), || true);
    let gateway = MemoryGateway::scripted(|_, _| (Duration::from_millis(20), status(200)));
    let mut rig = Rig::of(QueueKind::Fifo, gateway, table, QueueDouble::taking(), QueueDouble::taking());
    rig.worker.gate = Gate::new(Some(10));
    rig
}

/// Builds an event with a message for the user `anna` and its receive count.
fn to_anna(receive_count: usize) -> SqsEvent {
    let to = json!({ "user": { "tenant": "acme", "user": "anna" } });
    let mut event = grouped([("g", json!({ "version": 1, "id": "m", "to": to, "payload": 1 }))]);
    event.records[0].attributes.insert("ApproximateReceiveCount".to_owned(), receive_count.to_string());
    event
}

#[tokio::test(start_paused = true)]
async fn large_user_is_served_over_two_invocations() -> anyhow::Result<()> {
    let rig = large_user();
    assert_eq!(rig.invoke(to_anna(1)).await?, ids(["record-0"]));
    assert_eq!(rig.invoke(to_anna(2)).await?, ids([]));
    let mut posts: BTreeMap<String, usize> = BTreeMap::new();
    rig.worker.gateway.posts().into_iter().for_each(|post| *posts.entry(post.connection).or_default() += 1);
    assert_eq!((posts.len(), posts.values().max()), (400, Some(&1)));
    assert!(rig.dead().is_empty());
    Ok(())
}

/// Each invocation runs in a new execution environment, which does not know the earlier posts.
#[tokio::test(start_paused = true)]
async fn new_environments_reach_every_connection() -> anyhow::Result<()> {
    fastrand::seed(7);
    let mut reached = BTreeSet::new();
    for receive_count in 1..=20 {
        let rig = large_user();
        assert_eq!(
            rig.invoke(to_anna(receive_count)).await?,
            ids(["record-0"]),
            "connections without a post remain"
        );
        reached.extend(rig.worker.gateway.posts().into_iter().map(|post| post.connection));
    }
    assert_eq!(reached.len(), 400);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn delivered_pair_is_not_posted_again() -> anyhow::Result<()> {
    let rig = Rig::fifo(MemoryGateway::scripted(|connection, nth| {
        (Duration::ZERO, status(if connection == "b" && nth == 0 { 429 } else { 200 }))
    }));
    let event = || grouped([("g", message("1", &["a", "b"])), ("g", message("2", &["a"]))]);
    assert_eq!(rig.invoke(event()).await?, ids(["record-0", "record-1"]));
    assert_eq!(rig.invoke(event()).await?, ids([]));
    assert_eq!(rig.worker.gateway.texts("a"), ["\"1\"", "\"2\""]);
    assert_eq!(rig.worker.gateway.texts("b").len(), 2);
    Ok(())
}

/// One connection has the message, so the worker does not wait for the user when the other connection is gone.
#[tokio::test(start_paused = true)]
async fn worker_does_not_await_reached_user() -> anyhow::Result<()> {
    let rig = Rig::of(
        QueueKind::Fifo,
        MemoryGateway::scripted(|connection, nth| {
            let code = if connection == "a" { 200 } else { [429, 410][nth.min(1)] };
            (Duration::ZERO, status(code))
        }),
        TableDouble::of_user([("a", long_ago()), ("b", long_ago())], || true),
        QueueDouble::taking(),
        QueueDouble::taking(),
    );
    assert_eq!(rig.invoke(to_anna(1)).await?, ids(["record-0"]));
    assert_eq!(rig.invoke(to_anna(2)).await?, ids([]));
    assert_eq!((rig.worker.gateway.texts("a").len(), rig.worker.gateway.texts("b").len()), (1, 2));
    Ok(())
}
