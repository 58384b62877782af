//! Connections that are lost, silent, idle or slow to open, and clocks that are wrong.

use std::time::{Duration, SystemTime};

use aws_smithy_types::date_time::{DateTime, Format};
use bytes::Bytes;
use delivery_worker::{
    classify::PostResult,
    gateway::{Gateway as _, ManagementApi},
};
use futures::future::join_all;
use streamer_tests::{
    h2::{Action, Http2Gateway},
    wire::{Reply, WireGateway},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::timeout,
};

use crate::{api, config, credentials, post, status};

/// No test waits for longer.
const PATIENCE: Duration = Duration::from_secs(60);

async fn trusting(gateway: &Http2Gateway, endpoint: &str) -> ManagementApi {
    let config = config(credentials(None)).await;
    ManagementApi::with_tls(&config, endpoint, 128, gateway.trusting()).unwrap()
}

async fn posts(api: &ManagementApi, number: usize) -> Vec<PostResult> {
    timeout(PATIENCE, join_all((0..number).map(|_| post(api, "c")))).await.unwrap()
}

fn delivered(answers: &[PostResult]) -> usize {
    answers.iter().filter(|answer| **answer == status(200, "")).count()
}

/// Posts after pauses, of which the last is too long for the connection.
async fn idle_limit_holds(api: &ManagementApi, made: impl Fn() -> usize) {
    for (seconds, connections) in [(0, 1), (40, 1), (40, 1), (50, 2)] {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
        assert_eq!(post(api, "c").await, status(200, ""));
        assert_eq!(made(), connections);
    }
}

mod http2 {
    use super::*;

    /// The first connection answers one post; every other connection answers all.
    fn once_and_then(fault: Action) -> impl Fn(usize, usize) -> Action {
        move |connection, place| if connection == 0 && place > 0 { fault } else { Action::Answer }
    }

    #[tokio::test]
    async fn closed_without_goaway_is_replaced() {
        let gateway = Http2Gateway::scripted(once_and_then(Action::Close)).await.unwrap();
        let api = trusting(&gateway, &gateway.endpoint()).await;
        assert_eq!(delivered(&posts(&api, 1).await), 1);
        assert_eq!(delivered(&posts(&api, 100).await), 100);
        assert_eq!(gateway.connections(), 2);
    }

    /// A post that waits for a stream when the connection is closed is not on it yet.
    #[tokio::test]
    async fn closed_while_a_post_waits_is_replaced() {
        let gateway = Http2Gateway::limited(1, once_and_then(Action::Close)).await.unwrap();
        let api = trusting(&gateway, &gateway.endpoint()).await;
        assert_eq!(delivered(&posts(&api, 1).await), 1);
        let answers = posts(&api, 2).await;
        assert_eq!(delivered(&answers), 2, "{answers:?}");
    }

    #[tokio::test]
    async fn silent_to_pings_is_replaced() {
        let gateway = Http2Gateway::start(usize::MAX).await.unwrap();
        let pipe = gateway.pipe(0).await.unwrap();
        let api = trusting(&gateway, &pipe.endpoint()).await;
        assert_eq!(delivered(&posts(&api, 1).await), 1);
        pipe.silence();
        assert_eq!(delivered(&posts(&api, 60).await), 60);
        assert_eq!(pipe.connections(), 2);
    }

    #[tokio::test]
    async fn handshake_that_hangs_is_tried_again() {
        let gateway = Http2Gateway::start(usize::MAX).await.unwrap();
        let pipe = gateway.pipe(1).await.unwrap();
        let api = trusting(&gateway, &pipe.endpoint()).await;
        assert_eq!(delivered(&posts(&api, 60).await), 60);
        assert_eq!(pipe.connections(), 2);
    }

    #[tokio::test]
    async fn that_answers_no_post_is_left_and_counts_once() {
        let gateway = Http2Gateway::scripted(once_and_then(Action::Hang)).await.unwrap();
        let api = trusting(&gateway, &gateway.endpoint()).await;
        assert_eq!(delivered(&posts(&api, 1).await), 1);
        let answers = posts(&api, 20).await;
        let timeouts = answers.iter().filter(|answer| **answer == PostResult::Timeout).count();
        let lost = answers.iter().filter(|answer| matches!(answer, PostResult::ConnectionLost(_))).count();
        assert_eq!((timeouts, lost), (1, 19), "{answers:?}");
        assert_eq!(delivered(&posts(&api, 20).await), 20);
        assert_eq!(gateway.connections(), 2);
    }

    #[tokio::test]
    async fn host_that_never_answers_fails_every_post() {
        let gateway = Http2Gateway::scripted(|_, _| Action::Hang).await.unwrap();
        let api = trusting(&gateway, &gateway.endpoint()).await;
        assert_eq!(posts(&api, 5).await, vec![PostResult::Timeout; 5]);
    }

    #[tokio::test]
    async fn refused_stream_is_repeated_twice() {
        for (refused, expected) in [(2, 200), (3, 0)] {
            let script =
                move |connection, _| if connection < refused { Action::RefuseStream } else { Action::Answer };
            let gateway = Http2Gateway::scripted(script).await.unwrap();
            let api = trusting(&gateway, &gateway.endpoint()).await;
            match post(&api, "c").await {
                PostResult::Status { status, .. } => assert_eq!(status, expected),
                PostResult::Broken(error) => assert_eq!(expected, 0, "{error}"),
                other => panic!("{other:?}"),
            }
            assert_eq!(gateway.paths().len(), 3);
        }
    }

    #[tokio::test]
    async fn idle_for_50_s_is_not_used_again() {
        let gateway = Http2Gateway::start(usize::MAX).await.unwrap();
        let api = trusting(&gateway, &gateway.endpoint()).await;
        idle_limit_holds(&api, || gateway.connections()).await;
    }
}

mod http1 {
    use super::*;

    #[tokio::test]
    async fn idle_for_50_s_is_not_used_again() {
        let gateway = WireGateway::start(|_| Reply::Answer(200, String::new())).await.unwrap();
        let api = api(&gateway.endpoint()).await;
        idle_limit_holds(&api, || gateway.connections()).await;
    }

    /// The host has said 413 and closed before it had all of the payload.
    #[tokio::test]
    async fn early_answer_is_read_after_failed_write() {
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
        let answer = timeout(PATIENCE, api.post(&"c".try_into().unwrap(), payload)).await.unwrap();
        assert_eq!(answer, status(413, ""));
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn head_of_more_than_16_kib_is_no_answer() {
        let head = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(20 * 1024));
        let gateway = WireGateway::start(move |_| Reply::Raw(head.clone().into())).await.unwrap();
        let api = api(&gateway.endpoint()).await;
        let answer = timeout(PATIENCE, post(&api, "c")).await.unwrap();
        assert!(matches!(&answer, PostResult::Broken(error) if error.contains("too long")), "{answer:?}");
    }
}

mod clock {
    use super::*;

    /// A gateway whose clock is ahead of this machine's by so many seconds, and refuses signatures as AWS does.
    async fn ahead(seconds: i64) -> WireGateway {
        let now = move || {
            let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            i64::try_from(since_epoch.as_secs()).unwrap() + seconds
        };
        let basic = |seconds: i64| -> String {
            let text = DateTime::from_secs(seconds).fmt(Format::DateTime).unwrap();
            text.chars().filter(|character| !matches!(character, '-' | ':')).collect()
        };
        WireGateway::answering(move |_, request| {
            let signed_at = request.header("x-amz-date").unwrap().to_owned();
            if (basic(now() - 300)..=basic(now() + 300)).contains(&signed_at) {
                return Reply::Answer(200, String::new());
            }
            let date = DateTime::from_secs(now()).fmt(Format::HttpDate).unwrap();
            Reply::Raw(format!("HTTP/1.1 403 Forbidden\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n").into())
        })
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn skew_is_learned_from_the_first_refusal() {
        for seconds in [600, -600] {
            let gateway = ahead(seconds).await;
            let api = api(&gateway.endpoint()).await;
            for _ in 0..3 {
                assert_eq!(post(&api, "c").await, status(200, ""), "{seconds}");
            }
            assert_eq!(gateway.requests().len(), 4, "one was refused");
        }
    }

    #[tokio::test]
    async fn refusal_for_another_reason_is_not_repeated() {
        let gateway = WireGateway::start(|_| {
            let date = DateTime::from(SystemTime::now()).fmt(Format::HttpDate).unwrap();
            Reply::Raw(format!("HTTP/1.1 403 Forbidden\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n").into())
        })
        .await
        .unwrap();
        assert_eq!(post(&api(&gateway.endpoint()).await, "c").await, status(403, ""));
        assert_eq!(gateway.requests().len(), 1);
    }

    #[tokio::test]
    async fn wrong_date_is_repeated_once() {
        let gateway = WireGateway::start(|_| {
            let head =
                "HTTP/1.1 403 Forbidden\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n";
            Reply::Raw(head.into())
        })
        .await
        .unwrap();
        assert_eq!(post(&api(&gateway.endpoint()).await, "c").await, status(403, ""));
        assert_eq!(gateway.requests().len(), 2);
    }
}
