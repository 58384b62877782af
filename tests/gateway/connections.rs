//! Reuse of connections, and answers that do not belong to a post.

use std::time::Duration;

use delivery_worker::classify::{Verdict, classify};
use futures::future::join_all;
use streamer_gateway::{ManagementApi, PostResult};
use streamer_tests::{
    eventually,
    h2::Http2Gateway,
    wire::{Reply, WireGateway},
};

use crate::client::{api, config, credentials, post, status, trusting_api};

#[tokio::test]
async fn idle_connection_is_reused() {
    let gateway = WireGateway::start(|_| Reply::Answer(410, "{}".to_owned())).await.unwrap();
    let api = api(&gateway.endpoint()).await;
    for _ in 0..10 {
        assert_eq!(post(&api, "c").await, status(410, "{}"));
    }
    assert_eq!(gateway.connections(), 1);
}

/// Concurrent posts have a connection each, and at most three stay idle.
#[tokio::test]
async fn idle_connections_are_limited() {
    let gateway = WireGateway::start(|_| Reply::Late(Duration::from_millis(50), 200)).await.unwrap();
    let config = config(credentials(None)).await;
    let api = ManagementApi::new(&config, &gateway.endpoint(), 3).unwrap();
    join_all((0..5).map(|_| post(&api, "c"))).await;
    assert_eq!(gateway.connections(), 5);
    join_all((0..5).map(|_| post(&api, "c"))).await;
    assert_eq!(gateway.connections(), 7);
}

#[tokio::test]
async fn closed_idle_connection_is_replaced() {
    let gateway = WireGateway::start(|_| Reply::Last(200)).await.unwrap();
    let api = api(&gateway.endpoint()).await;
    for number in 1..=5 {
        assert_eq!(post(&api, "c").await, status(200, ""));
        assert_eq!((gateway.connections(), gateway.requests().len()), (number, number));
    }
}

#[tokio::test]
async fn post_on_reset_idle_connection_is_repeated() {
    let gateway = WireGateway::start(|index| match index {
        1 => Reply::Reset,
        2 => Reply::Half,
        _ => Reply::Answer(200, String::new()),
    })
    .await
    .unwrap();
    let api = api(&gateway.endpoint()).await;
    assert_eq!(post(&api, "c").await, status(200, ""));
    // The idle connection is reset. The new one is closed in the middle of the answer, which is a failure.
    assert!(matches!(post(&api, "c").await, PostResult::Broken(_)));
    assert_eq!(post(&api, "c").await, status(200, ""));
    assert_eq!((gateway.connections(), gateway.requests().len()), (3, 4));
}

#[tokio::test]
async fn post_on_broken_new_connection_is_not_repeated() {
    for reply in [Reply::Reset, Reply::Half] {
        let gateway = WireGateway::start(move |_| reply.clone()).await.unwrap();
        let answer = post(&api(&gateway.endpoint()).await, "c").await;
        assert!(matches!(answer, PostResult::Broken(_)), "{answer:?}");
        assert_eq!(gateway.requests().len(), 1);
    }
}

#[tokio::test]
async fn refused_connection_names_the_endpoint() {
    let answer = post(&api("http://127.0.0.1:9/stage").await, "c").await;
    assert!(matches!(&answer, PostResult::Broken(error) if error.contains("127.0.0.1:9")), "{answer:?}");
}

#[tokio::test]
async fn unrequested_answers_are_ignored() {
    let late = "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    for first in [
        format!("{ok}{late}"),
        // Heads after which the start of the next answer is unknown, and one after which the host closes.
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: +0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nConnection: keep-alive, close\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
    ] {
        let reply = first.clone();
        let gateway = WireGateway::start(move |index| match index {
            0 => Reply::Raw(reply.clone().into()),
            _ => Reply::Answer(200, String::new()),
        })
        .await
        .unwrap();
        let api = api(&gateway.endpoint()).await;
        for _ in 0..3 {
            assert!(matches!(post(&api, "c").await, PostResult::Status { status: 200, .. }), "{first}");
        }
        assert_eq!(gateway.connections(), 2, "{first}");
    }
}

#[tokio::test]
async fn answer_on_idle_connection_is_ignored() {
    let gateway = WireGateway::start(|index| match index {
        0 => Reply::Then(200, Duration::from_millis(30), "HTTP/1.1 408 Late\r\nContent-Length: 0\r\n\r\n"),
        _ => Reply::Answer(200, String::new()),
    })
    .await
    .unwrap();
    let api = api(&gateway.endpoint()).await;
    assert_eq!(post(&api, "c").await, status(200, ""));
    eventually("the host has sent the 408", async || Ok(gateway.spoke())).await.unwrap();
    assert_eq!(post(&api, "c").await, status(200, ""));
    assert_eq!(gateway.connections(), 2);
}

#[tokio::test]
async fn interim_answers_are_skipped() {
    let interim =
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 410 Gone\r\nContent-Length: 2\r\n\r\n{}";
    let gateway = WireGateway::start(move |_| Reply::Raw(interim.into())).await.unwrap();
    let api = api(&gateway.endpoint()).await;
    assert_eq!(post(&api, "c").await, status(410, "{}"));
    assert_eq!(post(&api, "c").await, status(410, "{}"));
    assert_eq!(gateway.connections(), 1);
}

#[tokio::test]
async fn goaway_during_many_posts_is_harmless() {
    let gateway = Http2Gateway::start(20).await.unwrap();
    let api = trusting_api(&gateway, &gateway.endpoint()).await;
    for _ in 0..5 {
        let answers = join_all((0..50).map(|_| post(&api, "c"))).await;
        assert!(answers.iter().all(|answer| *answer == status(200, "")), "{answers:?}");
    }
    assert!(gateway.connections() <= 15, "posts without a connection wait for the one being opened");
}

/// RFC 9112, section 7.1. The last chunk ends the answer, so the next post uses the connection.
#[tokio::test]
async fn chunked_answers_keep_the_connection() {
    let gone = r#"{"message":"GoneException"}"#;
    for (answer, expected) in [
        ("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), status(200, "")),
        (
            "200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
                .to_owned(),
            status(200, "{}"),
        ),
        (
            format!("410 Gone\r\ntransfer-encoding: Chunked\r\n\r\n1b;x=y\r\n{gone}\r\n0\r\nTrailer: t\r\n\r\n"),
            status(410, gone),
        ),
        ("204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), status(204, "")),
    ] {
        let reply = format!("HTTP/1.1 {answer}");
        let gateway = WireGateway::start(move |_| Reply::Raw(reply.clone().into())).await.unwrap();
        let api = api(&gateway.endpoint()).await;
        for _ in 0..3 {
            assert_eq!(post(&api, "c").await, expected, "{answer}");
        }
        assert_eq!(gateway.connections(), 1, "{answer}");
    }
}

/// The status counts. The start of the next answer is unknown, so the connection is not reused.
#[tokio::test]
async fn answer_that_is_not_chunked_closes_its_connection() {
    for body in ["{}", "2\r\n{}", "2\r\n{}x\r\n0\r\n\r\n", "0\r\n\r\nHTTP/1.1 410 Gone\r\n\r\n"] {
        let reply = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let gateway = WireGateway::start(move |_| Reply::Raw(reply.clone().into())).await.unwrap();
        let api = api(&gateway.endpoint()).await;
        for number in 1..=2 {
            assert!(matches!(post(&api, "c").await, PostResult::Status { status: 200, .. }), "{body}");
            assert_eq!(gateway.connections(), number, "{body}");
        }
    }
    let gzip = "HTTP/1.1 400 Bad\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n";
    let gateway = WireGateway::start(move |_| Reply::Raw(gzip.into())).await.unwrap();
    let api = api(&gateway.endpoint()).await;
    for number in 1..=2 {
        assert!(matches!(post(&api, "c").await, PostResult::Status { status: 400, .. }));
        assert_eq!(gateway.connections(), number);
    }
}

/// The post does not wait for the end of the connection, and so it does not have the body.
#[tokio::test]
async fn accepted_post_without_length_is_delivered_at_once() {
    let gateway = WireGateway::start(|_| Reply::Raw(b"HTTP/1.1 200 OK\r\n\r\n{}".to_vec())).await.unwrap();
    let api = api(&gateway.endpoint()).await;
    for number in 1..=3 {
        assert_eq!(post(&api, "c").await, status(200, ""));
        assert_eq!(gateway.connections(), number);
    }
}

/// The status counts, and the connection is not reused.
#[tokio::test]
async fn endless_body_is_abandoned() {
    let gateway = WireGateway::start(|_| Reply::Endless(410)).await.unwrap();
    let api = api(&gateway.endpoint()).await;
    assert_eq!(classify(post(&api, "c").await), Verdict::NoConnection);
    assert_eq!(classify(post(&api, "c").await), Verdict::NoConnection);
    assert_eq!(gateway.connections(), 2);
}

#[tokio::test]
async fn abandoned_post_closes_its_connection() {
    let gateway = WireGateway::start(|index| match index {
        0 => Reply::Late(Duration::from_secs(60), 500),
        _ => Reply::Answer(200, String::new()),
    })
    .await
    .unwrap();
    let api = api(&gateway.endpoint()).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), post(&api, "c")).await.is_err());
    assert_eq!(post(&api, "c").await, status(200, ""));
    assert_eq!(gateway.connections(), 2);
}

#[tokio::test]
async fn http2_posts_share_one_connection() {
    let gateway = Http2Gateway::start(usize::MAX).await.unwrap();
    let api = trusting_api(&gateway, &gateway.endpoint()).await;
    let answers = join_all((0..50).map(|number| {
        let api = &api;
        async move { post(api, &format!("c{number}")).await }
    }))
    .await;
    assert!(answers.iter().all(|answer| *answer == status(200, "")), "{answers:?}");
    assert_eq!((gateway.connections(), gateway.paths().len()), (1, 50));
    assert!(gateway.paths().contains(&"/stage/@connections/c7".to_owned()));
}

#[tokio::test]
async fn goaway_is_harmless() {
    let gateway = Http2Gateway::start(3).await.unwrap();
    let api = trusting_api(&gateway, &gateway.endpoint()).await;
    for _ in 0..10 {
        assert_eq!(post(&api, "c").await, status(200, ""));
    }
    assert!(gateway.connections() >= 3, "each connection takes 3 posts");
}

#[tokio::test]
async fn untrusted_certificate_is_reported() {
    let gateway = Http2Gateway::start(usize::MAX).await.unwrap();
    let answer = post(&api(&gateway.endpoint()).await, "c").await;
    assert!(matches!(&answer, PostResult::Broken(error) if error.contains("certificate")), "{answer:?}");
}
