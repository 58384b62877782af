//! The example Lambda `producer/examples/receipts.rs` behind a receipts queue, with its table.

use std::{collections::BTreeMap, fs};

use anyhow::Context as _;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use aws_sdk_lambda::{
    primitives::Blob,
    types::{Environment, FunctionCode, FunctionResponseType, Runtime},
};
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::{Value, json};
use streamer_cli::{
    package::archive::{Compression, archive},
    stack::Stack,
};
use streamer_message::{ReceiptEvent, ReceiptOutcome};
use streamer_tests::{emulator::stack, eventually};

use super::asking;
use crate::{
    languages::receipt,
    outcomes::{Deployment, ok},
    routers::build_example,
};

/// The function and its table, which have the same name.
struct Consumer {
    lambda: aws_sdk_lambda::Client,
    dynamodb: aws_sdk_dynamodb::Client,
    name: String,
}

impl Consumer {
    async fn deploy(stack: &Stack, name: &str) -> anyhow::Result<Self> {
        let name = format!("receipts-{name}-{}", std::process::id());
        let dynamodb = aws_sdk_dynamodb::Client::new(&stack.config);
        let mut create = dynamodb.create_table().table_name(&name).billing_mode(BillingMode::PayPerRequest);
        for (attribute, key) in [("id", KeyType::Hash), ("about", KeyType::Range)] {
            let definition = AttributeDefinition::builder().attribute_name(attribute);
            create = create
                .attribute_definitions(definition.attribute_type(ScalarAttributeType::S).build()?)
                .key_schema(KeySchemaElement::builder().attribute_name(attribute).key_type(key).build()?);
        }
        create.send().await?;

        let lambda = aws_sdk_lambda::Client::new(&stack.config);
        let zip = archive(&fs::read(build_example("receipts").await?)?, Compression::Fast)?;
        lambda
            .create_function()
            .function_name(&name)
            .runtime(Runtime::Providedal2023)
            .handler("bootstrap")
            .role("arn:aws:iam::000000000000:role/none")
            .timeout(30)
            .environment(Environment::builder().variables("OUTCOMES_TABLE", &name).build())
            .code(FunctionCode::builder().zip_file(Blob::new(zip)).build())
            .send()
            .await?;
        Ok(Self { lambda, dynamodb, name })
    }

    /// Lets the function read a queue.
    async fn read(&self, sqs: &aws_sdk_sqs::Client, url: &str) -> anyhow::Result<()> {
        let get = sqs.get_queue_attributes().queue_url(url).attribute_names(QueueAttributeName::QueueArn);
        let attributes = get.send().await?.attributes.unwrap_or_default();
        let arn = attributes.get(&QueueAttributeName::QueueArn).context("the queue has no ARN")?;
        let mapping = self.lambda.create_event_source_mapping().event_source_arn(arn);
        let mapping = mapping.function_name(&self.name).batch_size(10);
        mapping.function_response_types(FunctionResponseType::ReportBatchItemFailures).send().await?;
        Ok(())
    }

    /// Invokes the function with these bodies, whose ids are their numbers from 0.
    async fn invoke<const N: usize>(&self, bodies: [&str; N]) -> anyhow::Result<Value> {
        let record =
            |(number, body): (usize, &&str)| json!({ "messageId": number.to_string(), "body": body });
        let event = json!({ "Records": bodies.iter().enumerate().map(record).collect::<Vec<_>>() });
        let invoke = self.lambda.invoke().function_name(&self.name).payload(Blob::new(event.to_string()));
        let payload = invoke.send().await?.payload.context("no answer")?;
        Ok(serde_json::from_slice(payload.as_ref())?)
    }

    /// Returns the outcomes in the table, by message and by part and connection.
    async fn outcomes(&self) -> anyhow::Result<BTreeMap<(String, String), String>> {
        let items = self.dynamodb.scan().table_name(&self.name).consistent_read(true).send().await?;
        let outcome = |item: &std::collections::HashMap<_, aws_sdk_dynamodb::types::AttributeValue>| {
            let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
            Some(((text("id")?, text("about")?), text("outcome")?))
        };
        items.items().iter().map(|item| outcome(item).context("a field is missing")).collect()
    }
}

fn expected<const N: usize>(outcomes: [(&str, &str, &str); N]) -> BTreeMap<(String, String), String> {
    outcomes.map(|(id, about, outcome)| ((id.to_owned(), about.to_owned()), outcome.to_owned())).into()
}

const WHOLE: &str = "[null,null]";

#[tokio::test]
async fn better_outcome_stays_in_any_order() -> anyhow::Result<()> {
    let deployment = Deployment::start("consumer", |_, _| ok()).await?;
    let (sqs, url) = (&deployment.sqs, &deployment.delivery.receipts_queue_url);
    let consumer = Consumer::deploy(&deployment.stack, "queue").await?;
    consumer.read(sqs, url).await?;
    let send = async |body: &str| sqs.send_message().queue_url(url).message_body(body).send().await;

    deployment.send(&asking("sent", json!({ "connection": "a" }))).await?;
    let (gone, delivered) = (receipt("later", "gone")?, receipt("earlier", "delivered")?);
    send(&gone).await?;
    send(&delivered).await?;
    eventually("the table has three outcomes", async || Ok(consumer.outcomes().await?.len() == 3)).await?;

    let mut acknowledged = ReceiptEvent::decode(&receipt("later", "gone")?)?;
    acknowledged.receipt.outcome = ReceiptOutcome::Acknowledged;
    acknowledged.receipt.connection = Some("c".try_into()?);
    for body in [
        &receipt("later", "delivered")?,
        &receipt("earlier", "gone")?,
        &gone,
        &delivered,
        &acknowledged.encode(),
        &acknowledged.encode(),
    ] {
        send(body).await?;
    }
    eventually("the queue is empty", async || deployment.stack.is_empty(url).await).await?;
    let expected = expected([
        ("sent", WHOLE, "delivered"),
        ("later", WHOLE, "delivered"),
        ("later", r#"[null,"c"]"#, "acknowledged"),
        ("earlier", WHOLE, "delivered"),
    ]);
    assert_eq!(consumer.outcomes().await?, expected);
    Ok(())
}

#[tokio::test]
async fn only_unreadable_bodies_are_reported() -> anyhow::Result<()> {
    let consumer = Consumer::deploy(&stack().await?, "bodies").await?;
    let bodies = ["s3cret", &receipt("a", "gone")?, "{}", &receipt("a", "kept")?, &receipt("a", "gone")?];
    let answer = consumer.invoke(bodies).await?;
    let failed = json!([{ "itemIdentifier": "0" }, { "itemIdentifier": "2" }]);
    assert_eq!(answer, json!({ "batchItemFailures": failed }));
    assert_eq!(consumer.outcomes().await?, expected([("a", WHOLE, "kept")]));
    Ok(())
}
