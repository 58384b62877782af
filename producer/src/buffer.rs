//! The entries that are being sent, and the choice of the next batch. Pure: the caller passes the time, and there is no
//! I/O.
//!
//! An entry takes its turn when its sender asks for it. It is *reserved* until there is capacity for it, then
//! *waiting*, *in flight* in a call, or *backing off* between two attempts. Entries with the same key keep their
//! order: an entry leaves when all earlier ones have completed, or behind them in the same call. With strict order,
//! they never share a call, because a queue may take the second entry of a call and fail the first.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
    time::Duration,
};

use streamer_message::Limit;
use tokio::time::Instant;

/// Maximum number of calls in flight.
pub(crate) const MAX_CALLS: usize = 8;

/// Longest time that an entry waits for its batch to fill while calls are in flight.
pub(crate) const LINGER: Duration = Duration::from_millis(20);

/// Identifies an entry. Ids increase in the order in which entries were reserved.
pub(crate) type EntryId = u64;

/// The entries that are being sent. `T` leaves with a call.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    strict_order: bool,
    entries: HashMap<EntryId, Entry<T>>,
    /// The entries of each key, in order.
    by_key: HashMap<u64, BTreeSet<EntryId>>,
    /// The waiting entries that are the first of their key, or have no key.
    ready: BTreeSet<EntryId>,
    calls: usize,
    next_id: EntryId,
}

#[derive(Debug)]
struct Entry<T> {
    key: Option<u64>,
    bytes: usize,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    Reserved,
    Waiting {
        content: T,
        due: Instant,
    },
    InFlight,
    /// In flight, but its send was dropped.
    Abandoned,
    BackingOff,
}

impl<T> Buffer<T> {
    /// Returns an empty buffer.
    pub(crate) fn new(strict_order: bool) -> Self {
        let (entries, by_key, ready) = (HashMap::new(), HashMap::new(), BTreeSet::new());
        Self { strict_order, entries, by_key, ready, calls: 0, next_id: 0 }
    }

    /// Adds a reserved entry behind all others.
    pub(crate) fn reserve(&mut self, key: Option<u64>, bytes: usize) -> EntryId {
        let id = self.next_id;
        self.next_id += 1;
        self.entries.insert(id, Entry { key, bytes, state: State::Reserved });
        if let Some(key) = key {
            self.by_key.entry(key).or_default().insert(id);
        }
        id
    }

    /// Makes an entry wait that was reserved or backing off. It is due when it no longer waits for its batch to fill.
    pub(crate) fn enqueue(&mut self, id: EntryId, content: T, due: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.state = State::Waiting { content, due };
        let key = entry.key;
        self.update_ready(id, key);
    }

    /// Begins a call and returns its entries. Returns nothing if no entry may leave, if too many calls are in flight,
    /// or if a call is in flight and the batch is neither full nor due.
    pub(crate) fn next_batch(&mut self, now: Instant) -> Option<Vec<(EntryId, T)>> {
        if self.calls >= MAX_CALLS {
            return None;
        }
        let (batch, full) = self.select();
        let due = batch.iter().filter_map(|id| self.due(*id)).min()?;
        if self.calls > 0 && !full && now < due {
            return None;
        }
        self.calls += 1;
        Some(batch.into_iter().filter_map(|id| Some((id, self.start(id)?))).collect())
    }

    /// Returns the entries that may leave together, and whether the batch is full.
    fn select(&self) -> (Vec<EntryId>, bool) {
        let Limit { items, bytes: limit } = Limit::QUEUE_BATCH;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        // Of each key, the first entry; once that is selected, the next.
        let mut candidates: BinaryHeap<_> = self.ready.iter().take(items).copied().map(Reverse).collect();
        while let Some(Reverse(id)) = candidates.pop() {
            let Some(entry) = self.entries.get(&id) else { continue };
            if bytes + entry.bytes > limit && !batch.is_empty() {
                return (batch, true);
            }
            bytes += entry.bytes;
            batch.push(id);
            if batch.len() == items {
                return (batch, true);
            }
            if let Some(key) = entry.key.filter(|_| !self.strict_order) {
                let next = self.by_key.get(&key).and_then(|ids| ids.range(id + 1..).next());
                candidates.extend(next.filter(|next| self.due(**next).is_some()).copied().map(Reverse));
            }
        }
        (batch, false)
    }

    /// Returns when a waiting entry is due.
    fn due(&self, id: EntryId) -> Option<Instant> {
        match self.entries.get(&id)?.state {
            State::Waiting { due, .. } => Some(due),
            State::Reserved | State::InFlight | State::Abandoned | State::BackingOff => None,
        }
    }

    fn start(&mut self, id: EntryId) -> Option<T> {
        let entry = self.entries.get_mut(&id)?;
        let key = entry.key;
        let before = std::mem::replace(&mut entry.state, State::InFlight);
        self.update_ready(id, key);
        match before {
            State::Waiting { content, .. } => Some(content),
            State::Reserved | State::InFlight | State::Abandoned | State::BackingOff => None,
        }
    }

    /// Ends a call: `results` holds each of its entries, and whether the entry is retried.
    pub(crate) fn complete(&mut self, results: impl IntoIterator<Item = (EntryId, bool)>) {
        self.calls = self.calls.saturating_sub(1);
        for (id, retry) in results {
            match self.entries.get_mut(&id) {
                Some(entry) if retry && matches!(entry.state, State::InFlight) => {
                    entry.state = State::BackingOff
                }
                _ => drop(self.remove(id)),
            }
        }
    }

    /// Removes an entry whose send was dropped, and returns its content if it was waiting. An entry in flight is
    /// removed when its call completes, so that later entries of its key do not overtake it.
    pub(crate) fn cancel(&mut self, id: EntryId) -> Option<T> {
        match &mut self.entries.get_mut(&id)?.state {
            State::Abandoned => None,
            state @ State::InFlight => {
                *state = State::Abandoned;
                None
            }
            State::Reserved | State::Waiting { .. } | State::BackingOff => self.remove(id),
        }
    }

    fn remove(&mut self, id: EntryId) -> Option<T> {
        let Entry { key, state, .. } = self.entries.remove(&id)?;
        self.ready.remove(&id);
        if let Some(ids) = key.and_then(|key| self.by_key.get_mut(&key)) {
            ids.remove(&id);
        }
        self.update_ready(id, key);
        match state {
            State::Waiting { content, .. } => Some(content),
            State::Reserved | State::InFlight | State::Abandoned | State::BackingOff => None,
        }
    }

    /// Updates `ready` after a change of an entry: of its key, only the first entry is ready, if it is waiting.
    fn update_ready(&mut self, id: EntryId, key: Option<u64>) {
        self.ready.remove(&id);
        let first = match key {
            None => Some(id),
            Some(key) => {
                let ids = self.by_key.get(&key);
                if ids.is_some_and(BTreeSet::is_empty) {
                    self.by_key.remove(&key);
                }
                self.by_key.get(&key).and_then(BTreeSet::first).copied()
            }
        };
        self.ready.extend(first.filter(|first| self.due(*first).is_some()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: usize = Limit::QUEUE_BATCH.bytes;

    fn ids(batch: Option<Vec<(EntryId, ())>>) -> Option<Vec<EntryId>> {
        batch.map(|batch| batch.into_iter().map(|(id, ())| id).collect())
    }

    fn push(buffer: &mut Buffer<()>, key: Option<u64>, bytes: usize, now: Instant) -> EntryId {
        let id = buffer.reserve(key, bytes);
        buffer.enqueue(id, (), now + LINGER);
        id
    }

    fn buffer(strict_order: bool, entries: &[(Option<u64>, usize)]) -> (Buffer<()>, Instant) {
        let (mut buffer, now) = (Buffer::new(strict_order), Instant::now());
        for (key, bytes) in entries {
            push(&mut buffer, *key, *bytes, now);
        }
        (buffer, now)
    }

    #[test]
    fn idle_buffer_sends_at_once() {
        let (mut buffer, now) = buffer(false, &[(None, 1)]);
        assert_eq!(ids(buffer.next_batch(now)), Some(vec![0]));
    }

    /// While a call is in flight, the next batch fills until it is full or due.
    #[test]
    fn batches_wait_until_full_or_due() {
        let (mut buffer, now) = buffer(false, &[(None, 1)]);
        buffer.next_batch(now);
        for _ in 0..9 {
            push(&mut buffer, None, 1, now);
            assert_eq!(ids(buffer.next_batch(now)), None);
        }
        push(&mut buffer, None, 1, now);
        assert_eq!(ids(buffer.next_batch(now)), Some((1..=10).collect()));
        push(&mut buffer, None, 1, now);
        assert_eq!(ids(buffer.next_batch(now + LINGER - Duration::from_millis(1))), None);
        assert_eq!(ids(buffer.next_batch(now + LINGER)), Some(vec![11]));
    }

    #[test]
    fn first_due_entry_decides_when_batch_leaves() {
        let (mut buffer, now) = buffer(false, &[(None, 1)]);
        buffer.next_batch(now);
        (0..10).for_each(|_| _ = push(&mut buffer, None, 1, now));
        buffer.next_batch(now);
        push(&mut buffer, None, 1, now);
        buffer.complete([(0, true)]);
        // The retry of entry 0 is due after entry 11.
        buffer.enqueue(0, (), now + LINGER * 2);
        assert_eq!(ids(buffer.next_batch(now + LINGER)), Some(vec![0, 11]));
    }

    #[test]
    fn batches_stay_within_max_bytes() {
        let (mut buffer, now) = buffer(false, &[(None, 1), (None, MIB), (None, 1)]);
        assert_eq!(ids(buffer.next_batch(now)), Some(vec![0]));
        assert_eq!(ids(buffer.next_batch(now)), Some(vec![1]));
        assert_eq!(ids(buffer.next_batch(now)), None);
        buffer.complete([(0, false)]);
        buffer.complete([(1, false)]);
        assert_eq!(ids(buffer.next_batch(now)), Some(vec![2]));
    }

    #[test]
    fn at_most_8_calls_are_in_flight() {
        let (mut buffer, now) = buffer(false, &[(None, MIB); 9]);
        for _ in 0..MAX_CALLS {
            assert!(buffer.next_batch(now).is_some());
        }
        assert_eq!(ids(buffer.next_batch(now + LINGER)), None);
        buffer.complete([(0, false)]);
        assert!(buffer.next_batch(now + LINGER).is_some());
    }

    #[test]
    fn entries_wait_for_earlier_ones_of_key() {
        let (mut buffer, now) = buffer(false, &[(Some(1), 1), (Some(1), 1)]);
        assert_eq!(ids(buffer.next_batch(now)), Some(vec![0, 1]));
        push(&mut buffer, Some(1), 1, now);
        push(&mut buffer, Some(2), 1, now);
        assert_eq!(ids(buffer.next_batch(now + LINGER)), Some(vec![3]));
        // Entry 0 will be retried, so it is still ahead of entry 2.
        buffer.complete([(0, true), (1, false)]);
        assert_eq!(ids(buffer.next_batch(now + LINGER)), None);
        buffer.enqueue(0, (), now + LINGER);
        assert_eq!(ids(buffer.next_batch(now + LINGER)), Some(vec![0, 2]));
    }

    #[test]
    fn reserved_entries_keep_their_turn() {
        let (mut buffer, now) = (Buffer::new(false), Instant::now());
        let first = buffer.reserve(Some(1), 1);
        push(&mut buffer, Some(1), 1, now);
        assert_eq!(ids(buffer.next_batch(now)), None);
        buffer.enqueue(first, (), now + LINGER);
        assert_eq!(ids(buffer.next_batch(now)), Some(vec![0, 1]));
    }

    #[test]
    fn strict_order_sends_one_entry_per_key() {
        let (mut buffer, now) = buffer(true, &[(Some(1), 1), (Some(1), 1), (Some(2), 1)]);
        assert_eq!(ids(buffer.next_batch(now)), Some(vec![0, 2]));
    }

    #[test]
    fn abandoned_entries_block_until_call_completes() {
        let (mut buffer, now) = buffer(true, &[(Some(1), 1), (Some(1), 1)]);
        buffer.next_batch(now);
        assert_eq!(buffer.cancel(0), None);
        assert_eq!(ids(buffer.next_batch(now + LINGER)), None);
        buffer.complete([(0, true)]);
        assert_eq!(ids(buffer.next_batch(now + LINGER)), Some(vec![1]));
    }

    /// An entry that is cancelled while it waits or backs off no longer holds back later ones of its key.
    #[test]
    fn cancelled_entries_unblock_later_ones() {
        let (mut buffer, now) = buffer(true, &[(Some(1), 1), (Some(1), 1), (Some(1), 1)]);
        buffer.next_batch(now);
        buffer.complete([(0, true)]);
        assert_eq!((buffer.cancel(1), buffer.cancel(0)), (Some(()), None));
        assert_eq!(ids(buffer.next_batch(now)), Some(vec![2]));
    }

    #[derive(Debug, Clone)]
    enum Event {
        Reserve {
            key: Option<u64>,
            bytes: usize,
        },
        /// The entry, and the milliseconds after which it is due.
        Enqueue(usize, u64),
        Advance(u64),
        NextBatch,
        Complete {
            call: usize,
            retry: u16,
        },
        Cancel(usize),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            4 => (prop::option::of(0_u64..4), prop_oneof![2 => 1_usize..1000, 1 => 1..=MIB])
                .prop_map(|(key, bytes)| Event::Reserve { key, bytes }),
            5 => (any::<usize>(), 0_u64..30).prop_map(|(index, due)| Event::Enqueue(index, due)),
            1 => (0_u64..30).prop_map(Event::Advance),
            4 => Just(Event::NextBatch),
            2 => (any::<usize>(), any::<u16>()).prop_map(|(call, retry)| Event::Complete { call, retry }),
            1 => any::<usize>().prop_map(Event::Cancel),
        ];
        prop::collection::vec(event, 0..150)
    }

    /// The state of an entry in the reference model, which is a list of all entries.
    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Expected {
        Reserved,
        Waiting(Instant),
        InFlight { abandoned: bool },
        Gone,
    }

    proptest! {
        /// Compared with a list of all entries: no entry leaves twice or is lost, no limit is exceeded, no entry
        /// overtakes another of its key, and no entry waits that could leave.
        #[test]
        fn entries_leave_once_in_order_and_promptly(strict_order: bool, events in events()) {
            let (mut buffer, mut now) = (Buffer::new(strict_order), Instant::now());
            let mut entries: Vec<(Option<u64>, usize, Expected)> = Vec::new();
            let mut calls: Vec<Vec<EntryId>> = Vec::new();
            // At the end, every entry is enqueued and every call completes.
            let complete = Event::Complete { call: 0, retry: 0 };
            let round = [Event::Enqueue(0, 20), Event::Advance(30), Event::NextBatch, complete];
            let drain = (0..events.len() * 2).flat_map(|_| round.clone());
            for event in events.clone().into_iter().chain(drain) {
                let reserved: Vec<_> =
                    (0..entries.len()).filter(|id| entries[*id].2 == Expected::Reserved).collect();
                match event {
                    Event::Reserve { key, bytes } => {
                        prop_assert_eq!(buffer.reserve(key, bytes), entries.len() as u64);
                        entries.push((key, bytes, Expected::Reserved));
                    }
                    Event::Enqueue(index, due) if !reserved.is_empty() => {
                        let id = reserved[index % reserved.len()];
                        let due = now + Duration::from_millis(due);
                        entries[id].2 = Expected::Waiting(due);
                        buffer.enqueue(id as u64, (), due);
                    }
                    Event::Advance(millis) => now += Duration::from_millis(millis),
                    Event::NextBatch => {
                        let batch = ids(buffer.next_batch(now)).unwrap_or_default();
                        let bytes = batch.iter().map(|id| entries[*id as usize].1).sum::<usize>();
                        prop_assert!(batch.len() <= 10 && calls.len() < MAX_CALLS || batch.is_empty());
                        prop_assert!(batch.len() <= 1 || bytes <= MIB);
                        for id in &batch {
                            let (key, _, state) = entries[*id as usize].clone();
                            prop_assert!(matches!(state, Expected::Waiting(_)), "{id} is {state:?}");
                            let earlier = entries[..*id as usize].iter().enumerate();
                            let overtaken = earlier.filter(|(_, other)| {
                                key.is_some() && other.0 == key && other.2 != Expected::Gone
                            });
                            for (other, _) in overtaken {
                                let together = !strict_order && batch.contains(&(other as u64));
                                prop_assert!(together, "{id} overtakes {other}");
                            }
                        }
                        if batch.is_empty() && calls.len() < MAX_CALLS {
                            // An entry that is due is behind another of its key.
                            for (id, (key, _, state)) in entries.iter().enumerate() {
                                let due = matches!(
                                    state,
                                    Expected::Waiting(due) if calls.is_empty() || *due <= now
                                );
                                let blocked = entries[..id].iter().any(|other| {
                                    key.is_some() && other.0 == *key && other.2 != Expected::Gone
                                });
                                prop_assert!(!due || blocked, "{id} is late");
                            }
                        } else if !batch.is_empty() {
                            for id in &batch {
                                entries[*id as usize].2 = Expected::InFlight { abandoned: false };
                            }
                            calls.push(batch);
                        }
                    }
                    Event::Complete { call, retry } if !calls.is_empty() => {
                        let call = calls.remove(call % calls.len());
                        let results = call.into_iter().enumerate();
                        let results: Vec<_> =
                            results.map(|(index, id)| (id, retry >> index & 1 == 1)).collect();
                        for (id, retry) in &results {
                            let state = &mut entries[*id as usize].2;
                            let retried = *retry && *state == (Expected::InFlight { abandoned: false });
                            *state = if retried { Expected::Reserved } else { Expected::Gone };
                        }
                        buffer.complete(results);
                    }
                    Event::Cancel(index) if !entries.is_empty() => {
                        let id = index % entries.len();
                        let state = &mut entries[id].2;
                        let content = buffer.cancel(id as u64);
                        prop_assert_eq!(content.is_some(), matches!(state, Expected::Waiting(_)));
                        *state = match state {
                            Expected::InFlight { .. } => Expected::InFlight { abandoned: true },
                            _ => Expected::Gone,
                        };
                    }
                    Event::Enqueue(..) | Event::Complete { .. } | Event::Cancel(_) => {}
                }
            }
            prop_assert!(entries.iter().all(|(_, _, state)| *state == Expected::Gone), "{entries:?}");
            let empty = buffer.entries.is_empty() && buffer.by_key.is_empty() && buffer.ready.is_empty();
            prop_assert!(empty, "{buffer:?}");
        }
    }
}
