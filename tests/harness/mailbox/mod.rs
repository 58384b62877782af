//! The mailbox's table in memory.
//!
//! Each method is one atomic step. A test can let other tasks run before and after each step ([`MemoryTable::yielding`]),
//! inject faults ([`MemoryTable::inject`]), remove expired items ([`MemoryTable::remove_expired`]), read the bill
//! ([`MemoryTable::bill`]) and the history of all messages, and give one client of the table a [`Defect`].

mod bill;
mod calls;
mod items;
mod table;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    future::{pending, poll_fn},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::SystemTime,
};

use streamer_environment::failure::FailureKind;
use streamer_mailbox::{Device, Head, StoredMessage, Stream, TableError};
use streamer_message::Epoch;

pub use self::bill::{Bill, Call, Usage};
use self::items::Item;

/// Bytes that one call reads.
const READ_BYTES: usize = 1024 * 1024;

/// Steps for which a lagging list of devices lacks a new one.
const LAG: u64 = 12;

/// A fault of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call has no effect and fails.
    Fails,
    /// The call has its effect, and its answer is lost.
    AnswerLost,
    /// The call is throttled.
    Throttled,
    /// The call has no effect, and no answer comes.
    Silence,
}

/// A wrong use of the table, for tests that must notice it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Defect {
    /// The head is read from a replica that may be one version old.
    OldHead,
    /// Devices are read from an index that lags.
    LaggingDevices,
    /// The floor is not compared when `top` is already higher.
    HiddenFloor,
    /// `top` is not raised.
    TopNotRaised,
    /// Messages that a writer passes are not held in the table.
    NotHeld,
    /// This device is registered only after the head has been read.
    LateDevice(Stream, Device),
}

/// A message that the table has or had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The epoch.
    pub epoch: Epoch,
    /// The number.
    pub seq: u64,
    /// The message.
    pub message: StoredMessage,
}

/// The table. Clones share its items.
#[derive(Debug, Clone, Default)]
pub struct MemoryTable {
    shared: Arc<Mutex<Shared>>,
    yields: bool,
    defect: Option<Defect>,
}

type Inject = Box<dyn FnMut(Call) -> Option<Fault> + Send>;

struct Shared {
    items: BTreeMap<(String, String), Item>,
    history: Vec<Stored>,
    /// The version of each head before its last change.
    old_heads: HashMap<String, Head>,
    /// The step at which each device was registered.
    registered: HashMap<(String, String), u64>,
    step: u64,
    calls: Vec<Call>,
    bill: Bill,
    inject: Option<Inject>,
    read_bytes: usize,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            items: BTreeMap::new(),
            history: Vec::new(),
            old_heads: HashMap::new(),
            registered: HashMap::new(),
            step: 0,
            calls: Vec::new(),
            bill: Bill::default(),
            inject: None,
            read_bytes: READ_BYTES,
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").field("items", &self.items).finish_non_exhaustive()
    }
}

impl MemoryTable {
    /// Returns a client whose calls return `Pending` once before and once after their step.
    #[must_use]
    pub fn yielding(&self) -> Self {
        Self { yields: true, ..self.clone() }
    }

    /// Returns a client that uses the table wrongly.
    #[must_use]
    pub fn with(&self, defect: Option<Defect>) -> Self {
        Self { defect, ..self.clone() }
    }

    /// Injects the fault that `inject` returns into each call.
    pub fn inject(&self, inject: impl FnMut(Call) -> Option<Fault> + Send + 'static) {
        self.lock().inject = Some(Box::new(inject));
    }

    /// Injects these faults, one after another, into the calls of one operation.
    pub fn inject_into(&self, call: Call, faults: impl IntoIterator<Item = Fault>) {
        let mut faults = faults.into_iter().collect::<Vec<_>>().into_iter();
        self.inject(move |called| if called == call { faults.next() } else { None });
    }

    /// Sets the bytes that one call reads, 1 MiB by default.
    pub fn limit_reads(&self, bytes: usize) {
        self.lock().read_bytes = bytes;
    }

    /// Removes expired items that `is_removed` selects by their range key, as TTL does at any time.
    pub fn remove_expired(&self, now: SystemTime, mut is_removed: impl FnMut(&str) -> bool) {
        self.lock().items.retain(|(_, key), item| item.expires_at() > now || !is_removed(key));
    }

    /// Returns all calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// Returns the bill since the last call of this method.
    #[must_use]
    pub fn bill(&self) -> Bill {
        std::mem::take(&mut self.lock().bill)
    }

    /// Returns every message that was ever stored above the floor, in order, without the first ones.
    #[must_use]
    pub fn history(&self, without: usize) -> Vec<Stored> {
        self.lock().history.iter().skip(without).cloned().collect()
    }

    /// Returns a stream's head without a call.
    #[must_use]
    pub fn peek(&self, stream: &Stream) -> Option<Head> {
        self.lock().head(stream)
    }

    /// Returns the number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// Returns whether the table has no items.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Performs one call.
    async fn call<R>(&self, call: Call, step: impl FnOnce(&mut Shared) -> R) -> Result<R, TableError> {
        self.pause().await;
        let (fault, result) = {
            let mut shared = self.lock();
            shared.step += 1;
            shared.calls.push(call);
            shared.bill.count(call);
            let fault = shared.inject.as_mut().and_then(|inject| inject(call));
            let has_effect = matches!(fault, None | Some(Fault::AnswerLost));
            (fault, has_effect.then(|| step(&mut shared)))
        };
        self.pause().await;
        if fault == Some(Fault::Silence) {
            return pending().await;
        }
        match (fault, result) {
            (None, Some(result)) => Ok(result),
            (fault, _) => Err(failure(call, fault)),
        }
    }

    /// Lets other tasks run.
    async fn pause(&self) {
        let mut is_over = !self.yields;
        poll_fn(|context| {
            if is_over {
                return Poll::Ready(());
            }
            is_over = true;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

fn failure(call: Call, fault: Option<Fault>) -> TableError {
    let operation = match call {
        Call::Head => "GetItem",
        Call::CreateHead | Call::PutMessage | Call::PutDevice => "PutItem",
        Call::HoldMessage | Call::RaiseTop | Call::RaiseFloor | Call::RenewHead => "UpdateItem",
        Call::Messages | Call::NewestIds | Call::Devices | Call::ItemKeys => "Query",
        Call::DeleteDevice => "DeleteItem",
        Call::DeleteItems => "BatchWriteItem",
    };
    let (kind, cause) = match fault {
        Some(Fault::Throttled) => (FailureKind::Throttled, "ThrottlingException"),
        Some(Fault::AnswerLost) => (FailureKind::Unreachable, "no answer"),
        _ => (FailureKind::Other, "InternalServerError"),
    };
    TableError::Call { operation, table: "memory".to_owned(), kind, cause: cause.to_owned() }
}
