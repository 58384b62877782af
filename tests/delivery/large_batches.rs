//! Batches of a thousand messages: calls that run at the same time are bounded, since each has a connection, and Lambda
//! allows a process 1 024 open files.

use std::time::Duration;

use delivery_worker::{
    decode::Record,
    expand::{MAX_PAIRS, expand},
    keep::KeptDevices,
    outcome::{Cause, Outcome},
    time::Time,
};
use serde_json::{Value, json};
use streamer_queue::Queue;
use streamer_tests::{
    doubles::{Answer, CallsDouble, DynamoDouble, Told},
    event::{EPOCH_MILLIS, batch, epoch, message},
    gateway::{MemoryGateway, status},
    worker::{ENDPOINT, Rig, TIMEOUT},
};
use tokio::time::Instant;

use crate::{causes, ids};

const CALL: Duration = Duration::from_millis(20);

/// Builds messages for this many users.
fn to_users(number: usize) -> impl Iterator<Item = String> {
    (0..number).map(|nth| {
        let to = json!({ "user": { "tenant": "acme", "user": format!("user-{nth}") } });
        json!({ "version": 1, "id": format!("m{nth}"), "to": to, "payload": nth }).to_string()
    })
}

/// Returns the connection of the user that a query is for.
fn connection_of_user(input: &Value) -> Value {
    json!({
        "connection_id": input["ExpressionAttributeValues"][":value"],
        "user_id": { "S": "user" },
        "endpoint": { "S": ENDPOINT },
        "connected_at": { "N": (EPOCH_MILLIS - 3_600_000).to_string() },
        "expires_at": { "N": (EPOCH_MILLIS / 1000 + 3600).to_string() },
    })
}

#[tokio::test(start_paused = true)]
async fn users_are_read_128_at_a_time() -> anyhow::Result<()> {
    let dynamo =
        DynamoDouble::new(|_, input| Ok(json!({ "Items": [connection_of_user(input)] }))).after(CALL);
    let mut rig = Rig::new(MemoryGateway::always(status(200)));
    rig.worker.table = Some(dynamo.table());
    let started = Instant::now();
    assert_eq!(rig.invoke(batch(to_users(1000))).await?, ids([]));
    assert_eq!((dynamo.calls().len(), dynamo.most_in_flight()), (1000, 128));
    assert_eq!(started.elapsed().as_millis(), 8 * CALL.as_millis());
    let posts = rig.worker.gateway.posts();
    let connections: std::collections::BTreeSet<_> = posts.iter().map(|post| &post.connection).collect();
    assert_eq!((posts.len(), connections.len()), (1000, 1000));
    Ok(())
}

/// No further user is read after that. Their messages are handed back, and the messages for connections are posted.
#[tokio::test(start_paused = true)]
async fn silent_table_delays_large_batch_5_s() -> anyhow::Result<()> {
    let dynamo = DynamoDouble::new(|_, _| Ok(json!({}))).after(Duration::from_secs(3600));
    let mut rig = Rig::new(MemoryGateway::always(status(200)));
    rig.worker.table = Some(dynamo.table());
    let started = Instant::now();
    let bodies = to_users(1000).chain([message("n", &["a"]).to_string()]);
    assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
    assert_eq!(started.elapsed(), Duration::from_secs(5));
    assert_eq!((dynamo.calls().len(), rig.worker.gateway.texts("a").len()), (128, 1));
    let causes: Vec<_> = causes(&rig).into_iter().map(|(_, cause)| cause).collect();
    let count = |wanted: &str| causes.iter().filter(|cause| *cause == wanted).count();
    assert_eq!((count("Query: no answer within 5 s"), count("deadline")), (128, 872));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn queue_gets_32_calls_at_a_time() -> anyhow::Result<()> {
    let queue = CallsDouble::taking(CALL);
    let mut rig = Rig::new(MemoryGateway::always(status(429)));
    rig.worker.outbound = Queue::new(queue.client(), "https://sqs.example.com/outbound");
    let bodies = (0..1000).map(|nth| message(&format!("m{nth}"), &[&format!("c{nth}")]).to_string());
    assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
    let calls = queue.calls();
    let in_flight = |at: Instant| {
        let runs = |call: &&streamer_tests::doubles::Call| {
            call.at <= at && call.ended.as_ref().is_some_and(|(end, _)| at < *end)
        };
        calls.iter().filter(runs).count()
    };
    assert_eq!((calls.len(), calls.iter().map(|call| in_flight(call.at)).max()), (100, Some(32)));
    assert_eq!(queue.taken().len(), 1000);
    Ok(())
}

/// Batches that have not had their turn when the time is over make no call.
#[tokio::test(start_paused = true)]
async fn silent_queue_gets_no_late_call() -> anyhow::Result<()> {
    let queue = CallsDouble::taking(Duration::from_secs(3600));
    let mut rig = Rig::new(MemoryGateway::always(status(429)));
    rig.worker.outbound = Queue::new(queue.client(), "https://sqs.example.com/outbound");
    let bodies = (0..1000).map(|nth| message(&format!("m{nth}"), &[&format!("c{nth}")]).to_string());
    assert_eq!(rig.invoke(batch(bodies)).await?.len(), 1000, "all are reported");
    let (calls, ended) = (queue.calls(), Instant::now());
    assert!(calls.len() >= 32 && calls.iter().all(|call| call.at < ended), "{}", calls.len());
    Ok(())
}

/// A call that fails again and again leaves its turn to others while it pauses.
#[tokio::test(start_paused = true)]
async fn failing_calls_leave_others_their_turns() -> anyhow::Result<()> {
    let failing = |body: &str| body.contains("\"fails\"");
    let queue = CallsDouble::new(move |_, entries| match entries.iter().any(|entry| failing(&entry.body)) {
        true => Answer { after: CALL, what: Told::Fails("ServiceUnavailable") },
        false => Answer { after: CALL, what: Told::Entries(Vec::new()) },
    });
    let mut rig = Rig::new(MemoryGateway::always(status(429)));
    rig.worker.outbound = Queue::new(queue.client(), "https://sqs.example.com/outbound");
    let bodies = (0..1000).map(|nth| {
        let mut body = message(&format!("m{nth}"), &[&format!("c{nth}")]);
        body["payload"] = if nth < 400 { "fails" } else { "works" }.into();
        body.to_string()
    });
    assert_eq!(rig.invoke(batch(bodies)).await?.len(), 400);
    assert_eq!(queue.taken().len(), 600);
    Ok(())
}

/// A thousand messages for 100 connections each fill an invocation. No later message is posted, not even for a single
/// connection: it might overtake one that is handed back.
#[tokio::test(start_paused = true)]
async fn invocation_has_100_000_pairs_at_most() -> anyhow::Result<()> {
    let rig = Rig::new(MemoryGateway::always(status(200)));
    let connections: Vec<_> = (0..100).map(|id| format!("c{id}")).collect();
    let connections: Vec<_> = connections.iter().map(String::as_str).collect();
    let large = (0..1002).map(|nth| message(&format!("m{nth}"), &connections).to_string());
    let event = batch(large.chain([message("last", &["a"]).to_string()]));
    let records: Vec<_> = event.records.into_iter().map(Record::read).collect();
    let time = Time::start(epoch(), epoch() + TIMEOUT, TIMEOUT);
    let expanded = expand(&rig.worker, &records, KeptDevices::default(), &time).await;
    assert_eq!((expanded.pairs.len(), expanded.pairs.last().unwrap().index), (MAX_PAIRS, 999));
    let completed: Vec<_> = expanded.completed.iter().map(|pair| (pair.index, &pair.outcome)).collect();
    let handed_back = Outcome::HandedBack(Cause::Deadline);
    assert_eq!(completed, [1000, 1001, 1002].map(|index| (index, &handed_back)));
    Ok(())
}
