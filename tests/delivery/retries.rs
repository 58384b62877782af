//! Retries of posts within an invocation.

use std::time::Duration;

use streamer_gateway::PostResult;
use streamer_tests::{
    event::{batch, message},
    gateway::{MemoryGateway, status},
    worker::Rig,
};
use tokio::time::Instant;

use crate::{causes, ids};

/// Transient failures are a 5xx, a timeout and a broken connection.
#[tokio::test(start_paused = true)]
async fn transient_failures_are_posted_three_times() -> anyhow::Result<()> {
    let broken = PostResult::Broken("reset".to_owned());
    for (answer, cause) in [
        (status(500), "500"),
        (status(503), "503"),
        (PostResult::Timeout, "timeout"),
        (broken, "connection: reset"),
    ] {
        let rig = Rig::new(MemoryGateway::always(answer));
        assert_eq!(rig.invoke(batch([message("m", &["a"]).to_string()])).await?, ids([]));
        assert_eq!(rig.worker.gateway.posts().len(), 3);
        assert_eq!(causes(&rig), [("m".to_owned(), cause.to_owned())]);
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn successful_retry_is_the_last() -> anyhow::Result<()> {
    let rig = Rig::new(MemoryGateway::scripted(|_, nth| {
        (Duration::ZERO, status(if nth == 0 { 502 } else { 200 }))
    }));
    assert_eq!(rig.invoke(batch([message("m", &["a"]).to_string()])).await?, ids([]));
    assert_eq!(rig.worker.gateway.posts().len(), 2);
    assert!(rig.handed_back().is_empty());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn other_failures_are_posted_once() -> anyhow::Result<()> {
    for code in [302, 400, 401, 403, 404, 408, 410, 413, 429] {
        let rig = Rig::new(MemoryGateway::always(status(code)));
        rig.invoke(batch([message("m", &["a"]).to_string()])).await?;
        assert_eq!(rig.worker.gateway.posts().len(), 1, "{code}");
    }
    Ok(())
}

/// The first pause is up to 50 ms, the second up to 100 ms.
#[tokio::test(start_paused = true)]
async fn pauses_are_random_up_to_100_ms() -> anyhow::Result<()> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for seed in 0..100 {
        fastrand::seed(seed);
        let rig = Rig::new(MemoryGateway::always(status(500)));
        rig.invoke(batch([message("m", &["a"]).to_string()])).await?;
        let times: Vec<_> = rig.worker.gateway.posts().into_iter().map(|post| post.at).collect();
        first.push((times[1] - times[0]).as_millis());
        second.push((times[2] - times[1]).as_millis());
    }
    let range = |pauses: &[u128]| (*pauses.iter().min().unwrap(), *pauses.iter().max().unwrap());
    let (first, second) = (range(&first), range(&second));
    assert!(first.0 <= 5 && (45..=51).contains(&first.1), "first pause: {first:?} ms");
    assert!(second.0 <= 10 && (90..=101).contains(&second.1), "second pause: {second:?} ms");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn unanswered_post_is_retried_after_5_s() -> anyhow::Result<()> {
    let rig = Rig::new(MemoryGateway::scripted(|_, nth| {
        (Duration::from_secs(if nth == 0 { 60 } else { 0 }), status(200))
    }));
    let started = Instant::now();
    assert_eq!(rig.invoke(batch([message("m", &["a"]).to_string()])).await?, ids([]));
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(5) && took < Duration::from_millis(5100), "{took:?}");
    assert!(rig.handed_back().is_empty());
    Ok(())
}
