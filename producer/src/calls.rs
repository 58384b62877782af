//! The calls in flight: a shell around [`Buffer`].
//!
//! There is no background task and no timer. A call is a shared future that every send with an entry in it polls: it
//! advances while one of these sends is polled, and nothing runs after the last send has completed. If all of them
//! hold the call without polling it, another waiting send drives it.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared, select_all},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};

use crate::{
    buffer::{Buffer, EntryId},
    entry::Entry,
    queue::{EntryResult, Failure, Queue},
};

/// Interval at which a waiting send polls its call itself. Otherwise a call would hang whose driver was dropped just
/// when it had to be polled again.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The entries on their way to one queue, and the calls that carry them.
pub(crate) struct Calls {
    queue: Queue,
    buffer: Mutex<Buffer<Waiter>>,
    /// The calls in flight, and possibly some that have completed.
    in_flight: Mutex<Vec<WeakShared<CallFuture>>>,
    /// Held by the send that drives the calls of others.
    driver: tokio::sync::Mutex<()>,
}

/// An entry, and the way to hand its send the call that it is in.
pub(crate) struct Waiter {
    pub entry: Arc<Entry>,
    pub call: oneshot::Sender<Call>,
}

pub(crate) type CallFuture = BoxFuture<'static, ()>;

/// A call, and the index of one entry in it.
pub(crate) struct Call {
    pub done: Shared<CallFuture>,
    /// The results of all its entries.
    pub results: Arc<[EntryResult]>,
    pub index: usize,
    /// The share of the longest backoff, 0 to 1, that its entries wait if the call fails: the same for all, so that they
    /// share a call again.
    pub backoff: f64,
}

impl Calls {
    pub(crate) fn new(queue: Queue) -> Self {
        let buffer = Mutex::new(Buffer::new(queue.is_fifo()));
        Self { queue, buffer, in_flight: Mutex::default(), driver: tokio::sync::Mutex::default() }
    }

    pub(crate) fn is_fifo(&self) -> bool {
        self.queue.is_fifo()
    }

    /// Begins the calls that are due. The sends of their entries drive them.
    pub(crate) fn begin(self: &Arc<Self>) {
        loop {
            // In the condition of a `while let`, the lock would be held until the end of the body.
            let batch = self.buffer().next_batch(Instant::now());
            let Some(batch) = batch else { return };
            let (ids, waiters): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let (entries, senders): (Vec<_>, Vec<_>) =
                waiters.into_iter().map(|waiter| (waiter.entry, waiter.call)).unzip();
            let results: Arc<[_]> = entries.iter().map(|_| EntryResult::new()).collect();
            let done = self.call(ids, entries, Arc::clone(&results)).boxed().shared();
            self.track(&done);
            let backoff = fastrand::f64();
            for (index, sender) in senders.into_iter().enumerate() {
                // Fails if the send was dropped in the meantime.
                _ = sender.send(Call { done: done.clone(), results: Arc::clone(&results), index, backoff });
            }
        }
    }

    /// Adds a call to those that other sends may drive, and removes the completed ones.
    fn track(&self, call: &Shared<CallFuture>) {
        let mut in_flight = self.in_flight();
        let known: Vec<_> = in_flight.drain(..).filter_map(|call| call.upgrade()).collect();
        in_flight.extend(
            known.iter().chain([call]).filter(|call| call.peek().is_none()).filter_map(Shared::downgrade),
        );
        drop(in_flight);
        // Dropped after the lock is released, because each may be the last owner of its call.
        drop(known);
    }

    fn call(
        self: &Arc<Self>,
        ids: Vec<EntryId>,
        entries: Vec<Arc<Entry>>,
        results: Arc<[EntryResult]>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let mut in_flight = InFlight { calls: Arc::clone(self), ids };
        async move {
            in_flight.calls.queue.send(&entries, &results).await;
            in_flight.complete(&results);
        }
    }

    /// Polls the calls whose own sends do not poll them. Of all waiting sends, one at a time does so. Never completes.
    pub(crate) async fn drive(&self) {
        let _driver = self.driver.lock().await;
        loop {
            let calls: Vec<_> = self.in_flight().iter().filter_map(WeakShared::upgrade).collect();
            let calls: Vec<_> = calls.into_iter().filter(|call| call.peek().is_none()).collect();
            match calls.is_empty() {
                true => sleep(POLL_INTERVAL).await,
                false => _ = timeout(POLL_INTERVAL, select_all(calls)).await,
            }
        }
    }

    /// Locks the buffer.
    pub(crate) fn buffer(&self) -> MutexGuard<'_, Buffer<Waiter>> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_flight(&self) -> MutexGuard<'_, Vec<WeakShared<CallFuture>>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entries of a call in flight. Dropping it frees the call's slot in the buffer, also if no send drives the call to
/// its end.
struct InFlight {
    calls: Arc<Calls>,
    ids: Vec<EntryId>,
}

impl InFlight {
    fn complete(&mut self, results: &[EntryResult]) {
        let retry = results.iter().map(|result| matches!(result.get(), Some(Err(Failure::NotTaken(_)))));
        let ids = std::mem::take(&mut self.ids);
        self.calls.buffer().complete(ids.into_iter().zip(retry));
        self.calls.begin();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.ids.is_empty() {
            let ids = std::mem::take(&mut self.ids);
            self.calls.buffer().complete(ids.into_iter().map(|id| (id, false)));
            self.calls.begin();
        }
    }
}
