//! Permissions that the worker lacks. AWS's answers to it are scripted, because the shared stack does not check policies.

use streamer_tests::wire::{Reply, Request, WireGateway};

use super::Patient;

const DENIED: &str = r#"{"__type":"com.amazon.coral.service#AccessDeniedException","message":"User: arn:aws:sts::000000000000:assumed-role/worker is not authorized to perform this action"}"#;

fn denied(_: usize, _: &Request) -> Reply {
    let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.0\r\n";
    Reply::Raw(format!("{head}Content-Length: {}\r\n\r\n{DENIED}", DENIED.len()).into_bytes())
}

#[tokio::test]
async fn missing_table_permissions_are_named() -> anyhow::Result<()> {
    let aws = WireGateway::answering(denied).await?;
    let origin = aws.origin();
    let variables = [("AWS_ENDPOINT_URL_DYNAMODB", origin.as_str())];
    let patient = Patient::with_worker("doctor-no-table", None, &variables).await?;
    let report = patient.examine().await?;
    assert_eq!((report.verdict("delivery.first"), report.verdict("delivery.queue")), ("ok", "ok"));
    report.assert_named("delivery.user", "failed", "dynamodb:Query");
    report.assert_named("permissions.gone_row", "failed", "dynamodb:DeleteItem on the connection table");
    assert!(report.text("permissions.gone_row", "remedy").contains("streamer-doctor-no-table-delivery"));
    report.assert_named("cleanup.complete", "warning", "whose ids begin with doctor-");
    Ok(())
}

#[tokio::test]
async fn missing_queue_permissions_are_named() -> anyhow::Result<()> {
    let aws = WireGateway::answering(denied).await?;
    let origin = aws.origin();
    let variables = [("AWS_ENDPOINT_URL_SQS", origin.as_str())];
    let patient = Patient::with_worker("doctor-no-queues", None, &variables).await?;
    let report = patient.examine().await?;
    assert_eq!((report.verdict("delivery.first"), report.verdict("delivery.queue")), ("ok", "ok"));
    report.assert_named("delivery.tenant", "failed", "sqs:SendMessage on the parts queue");
    report.assert_named("permissions.dead_letter", "failed", "sqs:SendMessage on the dead-letter queue");
    report.assert_named("permissions.receipt", "failed", "sqs:SendMessage on the receipts queue");
    report.assert_named("cleanup.complete", "warning", "--show doctor-");
    Ok(())
}

/// API Gateway lets the person post, and not the worker.
#[tokio::test]
async fn missing_permission_to_post_is_named() -> anyhow::Result<()> {
    let gateway = super::odd::Gateway::start(super::odd::Oddity::RefuseWorker).await?;
    let patient = Patient::with_worker("doctor-no-posts", Some(&gateway.endpoint), &[]).await?;
    let report = patient.examine().await?;
    assert_eq!(report.verdict("endpoint.post"), "ok");
    report.assert_named("delivery.first", "failed", "execute-api:ManageConnections");
    assert!(report.text("delivery.first", "seen").ends_with("logs: 403"), "{:?}", report.output);
    patient.assert_nothing_left().await
}

/// A person without the permission to post gets skipped checks that name it.
#[tokio::test]
async fn permission_of_person_is_skipped() -> anyhow::Result<()> {
    let gateway = super::odd::Gateway::start(super::odd::Oddity::RefusePerson).await?;
    let patient = Patient::with_worker("doctor-person", Some(&gateway.endpoint), &[]).await?;
    let report = patient.examine().await?;
    assert_eq!(report.verdict("endpoint.post"), "skipped");
    assert!(report.text("endpoint.post", "seen").contains("execute-api:ManageConnections"));
    assert_eq!((report.verdict("delivery.queue"), report.verdict("post.33_kib")), ("ok", "skipped"));
    patient.assert_nothing_left().await
}
