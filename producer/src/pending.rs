//! Messages in the batcher that await confirmation.

use std::{
    future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::future::Shared;
use tokio::{
    sync::oneshot,
    task::yield_now,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use crate::{
    buffer::{Buffer, EntryId, LINGER},
    calls::{Call, CallFuture, Calls, POLL_INTERVAL, Waiter},
    deadline::Deadline,
    entry::Entry,
    error::SendError,
    queue::Failure,
};

/// The longest backoff before the second attempt; it doubles with each further attempt.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);

/// The longest backoff before any attempt.
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// The shortest time before the deadline in which an attempt begins.
const MIN_ATTEMPT: Duration = Duration::from_millis(10);

/// An entry that is not yet confirmed. Dropping it gives the entry up.
pub(crate) struct Pending {
    calls: Arc<Calls>,
    id: EntryId,
    entry: Arc<Entry>,
}

/// The call that an entry will be in.
pub(crate) struct NextCall {
    call: oneshot::Receiver<Call>,
    /// When the entry no longer waits for its batch to fill.
    due: Instant,
}

impl Pending {
    /// Reserves the turns of entries, in their order.
    pub(crate) fn reserve(calls: &Arc<Calls>, entries: Vec<Entry>) -> Vec<Self> {
        let mut buffer = calls.buffer();
        let pending = entries.into_iter().map(|entry| {
            let id = buffer.reserve(entry.key, entry.bytes());
            Self { calls: Arc::clone(calls), id, entry: Arc::new(entry) }
        });
        pending.collect()
    }

    /// Enqueues the entry, and returns the call that it will be in.
    pub(crate) fn enqueue(&self, buffer: &mut Buffer<Waiter>, deadline: Deadline) -> NextCall {
        let (sender, call) = oneshot::channel();
        let now = Instant::now();
        let due = now + LINGER.min(deadline.at.saturating_duration_since(now) / 2);
        buffer.enqueue(self.id, Waiter { entry: Arc::clone(&self.entry), call: sender }, due);
        NextCall { call, due }
    }

    /// Completes when the entry is on the queue, and retries it until the deadline.
    pub(crate) async fn confirmed(self, mut next: NextCall, deadline: Deadline) -> Result<(), SendError> {
        let mut cause = None;
        let timed_out = |cause: Option<&str>, otherwise| deadline.timed_out(cause.unwrap_or(otherwise));
        let mut longest = FIRST_BACKOFF;
        loop {
            let Some(Call { done, results, index, backoff }) = self.next_call(next, deadline).await else {
                return Err(timed_out(cause.as_deref(), "the message is waiting behind others"));
            };
            completed(done, deadline).await;
            // Also of a call that goes on, if its entries are sent one by one.
            match results.get(index).and_then(OnceLock::get) {
                Some(Ok(())) => return Ok(()),
                Some(Err(Failure::Refused { code, message })) => {
                    return Err(SendError::Refused { code: code.clone(), message: message.clone() });
                }
                Some(Err(Failure::NotConfigured(cause))) => {
                    return Err(SendError::NotConfigured { cause: cause.clone() });
                }
                Some(Err(Failure::NotTaken(failure))) => cause = Some(failure.clone()),
                None => {}
            }
            let left = deadline.at.saturating_duration_since(Instant::now());
            if left < MIN_ATTEMPT {
                return Err(timed_out(cause.as_deref(), "the queue has not answered"));
            }
            sleep(longest.mul_f64(backoff).min(left / 2)).await;
            longest = (longest * 2).min(MAX_BACKOFF);
            next = self.enqueue(&mut self.calls.buffer(), deadline);
            // Lets the other entries of the failed call follow first.
            yield_now().await;
            self.calls.begin();
        }
    }

    /// Waits for the call that the entry is in.
    async fn next_call(&self, next: NextCall, deadline: Deadline) -> Option<Call> {
        let NextCall { mut call, due } = next;
        tokio::select! {
            biased;
            call = &mut call => return call.ok(),
            () = sleep_until(due) => self.calls.begin(),
        }
        tokio::select! {
            biased;
            call = &mut call => call.ok(),
            () = sleep_until(deadline.at) => None,
            () = self.calls.drive() => future::pending().await,
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // The waiter is dropped after the lock is released, because that wakes a task.
        let waiter = self.calls.buffer().cancel(self.id);
        drop(waiter);
        self.calls.begin();
    }
}

/// Waits for the end of a call, until the deadline.
async fn completed(done: Shared<CallFuture>, deadline: Deadline) {
    loop {
        let until = deadline.at.min(Instant::now() + POLL_INTERVAL);
        if timeout_at(until, done.clone()).await.is_ok() || until == deadline.at {
            return;
        }
    }
}
