//! The items, the operations on them as DynamoDB performs them, and the units that it charges.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value, json};

use super::{MailboxCall, items};
use crate::{doubles::dynamodb::Answer, mailbox::Usage};

/// An item, in DynamoDB's JSON.
pub(super) type Item = Map<String, Value>;

/// Hash key and range key.
type Key = (String, String);

/// Returns the items of a stream that exist without a call.
pub(super) type Generate = dyn Fn(&str) -> Vec<Value> + Send + Sync;

/// An item as text, a twentieth of its tree's size.
struct Stored {
    /// Its size as DynamoDB counts it, with attributes that are not held.
    bytes: usize,
    text: Box<str>,
}

#[derive(Default)]
pub(super) struct State {
    /// `None` for a generated item that was removed.
    items: BTreeMap<Key, Option<Stored>>,
    pub(super) calls: Vec<MailboxCall>,
    pub(super) usage: Usage,
    /// Whether it drops the bodies of messages, and does not record calls.
    pub(super) forgets: bool,
    pub(super) generate: Option<Arc<Generate>>,
    conflicts: usize,
}

impl State {
    /// # Panics
    /// For an operation or a read that the mailbox does not make.
    pub(super) fn answer(&mut self, operation: &str, input: &Value) -> Answer {
        match operation {
            "GetItem" => {
                assert_eq!(input["ConsistentRead"], true, "the mailbox reads consistently");
                let (bytes, item) = self.get(&items::key(&input["Key"])).unzip();
                self.usage.reads += items::read_units(bytes.unwrap_or_default());
                Ok(item.map_or_else(|| json!({}), |item| json!({ "Item": item })))
            }
            "PutItem" => self.put(input),
            "UpdateItem" => self.update(input),
            "Query" => Ok(self.query(input)),
            "DeleteItem" => {
                self.remove(items::key(&input["Key"]));
                Ok(json!({}))
            }
            "BatchWriteItem" => {
                let requests = input["RequestItems"]["mailbox"].as_array().into_iter().flatten();
                requests.for_each(|request| self.remove(items::key(&request["DeleteRequest"]["Key"])));
                Ok(json!({ "UnprocessedItems": {} }))
            }
            other => panic!("the mailbox does not call {other}"),
        }
    }

    /// Records a call.
    pub(super) fn record(&mut self, call: MailboxCall) {
        self.usage.calls += 1;
        if !self.forgets {
            self.calls.push(call);
        }
    }

    /// Returns the size of an item, and the item.
    fn get(&self, key: &Key) -> Option<(usize, Item)> {
        match self.items.get(key) {
            Some(stored) => stored.as_ref().map(Stored::read),
            None => self.generated(&key.0).find(|(generated, _)| *generated == key.1).map(|(_, found)| found),
        }
    }

    /// Returns the generated items of a stream with their range keys and sizes.
    fn generated(&self, stream: &str) -> impl Iterator<Item = (String, (usize, Item))> {
        let generated = self.generate.as_ref().map(|generate| generate(stream));
        generated.into_iter().flatten().filter_map(|item| match item {
            Value::Object(item) => Some((items::text(&item["item"]), (items::size(&item), item))),
            _ => None,
        })
    }

    /// Writes an item without a call.
    pub(super) fn insert(&mut self, key: Key, mut item: Item, bytes: usize) {
        if self.forgets {
            item.remove("body");
        }
        let text = Value::Object(item).to_string().into();
        self.items.insert(key, Some(Stored { bytes, text }));
    }

    fn put(&mut self, input: &Value) -> Answer {
        let (key, item) =
            (items::key(&input["Item"]), input["Item"].as_object().cloned().unwrap_or_default());
        let old = self.get(&key);
        let old_bytes = old.as_ref().map_or(0, |(bytes, _)| *bytes);
        if input["ConditionExpression"].is_string()
            && let Some((bytes, taken)) = old
        {
            self.usage.writes += items::write_units(bytes);
            return Err(("ConditionalCheckFailedException", json!({ "Item": taken })));
        }
        let bytes = items::size(&item);
        self.usage.writes += items::write_units(bytes.max(old_bytes));
        self.insert(key, item, bytes);
        Ok(json!({}))
    }

    /// Supports assignments, and conditions of `=` and `<`.
    fn update(&mut self, input: &Value) -> Answer {
        let name = |name: &str| match name.starts_with('#') {
            true => input["ExpressionAttributeNames"][name].as_str().unwrap_or_default().to_owned(),
            false => name.to_owned(),
        };
        let value = |value: &str| input["ExpressionAttributeValues"][value].clone();
        let holds = |item: &Item, condition: &str| match condition.split_whitespace().collect::<Vec<_>>()[..]
        {
            [left, "=", right] => item.get(&name(left)) == Some(&value(right)),
            [left, "<", right] => {
                item.get(&name(left)).is_some_and(|left| items::number(left) < items::number(&value(right)))
            }
            _ => false,
        };
        let key = items::key(&input["Key"]);
        let mut conditions = input["ConditionExpression"].as_str().unwrap_or_default().split(" AND ");
        let Some((old_bytes, mut item)) = self.get(&key) else {
            self.usage.writes += items::write_units(0);
            return Err(("ConditionalCheckFailedException", json!({})));
        };
        if !conditions.all(|condition| holds(&item, condition)) {
            self.usage.writes += items::write_units(old_bytes);
            return Err(("ConditionalCheckFailedException", json!({ "Item": item })));
        }
        let before = items::size(&item);
        let expression = input["UpdateExpression"].as_str().unwrap_or_default();
        for assignment in expression.trim_start_matches("SET ").split(", ") {
            let (left, right) = assignment.split_once(" = ").unwrap_or_default();
            item.insert(name(left), value(right));
        }
        let bytes = old_bytes - before + items::size(&item);
        self.usage.writes += items::write_units(bytes.max(old_bytes));
        self.insert(key, item.clone(), bytes);
        Ok(json!({ "Attributes": item }))
    }

    fn query(&mut self, input: &Value) -> Value {
        assert_eq!(input["ConsistentRead"], true, "the mailbox reads consistently");
        let value = |name: &str| input["ExpressionAttributeValues"][name]["S"].as_str();
        let stream = value(":stream").unwrap_or_default();
        let (from, to) = (value(":from").unwrap_or(""), value(":to").unwrap_or("\u{10FFFF}"));
        let is_wanted = |key: &String| (from..=to).contains(&key.as_str());
        let generated = self.generated(stream).filter(|(key, _)| is_wanted(key));
        let mut found: BTreeMap<_, _> = generated.map(|(key, item)| (key, Some(item))).collect();
        let bound = |bound: &str| (stream.to_owned(), bound.to_owned());
        let written = self.items.range(bound(from)..=bound(to));
        found.extend(written.map(|((_, key), stored)| (key.clone(), stored.as_ref().map(Stored::read))));
        let (bytes, mut items): (Vec<_>, Vec<_>) = found.into_values().flatten().unzip();
        self.usage.reads += items::read_units(bytes.into_iter().sum());
        if input["ScanIndexForward"] == false {
            items.reverse();
        }
        json!({ "Items": items })
    }

    fn remove(&mut self, key: Key) {
        let bytes = self.get(&key).map_or(0, |(bytes, _)| bytes);
        self.usage.writes += items::write_units(bytes);
        match self.generate {
            Some(_) => _ = self.items.insert(key, None),
            None => _ = self.items.remove(&key),
        }
    }

    /// Puts a message of another worker at the number that a call is about to take.
    pub(super) fn take_number(&mut self, operation: &str, input: &Value) {
        if operation == "PutItem" && input["Item"]["id"].is_object() {
            self.conflicts += 1;
            let mut item = input["Item"].as_object().cloned().unwrap_or_default();
            item.insert("id".to_owned(), json!({ "S": format!("other-{}", self.conflicts) }));
            let (key, bytes) = (items::key(&input["Item"]), items::size(&item));
            if self.get(&key).is_none() {
                self.insert(key, item, bytes);
            }
        }
    }

    /// Returns the items that calls have written, with their keys.
    pub(super) fn written(&self) -> impl Iterator<Item = (&Key, Item)> {
        self.items.iter().filter_map(|(key, stored)| Some((key, stored.as_ref()?.read().1)))
    }

    /// Changes the items of a stream, without a call.
    pub(super) fn change(&mut self, stream: &str, mut change: impl FnMut(&mut Item)) {
        let of_stream = self.written().filter(|((of, _), _)| of == stream);
        let items: Vec<_> = of_stream.map(|(key, item)| (key.clone(), item)).collect();
        for (key, mut item) in items {
            change(&mut item);
            let bytes = items::size(&item);
            self.insert(key, item, bytes);
        }
    }
}

impl Stored {
    /// Returns the size, and the item.
    fn read(&self) -> (usize, Item) {
        (self.bytes, serde_json::from_str(&self.text).unwrap_or_default())
    }
}
