//! Reads and writes of items, with their charges.

use streamer_mailbox::{Head, Stream};
use streamer_message::Epoch;

use super::{
    Call, Shared,
    items::{self, HEAD, Item},
};

impl Shared {
    /// Reads items with keys from `from` to `to`, until a call's size or `limit` is reached. The second value is the
    /// last key if there may be more.
    pub(super) fn query(
        &mut self,
        call: Call,
        stream: &Stream,
        (from, to): (&str, &str),
        limit: usize,
        is_ascending: bool,
    ) -> (Vec<(String, Item)>, Option<String>) {
        let key = |key: &str| (stream.key(), key.to_owned());
        let mut found = self.items.range(key(from)..=key(to));
        let (mut bytes, mut items) = (0, Vec::new());
        let next = loop {
            let next = if is_ascending { found.next() } else { found.next_back() };
            let Some(((_, key), item)) = next else { break None };
            let size = item.bytes(stream, key);
            let is_full = items.len() == limit || bytes + size > self.read_bytes;
            if is_full && let Some((last, _)) = items.last() {
                break Some(String::clone(last));
            }
            bytes += size;
            items.push((key.clone(), item.clone()));
        };
        self.bill.read(call, bytes);
        (items, next)
    }

    /// Changes the head if its epoch is `epoch` and `change` accepts it. Returns the head and whether it was changed.
    pub(super) fn update_head(
        &mut self,
        call: Call,
        stream: &Stream,
        epoch: &Epoch,
        change: impl FnOnce(&mut Head) -> bool,
    ) -> (Option<Head>, bool) {
        let old = self.head(stream).filter(|head| head.epoch == *epoch);
        let mut changed = old.clone();
        if changed.as_mut().is_some_and(change)
            && let Some(head) = &changed
        {
            self.put(call, stream, HEAD, Item::Head(head.clone()));
            return (changed, true);
        }
        self.refuse(call, stream, HEAD);
        (old, false)
    }

    pub(super) fn get(&self, stream: &Stream, key: &str) -> Option<&Item> {
        self.items.get(&(stream.key(), key.to_owned()))
    }

    pub(super) fn head(&self, stream: &Stream) -> Option<Head> {
        match self.get(stream, items::HEAD) {
            Some(Item::Head(head)) => Some(head.clone()),
            _ => None,
        }
    }

    /// Writes an item and charges the larger of its old and its new size.
    pub(super) fn put(&mut self, call: Call, stream: &Stream, key: &str, item: Item) {
        let bytes = item.bytes(stream, key);
        let old = self.items.insert((stream.key(), key.to_owned()), item);
        let old_bytes = old.as_ref().map_or(0, |old| old.bytes(stream, key));
        self.bill.write(call, bytes.max(old_bytes));
        if let Some(Item::Head(head)) = old {
            self.old_heads.insert(stream.key(), head);
        }
    }

    pub(super) fn remove(&mut self, call: Call, stream: &Stream, key: &str) {
        let old = self.items.remove(&(stream.key(), key.to_owned()));
        self.bill.write(call, old.map_or(0, |old| old.bytes(stream, key)));
    }

    /// Charges a conditional write that was refused.
    pub(super) fn refuse(&mut self, call: Call, stream: &Stream, key: &str) {
        let bytes = self.get(stream, key).map_or(0, |item| item.bytes(stream, key));
        self.bill.write(call, bytes);
    }
}
