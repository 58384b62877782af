//! What waits to be sent, and which of it leaves next. Pure: it is told the time, and does no I/O.
//!
//! An entry is *waiting*, *under way* in a call, or *resting* between two tries. Entries of one key keep their
//! order: while one of them is under way or resting, none that came later leaves in another call. One call may
//! hold several, in order, unless the order is strict: a queue may take the second of a call and fail the first.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use streamer_message::Limit;
use tokio::time::Instant;

/// Calls under way at the same time, at most.
pub const CALLS: usize = 8;

/// How long an entry waits for a batch to fill while calls are under way.
pub const LINGER: Duration = Duration::from_millis(20);

/// Names an entry. Earlier entries have lower places.
pub type Place = u64;

/// Entries that are being sent. `T` is what leaves with a call.
#[derive(Debug)]
pub struct Buffer<T> {
    strict: bool,
    entries: BTreeMap<Place, Entry<T>>,
    waiting: BTreeSet<Place>,
    /// How many entries of a key are under way or resting.
    held: HashMap<u64, usize>,
    calls: usize,
    next: Place,
}

#[derive(Debug)]
struct Entry<T> {
    key: Option<u64>,
    bytes: usize,
    /// When it began to wait.
    since: Instant,
    state: State<T>,
    /// Whether it counts in `held`.
    holds: bool,
}

#[derive(Debug)]
enum State<T> {
    Waiting(T),
    UnderWay,
    /// Under way, and nobody waits for what becomes of it.
    Abandoned,
    Resting,
}

impl<T> Buffer<T> {
    /// An empty buffer. `strict`: a call holds one entry of a key at most.
    pub fn new(strict: bool) -> Self {
        let (entries, waiting, held) = (BTreeMap::new(), BTreeSet::new(), HashMap::new());
        Self { strict, entries, waiting, held, calls: 0, next: 0 }
    }

    /// Adds an entry behind all others.
    pub fn push(&mut self, key: Option<u64>, bytes: usize, content: T, now: Instant) -> Place {
        let place = self.next;
        self.next += 1;
        let state = State::Waiting(content);
        self.entries.insert(place, Entry { key, bytes, since: now, state, holds: false });
        self.waiting.insert(place);
        place
    }

    /// Puts a resting entry back, at the place that it had.
    pub fn again(&mut self, place: Place, content: T, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&place) {
            (entry.state, entry.since) = (State::Waiting(content), now);
            self.waiting.insert(place);
        }
    }

    /// Takes what one call is to hold, or nothing if the time has not come: nothing may leave, too many calls are
    /// under way, or a call is under way and the batch is neither full nor has waited for [`LINGER`].
    pub fn next(&mut self, now: Instant) -> Option<Vec<(Place, T)>> {
        if self.calls >= CALLS {
            return None;
        }
        let (chosen, full) = self.choose();
        let first = self.entries.get(chosen.first()?)?;
        if self.calls > 0 && !full && now < first.since + LINGER {
            return None;
        }
        self.calls += 1;
        Some(chosen.into_iter().filter_map(|place| Some((place, self.start(place)?))).collect())
    }

    /// The places of the entries that may leave together, and whether no more would fit.
    fn choose(&self) -> (Vec<Place>, bool) {
        let Limit { items, bytes: limit } = Limit::QUEUE_BATCH;
        let (mut chosen, mut keys, mut passed, mut bytes) = (Vec::new(), BTreeSet::new(), BTreeSet::new(), 0);
        for (place, entry) in self.waiting.iter().filter_map(|place| Some((*place, self.entries.get(place)?)))
        {
            let is_held = entry.key.is_some_and(|key| {
                let held = !entry.holds && self.held.contains_key(&key);
                held || passed.contains(&key) || (self.strict && keys.contains(&key))
            });
            if is_held {
                passed.extend(entry.key);
                continue;
            }
            if bytes + entry.bytes > limit && !chosen.is_empty() {
                return (chosen, true);
            }
            bytes += entry.bytes;
            keys.extend(entry.key);
            chosen.push(place);
            if chosen.len() == items {
                return (chosen, true);
            }
        }
        (chosen, false)
    }

    fn start(&mut self, place: Place) -> Option<T> {
        self.waiting.remove(&place);
        let entry = self.entries.get_mut(&place)?;
        if let Some(key) = entry.key.filter(|_| !entry.holds) {
            entry.holds = true;
            *self.held.entry(key).or_default() += 1;
        }
        match std::mem::replace(&mut entry.state, State::UnderWay) {
            State::Waiting(content) => Some(content),
            State::UnderWay | State::Abandoned | State::Resting => None,
        }
    }

    /// A call has ended: each of its entries, and whether it is to be tried again.
    pub fn ended(&mut self, outcomes: impl IntoIterator<Item = (Place, bool)>) {
        self.calls = self.calls.saturating_sub(1);
        for (place, again) in outcomes {
            match self.entries.get_mut(&place) {
                Some(entry) if again && matches!(entry.state, State::UnderWay) => {
                    entry.state = State::Resting
                }
                _ => self.remove(place),
            }
        }
    }

    /// Nobody waits for the entry any longer. One that is under way keeps its key until its call has ended. Says
    /// whether others may leave that could not before.
    pub fn leave(&mut self, place: Place) -> bool {
        match self.entries.get_mut(&place) {
            Some(Entry { state: state @ State::UnderWay, .. }) => *state = State::Abandoned,
            None | Some(Entry { state: State::Abandoned, .. }) => {}
            Some(Entry { state: State::Waiting(_) | State::Resting, .. }) => {
                self.remove(place);
                return true;
            }
        }
        false
    }

    fn remove(&mut self, place: Place) {
        self.waiting.remove(&place);
        let Some(Entry { key: Some(key), holds: true, .. }) = self.entries.remove(&place) else { return };
        if let Some(count) = self.held.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.held.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: usize = Limit::QUEUE_BATCH.bytes;

    fn places(batch: Option<Vec<(Place, ())>>) -> Option<Vec<Place>> {
        batch.map(|batch| batch.into_iter().map(|(place, ())| place).collect())
    }

    fn buffer(strict: bool, entries: &[(Option<u64>, usize)]) -> (Buffer<()>, Instant) {
        let (mut buffer, now) = (Buffer::new(strict), Instant::now());
        for (key, bytes) in entries {
            buffer.push(*key, *bytes, (), now);
        }
        (buffer, now)
    }

    #[test]
    fn what_comes_while_nothing_is_under_way_leaves_at_once() {
        let (mut buffer, now) = buffer(false, &[(None, 1)]);
        assert_eq!(places(buffer.next(now)), Some(vec![0]));
    }

    #[test]
    fn while_a_call_is_under_way_the_next_fills_until_it_is_full_or_has_lingered() {
        let (mut buffer, now) = buffer(false, &[(None, 1)]);
        buffer.next(now);
        for _ in 0..9 {
            buffer.push(None, 1, (), now);
            assert_eq!(places(buffer.next(now)), None);
        }
        buffer.push(None, 1, (), now);
        assert_eq!(places(buffer.next(now)), Some((1..=10).collect()));
        buffer.push(None, 1, (), now);
        assert_eq!(places(buffer.next(now + LINGER - Duration::from_millis(1))), None);
        assert_eq!(places(buffer.next(now + LINGER)), Some(vec![11]));
    }

    #[test]
    fn a_batch_is_full_when_the_next_would_make_it_too_large() {
        let (mut buffer, now) = buffer(false, &[(None, 1), (None, MIB), (None, 1)]);
        assert_eq!(places(buffer.next(now)), Some(vec![0]));
        assert_eq!(places(buffer.next(now)), Some(vec![1]));
        assert_eq!(places(buffer.next(now)), None);
        buffer.ended([(0, false)]);
        buffer.ended([(1, false)]);
        assert_eq!(places(buffer.next(now)), Some(vec![2]));
    }

    #[test]
    fn there_are_no_more_than_8_calls() {
        let (mut buffer, now) = buffer(false, &[(None, MIB); 9]);
        for _ in 0..CALLS {
            assert!(buffer.next(now).is_some());
        }
        assert_eq!(places(buffer.next(now + LINGER)), None);
        buffer.ended([(0, false)]);
        assert!(buffer.next(now + LINGER).is_some());
    }

    #[test]
    fn what_has_a_key_waits_for_the_calls_that_hold_it() {
        let (mut buffer, now) = buffer(false, &[(Some(1), 1), (Some(1), 1)]);
        assert_eq!(places(buffer.next(now)), Some(vec![0, 1]));
        buffer.push(Some(1), 1, (), now);
        buffer.push(Some(2), 1, (), now);
        assert_eq!(places(buffer.next(now + LINGER)), Some(vec![3]));
        // One of the two is to be tried again: it still holds the key.
        buffer.ended([(0, true), (1, false)]);
        assert_eq!(places(buffer.next(now + LINGER)), None);
        buffer.again(0, (), now);
        assert_eq!(places(buffer.next(now + LINGER)), Some(vec![0]));
        buffer.ended([(0, false)]);
        assert_eq!(places(buffer.next(now + LINGER)), Some(vec![2]));
    }

    #[test]
    fn where_order_is_strict_a_call_holds_one_entry_of_a_key() {
        let (mut buffer, now) = buffer(true, &[(Some(1), 1), (Some(1), 1), (Some(2), 1)]);
        assert_eq!(places(buffer.next(now)), Some(vec![0, 2]));
    }

    #[test]
    fn what_is_abandoned_under_way_keeps_its_key_until_the_call_has_ended() {
        let (mut buffer, now) = buffer(true, &[(Some(1), 1), (Some(1), 1)]);
        buffer.next(now);
        buffer.leave(0);
        assert_eq!(places(buffer.next(now + LINGER)), None);
        buffer.ended([(0, true)]);
        assert_eq!(places(buffer.next(now + LINGER)), Some(vec![1]));
    }

    #[test]
    fn what_leaves_while_it_waits_or_rests_gives_its_key_back() {
        let (mut buffer, now) = buffer(true, &[(Some(1), 1), (Some(1), 1), (Some(1), 1)]);
        buffer.next(now);
        buffer.ended([(0, true)]);
        buffer.leave(1);
        buffer.leave(0);
        assert_eq!(places(buffer.next(now)), Some(vec![2]));
    }

    /// What may happen to a buffer.
    #[derive(Debug, Clone)]
    enum Event {
        Push { key: Option<u64>, bytes: usize },
        Pass(u64),
        Next,
        End { which: usize, again: u16 },
        Again(usize),
        Leave(usize),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            4 => (prop::option::of(0_u64..4), prop_oneof![3 => 1_usize..1000, 1 => 1..=MIB])
                .prop_map(|(key, bytes)| Event::Push { key, bytes }),
            1 => (0_u64..30).prop_map(Event::Pass),
            4 => Just(Event::Next),
            2 => (any::<usize>(), any::<u16>()).prop_map(|(which, again)| Event::End { which, again }),
            2 => any::<usize>().prop_map(Event::Again),
            1 => any::<usize>().prop_map(Event::Leave),
        ];
        prop::collection::vec(event, 0..120)
    }

    proptest! {
        /// Beside a list of what was pushed: nothing leaves twice or is forgotten, no limit is exceeded, no key is
        /// in two calls, and nothing overtakes.
        #[test]
        fn nothing_is_forgotten_doubled_or_out_of_order(strict: bool, events in events()) {
            let (mut buffer, mut now) = (Buffer::new(strict), Instant::now());
            let mut pushed: Vec<(Option<u64>, usize)> = Vec::new();
            let mut waiting: BTreeSet<Place> = BTreeSet::new();
            let mut resting: BTreeSet<Place> = BTreeSet::new();
            let mut calls: Vec<Vec<Place>> = Vec::new();
            // Those whose key is theirs, since they were under way already.
            let mut tried: BTreeSet<Place> = BTreeSet::new();
            let end = events.len() * 2;
            // In the end everything that is resting is tried once more, and every call ends.
            let drain = (0..end).flat_map(|_| [Event::Again(0), Event::Pass(30), Event::Next, Event::End { which: 0, again: 0 }]);
            for event in events.into_iter().chain(drain) {
                match event {
                    Event::Push { key, bytes } => {
                        let place = buffer.push(key, bytes, (), now);
                        prop_assert_eq!(place, pushed.len() as u64);
                        pushed.push((key, bytes));
                        waiting.insert(place);
                    }
                    Event::Pass(millis) => now += Duration::from_millis(millis),
                    Event::Next => {
                        let Some(batch) = places(buffer.next(now)) else { continue };
                        prop_assert!((1..=10).contains(&batch.len()) && calls.len() < CALLS);
                        prop_assert!(batch.len() == 1 || batch.iter().map(|place| pushed[*place as usize].1).sum::<usize>() <= MIB);
                        for place in &batch {
                            prop_assert!(waiting.remove(place), "{place} leaves twice");
                            let Some(key) = pushed[*place as usize].0 else { continue };
                            let same = |other: &&Place| pushed[**other as usize].0 == Some(key) && *other != place;
                            let elsewhere = calls.iter().flatten().chain(&resting).filter(same).count();
                            prop_assert!(tried.contains(place) || elsewhere == 0, "{place} leaves beside its key");
                            let overtaken = waiting.iter().filter(same).any(|other| other < place && !batch.contains(other));
                            prop_assert!(!overtaken, "{place} overtakes");
                            prop_assert!(!strict || batch.iter().filter(same).count() == 0);
                        }
                        tried.extend(&batch);
                        calls.push(batch);
                    }
                    Event::End { which, again } if !calls.is_empty() => {
                        let call = calls.remove(which % calls.len());
                        let outcomes: Vec<_> = call.into_iter().enumerate().map(|(index, place)| (place, again >> index & 1 == 1)).collect();
                        resting.extend(outcomes.iter().filter(|(place, again)| *again && tried.contains(place)).map(|(place, _)| place));
                        buffer.ended(outcomes);
                    }
                    Event::Again(which) if !resting.is_empty() => {
                        let place = *resting.iter().nth(which % resting.len()).unwrap();
                        resting.remove(&place);
                        waiting.insert(place);
                        buffer.again(place, (), now);
                    }
                    Event::Leave(which) if !resting.is_empty() || !waiting.is_empty() => {
                        let all: Vec<_> = resting.iter().chain(&waiting).copied().collect();
                        let place = all[which % all.len()];
                        resting.remove(&place);
                        waiting.remove(&place);
                        buffer.leave(place);
                    }
                    Event::End { .. } | Event::Again(_) | Event::Leave(_) => {}
                }
            }
            prop_assert!(waiting.is_empty() && resting.is_empty() && calls.is_empty(), "{waiting:?} {resting:?} {calls:?}");
            prop_assert!(buffer.entries.is_empty() && buffer.held.is_empty() && buffer.waiting.is_empty(), "{buffer:?}");
        }
    }
}
