//! The shell around [`Buffer`]: calls, and those who wait for them.
//!
//! There is no task and no timer of its own: a call is a future that all whose entries it holds poll together, so
//! it goes on as long as one of them does, and nothing goes on when the last has ended. Where those of a call poll
//! it no longer but hold on to it, one of the others who wait polls it for them.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aws_sdk_sqs::Client;
use futures::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, Shared, WeakShared, join_all, select_all},
    stream,
};
use streamer_message::{Limit, pack};
use tokio::{
    sync::{OwnedSemaphorePermit, RwLock, Semaphore, oneshot},
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    buffer::{Buffer, CALLS, Place},
    claim::{Claim, Deadline},
    entry::Entry,
    producer::SendError,
    queue::{Failure, Queue},
};

/// Bytes of all that is being sent: 16 full batches.
const ROOM: usize = 16 * Limit::QUEUE_BATCH.bytes;

/// What an entry takes up beside its body.
const OVERHEAD: usize = 512;

/// How long one call may take before its entries are tried again.
const CALL: Duration = Duration::from_secs(5);

/// How often who waits for a call looks after it, whoever else does. One who polled it may have left just when it was
/// to be polled again.
pub const LOOK: Duration = Duration::from_millis(250);

/// As good as never.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// What is on its way to one queue.
pub struct Outbox {
    queue: Queue,
    buffer: Mutex<Buffer<Seat>>,
    /// The calls that are under way, and maybe some that have ended.
    calls: Mutex<Vec<WeakShared<CallFuture>>>,
    /// Held by the one who polls them for the others.
    driver: tokio::sync::Mutex<()>,
    room: Arc<Semaphore>,
    /// Read by each send as long as it lasts, and written by who waits for all of them to end.
    open: RwLock<()>,
    closed: AtomicBool,
}

/// An entry, and who is told of the call that it is in.
pub struct Seat {
    pub entry: Arc<Entry>,
    pub told: oneshot::Sender<Call>,
}

pub type Outcomes = Arc<Vec<Result<(), Failure>>>;
pub type CallFuture = BoxFuture<'static, Outcomes>;

/// A call, for one of the entries that it holds.
pub struct Call {
    pub outcomes: Shared<CallFuture>,
    pub index: usize,
}

impl Outbox {
    /// An empty outbox.
    pub fn new(client: &Client, queue_url: String) -> Arc<Self> {
        let queue = Queue::new(client, queue_url);
        let buffer = Mutex::new(Buffer::new(queue.is_fifo()));
        Arc::new(Self {
            queue,
            buffer,
            calls: Mutex::default(),
            driver: tokio::sync::Mutex::default(),
            room: Arc::new(Semaphore::new(ROOM)),
            open: RwLock::default(),
            closed: AtomicBool::new(false),
        })
    }

    /// Whether the queue is a FIFO queue.
    pub fn is_fifo(&self) -> bool {
        self.queue.is_fifo()
    }

    /// Sends entries, all of them within `time`, and tells of each that is not on the queue why.
    pub async fn send<T>(
        self: &Arc<Self>,
        entries: impl Iterator<Item = (T, Entry)>,
        time: Duration,
        mut failed: impl FnMut(T, SendError),
    ) {
        let now = Instant::now();
        let deadline = Deadline { at: now.checked_add(time).unwrap_or(now + NEVER), time };
        let open = self.open.try_read().ok().filter(|_| !self.closed.load(Ordering::Acquire));
        let mut batches = pack(entries, Limit::QUEUE_BATCH, |(_, entry)| entry.bytes()).peekable();
        let send_batch = |batch: Vec<(T, Entry)>| async {
            let (of, entries): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let outcomes = match &open {
                Some(_) => self.send_batch(entries, deadline).await,
                None => vec![Err(SendError::Closed); entries.len()],
            };
            of.into_iter().zip(outcomes)
        };
        let mut tell = |outcomes: std::iter::Zip<std::vec::IntoIter<T>, std::vec::IntoIter<_>>| {
            for (of, outcome) in outcomes {
                if let Err(error) = outcome {
                    failed(of, error);
                }
            }
        };
        let Some(first) = batches.next() else { return };
        if batches.peek().is_none() {
            return tell(send_batch(first).await);
        }
        let batches = std::iter::once(first).chain(batches);
        let mut sending = std::pin::pin!(stream::iter(batches).map(send_batch).buffer_unordered(2 * CALLS));
        while let Some(outcomes) = sending.next().await {
            tell(outcomes);
        }
    }

    async fn send_batch(
        self: &Arc<Self>,
        entries: Vec<Entry>,
        deadline: Deadline,
    ) -> Vec<Result<(), SendError>> {
        let bytes = entries.iter().map(|entry| entry.bytes() + OVERHEAD).sum::<usize>();
        // Before anything is waited for: who asks first is first.
        let claims = self.reserve(entries);
        let _room = match self.room(bytes, deadline).await {
            Ok(room) => room,
            Err(error) => return vec![Err(error); claims.len()],
        };
        let claims = self.enter(claims);
        join_all(claims.into_iter().map(|(claim, call)| claim.settle(call, deadline))).await
    }

    fn reserve(self: &Arc<Self>, entries: Vec<Entry>) -> Vec<Claim> {
        let mut buffer = self.locked();
        let claims = entries.into_iter().map(|entry| {
            let place = buffer.reserve(entry.key, entry.bytes());
            Claim { outbox: Arc::clone(self), place, entry: Arc::new(entry) }
        });
        claims.collect()
    }

    /// Lets entries wait for calls.
    fn enter(self: &Arc<Self>, claims: Vec<Claim>) -> Vec<(Claim, oneshot::Receiver<Call>)> {
        let now = Instant::now();
        let mut buffer = self.locked();
        let claims = claims.into_iter().map(|claim| {
            let call = claim.wait(&mut buffer, now);
            (claim, call)
        });
        let claims = claims.collect();
        drop(buffer);
        self.begin();
        claims
    }

    /// Waits until there is room, in the order of those who ask.
    async fn room(&self, bytes: usize, deadline: Deadline) -> Result<OwnedSemaphorePermit, SendError> {
        // A batch is at most a fraction of the room.
        let permits = u32::try_from(bytes.min(ROOM)).unwrap_or(u32::MAX);
        let room = timeout_at(deadline.at, Arc::clone(&self.room).acquire_many_owned(permits)).await;
        let room = room.ok().and_then(Result::ok);
        room.ok_or_else(|| deadline.passed("too much else is being sent"))
    }

    /// Refuses everything new, and waits until what is under way has ended.
    pub async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        tokio::select! {
            _ended = self.open.write() => {}
            () = self.drive() => {}
        }
    }

    /// Begins the calls whose time has come. They are driven by those who have entries in them.
    pub fn begin(self: &Arc<Self>) {
        loop {
            // Not in the loop's head: the lock would be held until its end.
            let batch = self.locked().next(Instant::now());
            let Some(batch) = batch else { return };
            let (places, seats): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let (entries, told): (Vec<_>, Vec<_>) =
                seats.into_iter().map(|seat| (seat.entry, seat.told)).unzip();
            let outcomes = self.call(places, entries).boxed().shared();
            self.know(&outcomes);
            for (index, told) in told.into_iter().enumerate() {
                // Who has left meanwhile does not want to know.
                _ = told.send(Call { outcomes: outcomes.clone(), index });
            }
        }
    }

    /// Notes a call for those who may have to drive it, and forgets those that have ended.
    fn know(&self, call: &Shared<CallFuture>) {
        let mut calls = self.calls();
        let known: Vec<_> = calls.drain(..).filter_map(|call| call.upgrade()).collect();
        calls.extend(
            known.iter().chain([call]).filter(|call| call.peek().is_none()).filter_map(Shared::downgrade),
        );
        drop(calls);
        // Dropped when the lock is not held any more: each may be the last to hold its call.
        drop(known);
    }

    fn call(
        self: &Arc<Self>,
        places: Vec<Place>,
        entries: Vec<Arc<Entry>>,
    ) -> impl Future<Output = Outcomes> + Send + 'static {
        let mut under_way = UnderWay { outbox: Arc::clone(self), places };
        async move {
            let outcomes = match timeout(CALL, under_way.outbox.queue.send(&entries)).await {
                Ok(outcomes) => outcomes,
                Err(_) => {
                    let cause = format!("the queue did not answer within {} s", CALL.as_secs());
                    vec![Err(Failure::NotTaken(cause)); entries.len()]
                }
            };
            under_way.ended(&outcomes);
            Arc::new(outcomes)
        }
    }

    /// Polls the calls of those who do not do it themselves, one at a time of all who wait.
    pub async fn drive(&self) {
        let _driver = self.driver.lock().await;
        loop {
            let calls: Vec<_> = self.calls().iter().filter_map(WeakShared::upgrade).collect();
            let calls: Vec<_> = calls.into_iter().filter(|call| call.peek().is_none()).collect();
            match calls.is_empty() {
                true => sleep(LOOK).await,
                false => _ = timeout(LOOK, select_all(calls)).await,
            }
        }
    }

    /// What waits, rests and is under way.
    pub fn locked(&self) -> MutexGuard<'_, Buffer<Seat>> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn calls(&self) -> MutexGuard<'_, Vec<WeakShared<CallFuture>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that is under way. It gives its place among the calls back also when nobody drives it to its end.
struct UnderWay {
    outbox: Arc<Outbox>,
    places: Vec<Place>,
}

impl UnderWay {
    fn ended(&mut self, outcomes: &[Result<(), Failure>]) {
        let again = outcomes.iter().map(|outcome| matches!(outcome, Err(Failure::NotTaken(_))));
        let places = std::mem::take(&mut self.places);
        self.outbox.locked().ended(places.into_iter().zip(again));
        self.outbox.begin();
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.places.is_empty() {
            let places = std::mem::take(&mut self.places);
            self.outbox.locked().ended(places.into_iter().map(|place| (place, false)));
            self.outbox.begin();
        }
    }
}
