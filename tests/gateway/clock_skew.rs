//! Clocks of this machine and the service that differ.

use std::time::SystemTime;

use aws_smithy_types::date_time::{DateTime, Format};
use streamer_tests::wire::{Reply, WireGateway};

use crate::client::{api, post, status};

/// Starts a gateway whose clock is ahead of this machine's by `seconds`. It refuses signatures as AWS does.
async fn gateway_ahead_by(seconds: i64) -> WireGateway {
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
        let gateway = gateway_ahead_by(seconds).await;
        let api = api(&gateway.endpoint()).await;
        for _ in 0..3 {
            assert_eq!(post(&api, "c").await, status(200, ""), "{seconds}");
        }
        assert_eq!(gateway.requests().len(), 4, "one post was refused");
    }
}

#[tokio::test]
async fn other_refusals_are_not_repeated() {
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
async fn wrong_date_causes_one_repeat() {
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
