//! Settings that are wrong.

use std::time::SystemTime;

use anyhow::Context as _;
use aws_sdk_lambda::{
    operation::list_event_source_mappings::ListEventSourceMappingsOutput,
    types::EventSourceMappingConfiguration,
};
use streamer_cli::stack::issuer::Issuer;
use streamer_tests::wire::{Reply, WireGateway};

use super::{DEFAULT_USER, Patient, TOKEN_LIFETIME};

#[tokio::test]
async fn unreachable_endpoint_is_named() -> anyhow::Result<()> {
    let patient = Patient::with_worker("doctor-unreachable", Some("http://127.0.0.1:9/stage"), &[]).await?;
    let report = patient.examine().await?;
    report.assert_named(
        "endpoint.address",
        "failed",
        "WEBSOCKET_ENDPOINT of streamer-doctor-unreachable-delivery",
    );
    report.assert_named("connect.endpoint", "failed", "WEBSOCKET_ENDPOINT_ALIASES");
    report.assert_named("delivery.first", "failed", "WEBSOCKET_ENDPOINT");
    assert!(report.text("delivery.first", "seen").contains("logs: connection:"), "{:?}", report.output);
    assert_eq!(report.verdict("delivery.queue"), "skipped");
    patient.assert_nothing_left().await
}

/// A host that has no such API answers 403, with a type that says so.
#[tokio::test]
async fn endpoint_without_api_is_named() -> anyhow::Result<()> {
    let answer = "HTTP/1.1 403 Forbidden\r\nx-amzn-ErrorType: MissingAuthenticationTokenException\r\n\
                  Content-Length: 42\r\n\r\n{\"message\":\"Missing Authentication Token\"}";
    let gateway = WireGateway::start(|_| Reply::Raw(answer.as_bytes().to_vec())).await?;
    let patient = Patient::with_worker("doctor-no-api", Some(&gateway.endpoint()), &[]).await?;
    let report = patient.examine().await?;
    report.assert_named("endpoint.post", "failed", "API or stage do not exist there");
    assert!(report.text("endpoint.post", "seen").contains("MissingAuthenticationTokenException"));
    assert_eq!(report.values("endpoint.post")["status"], 403);
    assert_eq!(report.verdict("post.gone"), "skipped", "nothing can be posted");
    patient.assert_nothing_left().await
}

#[tokio::test]
async fn refused_token_is_named_with_reason() -> anyhow::Result<()> {
    let mut patient = Patient::whole("doctor-refused").await?;
    patient.token = Issuer::generate()?.token("doctor-refused", DEFAULT_USER, TOKEN_LIFETIME)?;
    let report = patient.examine().await?;
    report.assert_named("connect.token", "failed", "JWT_ISSUER");
    assert!(report.text("connect.token", "seen").contains("bad_signature"), "{:?}", report.output);
    assert_eq!((report.verdict("endpoint.post"), report.verdict("delivery.first")), ("ok", "skipped"));
    assert_eq!(report.verdict("connect.no_token"), "ok");
    patient.assert_nothing_left().await
}

/// Returns the id of the mapping from the queue with this text in its name.
fn mapping_of(mappings: &ListEventSourceMappingsOutput, queue: &str) -> anyhow::Result<String> {
    let of_queue = |mapping: &&EventSourceMappingConfiguration| {
        mapping.event_source_arn().is_some_and(|arn| arn.contains(queue))
    };
    let found = mappings.event_source_mappings().iter().find(of_queue);
    Ok(found.and_then(EventSourceMappingConfiguration::uuid).context("no mapping")?.to_owned())
}

/// The parts of the command's message for a tenant wait on their queue, and the cleanup takes them.
#[tokio::test]
async fn waiting_parts_are_named() -> anyhow::Result<()> {
    let patient = Patient::with_worker("doctor-parts", None, &[]).await?;
    let lambda = aws_sdk_lambda::Client::new(&patient.stack.config);
    let function = format!("{}-delivery", patient.name);
    let mappings = lambda.list_event_source_mappings().function_name(&function).send().await?;
    let id = mapping_of(&mappings, "-parts-")?;
    lambda.update_event_source_mapping().uuid(&id).enabled(false).send().await?;
    let report = patient.examine().await?;
    assert_eq!((report.verdict("delivery.first"), report.verdict("delivery.user")), ("ok", "ok"));
    report.assert_named("delivery.tenant", "failed", "event source mapping");
    assert!(
        report.text("delivery.tenant", "seen").contains("wait on the parts queue"),
        "{:?}",
        report.output
    );
    assert_eq!(report.verdict("cleanup.complete"), "ok", "{:?}", report.output);
    assert!(report.text("cleanup.complete", "seen").contains("message"), "{:?}", report.output);
    Ok(())
}

#[tokio::test]
async fn disabled_mapping_is_named() -> anyhow::Result<()> {
    let patient = Patient::with_worker("doctor-disabled", None, &[]).await?;
    let lambda = aws_sdk_lambda::Client::new(&patient.stack.config);
    let function = format!("{}-delivery", patient.name);
    let mappings = lambda.list_event_source_mappings().function_name(&function).send().await?;
    let id = mapping_of(&mappings, "-outbound-")?;
    lambda.update_event_source_mapping().uuid(&id).enabled(false).send().await?;
    let began = SystemTime::now();
    let report = patient.examine().await?;
    report.assert_named("delivery.first", "failed", &format!("--uuid {id} --enabled"));
    assert!(report.text("cleanup.complete", "seen").contains("1 message"), "{:?}", report.output);
    assert!(began.elapsed()?.as_secs() < 60, "{:?}", began.elapsed());
    patient.assert_nothing_left().await
}
