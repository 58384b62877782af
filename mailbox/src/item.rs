//! The items of the table.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use aws_sdk_dynamodb::types::AttributeValue;
use streamer_message::{ConnectionId, Epoch, MessageId};

use crate::{
    head::Head,
    schema::{EXPIRES_AT, ITEM, STREAM},
    stream::{DEVICES, Device, HEAD, Stream, device_key, message_key, millis, seconds, seq_of},
    table::{StoredId, StoredMessage, TableError},
};

/// The attribute of a message that clients acknowledge, which others lack.
const ACK: &str = "ack";

pub(crate) type Item = HashMap<String, AttributeValue>;

pub(crate) fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

pub(crate) fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// Returns the key of an item.
pub(crate) fn key(stream: &Stream, item: &str) -> Item {
    Item::from([(STREAM.to_owned(), text(&stream.key())), (ITEM.to_owned(), text(item))])
}

fn with<const N: usize>(mut item: Item, attributes: [(&str, AttributeValue); N]) -> Item {
    item.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
    item
}

pub(crate) fn of_head(stream: &Stream, head: &Head) -> Item {
    with(
        key(stream, HEAD),
        [
            ("epoch", text(head.epoch.as_str())),
            ("top", number(head.top)),
            ("floor", number(head.floor)),
            (EXPIRES_AT, number(seconds(head.expires_at))),
        ],
    )
}

pub(crate) fn to_head(item: &Item) -> Result<Head, TableError> {
    let epoch = Epoch::new(read_text(item, "epoch")?).map_err(|_| TableError::Item("epoch"))?;
    let (top, floor) = (read_number(item, "top")?, read_number(item, "floor")?);
    Ok(Head { epoch, top, floor, expires_at: expires_at(item)? })
}

pub(crate) fn of_message(stream: &Stream, epoch: &Epoch, seq: u64, message: &StoredMessage) -> Item {
    let mut item = with(
        key(stream, &message_key(epoch, seq)),
        [
            ("id", text(message.id.as_str())),
            ("body", text(&message.body)),
            ("stored_at", number(millis(message.stored_at))),
            ("until", number(millis(message.until))),
            (EXPIRES_AT, number(seconds(message.expires_at()))),
        ],
    );
    if message.ack {
        item.insert(ACK.to_owned(), AttributeValue::Bool(true));
    }
    item
}

pub(crate) fn into_message(mut item: Item) -> Result<(u64, StoredMessage), TableError> {
    let body = match item.remove("body") {
        Some(AttributeValue::S(body)) => body,
        _ => return Err(TableError::Item("body")),
    };
    let (stored_at, until) = (stored_at(&item)?, read_millis(&item, "until")?);
    let ack = item.get(ACK).is_some_and(|ack| ack.as_bool() == Ok(&true));
    Ok((seq(&item)?, StoredMessage { id: id(&item)?, body, stored_at, until, ack }))
}

/// Returns when DynamoDB may remove an item.
pub(crate) fn expires_at(item: &Item) -> Result<SystemTime, TableError> {
    read_seconds(item, EXPIRES_AT)
}

pub(crate) fn to_stored_id(item: &Item) -> Result<StoredId, TableError> {
    Ok(StoredId { seq: seq(item)?, id: id(item)?, stored_at: stored_at(item)? })
}

pub(crate) fn of_device(stream: &Stream, device: &Device) -> Item {
    with(
        key(stream, &device_key(&device.connection)),
        [("endpoint", text(&device.endpoint)), (EXPIRES_AT, number(seconds(device.expires_at)))],
    )
}

pub(crate) fn to_device(item: &Item) -> Result<Device, TableError> {
    let endpoint = read_text(item, "endpoint")?;
    Ok(Device { connection: connection(item)?, endpoint, expires_at: expires_at(item)? })
}

pub(crate) fn id(item: &Item) -> Result<MessageId, TableError> {
    MessageId::new(read_text(item, "id")?).map_err(|_| TableError::Item("id"))
}

fn stored_at(item: &Item) -> Result<SystemTime, TableError> {
    read_millis(item, "stored_at")
}

/// Returns a message's number.
pub(crate) fn seq(item: &Item) -> Result<u64, TableError> {
    seq_of(&range_key(item)?).ok_or(TableError::Item(ITEM))
}

/// Returns a device's connection.
pub(crate) fn connection(item: &Item) -> Result<ConnectionId, TableError> {
    let key = range_key(item)?;
    let connection = key.strip_prefix(DEVICES).and_then(|id| ConnectionId::new(id).ok());
    connection.ok_or(TableError::Item(ITEM))
}

pub(crate) fn range_key(item: &Item) -> Result<String, TableError> {
    read_text(item, ITEM)
}

fn read_text(item: &Item, attribute: &'static str) -> Result<String, TableError> {
    item.get(attribute).and_then(|value| value.as_s().ok()).cloned().ok_or(TableError::Item(attribute))
}

fn read_number(item: &Item, attribute: &'static str) -> Result<u64, TableError> {
    let number = item.get(attribute).and_then(|value| value.as_n().ok()).and_then(|text| text.parse().ok());
    number.ok_or(TableError::Item(attribute))
}

fn read_seconds(item: &Item, attribute: &'static str) -> Result<SystemTime, TableError> {
    time(Duration::from_secs(read_number(item, attribute)?), attribute)
}

fn read_millis(item: &Item, attribute: &'static str) -> Result<SystemTime, TableError> {
    time(Duration::from_millis(read_number(item, attribute)?), attribute)
}

fn time(since: Duration, attribute: &'static str) -> Result<SystemTime, TableError> {
    SystemTime::UNIX_EPOCH.checked_add(since).ok_or(TableError::Item(attribute))
}
