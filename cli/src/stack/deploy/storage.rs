//! Creates the connection table and the queues.

use std::collections::HashMap;

use anyhow::Context as _;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType, TimeToLiveSpecification,
};
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::json;
use streamer_message::sqs::FIFO_SUFFIX;

use super::deployer::Deployer;

/// The created queues.
pub(super) struct Queues {
    pub outbound_url: String,
    pub outbound_arn: String,
    pub dead_letter_url: String,
}

impl Deployer<'_> {
    /// Creates the connection table.
    pub(super) async fn create_table(&self) -> anyhow::Result<()> {
        let table = &self.spec.table;
        let hash = |name: &str| {
            KeySchemaElement::builder()
                .attribute_name(name)
                .key_type(KeyType::Hash)
                .build()
                .map_err(anyhow::Error::from)
        };
        let keys = table.indexes.iter().map(|index| &index.hash_key).chain([&table.hash_key]);
        let definitions = keys.map(|name| {
            let definition = AttributeDefinition::builder().attribute_name(name);
            definition.attribute_type(ScalarAttributeType::S).build().map_err(anyhow::Error::from)
        });
        let indexes = table.indexes.iter().map(|index| {
            let projection = Projection::builder()
                .projection_type(ProjectionType::Include)
                .set_non_key_attributes(Some(table.projection.clone()));
            let built =
                GlobalSecondaryIndex::builder().index_name(&index.name).key_schema(hash(&index.hash_key)?);
            built.projection(projection.build()).build().map_err(anyhow::Error::from)
        });
        self.dynamodb
            .create_table()
            .table_name(&table.name)
            .billing_mode(BillingMode::PayPerRequest)
            .key_schema(hash(&table.hash_key)?)
            .set_attribute_definitions(Some(definitions.collect::<Result<_, _>>()?))
            .set_global_secondary_indexes(Some(indexes.collect::<Result<_, _>>()?))
            .send()
            .await?;
        let ttl =
            TimeToLiveSpecification::builder().attribute_name(&table.ttl_attribute).enabled(true).build()?;
        let update = self.dynamodb.update_time_to_live().table_name(&table.name);
        update.time_to_live_specification(ttl).send().await?;
        Ok(())
    }

    /// Creates the dead-letter queue and the outbound queue.
    pub(super) async fn create_queues(&self) -> anyhow::Result<Queues> {
        let (outbound, dead_letter) = (&self.spec.queues.outbound, &self.spec.queues.dead_letter);
        let attributes =
            [(QueueAttributeName::MessageRetentionPeriod, dead_letter.retention_seconds.to_string())];
        let (dead_letter_url, dead_letter_arn) = self.create_queue(&dead_letter.name, attributes).await?;
        let max_receive_count =
            if self.overrides.fifo { outbound.fifo_max_receive_count } else { outbound.max_receive_count };

        let visibility_timeout = self
            .overrides
            .visibility_timeout
            .map_or(outbound.visibility_timeout_seconds, |timeout| timeout.as_secs());
        let redrive = json!({ "deadLetterTargetArn": dead_letter_arn, "maxReceiveCount": max_receive_count });
        let attributes = [
            (QueueAttributeName::VisibilityTimeout, visibility_timeout.to_string()),
            (QueueAttributeName::MessageRetentionPeriod, outbound.retention_seconds.to_string()),
            (QueueAttributeName::RedrivePolicy, redrive.to_string()),
        ];
        let (outbound_url, outbound_arn) = self.create_queue(&outbound.name, attributes).await?;
        Ok(Queues { outbound_url, outbound_arn, dead_letter_url })
    }

    /// Creates a queue and returns its URL and ARN.
    async fn create_queue<const N: usize>(
        &self,
        name: &str,
        attributes: [(QueueAttributeName, String); N],
    ) -> anyhow::Result<(String, String)> {
        let (fifo, mut attributes) = (self.overrides.fifo, HashMap::from(attributes));
        if fifo {
            attributes.insert(QueueAttributeName::FifoQueue, "true".to_owned());
        }
        let name = if fifo { format!("{name}{FIFO_SUFFIX}") } else { name.to_owned() };
        let create = self.sqs.create_queue().queue_name(name).set_attributes(Some(attributes));
        let url = create.send().await?.queue_url.context("the response has no queue URL")?;
        let name = QueueAttributeName::QueueArn;
        let get = self.sqs.get_queue_attributes().queue_url(&url).attribute_names(name.clone());
        let arn = get.send().await?.attributes.and_then(|mut attributes| attributes.remove(&name));
        Ok((url, arn.context("the response has no queue ARN")?))
    }
}
