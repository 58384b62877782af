//! What is being sent, and which of it leaves next. Pure: it is told the time, and does no I/O.
//!
//! An entry has its place from the moment when its sender asked. It is *outside* until there is room for it, then
//! *waiting*, *under way* in a call, or *resting* between two tries. Entries of one key form a line: one leaves when
//! all before it are gone, or leave in the same call before it. Where the order is strict it is not enough to leave
//! together: a queue may take the second of a call and fail the first.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
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
    entries: HashMap<Place, Entry<T>>,
    /// The entries of each key, in order.
    lines: HashMap<u64, BTreeSet<Place>>,
    /// The waiting entries that are the first of their line, or have none.
    ready: BTreeSet<Place>,
    calls: usize,
    next: Place,
}

#[derive(Debug)]
struct Entry<T> {
    key: Option<u64>,
    bytes: usize,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    Outside,
    Waiting {
        content: T,
        since: Instant,
    },
    UnderWay,
    /// Under way, and nobody waits for what becomes of it.
    Abandoned,
    Resting,
}

impl<T> Buffer<T> {
    /// An empty buffer. `strict`: an entry leaves when all before it in its line are gone.
    pub fn new(strict: bool) -> Self {
        let (entries, lines, ready) = (HashMap::new(), HashMap::new(), BTreeSet::new());
        Self { strict, entries, lines, ready, calls: 0, next: 0 }
    }

    /// Gives an entry the place behind all others. It is outside.
    pub fn reserve(&mut self, key: Option<u64>, bytes: usize) -> Place {
        let place = self.next;
        self.next += 1;
        self.entries.insert(place, Entry { key, bytes, state: State::Outside });
        if let Some(key) = key {
            self.lines.entry(key).or_default().insert(place);
        }
        place
    }

    /// Lets an entry wait that was outside or resting.
    pub fn wait(&mut self, place: Place, content: T, now: Instant) {
        let Some(entry) = self.entries.get_mut(&place) else { return };
        entry.state = State::Waiting { content, since: now };
        let key = entry.key;
        self.line_changed(place, key);
    }

    /// Takes what one call is to hold, or nothing if the time has not come: nothing may leave, too many calls are
    /// under way, or a call is under way and the batch is neither full nor has waited for [`LINGER`].
    pub fn next(&mut self, now: Instant) -> Option<Vec<(Place, T)>> {
        if self.calls >= CALLS {
            return None;
        }
        let (chosen, full) = self.choose();
        let since = chosen.iter().filter_map(|place| self.waits_since(*place)).min()?;
        if self.calls > 0 && !full && now < since + LINGER {
            return None;
        }
        self.calls += 1;
        Some(chosen.into_iter().filter_map(|place| Some((place, self.start(place)?))).collect())
    }

    /// The places of the entries that may leave together, and whether no more would fit.
    fn choose(&self) -> (Vec<Place>, bool) {
        let Limit { items, bytes: limit } = Limit::QUEUE_BATCH;
        let (mut chosen, mut bytes) = (Vec::new(), 0);
        // Of each line its first is there, and then, in its place, the next.
        let mut candidates: BinaryHeap<_> = self.ready.iter().take(items).copied().map(Reverse).collect();
        while let Some(Reverse(place)) = candidates.pop() {
            let Some(entry) = self.entries.get(&place) else { continue };
            if bytes + entry.bytes > limit && !chosen.is_empty() {
                return (chosen, true);
            }
            bytes += entry.bytes;
            chosen.push(place);
            if chosen.len() == items {
                return (chosen, true);
            }
            if let Some(key) = entry.key.filter(|_| !self.strict) {
                let next = self.lines.get(&key).and_then(|line| line.range(place + 1..).next());
                candidates
                    .extend(next.filter(|next| self.waits_since(**next).is_some()).copied().map(Reverse));
            }
        }
        (chosen, false)
    }

    fn waits_since(&self, place: Place) -> Option<Instant> {
        match self.entries.get(&place)?.state {
            State::Waiting { since, .. } => Some(since),
            State::Outside | State::UnderWay | State::Abandoned | State::Resting => None,
        }
    }

    fn start(&mut self, place: Place) -> Option<T> {
        let entry = self.entries.get_mut(&place)?;
        let key = entry.key;
        let before = std::mem::replace(&mut entry.state, State::UnderWay);
        self.line_changed(place, key);
        match before {
            State::Waiting { content, .. } => Some(content),
            State::Outside | State::UnderWay | State::Abandoned | State::Resting => None,
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
                _ => drop(self.remove(place)),
            }
        }
    }

    /// Nobody waits for the entry any longer: returns its content, if it was waiting. One that is under way keeps its
    /// place in its line until its call has ended.
    pub fn leave(&mut self, place: Place) -> Option<T> {
        match &mut self.entries.get_mut(&place)?.state {
            State::Abandoned => None,
            state @ State::UnderWay => {
                *state = State::Abandoned;
                None
            }
            State::Outside | State::Waiting { .. } | State::Resting => self.remove(place),
        }
    }

    fn remove(&mut self, place: Place) -> Option<T> {
        let Entry { key, state, .. } = self.entries.remove(&place)?;
        self.ready.remove(&place);
        if let Some(line) = key.and_then(|key| self.lines.get_mut(&key)) {
            line.remove(&place);
        }
        self.line_changed(place, key);
        match state {
            State::Waiting { content, .. } => Some(content),
            State::Outside | State::UnderWay | State::Abandoned | State::Resting => None,
        }
    }

    /// Keeps `ready` true after an entry's change: the first of its line is in it if it waits, and no other of it.
    fn line_changed(&mut self, place: Place, key: Option<u64>) {
        self.ready.remove(&place);
        let first = match key {
            None => Some(place),
            Some(key) => {
                let line = self.lines.get(&key);
                if line.is_some_and(BTreeSet::is_empty) {
                    self.lines.remove(&key);
                }
                self.lines.get(&key).and_then(BTreeSet::first).copied()
            }
        };
        self.ready.extend(first.filter(|first| self.waits_since(*first).is_some()));
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

    fn push(buffer: &mut Buffer<()>, key: Option<u64>, bytes: usize, now: Instant) -> Place {
        let place = buffer.reserve(key, bytes);
        buffer.wait(place, (), now);
        place
    }

    fn buffer(strict: bool, entries: &[(Option<u64>, usize)]) -> (Buffer<()>, Instant) {
        let (mut buffer, now) = (Buffer::new(strict), Instant::now());
        for (key, bytes) in entries {
            push(&mut buffer, *key, *bytes, now);
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
            push(&mut buffer, None, 1, now);
            assert_eq!(places(buffer.next(now)), None);
        }
        push(&mut buffer, None, 1, now);
        assert_eq!(places(buffer.next(now)), Some((1..=10).collect()));
        push(&mut buffer, None, 1, now);
        assert_eq!(places(buffer.next(now + LINGER - Duration::from_millis(1))), None);
        assert_eq!(places(buffer.next(now + LINGER)), Some(vec![11]));
    }

    #[test]
    fn whoever_has_waited_longest_says_when_a_batch_leaves() {
        let (mut buffer, now) = buffer(false, &[(None, 1)]);
        buffer.next(now);
        (0..10).for_each(|_| _ = push(&mut buffer, None, 1, now));
        buffer.next(now);
        push(&mut buffer, None, 1, now);
        buffer.ended([(0, true)]);
        // The first is tried again later than the other began to wait.
        buffer.wait(0, (), now + LINGER);
        assert_eq!(places(buffer.next(now + LINGER)), Some(vec![0, 11]));
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
    fn what_has_a_key_waits_for_all_before_it() {
        let (mut buffer, now) = buffer(false, &[(Some(1), 1), (Some(1), 1)]);
        assert_eq!(places(buffer.next(now)), Some(vec![0, 1]));
        push(&mut buffer, Some(1), 1, now);
        push(&mut buffer, Some(2), 1, now);
        assert_eq!(places(buffer.next(now + LINGER)), Some(vec![3]));
        // One of the two is to be tried again: it is still before the third.
        buffer.ended([(0, true), (1, false)]);
        assert_eq!(places(buffer.next(now + LINGER)), None);
        buffer.wait(0, (), now);
        assert_eq!(places(buffer.next(now + LINGER)), Some(vec![0, 2]));
    }

    #[test]
    fn what_is_outside_is_before_what_came_later() {
        let (mut buffer, now) = (Buffer::new(false), Instant::now());
        let first = buffer.reserve(Some(1), 1);
        push(&mut buffer, Some(1), 1, now);
        assert_eq!(places(buffer.next(now)), None);
        buffer.wait(first, (), now);
        assert_eq!(places(buffer.next(now)), Some(vec![0, 1]));
    }

    #[test]
    fn where_order_is_strict_a_call_holds_one_entry_of_a_key() {
        let (mut buffer, now) = buffer(true, &[(Some(1), 1), (Some(1), 1), (Some(2), 1)]);
        assert_eq!(places(buffer.next(now)), Some(vec![0, 2]));
    }

    #[test]
    fn what_is_abandoned_under_way_keeps_its_place_until_the_call_has_ended() {
        let (mut buffer, now) = buffer(true, &[(Some(1), 1), (Some(1), 1)]);
        buffer.next(now);
        assert_eq!(buffer.leave(0), None);
        assert_eq!(places(buffer.next(now + LINGER)), None);
        buffer.ended([(0, true)]);
        assert_eq!(places(buffer.next(now + LINGER)), Some(vec![1]));
    }

    #[test]
    fn what_leaves_while_it_waits_or_rests_makes_way() {
        let (mut buffer, now) = buffer(true, &[(Some(1), 1), (Some(1), 1), (Some(1), 1)]);
        buffer.next(now);
        buffer.ended([(0, true)]);
        assert_eq!((buffer.leave(1), buffer.leave(0)), (Some(()), None));
        assert_eq!(places(buffer.next(now)), Some(vec![2]));
    }

    /// What may happen to a buffer.
    #[derive(Debug, Clone)]
    enum Event {
        Reserve { key: Option<u64>, bytes: usize },
        Wait(usize),
        Pass(u64),
        Next,
        End { which: usize, again: u16 },
        Leave(usize),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            4 => (prop::option::of(0_u64..4), prop_oneof![2 => 1_usize..1000, 1 => 1..=MIB])
                .prop_map(|(key, bytes)| Event::Reserve { key, bytes }),
            5 => any::<usize>().prop_map(Event::Wait),
            1 => (0_u64..30).prop_map(Event::Pass),
            4 => Just(Event::Next),
            2 => (any::<usize>(), any::<u16>()).prop_map(|(which, again)| Event::End { which, again }),
            1 => any::<usize>().prop_map(Event::Leave),
        ];
        prop::collection::vec(event, 0..150)
    }

    /// What a list of all entries knows of one.
    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Known {
        Outside,
        Waiting(Instant),
        UnderWay { abandoned: bool },
        Gone,
    }

    proptest! {
        /// Beside a list of all entries: nothing leaves twice or is forgotten, no limit is exceeded, nothing overtakes
        /// another of its key, and nothing waits that could leave.
        #[test]
        fn nothing_is_forgotten_doubled_late_or_out_of_order(strict: bool, events in events()) {
            let (mut buffer, mut now) = (Buffer::new(strict), Instant::now());
            let mut entries: Vec<(Option<u64>, usize, Known)> = Vec::new();
            let mut calls: Vec<Vec<Place>> = Vec::new();
            // In the end everything waits, and every call ends.
            let drain = (0..events.len() * 2).flat_map(|_| [Event::Wait(0), Event::Pass(30), Event::Next, Event::End { which: 0, again: 0 }]);
            for event in events.clone().into_iter().chain(drain) {
                let outside: Vec<_> = (0..entries.len()).filter(|place| entries[*place].2 == Known::Outside).collect();
                match event {
                    Event::Reserve { key, bytes } => {
                        prop_assert_eq!(buffer.reserve(key, bytes), entries.len() as u64);
                        entries.push((key, bytes, Known::Outside));
                    }
                    Event::Wait(which) if !outside.is_empty() => {
                        let place = outside[which % outside.len()];
                        entries[place].2 = Known::Waiting(now);
                        buffer.wait(place as u64, (), now);
                    }
                    Event::Pass(millis) => now += Duration::from_millis(millis),
                    Event::Next => {
                        let batch = places(buffer.next(now)).unwrap_or_default();
                        let bytes = batch.iter().map(|place| entries[*place as usize].1).sum::<usize>();
                        prop_assert!(batch.len() <= 10 && calls.len() < CALLS || batch.is_empty());
                        prop_assert!(batch.len() <= 1 || bytes <= MIB);
                        for place in &batch {
                            let (key, _, known) = entries[*place as usize].clone();
                            prop_assert!(matches!(known, Known::Waiting(_)), "{place} is {known:?}");
                            let before = entries[..*place as usize].iter().enumerate();
                            let overtaken = before.filter(|(_, other)| key.is_some() && other.0 == key && other.2 != Known::Gone);
                            for (other, _) in overtaken {
                                prop_assert!(!strict && batch.contains(&(other as u64)), "{place} overtakes {other}");
                            }
                        }
                        if batch.is_empty() && calls.len() < CALLS {
                            // What has waited for long enough may not leave: something of its key is before it.
                            for (place, (key, _, known)) in entries.iter().enumerate() {
                                let late = matches!(known, Known::Waiting(since) if calls.is_empty() || *since + LINGER <= now);
                                let blocked = entries[..place].iter().any(|other| key.is_some() && other.0 == *key && other.2 != Known::Gone);
                                prop_assert!(!late || blocked, "{place} is kept");
                            }
                        } else if !batch.is_empty() {
                            batch.iter().for_each(|place| entries[*place as usize].2 = Known::UnderWay { abandoned: false });
                            calls.push(batch);
                        }
                    }
                    Event::End { which, again } if !calls.is_empty() => {
                        let call = calls.remove(which % calls.len());
                        let outcomes: Vec<_> = call.into_iter().enumerate().map(|(index, place)| (place, again >> index & 1 == 1)).collect();
                        for (place, again) in &outcomes {
                            let known = &mut entries[*place as usize].2;
                            *known = if *again && *known == (Known::UnderWay { abandoned: false }) { Known::Outside } else { Known::Gone };
                        }
                        buffer.ended(outcomes);
                    }
                    Event::Leave(which) if !entries.is_empty() => {
                        let place = which % entries.len();
                        let known = &mut entries[place].2;
                        let content = buffer.leave(place as u64);
                        prop_assert_eq!(content.is_some(), matches!(known, Known::Waiting(_)));
                        *known = if matches!(known, Known::UnderWay { .. }) { Known::UnderWay { abandoned: true } } else { Known::Gone };
                    }
                    Event::Wait(_) | Event::End { .. } | Event::Leave(_) => {}
                }
            }
            prop_assert!(entries.iter().all(|(_, _, known)| *known == Known::Gone), "{entries:?}");
            prop_assert!(buffer.entries.is_empty() && buffer.lines.is_empty() && buffer.ready.is_empty(), "{buffer:?}");
        }
    }
}
