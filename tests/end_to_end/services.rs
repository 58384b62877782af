//! SNS and EventBridge as senders: with the settings of the guide, the body on the queue is the message alone.

use anyhow::{Context as _, ensure};
use aws_sdk_sqs::types::QueueAttributeName;
use aws_smithy_http_client::{
    Connector,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{http::HttpConnector as _, orchestrator::HttpRequest};
use aws_smithy_types::body::SdkBody;
use http_body_util::BodyExt as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use streamer_cli::stack::Stack;
use streamer_tests::emulator::stack;

use crate::{TENANT, connected};

/// Calls a service of the emulator, which finds it by the scope of the signature and does not check the rest.
async fn call(
    stack: &Stack,
    service: &str,
    headers: &[(&'static str, &str)],
    body: String,
) -> anyhow::Result<String> {
    let connector = Connector::builder().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build();
    let mut request = HttpRequest::new(SdkBody::from(body));
    request.set_method("POST")?;
    request.set_uri(stack.deployed.endpoint_url.as_str())?;
    let scope = format!("test/20260101/{}/{service}/aws4_request", stack.deployed.region);
    let authorization = format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0");
    request.headers_mut().try_append("authorization", authorization)?;
    for (name, value) in headers {
        request.headers_mut().try_append(*name, (*value).to_owned())?;
    }
    let response = connector.call(request).await?;
    let (status, body) = (response.status().as_u16(), response.into_body().collect().await);
    let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    ensure!(status == 200, "{service} answered {status}: {text}");
    Ok(text)
}

/// Calls SNS, and returns the text of an element of its answer.
async fn sns(stack: &Stack, parameters: &[(&str, &str)], element: &str) -> anyhow::Result<String> {
    let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let pairs: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    let form = ("content-type", "application/x-www-form-urlencoded");
    let answer = call(stack, "sns", &[form], pairs.join("&")).await?;
    let found = answer.split_once(&format!("<{element}>")).and_then(|(_, rest)| rest.split_once('<'));
    Ok(found.context(answer.clone())?.0.to_owned())
}

async fn events(stack: &Stack, action: &str, parameters: &Value) -> anyhow::Result<()> {
    let target = format!("AWSEvents.{action}");
    let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target.as_str())];
    let answer: Value =
        serde_json::from_str(&call(stack, "events", &headers, parameters.to_string()).await?)?;
    ensure!(answer["FailedEntryCount"].as_u64().unwrap_or(0) == 0, "{answer}");
    Ok(())
}

async fn queue_arn(stack: &Stack, queue_url: &str) -> anyhow::Result<String> {
    let get = aws_sdk_sqs::Client::new(&stack.config).get_queue_attributes().queue_url(queue_url);
    let attributes = get.attribute_names(QueueAttributeName::QueueArn).send().await?.attributes;
    attributes
        .and_then(|mut found| found.remove(&QueueAttributeName::QueueArn))
        .context("the queue has no ARN")
}

/// Creates a topic with raw delivery to these queues, and returns its ARN.
pub(crate) async fn topic(stack: &Stack, name: &str, queue_urls: &[&str]) -> anyhow::Result<String> {
    let topic = sns(stack, &[("Action", "CreateTopic"), ("Name", name)], "TopicArn").await?;
    for queue_url in queue_urls {
        let subscribe = [
            ("Action", "Subscribe"),
            ("TopicArn", topic.as_str()),
            ("Protocol", "sqs"),
            ("Endpoint", &queue_arn(stack, queue_url).await?),
            ("Attributes.entry.1.key", "RawMessageDelivery"),
            ("Attributes.entry.1.value", "true"),
        ];
        sns(stack, &subscribe, "SubscriptionArn").await?;
    }
    Ok(topic)
}

/// Publishes a message on a topic.
pub(crate) async fn publish(stack: &Stack, topic: &str, body: &str) -> anyhow::Result<()> {
    let publish = [("Action", "Publish"), ("TopicArn", topic), ("Message", body)];
    sns(stack, &publish, "MessageId").await.map(drop)
}

fn message(id: &str, user: &str) -> Value {
    json!({ "version": 1, "id": id, "to": { "user": { "tenant": TENANT, "user": user } }, "payload": id })
}

#[tokio::test]
async fn sns_delivers_with_raw_message_delivery() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (mut client, _) = connected(&stack, "sns").await?;
    let topic = topic(&stack, "updates", &[&stack.deployed.queue_url]).await?;
    publish(&stack, &topic, &message("from-sns", "sns").to_string()).await?;
    assert_eq!(client.next("the message").await?.json()?, json!("from-sns"));
    Ok(())
}

/// An input path takes the message out of the event, and an input transformer makes one of it.
#[tokio::test]
async fn event_bridge_delivers_with_input_path() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (mut client, _) = connected(&stack, "events").await?;
    let arn = queue_arn(&stack, &stack.deployed.queue_url).await?;
    let template = format!(
        r#"{{"version": 1, "id": <id>, "to": {{"user": {{"tenant": "{TENANT}", "user": <user>}}}}, "payload": <report>}}"#
    );
    let transformer = json!({
        "InputPathsMap": { "id": "$.id", "user": "$.detail.user", "report": "$.detail.report" },
        "InputTemplate": template,
    });
    for (source, target, detail, payload) in [
        (
            "messages",
            json!({ "InputPath": "$.detail" }),
            message("from-events", "events"),
            json!("from-events"),
        ),
        (
            "reports",
            json!({ "InputTransformer": transformer }),
            json!({ "user": "events", "report": [7] }),
            json!([7]),
        ),
    ] {
        let pattern = json!({ "source": [source] }).to_string();
        events(&stack, "PutRule", &json!({ "Name": source, "EventPattern": pattern })).await?;
        let mut target = target;
        (target["Id"], target["Arn"]) = ("streamer".into(), arn.as_str().into());
        events(&stack, "PutTargets", &json!({ "Rule": source, "Targets": [target] })).await?;
        let entry =
            json!({ "Source": source, "DetailType": "Report finished", "Detail": detail.to_string() });
        events(&stack, "PutEvents", &json!({ "Entries": [entry] })).await?;
        assert_eq!(client.next("the message").await?.json()?, payload, "{source}");
    }
    Ok(())
}
