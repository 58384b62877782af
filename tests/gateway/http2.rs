//! HTTP/2 with hosts that limit, refuse, exclude and reset streams, or keep their windows small.

use std::time::Duration;

use bytes::Bytes;
use futures::future::{join, join_all};
use streamer_gateway::{Gateway as _, ManagementApi, PostResult};
use streamer_tests::{
    DEADLINE, eventually,
    frames::{FrameGateway, INTERNAL_ERROR, Limits, REFUSED_STREAM, Reaction},
};
use tokio::time::timeout;

use crate::client::{post, status, tls_api};

async fn trusting(gateway: &FrameGateway) -> ManagementApi {
    tls_api(gateway.trusting(), &gateway.endpoint(), 128).await
}

fn limit(streams: u32) -> Limits {
    Limits { streams: Some(streams), window: None }
}

/// Builds payloads that all differ, sorted.
fn payloads(number: usize, size: usize) -> Vec<Vec<u8>> {
    let payload = |id: usize| [format!("{id:04}").as_bytes(), &vec![b' '; size - 4]].concat();
    (0..number).map(payload).collect()
}

/// Makes a post for each payload at once.
async fn posts(api: &ManagementApi, payloads: &[Vec<u8>]) -> Vec<PostResult> {
    let connection = "c".try_into().unwrap();
    let posts = payloads.iter().map(|payload| api.post(&connection, Bytes::from(payload.clone())));
    timeout(DEADLINE, join_all(posts)).await.unwrap()
}

/// Makes the posts, and lets the gateway answer them when `number` of them have arrived.
async fn held(gateway: &FrameGateway, api: &ManagementApi, payloads: &[Vec<u8>], number: usize) {
    let releasing = async {
        eventually("the posts have arrived", async || Ok(gateway.arrived() >= number)).await.unwrap();
        gateway.release();
    };
    let (results, ()) = join(posts(api, payloads), releasing).await;
    assert_eq!(results, vec![status(200, ""); payloads.len()]);
    let mut processed = gateway.processed();
    processed.sort_unstable();
    assert_eq!(processed, payloads);
    assert_eq!(gateway.violations(), Vec::<String>::new());
}

fn is_broken(result: &PostResult) -> bool {
    matches!(result, PostResult::Broken(_))
}

/// All posts are on the host at once, so there are as many connections as their streams need, and no more.
#[tokio::test]
async fn used_up_streams_open_another_connection() {
    for (streams, number) in [(1, 5), (2, 9), (7, 20), (100, 256), (128, 300)] {
        let gateway = FrameGateway::start(limit(streams), |_, _, _| Reaction::Hold).await.unwrap();
        let api = trusting(&gateway).await;
        held(&gateway, &api, &payloads(number, 4), number).await;
        assert_eq!(gateway.connections(), number.div_ceil(streams as usize), "{streams} streams");
    }
}

/// Posts beyond the last connection's streams wait for one that becomes free.
#[tokio::test]
async fn connections_are_limited() {
    let gateway = FrameGateway::start(limit(2), |_, _, _| Reaction::Hold).await.unwrap();
    let api = tls_api(gateway.trusting(), &gateway.endpoint(), 3).await;
    held(&gateway, &api, &payloads(20, 4), 6).await;
    assert_eq!(gateway.connections(), 3);
}

/// A host that drains a connection by its limit.
#[tokio::test]
async fn limit_of_zero_opens_another_connection() {
    let gateway = FrameGateway::start(limit(1), |_, _, _| Reaction::Limit(0)).await.unwrap();
    let api = trusting(&gateway).await;
    gateway.release();
    for number in 1..=3 {
        assert_eq!(posts(&api, &payloads(1, 4)).await, [status(200, "")]);
        assert_eq!(gateway.connections(), number);
    }
}

/// The posts that wait arrive while the first post still holds its stream.
#[tokio::test]
async fn raised_limit_wakes_waiting_posts() {
    let gateway = FrameGateway::start(limit(1), |_, index, _| match index {
        0 => Reaction::Limit(10),
        _ => Reaction::Hold,
    });
    let gateway = gateway.await.unwrap();
    let api = tls_api(gateway.trusting(), &gateway.endpoint(), 1).await;
    held(&gateway, &api, &payloads(10, 4), 10).await;
    assert_eq!(gateway.connections(), 1);
}

/// The post that waits opens a connection while the first post still holds its stream.
#[tokio::test]
async fn goaway_wakes_waiting_posts() {
    let gateway = FrameGateway::start(limit(1), |_, _, _| Reaction::Drain).await.unwrap();
    let api = tls_api(gateway.trusting(), &gateway.endpoint(), 1).await;
    held(&gateway, &api, &payloads(2, 4), 2).await;
    assert_eq!(gateway.connections(), 2);
}

/// A post that begins when another ends does not overtake those that wait.
#[tokio::test]
async fn posts_wait_in_order_of_arrival() {
    let gateway = FrameGateway::start(limit(1), |_, _, _| Reaction::Answer).await.unwrap();
    let api = tls_api(gateway.trusting(), &gateway.endpoint(), 1).await;
    let payloads = payloads(20, 4);
    let pairs = (0..10).map(|first| {
        let (api, payloads) = (&api, &payloads);
        async move {
            for payload in [first, first + 10] {
                posts(api, &payloads[payload..=payload]).await;
            }
        }
    });
    join_all(pairs).await;
    assert_eq!(gateway.processed(), payloads);
}

#[tokio::test]
async fn idle_connections_are_let_go() {
    let gateway = FrameGateway::start(limit(1), |_, _, _| Reaction::Hold).await.unwrap();
    let api = trusting(&gateway).await;
    held(&gateway, &api, &payloads(3, 4), 3).await;
    assert_eq!(gateway.open_connections(), 3);
    for _ in 0..2 {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(40)).await;
        tokio::time::resume();
        assert_eq!(post(&api, "c").await, status(200, ""));
    }
    eventually("one connection is open", async || Ok(gateway.open_connections() == 1)).await.unwrap();
    assert_eq!(gateway.connections(), 3);
}

#[tokio::test]
async fn refused_posts_are_repeated() {
    let refuses = |connection, index, _: &[u8]| match (connection, index % 2) {
        (0, 0) => Reaction::Reset(REFUSED_STREAM),
        _ => Reaction::Answer,
    };
    let gateway = FrameGateway::start(Limits::default(), refuses).await.unwrap();
    let api = trusting(&gateway).await;
    held(&gateway, &api, &payloads(50, 4), 0).await;
    assert!(gateway.connections() <= 2, "{}", gateway.connections());
}

/// A GOAWAY that excludes the rest of a new connection's posts, before and after the first answers.
#[tokio::test]
async fn posts_excluded_by_goaway_are_repeated() {
    for answered in [0, 10] {
        let excludes = move |connection, index, _: &[u8]| match connection {
            0 if index >= answered => Reaction::Exclude,
            _ => Reaction::Answer,
        };
        let gateway = FrameGateway::start(Limits::default(), excludes).await.unwrap();
        let api = trusting(&gateway).await;
        held(&gateway, &api, &payloads(50, 4), 0).await;
        assert_eq!(gateway.connections(), 2);
    }
}

/// A host that processes no post gets each three times.
#[tokio::test]
async fn unprocessed_posts_fail_after_two_repeats() {
    for reaction in [Reaction::Reset(REFUSED_STREAM), Reaction::Exclude] {
        let gateway = FrameGateway::start(Limits::default(), move |_, _, _| reaction).await.unwrap();
        let api = trusting(&gateway).await;
        let results = posts(&api, &payloads(40, 4)).await;
        assert!(results.iter().all(is_broken), "{results:?}");
        assert!(gateway.arrived() <= 3 * 40, "{}", gateway.arrived());
        assert!(gateway.connections() >= 3, "{}", gateway.connections());
    }
}

/// The host may have processed the post.
#[tokio::test]
async fn post_on_lost_new_connection_is_not_repeated() {
    let gateway = FrameGateway::start(Limits::default(), |_, _, _| Reaction::Close).await.unwrap();
    let api = trusting(&gateway).await;
    let result = timeout(DEADLINE, post(&api, "c")).await.unwrap();
    assert!(is_broken(&result), "{result:?}");
    assert_eq!(gateway.processed().len(), 1);
}

/// Each reset stream is a failure of its own: the host may have processed the post, and the connection goes on.
#[tokio::test]
async fn reset_streams_fail_their_posts() {
    for answered in [0, 1] {
        let resets = move |_, index, _: &[u8]| match index {
            _ if index < answered => Reaction::Answer,
            _ => Reaction::Reset(INTERNAL_ERROR),
        };
        let gateway = FrameGateway::start(Limits::default(), resets).await.unwrap();
        let api = trusting(&gateway).await;
        for _ in 0..answered {
            assert_eq!(post(&api, "c").await, status(200, ""));
        }
        let results = posts(&api, &payloads(100, 4)).await;
        assert!(results.iter().all(is_broken), "{results:?}");
        assert_eq!((gateway.arrived(), gateway.connections()), (100 + answered, 1));
    }
}

/// The largest payloads on many streams, whose windows hold a small part of one.
#[tokio::test]
async fn small_windows_let_large_payloads_through() {
    let limits = Limits { streams: Some(100), window: Some(4096) };
    let gateway = FrameGateway::start(limits, |_, _, _| Reaction::Answer).await.unwrap();
    let api = trusting(&gateway).await;
    held(&gateway, &api, &payloads(60, 128 * 1024), 0).await;
}
