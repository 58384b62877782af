//! The worker's own client of API Gateway: on the wire, and beside the AWS SDK's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod failure_matrix;
mod lost;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use aws_config::{Region, SdkConfig};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future},
};
use aws_sdk_apigatewaymanagement::{config::retry::RetryConfig, primitives::Blob};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use bytes::Bytes;
use delivery_worker::{
    classify::{PostResult, Verdict, classify},
    gateway::{Gateway, ManagementApi, sign::Signer},
};
use futures::future::join_all;
use streamer_environment::aws;
use streamer_tests::{
    event::{batch, message},
    eventually,
    h2::Http2Gateway,
    wire::{Reply, Request, WireGateway},
    worker::Rig,
};

fn credentials(token: Option<&str>) -> Credentials {
    Credentials::new("AKIDEXAMPLE", "s3cret", token.map(str::to_owned), None, "test")
}

async fn config(credentials: Credentials) -> SdkConfig {
    let loader = aws::loader().region(Region::from_static("eu-central-1"));
    loader.credentials_provider(credentials).load().await
}

async fn api(endpoint: &str) -> ManagementApi {
    ManagementApi::new(&config(credentials(None)).await, endpoint, 128).unwrap()
}

async fn post(api: &ManagementApi, connection: &str) -> PostResult {
    api.post(&connection.try_into().unwrap(), Bytes::from_static(b"1")).await
}

fn status(status: u16, message: &str) -> PostResult {
    PostResult::Status { status, message: message.to_owned() }
}

/// What the AWS SDK makes of the same post.
async fn oracle(config: &SdkConfig, endpoint: &str, connection: &str, payload: &[u8]) -> PostResult {
    let config = aws_sdk_apigatewaymanagement::config::Builder::from(config)
        .endpoint_url(endpoint)
        .retry_config(RetryConfig::disabled());
    let client = aws_sdk_apigatewaymanagement::Client::from_conf(config.build());
    let post = client.post_to_connection().connection_id(connection).data(Blob::new(payload));
    match post.send().await {
        Ok(_) => status(200, ""),
        Err(error) => match error.raw_response() {
            Some(response) => {
                let body = response.body().bytes().unwrap_or_default();
                status(response.status().as_u16(), &String::from_utf8_lossy(body))
            }
            None => PostResult::Broken(error.to_string()),
        },
    }
}

/// The header `authorization` that AWS's general signer writes for a request that arrived.
fn signature_of(request: &Request, origin: &str, credentials: Credentials) -> String {
    let url = format!("{origin}{}", request.line.split(' ').nth(1).unwrap());
    let date = request.header("x-amz-date").unwrap();
    let identity = credentials.into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("eu-central-1")
        .name("execute-api")
        .time(parse(date))
        .settings(SigningSettings::default())
        .build()
        .unwrap();
    let headers = [
        ("content-type", request.header("content-type").unwrap()),
        ("host", request.header("host").unwrap()),
    ];
    let body = SignableBody::Bytes(&request.body);
    let signable = SignableRequest::new("POST", &url, headers.into_iter(), body).unwrap();
    let (instructions, _) = sign(signable, &params.into()).unwrap().into_parts();
    let (headers, _) = instructions.into_parts();
    headers.iter().find(|header| header.name() == "authorization").unwrap().value().to_owned()
}

fn parse(date: &str) -> SystemTime {
    let at = |range: std::ops::Range<usize>| &date[range];
    let extended =
        format!("{}-{}-{}T{}:{}:{}Z", at(0..4), at(4..6), at(6..8), at(9..11), at(11..13), at(13..15));
    let format = aws_sdk_sqs::primitives::DateTimeFormat::DateTime;
    aws_sdk_sqs::primitives::DateTime::from_str(&extended, format).unwrap().try_into().unwrap()
}

mod beside_the_sdk {
    use super::*;

    #[tokio::test]
    async fn every_request_is_the_same_and_its_signature_that_of_the_general_signer() {
        let large = "x".repeat(128 * 1024);
        let ids = ["L0SM9cOFvHcCIhw=", "a/b", "a+b", "100%", "é ü", "a/../b", "?q=1#f", "~-._", "a\r\nb"];
        for path in ["", "/stage", "/a/b%20c"] {
            for token in [None, Some("t0ken+/=")] {
                for (id, payload) in
                    ids.iter().map(|id| (*id, "{}")).chain([("c", ""), ("c", large.as_str())])
                {
                    let gateway = WireGateway::start(|_| Reply::Answer(200, String::new())).await.unwrap();
                    let endpoint = format!("{}{path}", gateway.origin());
                    let config = config(credentials(token)).await;
                    let api = ManagementApi::new(&config, &endpoint, 128).unwrap();

                    api.post(&id.try_into().unwrap(), Bytes::from(payload.to_owned())).await;
                    oracle(&config, &endpoint, id, payload.as_bytes()).await;
                    let requests = gateway.requests();
                    let [ours, theirs] = requests.as_slice() else { panic!("{requests:?}") };

                    assert_eq!((&ours.line, &ours.body), (&theirs.line, &theirs.body));
                    for name in ["host", "content-type", "content-length", "x-amz-security-token"] {
                        assert_eq!(ours.header(name), theirs.header(name), "{name} of {id:?}");
                    }
                    let expected = signature_of(ours, &gateway.origin(), credentials(token));
                    assert_eq!(ours.header("authorization"), Some(expected.as_str()), "{id:?} at {endpoint}");
                }
            }
        }
    }

    #[tokio::test]
    async fn payloads_that_take_turns_are_each_signed_as_themselves() {
        let gateway = WireGateway::start(|_| Reply::Answer(200, String::new())).await.unwrap();
        let api = api(&gateway.endpoint()).await;
        let kept = Bytes::from("\"kept\"".to_owned());
        for number in 0..20 {
            let fresh = Bytes::from(format!("\"n{number:03}\""));
            for payload in [&kept, &fresh, &fresh.slice(..4), &kept] {
                api.post(&"c".try_into().unwrap(), payload.clone()).await;
            }
        }
        for request in gateway.requests() {
            let expected = signature_of(&request, &gateway.origin(), credentials(None));
            assert_eq!(request.header("authorization"), Some(expected.as_str()));
        }
    }

    #[tokio::test]
    async fn every_status_and_error_body_is_understood_alike() {
        let bodies = [
            "",
            "{",
            "<html>",
            "{\"message\":null}",
            r#"{"message":"GoneException"}"#,
            r#"{"message":"Invalid connectionId: x","connectionId":"x"}"#,
            r#"{"message":"Forbidden"}"#,
            r#"{"__type":"LimitExceededException","message":"slow"}"#,
        ];
        for code in [200, 202, 301, 400, 401, 403, 404, 409, 410, 413, 429, 500, 502, 503, 504] {
            for body in bodies {
                let gateway =
                    WireGateway::start(move |_| Reply::Answer(code, body.to_owned())).await.unwrap();
                let config = config(credentials(None)).await;
                let ours = post(&api(&gateway.endpoint()).await, "c").await;
                let theirs = oracle(&config, &gateway.endpoint(), "c", b"1").await;
                assert_eq!(classify(ours.clone()), classify(theirs), "{code} {body}");
                assert_eq!(ours, status(code, body));
            }
        }
    }
}

mod connections {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_used_again() {
        let gateway = WireGateway::start(|_| Reply::Answer(410, "{}".to_owned())).await.unwrap();
        let api = api(&gateway.endpoint()).await;
        for _ in 0..10 {
            assert_eq!(post(&api, "c").await, status(410, "{}"));
        }
        assert_eq!(gateway.connections(), 1);
    }

    #[tokio::test]
    async fn posts_at_the_same_time_have_a_connection_each_and_at_most_the_limit_is_kept() {
        let gateway = WireGateway::start(|_| Reply::Late(Duration::from_millis(50), 200)).await.unwrap();
        let config = config(credentials(None)).await;
        let api = ManagementApi::new(&config, &gateway.endpoint(), 3).unwrap();
        join_all((0..5).map(|_| post(&api, "c"))).await;
        assert_eq!(gateway.connections(), 5);
        join_all((0..5).map(|_| post(&api, "c"))).await;
        assert_eq!(gateway.connections(), 7);
    }

    #[tokio::test]
    async fn a_kept_connection_that_was_closed_meanwhile_is_no_fault() {
        let gateway = WireGateway::start(|_| Reply::Last(200)).await.unwrap();
        let api = api(&gateway.endpoint()).await;
        for number in 1..=5 {
            assert_eq!(post(&api, "c").await, status(200, ""));
            assert_eq!((gateway.connections(), gateway.requests().len()), (number, number));
        }
    }

    #[tokio::test]
    async fn a_kept_connection_that_is_reset_under_a_post_is_no_fault() {
        let gateway = WireGateway::start(|place| match place {
            1 => Reply::Reset,
            2 => Reply::Half,
            _ => Reply::Answer(200, String::new()),
        })
        .await
        .unwrap();
        let api = api(&gateway.endpoint()).await;
        assert_eq!(post(&api, "c").await, status(200, ""));
        // The kept connection is reset; the fresh one is cut, which is a fault.
        assert!(matches!(post(&api, "c").await, PostResult::Broken(_)));
        assert_eq!(post(&api, "c").await, status(200, ""));
        assert_eq!((gateway.connections(), gateway.requests().len()), (3, 4));
    }

    #[tokio::test]
    async fn a_fresh_connection_that_breaks_is_no_answer_and_is_not_tried_again() {
        for reply in [Reply::Reset, Reply::Half] {
            let gateway = WireGateway::start(move |_| reply.clone()).await.unwrap();
            let answer = post(&api(&gateway.endpoint()).await, "c").await;
            assert!(matches!(answer, PostResult::Broken(_)), "{answer:?}");
            assert_eq!(gateway.requests().len(), 1);
        }
    }

    #[tokio::test]
    async fn an_endpoint_where_nobody_listens_is_no_answer() {
        let answer = post(&api("http://127.0.0.1:9/stage").await, "c").await;
        assert!(matches!(&answer, PostResult::Broken(error) if error.contains("127.0.0.1:9")), "{answer:?}");
    }

    #[tokio::test]
    async fn nothing_that_comes_unasked_is_an_answer() {
        let late = "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n";
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        for first in [
            format!("{ok}{late}"),
            // Heads that do not say where the next answer begins, and one after which the host closes.
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nContent-Length: +0\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, close\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        ] {
            let said = first.clone();
            let gateway = WireGateway::start(move |place| match place {
                0 => Reply::Raw(said.clone().into()),
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
    async fn what_is_said_while_the_connection_is_idle_is_no_answer() {
        let gateway = WireGateway::start(|place| match place {
            0 => {
                Reply::Then(200, Duration::from_millis(30), "HTTP/1.1 408 Late\r\nContent-Length: 0\r\n\r\n")
            }
            _ => Reply::Answer(200, String::new()),
        })
        .await
        .unwrap();
        let api = api(&gateway.endpoint()).await;
        assert_eq!(post(&api, "c").await, status(200, ""));
        eventually("the host has spoken", async || Ok(gateway.spoke())).await.unwrap();
        assert_eq!(post(&api, "c").await, status(200, ""));
        assert_eq!(gateway.connections(), 2);
    }

    #[tokio::test]
    async fn interim_answers_are_passed_over() {
        let interim =
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 410 Gone\r\nContent-Length: 2\r\n\r\n{}";
        let gateway = WireGateway::start(move |_| Reply::Raw(interim.into())).await.unwrap();
        let api = api(&gateway.endpoint()).await;
        assert_eq!(post(&api, "c").await, status(410, "{}"));
        assert_eq!(post(&api, "c").await, status(410, "{}"));
        assert_eq!(gateway.connections(), 1);
    }

    #[tokio::test]
    async fn a_goaway_under_many_posts_is_no_fault() {
        let gateway = Http2Gateway::start(20).await.unwrap();
        let config = config(credentials(None)).await;
        let api = ManagementApi::with_tls(&config, &gateway.endpoint(), 128, gateway.trusting()).unwrap();
        for _ in 0..5 {
            let answers = join_all((0..50).map(|_| post(&api, "c"))).await;
            assert!(answers.iter().all(|answer| *answer == status(200, "")), "{answers:?}");
        }
        assert!(gateway.connections() <= 15, "whoever finds none waits for the one that is being opened");
    }

    #[tokio::test]
    async fn a_body_that_does_not_end_is_left_and_the_status_counts() {
        let gateway = WireGateway::start(|_| Reply::Endless(410)).await.unwrap();
        let api = api(&gateway.endpoint()).await;
        assert_eq!(classify(post(&api, "c").await), Verdict::NoConnection);
        assert_eq!(classify(post(&api, "c").await), Verdict::NoConnection);
        assert_eq!(gateway.connections(), 2, "its connection is not used again");
    }

    #[tokio::test]
    async fn a_post_that_was_given_up_takes_its_connection_along() {
        let gateway = WireGateway::start(|place| match place {
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
    async fn http2_is_spoken_where_the_host_prefers_it_and_all_posts_share_one_connection() {
        let gateway = Http2Gateway::start(usize::MAX).await.unwrap();
        let config = config(credentials(None)).await;
        let api = ManagementApi::with_tls(&config, &gateway.endpoint(), 128, gateway.trusting()).unwrap();
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
    async fn a_goaway_is_no_fault() {
        let gateway = Http2Gateway::start(3).await.unwrap();
        let config = config(credentials(None)).await;
        let api = ManagementApi::with_tls(&config, &gateway.endpoint(), 128, gateway.trusting()).unwrap();
        for _ in 0..10 {
            assert_eq!(post(&api, "c").await, status(200, ""));
        }
        assert!(gateway.connections() >= 3, "each connection takes 3 posts");
    }

    #[tokio::test]
    async fn a_certificate_that_is_not_trusted_is_no_answer() {
        let gateway = Http2Gateway::start(usize::MAX).await.unwrap();
        let answer = post(&api(&gateway.endpoint()).await, "c").await;
        assert!(matches!(&answer, PostResult::Broken(error) if error.contains("certificate")), "{answer:?}");
    }
}

mod credentials_are {
    use super::*;

    /// Credentials that last for an hour from when they are given; the given calls fail.
    #[derive(Debug, Clone, Default)]
    struct Provider {
        calls: Arc<AtomicUsize>,
        failing: std::ops::Range<usize>,
        now: Arc<std::sync::Mutex<u64>>,
    }

    impl Provider {
        fn signer(&self) -> Signer {
            Signer::new(SharedCredentialsProvider::new(self.clone()), "eu-central-1", "a.example.com")
        }

        async fn sign(&self, signer: &Signer, at: u64) -> Result<String, String> {
            *self.now.lock().unwrap() = at;
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(at);
            let signed = signer.sign("/%40connections/c", &Bytes::from_static(b"1"), now).await?;
            Ok(String::from_utf8(signed.authorization).unwrap())
        }
    }

    impl ProvideCredentials for Provider {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::new(async {
                let call = self.calls.fetch_add(1, Ordering::Relaxed);
                let expiry = *self.now.lock().unwrap() + 3600;
                tokio::task::yield_now().await;
                if self.failing.contains(&call) {
                    return Err(CredentialsError::provider_error("scripted"));
                }
                let expiry = SystemTime::UNIX_EPOCH + Duration::from_secs(expiry);
                Ok(Credentials::new(format!("AKID{call}"), "s3cret", None, Some(expiry), "test"))
            })
        }
    }

    const MIDNIGHT: u64 = 20_000 * 86_400;

    #[tokio::test]
    async fn asked_for_once_and_renewed_five_minutes_before_they_expire() {
        let provider = Provider::default();
        let signer = provider.signer();
        for (second, key) in [(0, "AKID0/"), (3299, "AKID0/"), (3300, "AKID1/"), (3301, "AKID1/")] {
            let authorization = provider.sign(&signer, MIDNIGHT + second).await.unwrap();
            assert!(authorization.contains(key), "{second}: {authorization}");
        }
        assert_eq!(provider.calls.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn asked_for_by_one_post_while_the_others_wait_for_the_first_or_go_on_with_the_old() {
        let provider = Provider::default();
        let signer = provider.signer();
        for (second, calls) in [(0, 1), (3400, 2)] {
            let posts = (0..100).map(|_| provider.sign(&signer, MIDNIGHT + second));
            assert!(join_all(posts).await.iter().all(Result::is_ok));
            assert_eq!(provider.calls.load(Ordering::Relaxed), calls);
        }
    }

    #[tokio::test]
    async fn kept_when_the_renewal_fails_and_never_used_past_their_expiry() {
        let provider = Provider { failing: 1..usize::MAX, ..Provider::default() };
        let signer = provider.signer();
        assert!(provider.sign(&signer, MIDNIGHT).await.is_ok());
        assert!(provider.sign(&signer, MIDNIGHT + 3599).await.unwrap().contains("AKID0/"));
        let error = provider.sign(&signer, MIDNIGHT + 3600).await.unwrap_err();
        assert!(error.starts_with("no credentials: "), "{error}");
    }

    #[tokio::test]
    async fn signed_with_the_key_of_the_day() {
        let provider = Provider::default();
        let signer = provider.signer();
        let before = provider.sign(&signer, MIDNIGHT - 1).await.unwrap();
        let after = provider.sign(&signer, MIDNIGHT).await.unwrap();
        assert!(before.contains("/20241003/") && after.contains("/20241004/"), "{before} {after}");
        assert_eq!(
            provider.sign(&provider.signer(), MIDNIGHT).await.unwrap().replace("AKID1", "AKID0"),
            after
        );
    }
}

#[tokio::test]
async fn a_connection_id_stays_one_segment_of_the_path_and_the_payload_its_bytes() {
    let gateway = WireGateway::start(|_| Reply::Answer(200, String::new())).await.unwrap();
    let api = api(&gateway.endpoint()).await;
    for (id, path) in [
        ("L0SM9cOFvHcCIhw=", "L0SM9cOFvHcCIhw%3D"),
        ("a/../b", "a%2F..%2Fb"),
        ("a?b=c&d#e", "a%3Fb%3Dc%26d%23e"),
        ("50%", "50%25"),
        ("a\r\nHost: evil", "a%0D%0AHost%3A%20evil"),
        ("é+", "%C3%A9%2B"),
    ] {
        let payload = Bytes::from(format!("{{ \"id\":\t{id:?} }}"));
        api.post(&id.try_into().unwrap(), payload.clone()).await;
        let request = gateway.requests().pop().unwrap();
        assert_eq!(request.line, format!("POST /stage/@connections/{path} HTTP/1.1"));
        assert_eq!(request.body, payload);
    }
}

#[tokio::test]
async fn a_whole_invocation_delivers_over_the_wire() -> anyhow::Result<()> {
    let gateway = WireGateway::start(|place| match place {
        0 => Reply::Late(Duration::from_millis(20), 200),
        _ => Reply::Answer(200, String::new()),
    })
    .await?;
    let rig = Rig::new(api(&gateway.endpoint()).await);
    let reported = rig.invoke(batch([message("m", &["a", "b"]).to_string()])).await?;
    assert_eq!((reported.len(), gateway.requests().len()), (0, 2));
    Ok(())
}
