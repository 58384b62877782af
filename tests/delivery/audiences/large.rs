//! Fan-out of shards that take many pages: cursors, crashes, failing queues, and the delay of other messages.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use streamer_queue::Queue;
use streamer_tests::{
    doubles::{Answer, Call, CallsDouble, Crowd, Entry, QueueDouble, TableDouble, Told},
    event::{batch, epoch, message},
    gateway::{MemoryGateway, status},
    worker::{Rig, Sent},
};
use tokio::time::Instant;

use super::{event, recipients, rig, rig_with_queue, to_shard};
use crate::ids;

/// Invokes workers, one after another, until no message for the shard is left. Returns how often each connection is
/// named, and the number of invocations.
async fn drain(
    crowd: &Crowd,
    outbound: impl Fn() -> QueueDouble,
) -> anyhow::Result<(BTreeMap<String, usize>, usize)> {
    let (mut unread, mut named, mut invocations) = (vec![to_shard(None)], BTreeMap::new(), 0);
    while let Some(body) = unread.pop() {
        let rig = rig_with_queue(crowd, outbound());
        let reported = rig.invoke(event(body.clone())).await?;
        invocations += 1;
        anyhow::ensure!(invocations < 1000, "the shard is not fanned out after 1000 invocations");
        if !reported.is_empty() {
            unread.push(body);
        }
        // Only the messages that the queue accepted.
        for sent in rig.outbound.taken() {
            let sent = Sent::from(sent);
            if sent.json()["to"]["shard"].is_null() {
                recipients(&[sent]).into_iter().for_each(|id| *named.entry(id).or_default() += 1);
            } else {
                unread.push(sent.body);
            }
        }
        // The rest of the last page may be posted in the same invocation.
        for post in rig.worker.gateway.posts() {
            *named.entry(post.connection).or_default() += 1;
        }
    }
    Ok((named, invocations))
}

/// Each connection is named once, at whichever page the invocations stop.
#[tokio::test(start_paused = true)]
async fn resumes_at_cursor() -> anyhow::Result<()> {
    // An invocation fans out for 5 s, so it stops at a different page for each query time.
    for millis in [300, 450, 700, 900, 1300, 2400] {
        let crowd = Crowd::new([("acme", 8 * 20_050)]).paged(1000, Duration::from_millis(millis));
        let (named, invocations) = drain(&crowd, QueueDouble::taking).await?;
        assert_eq!(named.keys().count(), 20_050, "{millis}");
        assert!(named.values().all(|times| *times == 1), "{millis}");
        assert!(invocations >= 3, "{invocations}");
    }
    Ok(())
}

/// Each invocation runs out of time and has come further, so the next one follows at once, however many there are.
#[tokio::test(start_paused = true)]
async fn fan_out_continues_within_a_second() -> anyhow::Result<()> {
    let crowd = Crowd::new([("acme", 8 * 20_050)]).paged(1000, Duration::from_millis(2400));
    let (mut body, mut delays) = (Some(to_shard(None)), Vec::new());
    while let Some(unread) = body.take() {
        let rig = rig_with_queue(&crowd, QueueDouble::taking());
        assert_eq!(rig.invoke(event(unread)).await?, ids([]));
        for sent in rig.outbound.taken().into_iter().map(Sent::from) {
            if !sent.json()["to"]["shard"].is_null() {
                delays.extend(sent.delay);
                body = Some(sent.body);
            }
        }
    }
    assert!(delays.len() > 6 && delays.iter().all(|delay| *delay <= 1), "{delays:?}");
    Ok(())
}

/// Each of the 11 pages fails once.
#[tokio::test(start_paused = true)]
async fn only_unconfirmed_page_is_retried() -> anyhow::Result<()> {
    for nth in 0..11 {
        let crowd = Crowd::new([("acme", 8 * 1050)]);
        let counter = Arc::new(AtomicUsize::new(0));
        let outbound = || {
            let counter = Arc::clone(&counter);
            QueueDouble::new(move |_| match counter.fetch_add(1, Ordering::Relaxed) == nth {
                true => Entry::NotTaken,
                false => Entry::Taken,
            })
        };
        let (named, invocations) = drain(&crowd, outbound).await?;
        assert_eq!((named.keys().count(), invocations), (1050, 1), "{nth}");
        assert!(named.values().all(|times| *times == 1), "{nth}");
    }
    Ok(())
}

/// The queue fails for longer than the worker retries; each connection is still named once.
#[tokio::test(start_paused = true)]
async fn resumes_after_last_confirmed_page() -> anyhow::Result<()> {
    let crowd = Crowd::new([("acme", 8 * 3050)]);
    let (counter, began) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let outbound = || {
        let counter = Arc::clone(&counter);
        // The second call with pages fails, for longer than an invocation retries.
        QueueDouble::new(move |entry| {
            let is_page = !entry.message_body().contains("\"shard\"");
            let nth = if is_page { counter.fetch_add(1, Ordering::Relaxed) } else { 0 };
            let fails = nth >= 5 && began.elapsed() < Duration::from_secs(6);
            if fails { Entry::NotTaken } else { Entry::Taken }
        })
    };
    let (named, invocations) = drain(&crowd, outbound).await?;
    assert_eq!((named.keys().count(), invocations), (3050, 2));
    assert!(named.values().all(|times| *times == 1));
    Ok(())
}

/// The crash leaves the message on the queue, and the next worker reads the shard from the start.
#[tokio::test(start_paused = true)]
async fn crash_between_pages_loses_no_connection() -> anyhow::Result<()> {
    let mut partly_named = 0;
    for millis in (0..400).step_by(13) {
        let crowd = Crowd::new([("acme", 8 * 3050)]).paged(100, Duration::from_millis(10));
        let crashed = rig(&crowd);
        let result =
            tokio::time::timeout(Duration::from_millis(millis), crashed.invoke(event(to_shard(None)))).await;
        let mut named: BTreeSet<_> = recipients(&crashed.handed_back()).into_iter().collect();
        if result.is_err() {
            partly_named += usize::from(!named.is_empty());
            assert!(named.len() < 3050, "an unacknowledged message names only a part of the shard");
            named.extend(drain(&crowd, QueueDouble::taking).await?.0.into_keys());
        }
        assert_eq!(named.len(), 3050, "crashed after {millis} ms");
    }
    assert!(partly_named > 3, "{partly_named} workers crashed between two pages");
    Ok(())
}

/// The worker gives up sending pages in time to confirm the hand-backs of the batch.
#[tokio::test(start_paused = true)]
async fn leaves_settling_time_to_other_messages() -> anyhow::Result<()> {
    // Three queries take until half a second before the deadline, and then the queue never answers the pages.
    let crowd = Crowd::new([("acme", 8 * 1050)]).paged(100, Duration::from_millis(4500));
    let calls = CallsDouble::new(|_, entries| Answer {
        after: Duration::from_millis(5),
        what: match entries[0].body.contains("retry") {
            true => Told::Entries(Vec::new()),
            false => Told::Nothing { taken: true },
        },
    });
    let mut rig = Rig::new(crate::answering(|_| status(429)));
    rig.worker.table = Some(crowd.client());
    rig.worker.outbound = Queue::new(calls.client(), "https://sqs.example.com/outbound");
    let other = message("other", &["a"]).to_string();
    let reported =
        rig.invoke_within(epoch(), Duration::from_secs(16), batch([to_shard(None), other])).await?;
    assert_eq!(reported, ids([]));
    let back = calls.taken().into_iter().filter(|body| body.contains("retry"));
    assert_eq!(back.count(), 2, "both hand-backs are confirmed");
    assert!(calls.calls().iter().any(|call| call.ended.is_some() && !call.entries[0].body.contains("retry")));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn four_shards_are_fanned_out_concurrently() -> anyhow::Result<()> {
    let crowd = Crowd::new([("acme", 8 * 550)]);
    let calls = CallsDouble::taking(Duration::from_millis(100));
    let mut rig = rig(&crowd);
    rig.worker.outbound = Queue::new(calls.client(), "https://sqs.example.com/outbound");
    let shards = (0..8).map(
        |shard| json!({ "version": 1, "id": "m", "to": { "tenant": "acme", "shard": shard }, "payload": 1 }),
    );
    assert_eq!(rig.invoke(batch(shards.map(|message| message.to_string()))).await?, ids([]));
    let calls = calls.calls();
    let in_flight = |at| {
        let ends_later = |call: &Call| call.ended.as_ref().is_some_and(|(end, _)| *end > at);
        calls.iter().filter(|call| call.at <= at && ends_later(call)).count()
    };
    assert_eq!(calls.iter().map(|call| in_flight(call.at)).max(), Some(4));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn delays_others_by_two_small_pages() -> anyhow::Result<()> {
    let crowd = Crowd::new([("acme", 8 * 80)]).paged(10, Duration::from_millis(50));
    let mut rig = rig(&crowd);
    rig.worker.table = Some(crowd.client());
    let bodies = [to_shard(None), message("single", &["a"]).to_string()];
    let started = Instant::now();
    assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
    let single = rig.worker.gateway.posts().into_iter().find(|post| post.connection == "a");
    assert_eq!(single.unwrap().at - started, Duration::from_millis(100));
    Ok(())
}

/// The worker reads two pages of each shard before the first post, and no more.
#[tokio::test(start_paused = true)]
async fn delays_other_tenants_by_two_pages() -> anyhow::Result<()> {
    let crowd = Crowd::new([("acme", 100_000)]).paged(1000, Duration::from_millis(50));
    let gateway = MemoryGateway::scripted(|_, _| (Duration::from_millis(10), status(200)));
    let mut rig = Rig::on(gateway, TableDouble::default(), QueueDouble::taking(), QueueDouble::taking());
    rig.worker.table = Some(crowd.client());
    let shards = (0..8).map(
        |shard| json!({ "version": 1, "id": "m", "to": { "tenant": "acme", "shard": shard }, "payload": 1 }),
    );
    let single = message("single", &["other-tenant"]);
    let bodies =
        shards.chain([json!({ "version": 1, "id": "n", "to": { "tenant": "acme" }, "payload": 1 }), single]);
    let started = Instant::now();
    assert_eq!(rig.invoke(batch(bodies.map(|body| body.to_string()))).await?, ids([]));
    let whole = started.elapsed();
    let posts = rig.worker.gateway.posts();
    let waited = posts[0].ended_at.unwrap() - started;
    println!("beside a tenant of 100 000, which takes {whole:?}, a message arrives after {waited:?}");
    // Two pages of each source are read before the first post.
    assert_eq!((posts.len(), waited), (1, Duration::from_millis(110)));
    Ok(())
}
