//! The connection table and the queues.

use std::collections::HashMap;

use anyhow::Context as _;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType, TimeToLiveSpecification,
};
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::json;
use streamer_message::sqs::FIFO_SUFFIX;

use super::Deployment;

impl Deployment<'_> {
    pub(super) async fn table(&self) -> anyhow::Result<()> {
        let table = &self.facts.table;
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

    /// The outbound queue's URL and ARN, and the dead-letter queue's URL.
    pub(super) async fn queues(&self) -> anyhow::Result<(String, String, String)> {
        let (outbound, dead_letter) = (&self.facts.queues.outbound, &self.facts.queues.dead_letter);
        let dead_letters =
            [(QueueAttributeName::MessageRetentionPeriod, dead_letter.retention_seconds.to_string())];
        let (dead_letter_url, dead_letter_arn) = self.queue(&dead_letter.name, dead_letters).await?;
        let max_receive_count =
            if self.overrides.fifo { outbound.fifo_max_receive_count } else { outbound.max_receive_count };

        let visibility = self
            .overrides
            .visibility_timeout
            .map_or(outbound.visibility_timeout_seconds, |timeout| timeout.as_secs());
        let redrive = json!({ "deadLetterTargetArn": dead_letter_arn, "maxReceiveCount": max_receive_count });
        let attributes = [
            (QueueAttributeName::VisibilityTimeout, visibility.to_string()),
            (QueueAttributeName::MessageRetentionPeriod, outbound.retention_seconds.to_string()),
            (QueueAttributeName::RedrivePolicy, redrive.to_string()),
        ];
        let (url, arn) = self.queue(&outbound.name, attributes).await?;
        Ok((url, arn, dead_letter_url))
    }

    async fn queue<const N: usize>(
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
        let url = create.send().await?.queue_url.context("no queue URL")?;
        let wanted = QueueAttributeName::QueueArn;
        let attributes = self.sqs.get_queue_attributes().queue_url(&url).attribute_names(wanted.clone());
        let arn = attributes.send().await?.attributes.and_then(|mut all| all.remove(&wanted));
        Ok((url, arn.context("no queue ARN")?))
    }
}
