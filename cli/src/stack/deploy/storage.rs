//! Creates the tables and the queues.

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
use crate::spec;

/// The created queues.
pub(super) struct Queues {
    pub outbound_url: String,
    pub outbound_arn: String,
    /// URL and ARN of the parts queue. `None` beside a FIFO queue, whose worker makes no parts.
    pub parts: Option<(String, String)>,
    pub dead_letter_url: String,
    pub receipts_url: String,
}

impl Deployer<'_> {
    /// Creates the connection table.
    pub(super) async fn create_table(&self) -> anyhow::Result<()> {
        let table = &self.spec.table;
        let indexes = table.indexes.iter().map(|index| {
            let projection = Projection::builder()
                .projection_type(ProjectionType::Include)
                .set_non_key_attributes(Some(table.projection.clone()));
            let built = GlobalSecondaryIndex::builder().index_name(&index.name);
            let built = built.key_schema(key(&index.hash_key, KeyType::Hash)?);
            built.projection(projection.build()).build().map_err(anyhow::Error::from)
        });
        let create = self
            .dynamodb
            .create_table()
            .table_name(&table.name)
            .billing_mode(BillingMode::PayPerRequest)
            .key_schema(key(&table.hash_key, KeyType::Hash)?)
            .set_global_secondary_indexes(Some(indexes.collect::<Result<_, _>>()?));
        let keys = table.indexes.iter().map(|index| &index.hash_key).chain([&table.hash_key]);
        create.set_attribute_definitions(Some(texts(keys)?)).send().await?;
        self.set_time_to_live(&table.name, &table.ttl_attribute).await
    }

    /// Creates the mailbox table.
    pub(super) async fn create_mailbox_table(&self) -> anyhow::Result<()> {
        let table = &self.spec.mailbox;
        let create = self
            .dynamodb
            .create_table()
            .table_name(&table.name)
            .billing_mode(BillingMode::PayPerRequest)
            .key_schema(key(&table.hash_key, KeyType::Hash)?)
            .key_schema(key(&table.range_key, KeyType::Range)?);
        let keys = [&table.hash_key, &table.range_key];
        create.set_attribute_definitions(Some(texts(keys)?)).send().await?;
        self.set_time_to_live(&table.name, &table.ttl_attribute).await
    }

    async fn set_time_to_live(&self, table: &str, attribute: &str) -> anyhow::Result<()> {
        let ttl = TimeToLiveSpecification::builder().attribute_name(attribute).enabled(true).build()?;
        let update = self.dynamodb.update_time_to_live().table_name(table);
        update.time_to_live_specification(ttl).send().await?;
        Ok(())
    }

    /// Creates the dead-letter queue, the outbound queue, the parts queue and the receipts queue.
    pub(super) async fn create_queues(&self) -> anyhow::Result<Queues> {
        let spec::Queues { outbound, parts, dead_letter, receipts } = &self.spec.queues;
        let fifo = self.overrides.fifo;
        let attributes =
            [(QueueAttributeName::MessageRetentionPeriod, dead_letter.retention_seconds.to_string())];
        let (dead_letter_url, dead_letter_arn) =
            self.create_queue(&dead_letter.name, fifo, attributes).await?;
        let max_receive_count =
            if fifo { outbound.fifo_max_receive_count } else { outbound.max_receive_count };

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
        let (outbound_url, outbound_arn) =
            self.create_queue(&outbound.name, fifo, attributes.clone()).await?;
        let parts = match fifo {
            true => None,
            false => Some(self.create_queue(&parts.name, false, attributes).await?),
        };

        let attributes = [
            (QueueAttributeName::VisibilityTimeout, receipts.visibility_timeout_seconds.to_string()),
            (QueueAttributeName::MessageRetentionPeriod, receipts.retention_seconds.to_string()),
        ];
        let (receipts_url, _) = self.create_queue(&receipts.name, false, attributes).await?;
        Ok(Queues { outbound_url, outbound_arn, parts, dead_letter_url, receipts_url })
    }

    /// Creates a queue and returns its URL and ARN.
    async fn create_queue<const N: usize>(
        &self,
        name: &str,
        fifo: bool,
        attributes: [(QueueAttributeName, String); N],
    ) -> anyhow::Result<(String, String)> {
        let mut attributes = HashMap::from(attributes);
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

/// Returns a part of a table's key.
fn key(attribute: &str, kind: KeyType) -> anyhow::Result<KeySchemaElement> {
    Ok(KeySchemaElement::builder().attribute_name(attribute).key_type(kind).build()?)
}

/// Returns the definitions of attributes with text.
fn texts<'a>(attributes: impl IntoIterator<Item = &'a String>) -> anyhow::Result<Vec<AttributeDefinition>> {
    let definitions = attributes.into_iter().map(|attribute| {
        let definition = AttributeDefinition::builder().attribute_name(attribute);
        Ok(definition.attribute_type(ScalarAttributeType::S).build()?)
    });
    definitions.collect()
}
