//! The end of an invocation: when the last post begins, how long it runs, and what happens to the rest.

use std::time::Duration;

use delivery_worker::admission::Gate;
use serde_json::json;
use streamer_tests::{
    event::{EPOCH_MILLIS, batch, epoch, message},
    gateway::{MemoryGateway, status},
    worker::{Rig, TIMEOUT},
};
use tokio::time::Instant;

use crate::{causes, ids};

/// No post begins in the last 3 s of the invocation, and none runs in the last 1.5 s.
#[tokio::test(start_paused = true)]
async fn posts_may_use_half_of_reserve() -> anyhow::Result<()> {
    let rig = Rig::new(MemoryGateway::scripted(|_, _| (Duration::from_millis(4400), status(200))));
    let bodies: Vec<_> = (0..9).map(|id| message(&id.to_string(), &["a"]).to_string()).collect();
    let started = Instant::now();
    // 7 posts begin within 27 s; the last of them is given up at 28.5 s.
    assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
    assert_eq!(started.elapsed(), TIMEOUT - Duration::from_millis(1500));
    assert_eq!(rig.worker.gateway.posts().len(), 7);
    let expected = ["6", "7", "8"].map(|id| (id.to_owned(), "deadline".to_owned()));
    assert_eq!(causes(&rig), expected);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn posts_that_begin_in_time_arrive_once() -> anyhow::Result<()> {
    let mut rig = Rig::new(MemoryGateway::scripted(|_, _| (Duration::from_millis(20), status(200))));
    rig.worker.gate = Gate::new(Some(33));
    let names: Vec<_> = (0..1000).map(|number| format!("c{number}")).collect();
    let messages = names.chunks(100).enumerate().map(|(id, names)| {
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        message(&id.to_string(), &names).to_string()
    });
    rig.invoke(batch(messages)).await?;
    let back = rig.handed_back();
    assert!(!back.is_empty(), "the pacer leaves some for the next invocation");
    rig.invoke_at(epoch() + TIMEOUT, batch(back.into_iter().map(|sent| sent.body))).await?;
    assert_eq!(rig.worker.gateway.posts().len(), 1000);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn message_that_expires_waiting_is_dropped() -> anyhow::Result<()> {
    let mut rig = Rig::new(MemoryGateway::always(status(200)));
    rig.worker.gate = Gate::new(Some(1));
    let bodies = (0..20).map(|id| {
        let mut body = message(&id.to_string(), &[&format!("c{id}")]);
        body["expires_at"] = json!(EPOCH_MILLIS + 2500);
        body.to_string()
    });
    assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
    let posts = rig.worker.gateway.posts().len();
    assert!((1..10).contains(&posts), "{posts} posts");
    assert!(rig.handed_back().is_empty() && rig.dead().is_empty());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn no_retry_begins_after_deadline() -> anyhow::Result<()> {
    for seed in 0..50 {
        fastrand::seed(seed);
        let rig = Rig::new(MemoryGateway::scripted(|_, _| (Duration::from_millis(2_460), status(500))));
        let deadline = Instant::now() + Duration::from_millis(2500);
        let event = batch([message("m", &["a"]).to_string()]);
        rig.invoke_within(epoch(), Duration::from_secs(4), event).await?;
        let posts = rig.worker.gateway.posts();
        assert!(posts.len() <= 2 && posts.iter().all(|post| post.at < deadline), "{posts:?}");
        assert!(Instant::now() <= deadline + Duration::from_millis(750));
        assert_eq!(rig.handed_back().len(), 1);
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn invocation_without_time_posts_nothing() -> anyhow::Result<()> {
    let rig = Rig::new(MemoryGateway::always(status(200)));
    let event = batch([message("m", &["a"]).to_string()]);
    let report = rig.invoke_within(epoch(), Duration::ZERO, event).await?;
    assert!(rig.worker.gateway.posts().is_empty());
    assert_eq!(
        (report.len() + rig.handed_back().len()),
        1,
        "the message is on the queue, reported or handed back"
    );
    Ok(())
}
