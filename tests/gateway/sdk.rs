//! Requests, signatures and answers compared with the AWS SDK's.

use std::time::SystemTime;

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_sdk_apigatewaymanagement::{config::retry::RetryConfig, primitives::Blob};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use bytes::Bytes;
use delivery_worker::classify::classify;
use streamer_gateway::{Gateway as _, ManagementApi, PostResult};
use streamer_tests::wire::{Reply, Request, WireGateway};

use crate::client::{api, config, credentials, post, status};

/// Posts with the AWS SDK.
async fn sdk_post(config: &SdkConfig, endpoint: &str, connection: &str, payload: &[u8]) -> PostResult {
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

/// Returns the header `authorization` that AWS's general signer writes for a request.
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

/// Parses ISO 8601's basic format.
fn parse(date: &str) -> SystemTime {
    let at = |range: std::ops::Range<usize>| &date[range];
    let extended =
        format!("{}-{}-{}T{}:{}:{}Z", at(0..4), at(4..6), at(6..8), at(9..11), at(11..13), at(13..15));
    let format = aws_sdk_sqs::primitives::DateTimeFormat::DateTime;
    aws_sdk_sqs::primitives::DateTime::from_str(&extended, format).unwrap().try_into().unwrap()
}

#[tokio::test]
async fn requests_and_signatures_match() {
    let large = "x".repeat(128 * 1024);
    let ids = ["L0SM9cOFvHcCIhw=", "a/b", "a+b", "100%", "é ü", "a/../b", "?q=1#f", "~-._", "a\r\nb"];
    for path in ["", "/stage", "/a/b%20c"] {
        for token in [None, Some("t0ken+/=")] {
            for (id, payload) in ids.iter().map(|id| (*id, "{}")).chain([("c", ""), ("c", large.as_str())]) {
                let gateway = WireGateway::start(|_| Reply::Answer(200, String::new())).await.unwrap();
                let endpoint = format!("{}{path}", gateway.origin());
                let config = config(credentials(token)).await;
                let api = ManagementApi::new(&config, &endpoint, 128).unwrap();

                api.post(&id.try_into().unwrap(), Bytes::from(payload.to_owned())).await;
                sdk_post(&config, &endpoint, id, payload.as_bytes()).await;
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
async fn alternating_payloads_are_signed_correctly() {
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
async fn answers_are_classified_alike() {
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
            let gateway = WireGateway::start(move |_| Reply::Answer(code, body.to_owned())).await.unwrap();
            let config = config(credentials(None)).await;
            let ours = post(&api(&gateway.endpoint()).await, "c").await;
            let theirs = sdk_post(&config, &gateway.endpoint(), "c", b"1").await;
            assert_eq!(classify(ours.clone()), classify(theirs), "{code} {body}");
            assert_eq!(ours, status(code, body));
        }
    }
}
