//! A mailbox's table in memory, which records its calls and fails or hangs on request.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard},
    time::SystemTime,
};

use streamer_environment::failure::FailureKind;
use streamer_mailbox::{
    Device, FreshHead, Head, Put, Raise, StoredId, StoredMessage, Stream, Table, TableError,
};
use streamer_message::{ConnectionId, Epoch};

/// A table in memory. Its clones share the content.
#[derive(Clone, Default)]
pub(crate) struct MemoryTable {
    streams: Arc<Mutex<BTreeMap<String, Partition>>>,
    calls: Arc<Mutex<Vec<&'static str>>>,
    fault: Option<Fault>,
}

/// A fault of one operation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Denied(&'static str),
    Silent(&'static str),
}

#[derive(Default)]
struct Partition {
    head: Option<Head>,
    messages: BTreeMap<u64, StoredMessage>,
    devices: BTreeMap<String, Device>,
}

impl MemoryTable {
    /// Returns the same table with a fault.
    pub(crate) fn with(&self, fault: Fault) -> Self {
        Self { fault: Some(fault), ..self.clone() }
    }

    /// Returns the operations so far.
    pub(crate) fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) fn devices_of(&self, stream: &Stream) -> Vec<Device> {
        self.locked().entry(stream.key()).or_default().devices.values().cloned().collect()
    }

    /// Cuts a stream off: the messages up to `floor` are gone.
    pub(crate) fn cut_off(&self, stream: &Stream, floor: u64) {
        let mut streams = self.locked();
        let partition = streams.get_mut(&stream.key()).unwrap();
        partition.head.as_mut().unwrap().floor = floor;
        partition.messages.retain(|seq, _| *seq > floor);
    }

    async fn call(
        &self,
        operation: &'static str,
    ) -> Result<MutexGuard<'_, BTreeMap<String, Partition>>, TableError> {
        self.calls.lock().unwrap().push(operation);
        match self.fault {
            Some(Fault::Denied(denied)) if denied == operation => Err(TableError::Call {
                operation,
                table: "mailbox".to_owned(),
                kind: FailureKind::Denied,
                cause: "AccessDeniedException".to_owned(),
            }),
            Some(Fault::Silent(silent)) if silent == operation => std::future::pending().await,
            _ => Ok(self.locked()),
        }
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, Partition>> {
        self.streams.lock().unwrap()
    }
}

impl Table for MemoryTable {
    async fn head(&self, stream: &Stream) -> Result<Option<Head>, TableError> {
        Ok(self.call("head").await?.entry(stream.key()).or_default().head.clone())
    }

    async fn create_head(&self, stream: &Stream, head: &Head) -> Result<FreshHead, TableError> {
        let mut streams = self.call("create_head").await?;
        let partition = streams.entry(stream.key()).or_default();
        match &partition.head {
            Some(head) => Ok(FreshHead::Exists(head.clone())),
            None => {
                partition.head = Some(head.clone());
                Ok(FreshHead::Created)
            }
        }
    }

    async fn put_message(
        &self,
        stream: &Stream,
        _epoch: &Epoch,
        seq: u64,
        message: &StoredMessage,
    ) -> Result<Put, TableError> {
        let mut streams = self.call("put_message").await?;
        let partition = streams.entry(stream.key()).or_default();
        Ok(match partition.messages.get(&seq) {
            Some(taken) => Put::Taken(taken.id.clone()),
            None => {
                partition.messages.insert(seq, message.clone());
                Put::Stored
            }
        })
    }

    async fn raise_top(
        &self,
        stream: &Stream,
        epoch: &Epoch,
        seq: u64,
        expires_at: SystemTime,
    ) -> Result<Raise, TableError> {
        let mut streams = self.call("raise_top").await?;
        let head = streams.entry(stream.key()).or_default().head.as_mut();
        Ok(match head.filter(|head| head.epoch == *epoch) {
            None => Raise::OtherEpoch,
            Some(head) if head.top >= seq => Raise::Higher(head.clone()),
            Some(head) => {
                (head.top, head.expires_at) = (seq, expires_at);
                Raise::Raised(head.clone())
            }
        })
    }

    async fn raise_floor(&self, stream: &Stream, epoch: &Epoch, seq: u64) -> Result<bool, TableError> {
        let mut streams = self.call("raise_floor").await?;
        let head = streams.entry(stream.key()).or_default().head.as_mut();
        let lower = head.filter(|head| head.epoch == *epoch && head.floor < seq);
        Ok(lower.map(|head| head.floor = seq).is_some())
    }

    async fn renew_head(
        &self,
        stream: &Stream,
        epoch: &Epoch,
        expires_at: SystemTime,
    ) -> Result<(), TableError> {
        let mut streams = self.call("renew_head").await?;
        let head = streams.entry(stream.key()).or_default().head.as_mut();
        if let Some(head) = head.filter(|head| head.epoch == *epoch) {
            head.expires_at = expires_at;
        }
        Ok(())
    }

    async fn messages(
        &self,
        stream: &Stream,
        _epoch: &Epoch,
        range: RangeInclusive<u64>,
        limit: usize,
    ) -> Result<(Vec<(u64, StoredMessage)>, u64), TableError> {
        let mut streams = self.call("messages").await?;
        let end = *range.end();
        let messages = &streams.entry(stream.key()).or_default().messages;
        let page: Vec<_> =
            messages.range(range).take(limit).map(|(seq, message)| (*seq, message.clone())).collect();
        let read = page.last().filter(|_| page.len() == limit).map_or(end, |(seq, _)| *seq);
        Ok((page, read))
    }

    async fn newest_ids(
        &self,
        stream: &Stream,
        _epoch: &Epoch,
        range: RangeInclusive<u64>,
    ) -> Result<(Vec<StoredId>, u64), TableError> {
        let mut streams = self.call("newest_ids").await?;
        let start = *range.start();
        let messages = streams.entry(stream.key()).or_default().messages.range(range).rev();
        let id = |(seq, message): (&u64, &StoredMessage)| StoredId {
            seq: *seq,
            id: message.id.clone(),
            stored_at: message.stored_at,
        };
        Ok((messages.map(id).collect(), start))
    }

    async fn put_device(&self, stream: &Stream, device: &Device) -> Result<(), TableError> {
        let mut streams = self.call("put_device").await?;
        let devices = &mut streams.entry(stream.key()).or_default().devices;
        devices.insert(device.connection.to_string(), device.clone());
        Ok(())
    }

    async fn delete_device(&self, stream: &Stream, connection: &ConnectionId) -> Result<(), TableError> {
        self.call("delete_device")
            .await?
            .entry(stream.key())
            .or_default()
            .devices
            .remove(connection.as_str());
        Ok(())
    }

    async fn devices(
        &self,
        stream: &Stream,
        after: Option<&ConnectionId>,
    ) -> Result<(Vec<Device>, Option<ConnectionId>), TableError> {
        let mut streams = self.call("devices").await?;
        let devices = streams.entry(stream.key()).or_default().devices.values();
        let is_after = |device: &&Device| after.is_none_or(|after| device.connection > *after);
        Ok((devices.filter(is_after).cloned().collect(), None))
    }

    async fn item_keys(
        &self,
        stream: &Stream,
        after: Option<&str>,
    ) -> Result<(Vec<String>, Option<String>), TableError> {
        let mut streams = self.call("item_keys").await?;
        let Partition { head, messages, devices } = streams.entry(stream.key()).or_default();
        let devices = devices.keys().map(|id| format!("c#{id}"));
        let epoch = head.as_ref().map(|head| head.epoch.to_string()).unwrap_or_default();
        let messages = messages.keys().map(|seq| format!("m#{epoch}#{seq:020}"));
        let keys = devices.chain(head.iter().map(|_| "h".to_owned())).chain(messages);
        Ok((keys.filter(|key| after.is_none_or(|after| key.as_str() > after)).collect(), None))
    }

    async fn delete_items(&self, stream: &Stream, keys: &[String]) -> Result<Vec<String>, TableError> {
        let mut streams = self.call("delete_items").await?;
        let Partition { head, messages, devices } = streams.entry(stream.key()).or_default();
        for key in keys {
            match key.split_once('#') {
                Some(("c", id)) => drop(devices.remove(id)),
                Some((_, rest)) => {
                    let seq = rest.rsplit_once('#').and_then(|(_, seq)| seq.parse().ok());
                    seq.and_then(|seq: u64| messages.remove(&seq));
                }
                None => *head = None,
            }
        }
        Ok(Vec::new())
    }
}
