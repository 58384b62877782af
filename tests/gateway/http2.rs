//! HTTP/2 with hosts that limit, refuse, exclude and reset streams, or keep their windows small.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::{
    FutureExt as _,
    future::{Either, join, join_all, select},
};
use http::HeaderValue;
use streamer_gateway::{
    Gateway as _, ManagementApi, PostResult, connection::Failure, http2::Http2, pool::Pool,
    post::PostRequest, sign::Signature,
};
use streamer_tests::{
    DEADLINE, eventually,
    frames::{FrameGateway, INTERNAL_ERROR, Limits, REFUSED_STREAM, Reaction},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
    time::timeout,
};

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
async fn unused_connections_are_closed() {
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

/// A connection that refuses each post once goes on.
#[tokio::test]
async fn refused_posts_are_repeated() {
    let refused = Mutex::new(HashSet::new());
    let refuses = move |_, _, payload: &[u8]| {
        let is_first = refused.lock().unwrap().insert(payload.to_vec());
        if is_first { Reaction::Reset(REFUSED_STREAM) } else { Reaction::Answer }
    };
    let gateway = FrameGateway::start(Limits::default(), refuses).await.unwrap();
    let api = trusting(&gateway).await;
    held(&gateway, &api, &payloads(50, 4), 0).await;
    assert_eq!((gateway.arrived(), gateway.connections()), (100, 1));
}

/// Of two open connections, the first refuses all but its first post.
#[tokio::test]
async fn refused_post_prefers_another_connection() {
    let refuses = |connection, index, _: &[u8]| match (connection, index) {
        (0, 1..) => Reaction::Reset(REFUSED_STREAM),
        _ => Reaction::Hold,
    };
    let gateway = FrameGateway::start(limit(1), refuses).await.unwrap();
    let api = trusting(&gateway).await;
    held(&gateway, &api, &payloads(2, 4), 2).await;
    assert_eq!(post(&api, "c").await, status(200, ""));
    assert_eq!((gateway.arrived(), gateway.connections()), (4, 2));
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
    for (reaction, connections) in [(Reaction::Reset(REFUSED_STREAM), 1..=1), (Reaction::Exclude, 3..=120)] {
        let gateway = FrameGateway::start(Limits::default(), move |_, _, _| reaction).await.unwrap();
        let api = trusting(&gateway).await;
        let results = posts(&api, &payloads(40, 4)).await;
        assert!(results.iter().all(is_broken), "{results:?}");
        assert!(gateway.arrived() <= 3 * 40, "{}", gateway.arrived());
        assert!(connections.contains(&gateway.connections()), "{}", gateway.connections());
    }
}

/// The host may have processed all posts of the connection, and answered none.
#[tokio::test]
async fn loss_of_new_connection_repeats_nothing() {
    for number in [1, 10] {
        let closes = move |_, index, _: &[u8]| match index + 1 {
            arrived if arrived == number => Reaction::Close,
            _ => Reaction::Hold,
        };
        let gateway = FrameGateway::start(Limits::default(), closes).await.unwrap();
        let api = trusting(&gateway).await;
        let results = posts(&api, &payloads(number, 4)).await;
        assert!(results.iter().all(is_broken), "{results:?}");
        assert_eq!((gateway.arrived(), gateway.connections()), (number, 1));
    }
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

/// The largest payloads on many streams. The window of each stream holds a small part of one, and the window of the
/// connection holds less than the streams' windows together.
#[tokio::test]
async fn small_windows_let_large_payloads_through() {
    for window in [1, 4096, 16_384] {
        let limits = Limits { streams: Some(100), window: Some(window) };
        let gateway = FrameGateway::start(limits, |_, _, _| Reaction::Answer).await.unwrap();
        let api = trusting(&gateway).await;
        let size = if window == 1 { 64 } else { 128 * 1024 };
        held(&gateway, &api, &payloads(60, size), 0).await;
        assert_eq!(gateway.connections(), 1);
    }
}

/// An error of the request itself says nothing about the connection.
#[tokio::test]
async fn invalid_request_keeps_the_connection() {
    let gateway = FrameGateway::start(Limits::default(), |_, _, _| Reaction::Answer).await.unwrap();
    let port = gateway.endpoint().rsplit([':', '/']).nth(1).unwrap().parse().unwrap();
    let pool = Pool::new("localhost", port, Some(gateway.trusting()), 128).unwrap();
    let date = HeaderValue::from_static("20260101T000000Z");
    let signature = Signature { date, token: None, authorization: Vec::new() };
    let payload = Bytes::from_static(b"1");
    let wall = SystemTime::UNIX_EPOCH;
    let request = |origin| PostRequest {
        origin,
        host: "localhost",
        path: "/",
        signature: &signature,
        payload: &payload,
    };
    for _ in 0..2 {
        assert_eq!(pool.send(&request("https://localhost"), wall).await.unwrap().status, 200);
        let failure = pool.send(&request(""), wall).await.unwrap_err();
        assert!(matches!(failure, Failure::Broken(_)), "{failure:?}");
    }
    assert_eq!((gateway.arrived(), gateway.connections()), (2, 1));
}

/// The next post that waits takes the turn of one that is cancelled.
#[tokio::test]
async fn cancelled_wait_leaves_its_turn() {
    let gateway = FrameGateway::start(limit(1), |_, _, _| Reaction::Hold).await.unwrap();
    let api = tls_api(gateway.trusting(), &gateway.endpoint(), 1).await;
    let mut posts: Vec<_> = (0..4).map(|_| Box::pin(post(&api, "c"))).collect();
    assert!(posts.iter_mut().all(|post| post.now_or_never().is_none()));
    eventually("a post has arrived", async || {
        assert!((&mut posts[0]).now_or_never().is_none());
        Ok(gateway.arrived() == 1)
    })
    .await
    .unwrap();
    assert!(posts.iter_mut().all(|post| post.now_or_never().is_none()));
    drop(posts.remove(1));
    gateway.release();
    assert_eq!(timeout(DEADLINE, join_all(posts)).await.unwrap(), vec![status(200, ""); 3]);
    assert_eq!((gateway.arrived(), gateway.connections()), (3, 1));
}

/// A post that waits opens a connection in place of the first, which is cancelled.
#[tokio::test]
async fn cancelled_opening_leaves_its_turn() {
    let gateway = FrameGateway::start(limit(1), |_, _, _| Reaction::Answer).await.unwrap();
    let api = tls_api(gateway.trusting(), &gateway.endpoint(), 1).await;
    let mut posts: Vec<_> = (0..3).map(|_| Box::pin(post(&api, "c"))).collect();
    assert!(posts.iter_mut().all(|post| post.now_or_never().is_none()));
    drop(posts.remove(0));
    assert_eq!(timeout(DEADLINE, join_all(posts)).await.unwrap(), vec![status(200, ""); 2]);
    assert_eq!(gateway.arrived(), 2);
}

/// A connection without posts and a place in the pool, whose peer reads no more.
#[tokio::test(start_paused = true)]
async fn unread_connection_ends() {
    let (client, mut host) = duplex(16);
    let (mut settings, mut sent) = ([0; 9], vec![0; 64]);
    settings[3] = 4;
    let (start, _) = {
        let starting = Box::pin(Http2::start(client, Arc::default()));
        let serving = Box::pin(async {
            host.write_all(&settings).await.unwrap();
            loop {
                assert!(host.read(&mut sent).await.unwrap() > 0);
            }
        });
        match select(starting, serving).await {
            Either::Left((start, _)) => (start.unwrap(), ()),
            Either::Right((never, _)) => never,
        }
    };
    let (connection, driving) = start;
    drop(connection);
    timeout(DEADLINE, driving).await.unwrap();
}
