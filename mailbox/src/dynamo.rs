//! The table in DynamoDB.

mod operations;

use aws_sdk_dynamodb::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::{
        put_item::{PutItemError, builders::PutItemFluentBuilder},
        query::builders::QueryFluentBuilder,
        update_item::{UpdateItemError, builders::UpdateItemFluentBuilder},
    },
    types::{ReturnValue, ReturnValuesOnConditionCheckFailure},
};
use streamer_environment::{aws, failure::FailureKind};
use streamer_message::Epoch;

use crate::{
    item::{self, Item, text},
    schema::{ITEM, STREAM},
    stream::{HEAD, Stream},
    table::{Raise, TableError},
};

/// A mailbox's table in DynamoDB. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DynamoTable {
    client: Client,
    name: String,
}

impl DynamoTable {
    /// Creates a handle for the table `name`.
    #[must_use]
    pub fn new(client: Client, name: impl Into<String>) -> Self {
        Self { client, name: name.into() }
    }

    fn put(&self, item: Item) -> PutItemFluentBuilder {
        self.client.put_item().table_name(&self.name).set_item(Some(item))
    }

    /// Puts an item whose key is free. Returns the item that has the key otherwise.
    async fn put_new(&self, put: PutItemFluentBuilder) -> Result<Option<Item>, TableError> {
        let put = put
            .condition_expression("attribute_not_exists(#item)")
            .expression_attribute_names("#item", ITEM)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match put.send().await {
            Ok(_) => Ok(None),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(refusal)) => {
                    Ok(Some(refusal.item().ok_or(TableError::Item(ITEM))?.clone()))
                }
                _ => Err(self.failed("PutItem", &error)),
            },
        }
    }

    /// Updates an item. Returns whether its condition held, and the attributes that `update` asks for, or else the item
    /// that refused it.
    async fn update(&self, update: UpdateItemFluentBuilder) -> Result<(Option<Item>, bool), TableError> {
        let update =
            update.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match update.send().await {
            Ok(output) => Ok((output.attributes, true)),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(refusal)) => {
                    Ok((refusal.item().cloned(), false))
                }
                _ => Err(self.failed("UpdateItem", &error)),
            },
        }
    }

    /// Raises a number of the head whose epoch is `epoch`.
    async fn raise(&self, epoch: &Epoch, update: UpdateItemFluentBuilder) -> Result<Raise, TableError> {
        let (item, is_raised) = self.update(update.return_values(ReturnValue::AllNew)).await?;
        let head = item.as_ref().map(item::to_head).transpose()?;
        Ok(match head.filter(|head| head.epoch == *epoch) {
            Some(head) if is_raised => Raise::Raised(head),
            Some(head) => Raise::Higher(head),
            None => Raise::OtherEpoch,
        })
    }

    fn update_head(&self, stream: &Stream, epoch: &Epoch) -> UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.name)
            .set_key(Some(item::key(stream, HEAD)))
            .expression_attribute_values(":epoch", text(epoch.as_str()))
    }

    /// Reads items of one stream, with keys in a range.
    fn query(&self, stream: &Stream, from: String, to: String) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(&self.name)
            .consistent_read(true)
            .key_condition_expression("#stream = :stream AND #item BETWEEN :from AND :to")
            .expression_attribute_names("#stream", STREAM)
            .expression_attribute_names("#item", ITEM)
            .expression_attribute_values(":stream", text(&stream.key()))
            .expression_attribute_values(":from", text(&from))
            .expression_attribute_values(":to", text(&to))
    }

    fn failed<E, R>(&self, operation: &'static str, error: &SdkError<E, R>) -> TableError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        let (kind, cause) = (FailureKind::of(error), aws::cause(error));
        TableError::Call { operation, table: self.name.clone(), kind, cause }
    }
}
