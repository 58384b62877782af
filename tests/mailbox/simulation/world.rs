//! The parts that tasks share: the table, the clock and the sockets.

use std::{
    cell::{Cell, Ref, RefCell},
    collections::BTreeMap,
    future::poll_fn,
    task::Poll,
    time::{Duration, SystemTime},
};

use streamer_mailbox::{Mailbox, Settings, StoredMessage};
use streamer_message::ConnectionId;
use streamer_tests::mailbox::{Call, Defect, Fault, MemoryTable};

use super::{case::Case, mutants::Mutant};
use crate::{at, stream};

/// Milliseconds after which API Gateway closes a socket.
const SOCKET_MILLIS: u64 = 2 * 3600 * 1000;

/// A socket, from the server's side.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) opened_at: u64,
    /// Frames on their way to the client.
    pub(crate) inbox: Vec<String>,
    /// Whether frames are lost, although API Gateway accepts them: the client is gone, and API Gateway does not know.
    pub(crate) is_dead: bool,
}

pub(crate) struct World {
    pub(crate) table: MemoryTable,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) sockets: RefCell<BTreeMap<u32, Socket>>,
    settings: Settings,
    now: Cell<u64>,
    opened: Cell<u32>,
    was_erased: Cell<bool>,
    is_erasing: Cell<bool>,
    messages: RefCell<Messages>,
}

/// The last message that was stored at each number of each epoch.
type ByNumber = BTreeMap<(String, u64), StoredMessage>;

#[derive(Default)]
struct Messages {
    by_number: ByNumber,
    /// How much of the table's history is in it.
    read: usize,
}

impl World {
    pub(crate) fn new(case: &Case, mutant: Option<Mutant>) -> Self {
        let settings = Settings { max_messages: case.max_messages, ..Settings::default() };
        let table = MemoryTable::default();
        Self {
            table,
            mutant,
            sockets: RefCell::default(),
            settings,
            now: Cell::new(0),
            opened: Cell::new(0),
            was_erased: Cell::new(false),
            is_erasing: Cell::new(false),
            messages: RefCell::default(),
        }
    }

    /// Lets calls to the table fail.
    pub(crate) fn inject_faults(&self, per_mille: u32) {
        self.table.inject(move |_: Call| {
            let is_faulty = fastrand::u32(..1000) < per_mille;
            is_faulty.then(|| [Fault::Fails, Fault::AnswerLost, Fault::Throttled][fastrand::usize(..3)])
        });
    }

    /// Returns a mailbox whose calls are steps.
    pub(crate) fn mailbox(&self, defect: Option<Defect>) -> Mailbox<MemoryTable> {
        Mailbox::new(self.table.yielding().with(defect), self.settings.clone())
    }

    /// Milliseconds since the beginning.
    pub(crate) fn millis(&self) -> u64 {
        self.now.get()
    }

    pub(crate) fn now(&self) -> SystemTime {
        at(0) + Duration::from_millis(self.now.get())
    }

    pub(crate) fn pass(&self, millis: u64) {
        self.now.set(self.now.get() + millis);
    }

    /// Returns the last message that was stored at each number of each epoch.
    pub(crate) fn messages(&self) -> Ref<'_, ByNumber> {
        let mut messages = self.messages.borrow_mut();
        for stored in self.table.history(messages.read) {
            messages.read += 1;
            messages.by_number.insert((format!("{}.0", stored.epoch), stored.seq), stored.message);
        }
        drop(messages);
        Ref::map(self.messages.borrow(), |messages| &messages.by_number)
    }

    /// Returns the floor of an epoch; 0 if the stream has another.
    pub(crate) fn floor(&self, epoch: &str) -> u64 {
        let head = self.table.peek(&stream()).filter(|head| format!("{}.0", head.epoch) == epoch);
        head.map_or(0, |head| head.floor)
    }

    pub(crate) fn was_erased(&self) -> bool {
        self.was_erased.get()
    }

    /// Returns whether a stream is erased or about to be: nothing is promised of its messages.
    pub(crate) fn is_erased(&self, epoch: &str) -> bool {
        let is_current = || {
            let head = self.table.peek(&stream());
            head.is_some_and(|head| format!("{}.0", head.epoch) == epoch)
        };
        self.was_erased.get() && (self.is_erasing.get() || !is_current())
    }

    pub(crate) fn begin_erasure(&self) {
        self.was_erased.set(true);
        self.is_erasing.set(true);
    }

    pub(crate) fn end_erasure(&self) {
        self.is_erasing.set(false);
    }

    pub(crate) fn open_socket(&self) -> u32 {
        let number = self.opened.get() + 1;
        self.opened.set(number);
        let socket = Socket { opened_at: self.millis(), inbox: Vec::new(), is_dead: false };
        self.sockets.borrow_mut().insert(number, socket);
        number
    }

    pub(crate) fn close_socket(&self, number: u32) {
        self.sockets.borrow_mut().remove(&number);
    }

    /// Closes the sockets that have reached their maximum age.
    pub(crate) fn close_old_sockets(&self) {
        let now = self.millis();
        self.sockets.borrow_mut().retain(|_, socket| socket.opened_at + SOCKET_MILLIS > now);
    }

    pub(crate) fn expires_at(&self, number: u32) -> SystemTime {
        let opened_at = self.sockets.borrow().get(&number).map_or(0, |socket| socket.opened_at);
        at(0) + Duration::from_millis(opened_at + SOCKET_MILLIS + 600_000)
    }

    /// Posts a frame. Returns whether the connection exists. Some posts are repeated.
    pub(crate) fn post(&self, number: u32, frame: &str) -> bool {
        let mut sockets = self.sockets.borrow_mut();
        let Some(socket) = sockets.get_mut(&number) else { return false };
        if !socket.is_dead {
            let copies = if fastrand::u8(..16) == 0 { 2 } else { 1 };
            socket.inbox.extend(std::iter::repeat_n(frame.to_owned(), copies));
        }
        true
    }
}

/// Returns the id of a socket's connection.
pub(crate) fn connection(number: u32) -> ConnectionId {
    ConnectionId::new(format!("c{number}")).unwrap()
}

/// Returns the socket of a connection.
pub(crate) fn number(connection: &ConnectionId) -> u32 {
    connection.as_str()[1..].parse().unwrap()
}

/// Lets other tasks run.
pub(crate) async fn pause() {
    let mut is_over = false;
    poll_fn(|_| {
        let poll = if is_over { Poll::Ready(()) } else { Poll::Pending };
        is_over = true;
        poll
    })
    .await;
}
