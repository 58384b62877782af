//! What is different on a FIFO queue: nothing is sent again, since it would lose its place.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aws_lambda_events::sqs::SqsEvent;
use delivery_worker::{admission::Gate, plan::Order};
use serde_json::{Value, json};
use streamer_tests::{
    doubles::{Entry, QueueDouble, TableDouble},
    event::{EPOCH_MILLIS, batch, message},
    gateway::{MemoryGateway, status},
    worker::Rig,
};

use crate::{answering, ids, old};

/// Messages with their groups.
fn grouped<const N: usize>(messages: [(&str, Value); N]) -> SqsEvent {
    let (groups, bodies): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
    let mut event = batch(bodies.iter().map(|body| match body {
        Value::String(poison) => poison.clone(),
        message => message.to_string(),
    }));
    for (record, group) in event.records.iter_mut().zip(groups) {
        record.attributes.insert("MessageGroupId".to_owned(), group.to_owned());
    }
    event
}

fn texts(rig: &Rig) -> Vec<String> {
    let text = |payload: &[u8]| String::from_utf8_lossy(payload).replace('"', "");
    rig.worker.gateway.posts().iter().map(|post| text(&post.payload)).collect()
}

fn failing(connection: &'static str, code: u16) -> Rig {
    Rig::fifo(answering(move |posted| status(if posted == connection { code } else { 200 })))
}

#[tokio::test(start_paused = true)]
async fn a_group_is_one_lane_whatever_its_connections_and_groups_run_side_by_side() -> anyhow::Result<()> {
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
    assert_eq!(texts(&rig), ["1", "1", "3", "3", "2", "4"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_of_a_group_and_all_after_it_are_reported_and_wait_alike() -> anyhow::Result<()> {
    let rig = failing("b", 429);
    let event = grouped([
        ("g", message("1", &["a"])),
        ("g", message("2", &["a", "b"])),
        ("h", message("3", &["a"])),
        ("g", message("4", &["a"])),
        ("g", message("5", &["c"])),
    ]);
    assert_eq!(rig.invoke(event).await?, ids(["record-1", "record-3", "record-4"]));
    let mut posted = texts(&rig);
    posted.sort_unstable();
    assert_eq!(posted, ["1", "2", "2", "3"], "nothing after it is tried");
    assert!(rig.handed_back().is_empty() && rig.dead().is_empty(), "nothing is sent again");
    let waits = rig.outbound.waits();
    let (receipts, seconds): (Vec<_>, BTreeSet<_>) =
        waits.iter().map(|(receipt, seconds)| (receipt.as_str(), *seconds)).unzip();
    assert_eq!(receipts, ["receipt-1", "receipt-3", "receipt-4"]);
    assert!(seconds.len() == 1 && seconds.iter().all(|seconds| (0..=1).contains(seconds)), "{seconds:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_wait_grows_with_the_receives() -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        fastrand::seed(seed);
        let rig = failing("a", 503);
        let mut event = grouped([("g", message("1", &["a"]))]);
        event.records[0].attributes.insert("ApproximateReceiveCount".to_owned(), "4".to_owned());
        rig.invoke(event).await?;
        seen.extend(rig.outbound.waits().into_iter().map(|(_, seconds)| seconds));
    }
    assert_eq!(seen, (0..=8).collect());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn however_often_it_was_received_a_message_is_not_given_up_for_that() -> anyhow::Result<()> {
    let rig = failing("a", 503);
    let mut event = grouped([("g", message("1", &["a"]))]);
    event.records[0].attributes.insert("ApproximateReceiveCount".to_owned(), "900".to_owned());
    assert_eq!(rig.invoke(event).await?, ids(["record-0"]));
    assert!(rig.dead().is_empty());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn past_its_age_a_message_is_not_posted_but_goes_to_the_dead_letter_queue_and_holds_up_the_rest()
-> anyhow::Result<()> {
    let rig = Rig::fifo(MemoryGateway::always(status(200)));
    let mut event =
        grouped([("g", message("1", &["a"])), ("g", message("2", &["a"])), ("h", message("3", &["a"]))]);
    let first = (EPOCH_MILLIS - 7_800_000).to_string();
    event.records[0].attributes.insert("ApproximateFirstReceiveTimestamp".to_owned(), first);
    assert_eq!(rig.invoke(event).await?, ids(["record-1"]));
    assert_eq!(texts(&rig), ["3"]);
    let dead = rig.dead();
    assert_eq!((dead.len(), dead[0].json()), (1, message("1", &["a"])));
    assert_eq!(dead[0].attribute("streamer.reason"), "exhausted");
    assert_eq!((dead[0].group.as_deref(), dead[0].delay), (Some("g"), None), "a FIFO queue takes no delay");
    assert!(dead[0].deduplication_id.is_some());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn poison_and_rejections_are_dead_letters_of_their_group_and_what_follows_waits_for_them()
-> anyhow::Result<()> {
    for (middle, reason) in [(json!("no message"), "poison"), (message("2", &["b"]), "rejected")] {
        let rig = failing("b", 413);
        let event = grouped([("g", message("1", &["a"])), ("g", middle), ("g", message("3", &["a"]))]);
        assert_eq!(rig.invoke(event).await?, ids(["record-2"]), "{reason}");
        assert!(!texts(&rig).contains(&"3".to_owned()));
        let dead = rig.dead();
        assert_eq!((dead.len(), dead[0].attribute("streamer.reason")), (1, reason));
        assert_eq!(dead[0].group.as_deref(), Some("g"));
        let waits = rig.outbound.waits();
        assert!(waits.len() == 1 && waits[0].0 == "receipt-2" && waits[0].1 <= 1, "{waits:?}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn poison_behind_a_failure_is_not_taken_out_of_turn() -> anyhow::Result<()> {
    let rig = failing("b", 429);
    let event =
        grouped([("g", message("1", &["b"])), ("g", json!("no message")), ("h", json!("no message"))]);
    assert_eq!(rig.invoke(event).await?, ids(["record-0", "record-1"]));
    assert_eq!(rig.dead().len(), 1, "the other group's");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_the_dead_letter_queue_does_not_confirm_is_reported_with_all_after_it() -> anyhow::Result<()> {
    let rig = Rig::of(
        Order::Group,
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
async fn a_user_who_is_away_holds_up_the_group() -> anyhow::Result<()> {
    let rig = Rig::fifo(MemoryGateway::always(status(200)));
    let to = json!({ "user": { "tenant": "acme", "user": "anna" } });
    let away = json!({ "version": 1, "id": "2", "to": to, "payload": 1 });
    let event = grouped([("g", message("1", &["a"])), ("g", away), ("g", message("3", &["a"]))]);
    assert_eq!(rig.invoke(event).await?, ids(["record-1", "record-2"]));
    assert_eq!(texts(&rig), ["1"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_gone_holds_up_nothing_and_is_not_posted_to_again() -> anyhow::Result<()> {
    let rig = failing("b", 410);
    let event = grouped([("g", message("1", &["a", "b"])), ("g", message("2", &["a", "b"]))]);
    assert_eq!(rig.invoke(event).await?, ids([]));
    assert_eq!(texts(&rig), ["1", "1", "2"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_panic_holds_up_its_group_alone() -> anyhow::Result<()> {
    let rig = Rig::fifo(answering(|connection| match connection {
        "b" => panic!("the gateway in memory panics as it is told"),
        _ => status(200),
    }));
    let event =
        grouped([("g", message("1", &["b"])), ("h", message("2", &["a"])), ("g", message("3", &["a"]))]);
    assert_eq!(rig.invoke(event).await?, ids(["record-0", "record-2"]));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_user_whose_connections_are_all_gone_holds_up_the_group() -> anyhow::Result<()> {
    let rig = Rig::of(
        Order::Group,
        answering(|connection| status(if connection == "stale" { 410 } else { 200 })),
        TableDouble::of_user([("stale", crate::old())], || true),
        QueueDouble::taking(),
        QueueDouble::taking(),
    );
    let to = json!({ "user": { "tenant": "acme", "user": "anna" } });
    let user = json!({ "version": 1, "id": "1", "to": to, "payload": 1 });
    assert_eq!(
        rig.invoke(grouped([("g", user), ("g", message("2", &["a"]))])).await?,
        ids(["record-0", "record-1"])
    );
    assert_eq!(texts(&rig), ["1"]);
    Ok(())
}

/// A user with 400 connections, at 10 posts a second: an invocation reaches 280 of them.
fn crowded() -> Rig {
    let names: Vec<_> = (0..400).map(|number| format!("c{number}")).collect();
    let table = TableDouble::of_user(names.iter().map(|name| (name.as_str(), old())), || true);
    let gateway = MemoryGateway::scripted(|_, _| (Duration::from_millis(20), status(200)));
    let mut rig = Rig::of(Order::Group, gateway, table, QueueDouble::taking(), QueueDouble::taking());
    rig.worker.gate = Gate::new(Some(10));
    rig
}

/// A message for that user that is received for the n-th time.
fn received(times: usize) -> SqsEvent {
    let to = json!({ "user": { "tenant": "acme", "user": "anna" } });
    let mut event = grouped([("g", json!({ "version": 1, "id": "m", "to": to, "payload": 1 }))]);
    event.records[0].attributes.insert("ApproximateReceiveCount".to_owned(), times.to_string());
    event
}

#[tokio::test(start_paused = true)]
async fn a_user_too_large_for_one_invocation_is_reached() -> anyhow::Result<()> {
    let rig = crowded();
    assert_eq!(rig.invoke(received(1)).await?, ids(["record-0"]));
    assert_eq!(rig.invoke(received(2)).await?, ids([]));
    let mut reached: BTreeMap<String, usize> = BTreeMap::new();
    rig.worker.gateway.posts().into_iter().for_each(|post| *reached.entry(post.connection).or_default() += 1);
    assert_eq!((reached.len(), reached.values().max()), (400, Some(&1)));
    assert!(rig.dead().is_empty());
    Ok(())
}

/// Each invocation has a new environment, which remembers nothing.
#[tokio::test(start_paused = true)]
async fn every_connection_has_its_turn_without_memory() -> anyhow::Result<()> {
    fastrand::seed(7);
    let mut reached = BTreeSet::new();
    for times in 1..=20 {
        let rig = crowded();
        assert_eq!(rig.invoke(received(times)).await?, ids(["record-0"]), "untried connections remain");
        reached.extend(rig.worker.gateway.posts().into_iter().map(|post| post.connection));
    }
    assert_eq!(reached.len(), 400);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waits_is_not_posted_twice() -> anyhow::Result<()> {
    let rig = Rig::fifo(MemoryGateway::scripted(|connection, place| {
        (Duration::ZERO, status(if connection == "b" && place == 0 { 429 } else { 200 }))
    }));
    let event = || grouped([("g", message("1", &["a", "b"])), ("g", message("2", &["a"]))]);
    assert_eq!(rig.invoke(event()).await?, ids(["record-0", "record-1"]));
    assert_eq!(rig.invoke(event()).await?, ids([]));
    assert_eq!(rig.worker.gateway.texts("a"), ["\"1\"", "\"2\""]);
    assert_eq!(rig.worker.gateway.texts("b").len(), 2);
    Ok(())
}

/// The user has it on one connection, so the others' end is no reason to wait for the user.
#[tokio::test(start_paused = true)]
async fn a_user_who_was_reached_is_not_waited_for() -> anyhow::Result<()> {
    let rig = Rig::of(
        Order::Group,
        MemoryGateway::scripted(|connection, place| {
            let code = if connection == "a" { 200 } else { [429, 410][place.min(1)] };
            (Duration::ZERO, status(code))
        }),
        TableDouble::of_user([("a", old()), ("b", old())], || true),
        QueueDouble::taking(),
        QueueDouble::taking(),
    );
    assert_eq!(rig.invoke(received(1)).await?, ids(["record-0"]));
    assert_eq!(rig.invoke(received(2)).await?, ids([]));
    assert_eq!((rig.worker.gateway.texts("a").len(), rig.worker.gateway.texts("b").len()), (1, 2));
    Ok(())
}
