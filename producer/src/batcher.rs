//! The batcher: collects sends into `SendMessageBatch` calls, within its capacity.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aws_sdk_sqs::Client;
use futures::{StreamExt as _, future::join_all, stream};
use streamer_message::{Limit, pack};
use tokio::{
    sync::{OwnedSemaphorePermit, RwLock, Semaphore},
    time::timeout_at,
};

use crate::{
    buffer::MAX_CALLS,
    calls::Calls,
    deadline::Deadline,
    entry::Entry,
    error::SendError,
    pending::{NextCall, Pending},
    queue::Queue,
};

/// Bytes of all messages that are being sent: 16 full batches.
const CAPACITY: usize = 16 * Limit::QUEUE_BATCH.bytes;

/// Bytes of capacity that an entry needs beside its body.
const OVERHEAD: usize = 512;

/// The messages on their way to one queue.
pub(crate) struct Batcher {
    calls: Arc<Calls>,
    capacity: Arc<Semaphore>,
    /// Held for reading by each send. Closing waits for the write lock, and so for all sends.
    open: RwLock<()>,
    closed: AtomicBool,
}

impl Batcher {
    /// Returns an empty batcher.
    pub(crate) fn new(client: &Client, queue_url: String) -> Self {
        Self {
            calls: Arc::new(Calls::new(Queue::new(client, queue_url))),
            capacity: Arc::new(Semaphore::new(CAPACITY)),
            open: RwLock::default(),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_fifo(&self) -> bool {
        self.calls.is_fifo()
    }

    /// Sends entries, all of them within `timeout`, and calls `failed` for each that is not on the queue.
    pub(crate) async fn send<T>(
        &self,
        entries: impl Iterator<Item = (T, Entry)>,
        timeout: Duration,
        mut failed: impl FnMut(T, SendError),
    ) {
        let deadline = Deadline::after(timeout);
        let open = self.open.try_read().ok().filter(|_| !self.closed.load(Ordering::Acquire));
        let mut batches = pack(entries, Limit::QUEUE_BATCH, |(_, entry)| entry.bytes()).peekable();
        let send_batch = |batch: Vec<(T, Entry)>| async {
            let (keys, entries): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let results = match &open {
                Some(_) => self.send_batch(entries, deadline).await,
                None => vec![Err(SendError::Closed); entries.len()],
            };
            keys.into_iter().zip(results)
        };
        let mut report = |results: std::iter::Zip<std::vec::IntoIter<T>, std::vec::IntoIter<_>>| {
            for (key, result) in results {
                if let Err(error) = result {
                    failed(key, error);
                }
            }
        };
        let Some(first) = batches.next() else { return };
        if batches.peek().is_none() {
            return report(send_batch(first).await);
        }
        let batches = std::iter::once(first).chain(batches);
        let mut sending =
            std::pin::pin!(stream::iter(batches).map(send_batch).buffer_unordered(2 * MAX_CALLS));
        while let Some(results) = sending.next().await {
            report(results);
        }
    }

    async fn send_batch(&self, entries: Vec<Entry>, deadline: Deadline) -> Vec<Result<(), SendError>> {
        let bytes = entries.iter().map(|entry| entry.bytes() + OVERHEAD).sum::<usize>();
        // Before the first await, so that entries keep the order of the calls to `send`.
        let pending = Pending::reserve(&self.calls, entries);
        let _capacity = match self.acquire(bytes, deadline).await {
            Ok(capacity) => capacity,
            Err(error) => return vec![Err(error); pending.len()],
        };
        let enqueued = self.enqueue(pending, deadline);
        join_all(enqueued.into_iter().map(|(pending, next)| pending.confirmed(next, deadline))).await
    }

    /// Enqueues entries under one lock, so that they can share a call.
    fn enqueue(&self, pending: Vec<Pending>, deadline: Deadline) -> Vec<(Pending, NextCall)> {
        let mut buffer = self.calls.buffer();
        let enqueued = pending.into_iter().map(|pending| {
            let next = pending.enqueue(&mut buffer, deadline);
            (pending, next)
        });
        let enqueued = enqueued.collect();
        drop(buffer);
        self.calls.begin();
        enqueued
    }

    /// Waits for capacity, first come, first served.
    async fn acquire(&self, bytes: usize, deadline: Deadline) -> Result<OwnedSemaphorePermit, SendError> {
        // A batch needs a fraction of the capacity at most.
        let permits = u32::try_from(bytes.min(CAPACITY)).unwrap_or(u32::MAX);
        let acquired = timeout_at(deadline.at, Arc::clone(&self.capacity).acquire_many_owned(permits)).await;
        let acquired = acquired.ok().and_then(Result::ok);
        acquired.ok_or_else(|| deadline.timed_out("the producer's buffer is full"))
    }

    /// Refuses later sends, and waits until all sends in progress have completed.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        tokio::select! {
            _completed = self.open.write() => {}
            () = self.calls.drive() => {}
        }
    }
}
