//! Answers of API Gateway to the post of a page.

use std::time::Duration;

use mailbox_handler::{HandlerError, PostError};
use serde_json::json;
use streamer_gateway::PostResult;
use streamer_tests::{
    gateway::{MemoryGateway, status},
    mailbox::{Call, Fault},
};
use tokio::time::Instant;

use crate::{Rig, TIMEOUT};

#[tokio::test(start_paused = true)]
async fn gone_connection_is_unregistered() {
    let rig = Rig::new(MemoryGateway::always(status(410)));
    assert_eq!(rig.sync(true, &json!({})).await.unwrap().status_code, 200);
    assert!(rig.mailbox.calls().contains(&Call::PutDevice));
    assert!(rig.devices().await.is_empty());
    assert_eq!((rig.frames().len(), rig.metric("PagesPosted").len()), (1, 0));
}

/// The device's TTL, or the worker's next post to it, removes it.
#[tokio::test(start_paused = true)]
async fn failed_unregistering_is_no_failure() {
    let rig = Rig::new(MemoryGateway::always(status(410)));
    rig.mailbox.inject_into(Call::DeleteDevice, [Fault::Fails]);
    assert_eq!(rig.sync(true, &json!({})).await.unwrap().status_code, 200);
}

fn transient() -> [PostResult; 5] {
    let (broken, lost) = ("reset".to_owned(), "reset".to_owned());
    [
        status(429),
        status(503),
        PostResult::Timeout,
        PostResult::Broken(broken),
        PostResult::ConnectionLost(lost),
    ]
}

#[tokio::test(start_paused = true)]
async fn transient_failures_are_retried_twice() {
    for answer in transient() {
        let first = answer.clone();
        let rig = Rig::new(MemoryGateway::scripted(move |_, nth| {
            (Duration::ZERO, if nth < 2 { first.clone() } else { status(200) })
        }));
        let began = Instant::now();
        rig.sync(true, &json!({})).await.unwrap();
        assert_eq!((rig.frames().len(), rig.metric("PagesPosted")), (3, vec![1.0]), "{answer:?}");
        assert!(began.elapsed() <= Duration::from_millis(300), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn last_failure_fails_the_invocation() {
    for answer in &transient()[1..] {
        let rig = Rig::new(MemoryGateway::always(answer.clone()));
        let error = rig.sync(true, &json!({})).await.unwrap_err();
        assert!(matches!(error, HandlerError::Post(_)), "{error}");
        assert_eq!(
            (rig.frames().len(), rig.metric("Syncs"), rig.metric("PagesPosted").len()),
            (3, vec![1.0], 0)
        );
    }
}

/// A client that does not read its messages must not look like a fault of the deployment.
#[tokio::test(start_paused = true)]
async fn throttled_client_fails_nothing() {
    let rig = Rig::new(MemoryGateway::always(status(429)));
    assert_eq!(rig.sync(true, &json!({})).await.unwrap().status_code, 200);
    assert_eq!((rig.frames().len(), rig.metric("PagesPosted").len()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn other_statuses_are_not_retried() {
    for code in [400, 403, 413] {
        let rig = Rig::new(MemoryGateway::always(status(code)));
        let error = rig.sync(true, &json!({})).await.unwrap_err();
        assert!(matches!(error, HandlerError::Post(PostError::Status(found)) if found == code), "{error}");
        assert_eq!(rig.frames().len(), 1);
    }
}

/// A post takes at most 5 s, and the last one ends in time for the metrics.
#[tokio::test(start_paused = true)]
async fn unanswered_posts_end_before_lambda() {
    let rig = Rig::new(MemoryGateway::scripted(|_, _| (Duration::from_secs(60), status(200))));
    let began = Instant::now();
    let error = rig.sync(true, &json!({})).await.unwrap_err();
    assert!(matches!(error, HandlerError::Post(PostError::Timeout)), "{error}");
    let posts = rig.handler.gateway.posts();
    assert_eq!(posts.len(), 2);
    assert_eq!(posts[0].ended_at.unwrap() - posts[0].at, Duration::from_secs(5));
    assert!(began.elapsed() >= TIMEOUT - Duration::from_millis(501) && began.elapsed() < TIMEOUT);
    assert_eq!(rig.metric("Syncs"), [1.0]);
}
