//! Connections that are lost, silent, idle for too long or slow to open.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use streamer_gateway::{Gateway as _, ManagementApi, PostResult};
use streamer_tests::{
    h2::{Action, Http2Gateway},
    wire::{Reply, WireGateway},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::timeout,
};

use crate::client::{api, post, status, trusting_api};

/// Maximum time that a test waits.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Makes this many posts at once.
async fn posts(api: &ManagementApi, number: usize) -> Vec<PostResult> {
    timeout(TIMEOUT, join_all((0..number).map(|_| post(api, "c")))).await.unwrap()
}

fn count_delivered(results: &[PostResult]) -> usize {
    results.iter().filter(|result| **result == status(200, "")).count()
}

/// Posts after pauses, the last of which is too long for the connection.
async fn idle_limit_holds(api: &ManagementApi, count_connections: impl Fn() -> usize) {
    for (seconds, expected) in [(0, 1), (40, 1), (40, 1), (50, 2)] {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
        assert_eq!(post(api, "c").await, status(200, ""));
        assert_eq!(count_connections(), expected);
    }
}

mod http2 {
    use super::*;

    /// The first connection answers one post; every other connection answers all.
    fn answers_once_then(fault: Action) -> impl Fn(usize, usize) -> Action {
        move |connection, index| if connection == 0 && index > 0 { fault } else { Action::Answer }
    }

    #[tokio::test]
    async fn close_without_goaway_is_survived() {
        let gateway = Http2Gateway::scripted(answers_once_then(Action::Close)).await.unwrap();
        let api = trusting_api(&gateway, &gateway.endpoint()).await;
        assert_eq!(count_delivered(&posts(&api, 1).await), 1);
        assert_eq!(count_delivered(&posts(&api, 100).await), 100);
        assert_eq!(gateway.connections(), 2);
    }

    /// A post that waits for a stream is not on the connection yet when that is closed.
    #[tokio::test]
    async fn close_while_a_post_waits_is_survived() {
        let gateway = Http2Gateway::limited(1, answers_once_then(Action::Close)).await.unwrap();
        let api = trusting_api(&gateway, &gateway.endpoint()).await;
        assert_eq!(count_delivered(&posts(&api, 1).await), 1);
        let results = posts(&api, 2).await;
        assert_eq!(count_delivered(&results), 2, "{results:?}");
    }

    #[tokio::test]
    async fn silence_to_pings_is_survived() {
        let gateway = Http2Gateway::start(usize::MAX).await.unwrap();
        let pipe = gateway.pipe(0).await.unwrap();
        let api = trusting_api(&gateway, &pipe.endpoint()).await;
        assert_eq!(count_delivered(&posts(&api, 1).await), 1);
        pipe.silence();
        assert_eq!(count_delivered(&posts(&api, 60).await), 60);
        assert_eq!(pipe.connections(), 2);
    }

    #[tokio::test]
    async fn hanging_handshake_is_retried() {
        let gateway = Http2Gateway::start(usize::MAX).await.unwrap();
        let pipe = gateway.pipe(1).await.unwrap();
        let api = trusting_api(&gateway, &pipe.endpoint()).await;
        assert_eq!(count_delivered(&posts(&api, 60).await), 60);
        assert_eq!(pipe.connections(), 2);
    }

    /// A connection that answers pings but no post is replaced, and its posts report one timeout.
    #[tokio::test]
    async fn unanswered_posts_report_one_failure() {
        let gateway = Http2Gateway::scripted(answers_once_then(Action::Hang)).await.unwrap();
        let api = trusting_api(&gateway, &gateway.endpoint()).await;
        assert_eq!(count_delivered(&posts(&api, 1).await), 1);
        let results = posts(&api, 20).await;
        let timeouts = results.iter().filter(|result| **result == PostResult::Timeout).count();
        let lost = results.iter().filter(|result| matches!(result, PostResult::ConnectionLost(_))).count();
        assert_eq!((timeouts, lost), (1, 19), "{results:?}");
        assert_eq!(count_delivered(&posts(&api, 20).await), 20);
        assert_eq!(gateway.connections(), 2);
    }

    #[tokio::test]
    async fn silent_host_fails_every_post() {
        let gateway = Http2Gateway::scripted(|_, _| Action::Hang).await.unwrap();
        let api = trusting_api(&gateway, &gateway.endpoint()).await;
        assert_eq!(posts(&api, 5).await, vec![PostResult::Timeout; 5]);
    }

    #[tokio::test]
    async fn refused_stream_is_repeated_twice() {
        for (refused, expected) in [(2, 200), (3, 0)] {
            let does = move |_, index| if index < refused { Action::RefuseStream } else { Action::Answer };
            let gateway = Http2Gateway::scripted(does).await.unwrap();
            let api = trusting_api(&gateway, &gateway.endpoint()).await;
            match post(&api, "c").await {
                PostResult::Status { status, .. } => assert_eq!(status, expected),
                PostResult::Broken(error) => assert_eq!(expected, 0, "{error}"),
                other => panic!("{other:?}"),
            }
            assert_eq!((gateway.paths().len(), gateway.connections()), (3, 1));
        }
    }

    #[tokio::test]
    async fn idle_for_50_s_is_not_reused() {
        let gateway = Http2Gateway::start(usize::MAX).await.unwrap();
        let api = trusting_api(&gateway, &gateway.endpoint()).await;
        idle_limit_holds(&api, || gateway.connections()).await;
    }
}

mod http1 {
    use super::*;

    #[tokio::test]
    async fn idle_connection_expires_after_50_s() {
        let gateway = WireGateway::start(|_| Reply::Answer(200, String::new())).await.unwrap();
        let api = api(&gateway.endpoint()).await;
        idle_limit_holds(&api, || gateway.connections()).await;
    }

    /// The host answers 413 and closes before it has received the whole payload.
    #[tokio::test]
    async fn early_answer_is_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/stage", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            let answer = b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        });
        let payload = Bytes::from(vec![b' '; 64 * 1024 * 1024]);
        let api = api(&endpoint).await;
        let answer = timeout(TIMEOUT, api.post(&"c".try_into().unwrap(), payload)).await.unwrap();
        assert_eq!(answer, status(413, ""));
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn head_over_16_kib_is_refused() {
        let head = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(20 * 1024));
        let gateway = WireGateway::start(move |_| Reply::Raw(head.clone().into())).await.unwrap();
        let api = api(&gateway.endpoint()).await;
        let answer = timeout(TIMEOUT, post(&api, "c")).await.unwrap();
        assert!(matches!(&answer, PostResult::Broken(error) if error.contains("too long")), "{answer:?}");
    }
}
