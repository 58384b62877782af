//! The operations, one call each.

use std::{ops::RangeInclusive, time::SystemTime};

use aws_sdk_dynamodb::{
    operation::delete_item::DeleteItemError,
    types::{DeleteRequest, WriteRequest},
};
use streamer_message::{ConnectionId, Epoch, MessageId};

use super::DynamoTable;
use crate::{
    head::Head,
    item::{self, number, text},
    schema::{EXPIRES_AT, ITEM, STREAM},
    stream::{DEVICES, Device, HEAD, Stream, device_key, message_key, seconds},
    table::{FreshHead, Put, Raise, StoredId, StoredMessage, Table, TableError},
};

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
        id: &MessageId,
        expires_at: SystemTime,
    ) -> Result<bool, TableError> {
        // TTL may have removed the message that the writer saw, and another writer may have stored one at its number:
        // that one keeps its time.
        let update = self
            .client
            .update_item()
            .table_name(&self.name)
            .set_key(Some(item::key(stream, &message_key(epoch, seq))))
            .update_expression("SET #expires = :expires")
            .condition_expression("#id = :id AND #expires < :expires")
            .expression_attribute_names("#id", "id")
            .expression_attribute_names("#expires", EXPIRES_AT)
            .expression_attribute_values(":id", text(id.as_str()))
            .expression_attribute_values(":expires", number(seconds(expires_at)));
        Ok(match self.update(update).await? {
            (_, true) => true,
            (holder, false) => holder.as_ref().map(item::id).transpose()?.is_some_and(|holder| holder == *id),
        })
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
            .expression_attribute_values(":expires", number(seconds(expires_at)));
        self.raise(epoch, update).await
    }

    async fn raise_floor(&self, stream: &Stream, epoch: &Epoch, seq: u64) -> Result<Raise, TableError> {
        let update = self
            .update_head(stream, epoch)
            .update_expression("SET #floor = :seq")
            .condition_expression("epoch = :epoch AND #floor < :seq")
            .expression_attribute_names("#floor", "floor")
            .expression_attribute_values(":seq", number(seq));
        self.raise(epoch, update).await
    }

    async fn delete_head(&self, stream: &Stream, epoch: &Epoch) -> Result<bool, TableError> {
        let delete = self
            .client
            .delete_item()
            .table_name(&self.name)
            .set_key(Some(item::key(stream, HEAD)))
            .condition_expression("epoch = :epoch")
            .expression_attribute_values(":epoch", text(epoch.as_str()));
        match delete.send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                Some(DeleteItemError::ConditionalCheckFailedException(_)) => Ok(false),
                _ => Err(self.failed("DeleteItem", &error)),
            },
        }
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
