//! The shell around [`Buffer`]: calls, and those who wait for them.
//!
//! There is no task and no timer of its own: a call is a future that all whose entries it holds poll together, so
//! it goes on as long as one of them does, and nothing goes on when the last has ended.

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
    future::{BoxFuture, Shared, join_all},
    stream,
};
use streamer_message::{Limit, pack};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use crate::{
    buffer::{Buffer, CALLS, LINGER, Place},
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

/// The longest pause before the second try; it doubles with each further one.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest pause of all.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What is on its way to one queue.
#[derive(Debug)]
pub struct Outbox {
    queue: Queue,
    buffer: Mutex<Buffer<Seat>>,
    room: Arc<Semaphore>,
    closed: AtomicBool,
}

/// An entry, and who is told of the call that it is in.
#[derive(Debug)]
struct Seat {
    entry: Arc<Entry>,
    told: oneshot::Sender<Call>,
}

type Outcomes = Arc<Vec<Result<(), Failure>>>;

/// A call, for one of the entries that it holds.
#[derive(Debug, Clone)]
struct Call {
    outcomes: Shared<BoxFuture<'static, Outcomes>>,
    index: usize,
}

impl Outbox {
    /// An empty outbox.
    pub fn new(client: &Client, queue_url: String) -> Arc<Self> {
        let queue = Queue::new(client, queue_url);
        let buffer = Mutex::new(Buffer::new(queue.is_fifo()));
        Arc::new(Self { queue, buffer, room: Arc::new(Semaphore::new(ROOM)), closed: AtomicBool::new(false) })
    }

    /// Whether the queue is a FIFO queue.
    pub fn is_fifo(&self) -> bool {
        self.queue.is_fifo()
    }

    /// Sends entries, and tells of each which is not on the queue why. Each batch has `time` from its turn on.
    pub async fn send<T>(
        self: &Arc<Self>,
        entries: impl Iterator<Item = (T, Entry)>,
        time: Duration,
        mut failed: impl FnMut(T, SendError),
    ) {
        let batches = pack(entries, Limit::QUEUE_BATCH, |(_, entry)| entry.bytes());
        let batches = stream::iter(batches).map(|batch| async {
            let (of, entries): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            of.into_iter().zip(self.send_batch(entries, time).await)
        });
        let mut sending = std::pin::pin!(batches.buffer_unordered(2 * CALLS));
        while let Some(outcomes) = sending.next().await {
            for (of, outcome) in outcomes {
                if let Err(error) = outcome {
                    failed(of, error);
                }
            }
        }
    }

    async fn send_batch(self: &Arc<Self>, entries: Vec<Entry>, time: Duration) -> Vec<Result<(), SendError>> {
        let deadline = Deadline { at: Instant::now() + time, time };
        let bytes = entries.iter().map(|entry| entry.bytes() + OVERHEAD).sum::<usize>();
        let _room = match self.room(bytes, deadline).await {
            Ok(room) => room,
            Err(error) => return vec![Err(error); entries.len()],
        };
        let claims = self.enter(entries);
        join_all(claims.into_iter().map(|claim| claim.settle(deadline))).await
    }

    /// Waits until there is room.
    async fn room(&self, bytes: usize, deadline: Deadline) -> Result<OwnedSemaphorePermit, SendError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(SendError::Closed);
        }
        // A batch is at most a fraction of the room.
        let permits = u32::try_from(bytes.min(ROOM)).unwrap_or(u32::MAX);
        match timeout_at(deadline.at, Arc::clone(&self.room).acquire_many_owned(permits)).await {
            Ok(room) => room.map_err(|_| SendError::Closed),
            Err(_) => Err(deadline.passed("too much else is being sent")),
        }
    }

    /// Refuses everything new, and waits until what is under way has ended.
    pub async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // All the room is there when nobody has any, and nobody asked before.
        _ = self.room.acquire_many(u32::try_from(ROOM).unwrap_or(u32::MAX)).await;
        self.room.close();
    }

    fn enter(self: &Arc<Self>, entries: Vec<Entry>) -> Vec<Claim> {
        let now = Instant::now();
        let mut buffer = self.locked();
        let claims = entries.into_iter().map(|entry| {
            let (entry, (told, call)) = (Arc::new(entry), oneshot::channel());
            let seat = Seat { entry: Arc::clone(&entry), told };
            let place = buffer.push(entry.key, entry.bytes(), seat, now);
            Claim { outbox: Arc::clone(self), place, entry, call }
        });
        let claims = claims.collect();
        drop(buffer);
        self.begin();
        claims
    }

    /// Begins the calls whose time has come. They are driven by those who have entries in them.
    fn begin(self: &Arc<Self>) {
        loop {
            // Not in the loop's head: the lock would be held until its end.
            let batch = self.locked().next(Instant::now());
            let Some(batch) = batch else { return };
            let (places, seats): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let (entries, told): (Vec<_>, Vec<_>) =
                seats.into_iter().map(|seat| (seat.entry, seat.told)).unzip();
            let outcomes = self.call(places, entries).boxed().shared();
            for (index, told) in told.into_iter().enumerate() {
                // Who has left meanwhile does not want to know.
                _ = told.send(Call { outcomes: outcomes.clone(), index });
            }
        }
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

    fn locked(&self) -> MutexGuard<'_, Buffer<Seat>> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Somebody's entry, until it is on the queue or given up. Dropping it gives it up.
struct Claim {
    outbox: Arc<Outbox>,
    place: Place,
    entry: Arc<Entry>,
    call: oneshot::Receiver<Call>,
}

impl Claim {
    async fn settle(mut self, deadline: Deadline) -> Result<(), SendError> {
        let mut cause = "the queue has not answered".to_owned();
        let mut pause = PAUSE;
        loop {
            let Some(Call { outcomes, index }) = self.called(deadline).await else {
                return Err(deadline.passed(&cause));
            };
            let Ok(outcomes) = timeout_at(deadline.at, outcomes).await else {
                return Err(deadline.passed(&cause));
            };
            match outcomes.get(index) {
                Some(Ok(())) => return Ok(()),
                Some(Err(Failure::Refused(cause))) => return Err(SendError::Refused(cause.clone())),
                Some(Err(Failure::NotTaken(why))) => cause.clone_from(why),
                None => {}
            }
            let jittered = pause.mul_f64(fastrand::f64());
            if Instant::now() + jittered >= deadline.at {
                return Err(deadline.passed(&cause));
            }
            sleep(jittered).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            self.again();
        }
    }

    /// Waits for the call that the entry is in.
    async fn called(&mut self, deadline: Deadline) -> Option<Call> {
        let linger = Instant::now() + LINGER;
        let mut lingers = linger < deadline.at;
        loop {
            tokio::select! {
                biased;
                call = &mut self.call => return call.ok(),
                () = sleep_until(linger), if lingers => {
                    lingers = false;
                    self.outbox.begin();
                }
                () = sleep_until(deadline.at) => return None,
            }
        }
    }

    fn again(&mut self) {
        let (told, call) = oneshot::channel();
        self.call = call;
        let seat = Seat { entry: Arc::clone(&self.entry), told };
        self.outbox.locked().again(self.place, seat, Instant::now());
        self.outbox.begin();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let others_may_leave = self.outbox.locked().leave(self.place);
        if others_may_leave {
            self.outbox.begin();
        }
    }
}

/// Until when something is to be done, and how long that was.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    at: Instant,
    time: Duration,
}

impl Deadline {
    fn passed(self, cause: &str) -> SendError {
        SendError::OutOfTime { time: self.time, cause: cause.to_owned() }
    }
}
