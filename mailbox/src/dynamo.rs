//! The table in DynamoDB.

use std::{ops::RangeInclusive, time::SystemTime};

use aws_sdk_dynamodb::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::{
        put_item::{PutItemError, builders::PutItemFluentBuilder},
        query::builders::QueryFluentBuilder,
        update_item::{UpdateItemError, builders::UpdateItemFluentBuilder},
    },
    types::{DeleteRequest, ReturnValue, ReturnValuesOnConditionCheckFailure, WriteRequest},
};
use streamer_environment::{aws, failure::FailureKind};
use streamer_message::{ConnectionId, Epoch};

use crate::{
    head::Head,
    item::{self, Item, number, text},
    schema::{EXPIRES_AT, ITEM, STREAM},
    stream::{DEVICES, Device, HEAD, Stream, device_key, message_key, seconds},
    table::{FreshHead, Put, Raise, StoredId, StoredMessage, Table, TableError},
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

    /// Updates an item. Returns whether its condition holds.
    async fn update(&self, update: UpdateItemFluentBuilder) -> Result<bool, TableError> {
        match update.send().await {
            Ok(_) => Ok(true),
            Err(error) if is_condition(&error) => Ok(false),
            Err(error) => Err(self.failed("UpdateItem", &error)),
        }
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

impl Table for DynamoTable {
    async fn head(&self, stream: &Stream) -> Result<Option<Head>, TableError> {
        let get = self
            .client
            .get_item()
            .table_name(&self.name)
            .set_key(Some(item::key(stream, HEAD)))
            .consistent_read(true);
        let item = get.send().await.map_err(|error| self.failed("GetItem", &error))?.item;
        item.as_ref().map(item::to_head).transpose()
    }

    async fn create_head(&self, stream: &Stream, head: &Head) -> Result<FreshHead, TableError> {
        let put = self.put(item::of_head(stream, head));
        match self.put_new(put).await? {
            None => Ok(FreshHead::Created),
            Some(old) => Ok(FreshHead::Exists(item::to_head(&old)?)),
        }
    }

    async fn put_message(
        &self,
        stream: &Stream,
        epoch: &Epoch,
        seq: u64,
        message: &StoredMessage,
    ) -> Result<Put, TableError> {
        let put = self.put(item::of_message(stream, epoch, seq, message));
        match self.put_new(put).await? {
            None => Ok(Put::Stored),
            Some(old) => Ok(Put::Taken { id: item::id(&old)?, expires_at: item::expires_at(&old)? }),
        }
    }

    async fn hold_message(
        &self,
        stream: &Stream,
        epoch: &Epoch,
        seq: u64,
        expires_at: SystemTime,
    ) -> Result<bool, TableError> {
        let update = self
            .client
            .update_item()
            .table_name(&self.name)
            .set_key(Some(item::key(stream, &message_key(epoch, seq))))
            .update_expression("SET #expires = :expires")
            .condition_expression("attribute_exists(#item)")
            .expression_attribute_names("#item", ITEM)
            .expression_attribute_names("#expires", EXPIRES_AT)
            .expression_attribute_values(":expires", number(seconds(expires_at)));
        self.update(update).await
    }

    async fn raise_top(
        &self,
        stream: &Stream,
        epoch: &Epoch,
        seq: u64,
        expires_at: SystemTime,
    ) -> Result<Raise, TableError> {
        let update = self
            .update_head(stream, epoch)
            .update_expression("SET #top = :seq, #expires = :expires")
            .condition_expression("epoch = :epoch AND #top < :seq")
            .expression_attribute_names("#top", "top")
            .expression_attribute_names("#expires", EXPIRES_AT)
            .expression_attribute_values(":seq", number(seq))
            .expression_attribute_values(":expires", number(seconds(expires_at)))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match update.send().await {
            Ok(output) => {
                let head = output.attributes().ok_or(TableError::Item("top"))?;
                Ok(Raise::Raised(item::to_head(head)?))
            }
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(refusal)) => {
                    let head = refusal.item().map(item::to_head).transpose()?;
                    let same = head.filter(|head| head.epoch == *epoch);
                    Ok(same.map_or(Raise::OtherEpoch, Raise::Higher))
                }
                _ => Err(self.failed("UpdateItem", &error)),
            },
        }
    }

    async fn raise_floor(&self, stream: &Stream, epoch: &Epoch, seq: u64) -> Result<bool, TableError> {
        let update = self
            .update_head(stream, epoch)
            .update_expression("SET #floor = :seq")
            .condition_expression("epoch = :epoch AND #floor < :seq")
            .expression_attribute_names("#floor", "floor")
            .expression_attribute_values(":seq", number(seq));
        self.update(update).await
    }

    async fn renew_head(
        &self,
        stream: &Stream,
        epoch: &Epoch,
        expires_at: SystemTime,
    ) -> Result<(), TableError> {
        let update = self
            .update_head(stream, epoch)
            .update_expression("SET #expires = :expires")
            .condition_expression("epoch = :epoch")
            .expression_attribute_names("#expires", EXPIRES_AT)
            .expression_attribute_values(":expires", number(seconds(expires_at)));
        self.update(update).await?;
        Ok(())
    }

    async fn messages(
        &self,
        stream: &Stream,
        epoch: &Epoch,
        range: RangeInclusive<u64>,
        limit: usize,
    ) -> Result<(Vec<(u64, StoredMessage)>, u64), TableError> {
        let (from, to) = range.into_inner();
        let query = self.query(stream, message_key(epoch, from), message_key(epoch, to));
        let output = query.limit(i32::try_from(limit).unwrap_or(i32::MAX)).send().await;
        let output = output.map_err(|error| self.failed("Query", &error))?;
        let items = output.items.unwrap_or_default();
        let messages = items.into_iter().map(item::into_message).collect::<Result<_, _>>()?;
        let read = output.last_evaluated_key.as_ref().map(item::seq).transpose()?;
        Ok((messages, read.unwrap_or(to)))
    }

    async fn newest_ids(
        &self,
        stream: &Stream,
        epoch: &Epoch,
        range: RangeInclusive<u64>,
    ) -> Result<(Vec<StoredId>, u64), TableError> {
        let (from, to) = range.into_inner();
        let query = self
            .query(stream, message_key(epoch, from), message_key(epoch, to))
            .scan_index_forward(false)
            .projection_expression("#item, #id, stored_at")
            .expression_attribute_names("#id", "id");
        let output = query.send().await.map_err(|error| self.failed("Query", &error))?;
        let ids = output.items.unwrap_or_default();
        let ids = ids.iter().map(item::to_stored_id).collect::<Result<_, _>>()?;
        let read = output.last_evaluated_key.as_ref().map(item::seq).transpose()?;
        Ok((ids, read.unwrap_or(from)))
    }

    async fn put_device(&self, stream: &Stream, device: &Device) -> Result<(), TableError> {
        let put = self.put(item::of_device(stream, device)).send().await;
        put.map_err(|error| self.failed("PutItem", &error))?;
        Ok(())
    }

    async fn delete_device(&self, stream: &Stream, connection: &ConnectionId) -> Result<(), TableError> {
        let key = item::key(stream, &device_key(connection));
        let delete = self.client.delete_item().table_name(&self.name).set_key(Some(key)).send().await;
        delete.map_err(|error| self.failed("DeleteItem", &error))?;
        Ok(())
    }

    async fn devices(
        &self,
        stream: &Stream,
        after: Option<&ConnectionId>,
    ) -> Result<(Vec<Device>, Option<ConnectionId>), TableError> {
        // `$` follows `#` in ASCII.
        let query = self.query(stream, DEVICES.to_owned(), "c$".to_owned());
        let start = after.map(|after| item::key(stream, &device_key(after)));
        let output = query.set_exclusive_start_key(start).send().await;
        let output = output.map_err(|error| self.failed("Query", &error))?;
        let items = output.items.unwrap_or_default();
        let devices = items.iter().map(item::to_device).collect::<Result<_, _>>()?;
        let next = output.last_evaluated_key.as_ref().map(item::connection).transpose()?;
        Ok((devices, next))
    }

    async fn item_keys(
        &self,
        stream: &Stream,
        after: Option<&str>,
    ) -> Result<(Vec<String>, Option<String>), TableError> {
        let query = self
            .client
            .query()
            .table_name(&self.name)
            .consistent_read(true)
            .key_condition_expression("#stream = :stream")
            .projection_expression("#item")
            .expression_attribute_names("#stream", STREAM)
            .expression_attribute_names("#item", ITEM)
            .expression_attribute_values(":stream", text(&stream.key()))
            .set_exclusive_start_key(after.map(|after| item::key(stream, after)));
        let output = query.send().await.map_err(|error| self.failed("Query", &error))?;
        let keys = output.items.unwrap_or_default();
        let keys = keys.iter().map(item::range_key).collect::<Result<_, _>>()?;
        let next = output.last_evaluated_key.as_ref().map(item::range_key).transpose()?;
        Ok((keys, next))
    }

    async fn delete_items(&self, stream: &Stream, keys: &[String]) -> Result<Vec<String>, TableError> {
        let request = |key: &String| {
            let delete = DeleteRequest::builder().set_key(Some(item::key(stream, key))).build();
            delete.map(|delete| WriteRequest::builder().delete_request(delete).build())
        };
        let requests = keys.iter().map(request).collect::<Result<Vec<_>, _>>();
        let requests = requests.map_err(|_| TableError::Item(ITEM))?;
        let output = self.client.batch_write_item().request_items(&self.name, requests).send().await;
        let output = output.map_err(|error| self.failed("BatchWriteItem", &error))?;
        let unprocessed = output.unprocessed_items.unwrap_or_default().remove(&self.name);
        let deletes =
            unprocessed.unwrap_or_default().into_iter().filter_map(|request| request.delete_request);
        deletes.map(|delete| item::range_key(&delete.key)).collect()
    }
}

fn is_condition<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
    code == Some("ConditionalCheckFailedException")
}
