//! The operations, as DynamoDB performs them.

use std::{ops::RangeInclusive, time::SystemTime};

use streamer_mailbox::{
    Device, FreshHead, Head, Put, Raise, StoredId, StoredMessage, Stream, Table, TableError,
};
use streamer_message::{ConnectionId, Epoch};

use super::{
    Call, Defect, LAG, MemoryTable, Stored,
    items::{HEAD, Item, message_key, seconds, seq_of},
};

fn message((key, item): (String, Item)) -> Option<(u64, StoredMessage)> {
    match item {
        Item::Message { message, .. } => Some((seq_of(&key), message)),
        _ => None,
    }
}

impl Table for MemoryTable {
    async fn head(&self, stream: &Stream) -> Result<Option<Head>, TableError> {
        let head = self.call(Call::Head, |shared| {
            let (head, old) = (shared.head(stream), shared.old_heads.get(&stream.key()).cloned());
            shared.bill.read(Call::Head, 0);
            let is_old = self.defect == Some(Defect::OldHead) && fastrand::bool();
            let old = old.filter(|old| head.as_ref().is_some_and(|head| head.epoch == old.epoch));
            if is_old { old.or(head) } else { head }
        });
        let head = head.await?;
        if let Some(Defect::LateDevice(stream, device)) = &self.defect {
            self.put_device(stream, device).await?;
        }
        Ok(head)
    }

    async fn create_head(&self, stream: &Stream, head: &Head) -> Result<FreshHead, TableError> {
        let head = Head { expires_at: seconds(head.expires_at), ..head.clone() };
        self.call(Call::CreateHead, |shared| match shared.head(stream) {
            Some(old) => {
                shared.refuse(Call::CreateHead, stream, HEAD);
                FreshHead::Exists(old)
            }
            None => {
                shared.put(Call::CreateHead, stream, HEAD, Item::Head(head));
                FreshHead::Created
            }
        })
        .await
    }

    async fn put_message(
        &self,
        stream: &Stream,
        epoch: &Epoch,
        seq: u64,
        message: &StoredMessage,
    ) -> Result<Put, TableError> {
        let key = message_key(epoch, seq);
        self.call(Call::PutMessage, |shared| match shared.get(stream, &key).cloned() {
            Some(Item::Message { message, expires_at }) => {
                shared.refuse(Call::PutMessage, stream, &key);
                Put::Taken { id: message.id, expires_at }
            }
            _ => {
                shared.put(Call::PutMessage, stream, &key, Item::message(message));
                let head = shared.head(stream).filter(|head| head.epoch == *epoch);
                let is_visible = head.is_none_or(|head| head.floor < seq);
                if is_visible {
                    shared.history.push(Stored { epoch: epoch.clone(), seq, message: message.clone() });
                }
                Put::Stored
            }
        })
        .await
    }

    async fn hold_message(
        &self,
        stream: &Stream,
        epoch: &Epoch,
        seq: u64,
        expires_at: SystemTime,
    ) -> Result<bool, TableError> {
        if self.defect == Some(Defect::NotHeld) {
            return Ok(true);
        }
        let key = message_key(epoch, seq);
        self.call(Call::HoldMessage, |shared| match shared.get(stream, &key).cloned() {
            Some(Item::Message { message, .. }) => {
                let item = Item::Message { message, expires_at: seconds(expires_at) };
                shared.put(Call::HoldMessage, stream, &key, item);
                true
            }
            _ => {
                shared.refuse(Call::HoldMessage, stream, &key);
                false
            }
        })
        .await
    }

    async fn raise_top(
        &self,
        stream: &Stream,
        epoch: &Epoch,
        seq: u64,
        expires_at: SystemTime,
    ) -> Result<Raise, TableError> {
        let raise = |head: &mut Head| {
            let is_lower = head.top < seq && self.defect != Some(Defect::TopNotRaised);
            if is_lower {
                (head.top, head.expires_at) = (seq, seconds(expires_at));
            }
            is_lower
        };
        let raised =
            self.call(Call::RaiseTop, |shared| shared.update_head(Call::RaiseTop, stream, epoch, raise));
        Ok(match raised.await? {
            (Some(head), true) => Raise::Raised(head),
            (Some(mut head), false) => {
                if self.defect == Some(Defect::HiddenFloor) {
                    head.floor = 0;
                }
                Raise::Higher(head)
            }
            (None, _) => Raise::OtherEpoch,
        })
    }

    async fn raise_floor(&self, stream: &Stream, epoch: &Epoch, seq: u64) -> Result<bool, TableError> {
        let raise = |head: &mut Head| {
            let is_lower = head.floor < seq;
            head.floor = head.floor.max(seq);
            is_lower
        };
        let raised =
            self.call(Call::RaiseFloor, |shared| shared.update_head(Call::RaiseFloor, stream, epoch, raise));
        Ok(raised.await?.1)
    }

    async fn renew_head(
        &self,
        stream: &Stream,
        epoch: &Epoch,
        expires_at: SystemTime,
    ) -> Result<(), TableError> {
        let renew = |head: &mut Head| {
            head.expires_at = seconds(expires_at);
            true
        };
        self.call(Call::RenewHead, |shared| shared.update_head(Call::RenewHead, stream, epoch, renew))
            .await?;
        Ok(())
    }

    async fn messages(
        &self,
        stream: &Stream,
        epoch: &Epoch,
        range: RangeInclusive<u64>,
        limit: usize,
    ) -> Result<(Vec<(u64, StoredMessage)>, u64), TableError> {
        let (from, to) = (message_key(epoch, *range.start()), message_key(epoch, *range.end()));
        let read = self
            .call(Call::Messages, |shared| shared.query(Call::Messages, stream, (&from, &to), limit, true));
        let (items, next) = read.await?;
        let read = next.map_or(*range.end(), |key| seq_of(&key));
        Ok((items.into_iter().filter_map(message).collect(), read))
    }

    async fn newest_ids(
        &self,
        stream: &Stream,
        epoch: &Epoch,
        range: RangeInclusive<u64>,
    ) -> Result<(Vec<StoredId>, u64), TableError> {
        let (from, to) = (message_key(epoch, *range.start()), message_key(epoch, *range.end()));
        let read = self.call(Call::NewestIds, |shared| {
            shared.query(Call::NewestIds, stream, (&from, &to), usize::MAX, false)
        });
        let (items, next) = read.await?;
        let read = next.map_or(*range.start(), |key| seq_of(&key));
        let id = |(seq, message): (u64, StoredMessage)| StoredId {
            seq,
            id: message.id,
            stored_at: message.stored_at,
        };
        Ok((items.into_iter().filter_map(message).map(id).collect(), read))
    }

    async fn put_device(&self, stream: &Stream, device: &Device) -> Result<(), TableError> {
        let key = format!("c#{}", device.connection);
        self.call(Call::PutDevice, |shared| {
            let step = shared.step;
            shared.registered.insert((stream.key(), key.clone()), step);
            shared.put(Call::PutDevice, stream, &key, Item::device(device));
        })
        .await
    }

    async fn delete_device(&self, stream: &Stream, connection: &ConnectionId) -> Result<(), TableError> {
        let key = format!("c#{connection}");
        self.call(Call::DeleteDevice, |shared| shared.remove(Call::DeleteDevice, stream, &key)).await
    }

    async fn devices(
        &self,
        stream: &Stream,
        after: Option<&ConnectionId>,
    ) -> Result<(Vec<Device>, Option<ConnectionId>), TableError> {
        let from = after.map_or_else(|| "c#".to_owned(), |after| format!("c#{after}\0"));
        let lags = self.defect == Some(Defect::LaggingDevices);
        let read = self.call(Call::Devices, |shared| {
            let (mut items, next) = shared.query(Call::Devices, stream, (&from, "c$"), usize::MAX, true);
            let is_new = |key: &String| {
                let registered = shared.registered.get(&(stream.key(), key.clone()));
                registered.is_some_and(|step| step + LAG > shared.step)
            };
            items.retain(|(key, _)| !(lags && is_new(key)));
            (items, next)
        });
        let (items, next) = read.await?;
        let device = |(_, item)| match item {
            Item::Device(device) => Some(device),
            _ => None,
        };
        let next = next.and_then(|key| ConnectionId::new(key.get(2..)?).ok());
        Ok((items.into_iter().filter_map(device).collect(), next))
    }

    async fn item_keys(
        &self,
        stream: &Stream,
        after: Option<&str>,
    ) -> Result<(Vec<String>, Option<String>), TableError> {
        let from = after.map_or_else(String::new, |after| format!("{after}\0"));
        let to = char::MAX.to_string();
        let read = self.call(Call::ItemKeys, |shared| {
            shared.query(Call::ItemKeys, stream, (&from, &to), usize::MAX, true)
        });
        let (items, next) = read.await?;
        Ok((items.into_iter().map(|(key, _)| key).collect(), next))
    }

    async fn delete_items(&self, stream: &Stream, keys: &[String]) -> Result<Vec<String>, TableError> {
        self.call(Call::DeleteItems, |shared| {
            for key in keys {
                shared.remove(Call::DeleteItems, stream, key);
            }
        })
        .await?;
        Ok(Vec::new())
    }
}
