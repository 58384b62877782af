//! Queues, functions, tables and the clock.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod deployment;
mod permissions;

use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::types::{
    AttributeDefinition, CreateGlobalSecondaryIndexAction, DeleteGlobalSecondaryIndexAction,
    GlobalSecondaryIndexUpdate, KeySchemaElement, KeyType, Projection, ProjectionType, ScalarAttributeType,
    TimeToLiveSpecification,
};
use aws_sdk_lambda::types::FunctionResponseType;
use aws_sdk_sqs::types::QueueAttributeName;
use streamer_cli::{
    doctor::{Check, Verdict, settings},
    spec::Spec,
};

use self::{
    deployment::{Deployment, found},
    permissions::Needed,
};

/// The actions that the checks need, and the checks that are skipped without each.
const ACTIONS: [(&str, &[&str]); 8] = [
    ("apigateway:GET", &["api.exists"]),
    ("dynamodb:DescribeContinuousBackups", &["table.backups", "mailbox_table.backups"]),
    ("dynamodb:DescribeTable", &["table.exists", "mailbox_table.exists"]),
    ("dynamodb:DescribeTimeToLive", &["table.ttl", "mailbox_table.ttl"]),
    ("lambda:GetAccountSettings", &["quotas.concurrency"]),
    ("lambda:GetFunctionConcurrency", &["functions.reserved"]),
    ("lambda:ListEventSourceMappings", &["parts.mapping", "mapping.exists"]),
    ("sqs:GetQueueAttributes", &["queue.exists", "parts.exists", "dead_letters.exists", "receipts.exists"]),
];

/// Without a fault, nothing is found.
#[tokio::test]
async fn healthy_stack_has_no_findings() -> anyhow::Result<()> {
    let deployment = Deployment::lock().await?;
    let checks = deployment.examine().await?;
    let findings: Vec<_> =
        checks.iter().filter(|check| !matches!(check.verdict, Verdict::Ok | Verdict::Skipped)).collect();
    assert!(findings.is_empty(), "{findings:#?}");
    let ok = checks.iter().filter(|check| check.verdict == Verdict::Ok).count();
    assert!(ok >= 35, "{ok} of {checks:#?}");
    Ok(())
}

/// Lambda's checks of an account on AWS: an emulator has neither backups nor deletion protection, and no pace.
#[tokio::test]
async fn deployment_on_aws_has_further_rules() -> anyhow::Result<()> {
    let deployment = Deployment::lock().await?;
    let checks = deployment.examine_as_on_aws().await?;
    let findings = checks.iter().filter(|check| matches!(check.verdict, Verdict::Warning | Verdict::Failed));
    let names: Vec<_> = findings.map(|check| check.name).collect();
    let expected = [
        "queue.encryption",
        "parts.encryption",
        "dead_letters.encryption",
        "receipts.encryption",
        "mapping.rate",
        "table.backups",
        "table.protection",
        "mailbox_table.backups",
        "mailbox_table.protection",
    ];
    assert_eq!(names, expected, "{checks:#?}");
    assert_eq!(found(&checks, "quotas.concurrency").verdict, Verdict::Ok);
    Ok(())
}

/// A read that the credentials do not permit is skipped, and its action named. Other checks run, and find no more.
#[tokio::test]
async fn each_missing_permission_is_skipped() -> anyhow::Result<()> {
    let deployment = Deployment::lock().await?;
    let needed = Needed::default();
    let permitted = deployment.examine_without(None, &needed).await?;
    assert_eq!(needed.actions(), ACTIONS.map(|(action, _)| action), "{permitted:#?}");
    let findings = |checks: &[Check]| -> Vec<&'static str> {
        checks.iter().filter(|check| check.remedy.is_some()).map(|check| check.name).collect()
    };
    let expected = findings(&permitted);
    for (action, names) in ACTIONS {
        let checks = deployment.examine_without(Some(action), &needed).await?;
        let more: Vec<_> = findings(&checks).into_iter().filter(|name| !expected.contains(name)).collect();
        assert!(more.is_empty(), "{action}: {more:?} of {checks:#?}");
        let text = format!("the AWS credentials do not permit {action} on ");
        let skipped = checks.iter().filter(|check| check.seen.starts_with(&text));
        let skipped: Vec<_> = skipped.map(|check| (check.name, check.verdict)).collect();
        let names: Vec<_> = names.iter().map(|name| (*name, Verdict::Skipped)).collect();
        assert_eq!(skipped, names, "{action}: {checks:#?}");
        assert_eq!(found(&checks, "clock.offset").verdict, Verdict::Ok, "a denial has its time");
    }
    Ok(())
}

#[tokio::test]
async fn short_visibility_timeout_fails() -> anyhow::Result<()> {
    let deployment = Deployment::lock().await?;
    let queue = &deployment.stack.deployed.queue_url;
    deployment.set_attribute(queue, QueueAttributeName::VisibilityTimeout, "179").await?;
    let checks = deployment.examine().await?;
    deployment.set_attribute(queue, QueueAttributeName::VisibilityTimeout, "180").await?;
    deployment.assert_finding(&checks, "queue.visibility", Verdict::Failed, "179 s", "raise").await
}

#[tokio::test]
async fn missing_redrive_policy_fails() -> anyhow::Result<()> {
    let deployment = Deployment::lock().await?;
    let queue = &deployment.stack.deployed.queue_url;
    let policy = deployment.attribute(queue, QueueAttributeName::RedrivePolicy).await?;
    deployment.set_attribute(queue, QueueAttributeName::RedrivePolicy, "").await?;
    let checks = deployment.examine().await?;
    deployment.set_attribute(queue, QueueAttributeName::RedrivePolicy, &policy).await?;
    deployment
        .assert_finding(&checks, "queue.redrive", Verdict::Failed, "no redrive policy", "terraform apply")
        .await
}

/// The parts queue and its mapping follow the rules of the outbound queue and its mapping.
#[tokio::test]
async fn faulty_parts_queue_and_mapping_fail() -> anyhow::Result<()> {
    let deployment = Deployment::lock().await?;
    let queue = &deployment.stack.deployed.parts_queue_url;
    deployment.set_attribute(queue, QueueAttributeName::VisibilityTimeout, "179").await?;
    let checks = deployment.examine().await?;
    deployment.set_attribute(queue, QueueAttributeName::VisibilityTimeout, "180").await?;
    deployment.assert_finding(&checks, "parts.visibility", Verdict::Failed, "179 s", "raise").await?;

    let policy = deployment.attribute(queue, QueueAttributeName::RedrivePolicy).await?;
    deployment.set_attribute(queue, QueueAttributeName::RedrivePolicy, "").await?;
    let checks = deployment.examine().await?;
    deployment.set_attribute(queue, QueueAttributeName::RedrivePolicy, &policy).await?;
    let (seen, remedy) = ("no redrive policy", "terraform apply");
    deployment.assert_finding(&checks, "parts.redrive", Verdict::Failed, seen, remedy).await?;

    let lambda = aws_sdk_lambda::Client::new(&deployment.stack.config);
    let update = lambda.update_event_source_mapping().uuid(deployment.mapping(queue).await?);
    update.clone().enabled(false).send().await?;
    let checks = deployment.examine().await?;
    update.enabled(true).send().await?;
    deployment.assert_finding(&checks, "parts.mapping", Verdict::Failed, "Disabled", "parts wait").await
}

#[tokio::test]
async fn missing_dead_letter_queue_fails() -> anyhow::Result<()> {
    let deployment = Deployment::lock().await?;
    let sqs = aws_sdk_sqs::Client::new(&deployment.stack.config);
    let url = &deployment.stack.deployed.dead_letter_queue_url;
    sqs.delete_queue().queue_url(url).send().await?;
    let checks = deployment.examine().await?;
    let spec = Spec::read()?.queues.dead_letter;
    let create = sqs.create_queue().queue_name(url.rsplit('/').next().unwrap());
    let retention = spec.retention_seconds.to_string();
    create.attributes(QueueAttributeName::MessageRetentionPeriod, retention).send().await?;
    deployment
        .assert_finding(
            &checks,
            "dead_letters.exists",
            Verdict::Failed,
            "there is no queue",
            "create the queue",
        )
        .await
}

#[tokio::test]
async fn dead_letters_are_counted() -> anyhow::Result<()> {
    let deployment = Deployment::lock().await?;
    let sqs = aws_sdk_sqs::Client::new(&deployment.stack.config);
    let url = &deployment.stack.deployed.dead_letter_queue_url;
    sqs.send_message().queue_url(url).message_body("{}").send().await?;
    let checks = deployment.examine().await?;
    sqs.purge_queue().queue_url(url).send().await?;
    deployment
        .assert_finding(
            &checks,
            "dead_letters.waiting",
            Verdict::Warning,
            "dead letters: 1",
            "`streamer redrive`",
        )
        .await
}

#[tokio::test]
async fn disabled_mapping_fails() -> anyhow::Result<()> {
    let deployment = Deployment::lock().await?;
    let lambda = aws_sdk_lambda::Client::new(&deployment.stack.config);
    let mapping = deployment.mapping(&deployment.stack.deployed.queue_url).await?;
    lambda.update_event_source_mapping().uuid(&mapping).enabled(false).send().await?;
    let checks = deployment.examine().await?;
    lambda.update_event_source_mapping().uuid(&mapping).enabled(true).send().await?;
    deployment.assert_finding(&checks, "mapping.enabled", Verdict::Failed, "Disabled", "enable it").await
}

#[tokio::test]
async fn missing_partial_batch_responses_fail() -> anyhow::Result<()> {
    let deployment = Deployment::lock().await?;
    let lambda = aws_sdk_lambda::Client::new(&deployment.stack.config);
    let mapping = deployment.mapping(&deployment.stack.deployed.queue_url).await?;
    let update = lambda.update_event_source_mapping().uuid(mapping);
    update.clone().set_function_response_types(Some(Vec::new())).send().await?;
    let checks = deployment.examine().await?;
    update.function_response_types(FunctionResponseType::ReportBatchItemFailures).send().await?;
    let seen = "no partial batch responses";
    deployment.assert_finding(&checks, "mapping.responses", Verdict::Failed, seen, "are lost").await
}

#[tokio::test]
async fn missing_index_fails() -> anyhow::Result<()> {
    let deployment = Deployment::lock().await?;
    let dynamodb = aws_sdk_dynamodb::Client::new(&deployment.stack.config);
    let (spec, table) = (Spec::read()?.table, &deployment.stack.deployed.connections_table);
    let index = &spec.indexes[0];
    let delete = DeleteGlobalSecondaryIndexAction::builder().index_name(&index.name).build()?;
    let delete = GlobalSecondaryIndexUpdate::builder().delete(delete).build();
    dynamodb.update_table().table_name(table).global_secondary_index_updates(delete).send().await?;
    let checks = deployment.examine().await?;
    let key = KeySchemaElement::builder().attribute_name(&index.hash_key).key_type(KeyType::Hash).build()?;
    let projection = Projection::builder().projection_type(ProjectionType::Include);
    let projection = projection.set_non_key_attributes(Some(spec.projection.clone())).build();
    let create = CreateGlobalSecondaryIndexAction::builder().index_name(&index.name).key_schema(key);
    let create = GlobalSecondaryIndexUpdate::builder().create(create.projection(projection).build()?).build();
    let definition = AttributeDefinition::builder().attribute_name(&index.hash_key);
    let definition = definition.attribute_type(ScalarAttributeType::S).build()?;
    let update = dynamodb.update_table().table_name(table).global_secondary_index_updates(create);
    update.attribute_definitions(definition).send().await?;
    deployment
        .assert_finding(&checks, "table.indexes", Verdict::Failed, "no index by_user", "create the index")
        .await
}

#[tokio::test]
async fn missing_time_to_live_is_a_warning() -> anyhow::Result<()> {
    let deployment = Deployment::lock().await?;
    let dynamodb = aws_sdk_dynamodb::Client::new(&deployment.stack.config);
    let set = async |enabled| {
        let ttl = TimeToLiveSpecification::builder().attribute_name("expires_at").enabled(enabled).build()?;
        let update = dynamodb.update_time_to_live().table_name(&deployment.stack.deployed.mailbox_table);
        update.time_to_live_specification(ttl).send().await?;
        anyhow::Ok(())
    };
    set(false).await?;
    let checks = deployment.examine().await?;
    set(true).await?;
    let remedy = "time to live for `expires_at`";
    deployment.assert_finding(&checks, "mailbox_table.ttl", Verdict::Warning, "off", remedy).await
}

#[tokio::test]
async fn differing_timeout_variable_is_a_warning() -> anyhow::Result<()> {
    let deployment = Deployment::lock().await?;
    let worker = &deployment.stack.deployed.functions["delivery"];
    let original = deployment.variables(worker).await?;
    let mut changed = original.clone();
    changed.insert("TIMEOUT_SECONDS".to_owned(), "60".to_owned());
    deployment.set_variables(worker, changed).await?;
    let checks = deployment.examine().await?;
    deployment.set_variables(worker, original).await?;
    let seen = "delivery: timeout 30 s, TIMEOUT_SECONDS 60 s";
    deployment
        .assert_finding(&checks, "functions.timeout", Verdict::Warning, seen, "worker_timeout_seconds")
        .await
}

/// Functions that post to an API that does not exist.
#[tokio::test]
async fn endpoint_of_no_api_fails() -> anyhow::Result<()> {
    let deployment = Deployment::lock().await?;
    let worker = &deployment.stack.deployed.functions["delivery"];
    let original = deployment.variables(worker).await?;
    let (mut changed, endpoint) =
        (original.clone(), "https://gone.execute-api.eu-central-1.amazonaws.com/local");
    changed.insert("WEBSOCKET_ENDPOINT".to_owned(), endpoint.to_owned());
    deployment.set_variables(worker, changed).await?;
    let checks = deployment.examine().await?;
    deployment.set_variables(worker, original).await?;
    let check = found(&checks, "api.exists");
    assert_eq!((check.verdict, check.seen.as_str()), (Verdict::Failed, "there is no API gone"));
    assert!(check.remedy.as_ref().unwrap().contains("WEBSOCKET_ENDPOINT"), "{check:?}");
    let check = found(&checks, "functions.shared");
    assert_eq!(check.verdict, Verdict::Failed, "connect has another endpoint");
    Ok(())
}

/// The clock is compared with the header `Date` of an answer.
#[tokio::test]
async fn clock_that_is_off_fails() -> anyhow::Result<()> {
    let deployment = Deployment::lock().await?;
    let config = &deployment.stack.config;
    let check = settings::clock::check(config, || SystemTime::now() + Duration::from_secs(400)).await;
    assert_eq!((check.name, check.verdict), ("clock.offset", Verdict::Failed), "{check:?}");
    assert!(check.seen.ends_with(" s ahead of AWS"), "{check:?}");
    assert!(check.remedy.unwrap().contains("synchronize this machine's clock"));
    let check = settings::clock::check(config, || SystemTime::now() - Duration::from_secs(100)).await;
    assert_eq!(check.verdict, Verdict::Warning, "{check:?}");
    assert!(check.seen.ends_with(" s behind AWS"), "{check:?}");
    Ok(())
}
