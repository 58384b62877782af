//! The fleet: the worker's admission, in many execution environments around a queue, without I/O.
//!
//! It counts messages of a kind instead of holding them. Time runs in steps of 20 ms, and a post takes one step. An environment
//! with an open circuit hands back all its messages at once, and the fleet spreads them over the possible delays as
//! evenly as chance would. Random, from a fixed seed, are the exact delays, the connections and the environment that
//! begins a step.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use delivery_worker::{
    admission::{Admission, Admitted, Decision, OpenCircuit, breaker::Health},
    backoff::{self, Tries},
};
use streamer_message::ConnectionId;
use streamer_tests::event::epoch;
use tokio::time::Instant;

/// Length of a step, and of a post.
pub(super) const STEP: Duration = Duration::from_millis(20);

/// Steps in a second.
pub(super) const STEPS: u64 = 50;

/// Retry count from which on the delay window no longer grows.
const MAX_COUNT: u32 = 6;

/// First receives that the fleet tells apart, in seconds.
const GRAIN: u64 = 30;

/// Age from which on messages are alike, in seconds.
const MAX_AGE: u64 = 600;

/// Messages that the worker treats alike: their retry count, up to [`MAX_COUNT`], and the second of their first receive,
/// rounded down.
type Kind = (u32, u64);

/// Number of messages of each kind.
type Messages = BTreeMap<Kind, u64>;

/// One execution environment.
pub(super) struct Environment {
    pub(super) admission: Admission,
    /// Its monotonic clock.
    clock: Instant,
    /// Messages that wait for their first post.
    waiting: Messages,
    /// Posts in flight: the kind of the message, the number of the attempt, and the pass.
    in_flight: VecDeque<(Kind, u32, Admitted)>,
    /// In-place retries that wait for a post: the kind of the message, and the number of the attempt.
    retries: VecDeque<(Kind, u32)>,
}

/// All environments, the queue around them, and the figures that the tests check.
pub(super) struct Fleet {
    /// Whether the clock of an environment stops while it has nothing to do.
    frozen: bool,
    pub(super) environments: Vec<Environment>,
    /// Messages on the queue, by the second in which their delay ends.
    due: BTreeMap<u64, Messages>,
    pub(super) posts: u64,
    pub(super) hand_backs: u64,
    /// Batches of up to ten in which messages were received.
    pub(super) batches: u64,
    /// Delivered messages, by second.
    pub(super) delivered: BTreeMap<u64, u64>,
    /// Messages whose delay ends, by second.
    pub(super) returns: BTreeMap<u64, u64>,
}

impl Fleet {
    pub(super) fn new(environments: usize, frozen: bool, began: Instant) -> Self {
        let environment = || Environment {
            admission: Admission::default(),
            clock: began,
            waiting: Messages::new(),
            in_flight: VecDeque::new(),
            retries: VecDeque::new(),
        };
        Self {
            frozen,
            environments: (0..environments).map(|_| environment()).collect(),
            due: BTreeMap::new(),
            posts: 0,
            hand_backs: 0,
            batches: 0,
            delivered: BTreeMap::new(),
            returns: BTreeMap::new(),
        }
    }

    /// Gives each environment its share of the messages that are due in this second, and of `new` messages.
    pub(super) fn receive(&mut self, second: u64, new: u64) {
        let mut due = self.due.remove(&second).unwrap_or_default();
        *due.entry((0, second - second % GRAIN)).or_default() += new;
        if self.frozen {
            let wall = epoch() + Duration::from_secs(second);
            self.environments.iter_mut().for_each(|one| one.admission.resume(wall, one.clock));
        }
        let environments = self.environments.len() as u64;
        self.batches += due.values().sum::<u64>().div_ceil(10);
        for (kind, number) in due {
            for (index, environment) in self.environments.iter_mut().enumerate() {
                let extra = (index as u64 + second) % environments < number % environments;
                let number = number / environments + u64::from(extra);
                if number > 0 {
                    *environment.waiting.entry(kind).or_default() += number;
                }
            }
        }
    }

    /// Runs one step: completes the posts in flight, each with the result of `answer`, and begins new ones.
    pub(super) fn step(&mut self, second: u64, now: Instant, answer: &mut impl FnMut() -> Health) {
        let first = fastrand::usize(..self.environments.len());
        for index in (first..self.environments.len()).chain(0..first) {
            let environment = &mut self.environments[index];
            let now = if self.frozen { environment.clock } else { now };
            let mut handed_back: Vec<(Kind, u64, OpenCircuit)> = Vec::new();
            for (kind, attempt, pass) in std::mem::take(&mut environment.in_flight) {
                let health = answer();
                let connection: ConnectionId = format!("c{}", fastrand::u32(..)).try_into().unwrap();
                environment.admission.record(pass, &connection, health, STEP, now);
                match health {
                    Health::Works => *self.delivered.entry(second).or_default() += 1,
                    Health::Fails if attempt < backoff::MAX_POSTS => {
                        environment.retries.push_back((kind, attempt + 1));
                    }
                    _ => handed_back.push((kind, 1, OpenCircuit::default())),
                }
            }
            loop {
                let fresh = environment.waiting.keys().next().map(|kind| (*kind, 1));
                let retry = environment.retries.front().copied();
                let Some((kind, attempt)) = retry.or(fresh) else { break };
                match environment.admission.admit(now) {
                    Decision::Admit(pass) => {
                        self.posts += 1;
                        environment.in_flight.push_back((kind, attempt, pass));
                        match retry {
                            Some(_) => _ = environment.retries.pop_front(),
                            None => environment.take(kind),
                        }
                    }
                    Decision::CircuitOpen(open) => {
                        let retries = environment.retries.drain(..);
                        handed_back.extend(retries.map(|(kind, _)| (kind, 1, open)));
                        let waiting = std::mem::take(&mut environment.waiting).into_iter();
                        handed_back.extend(waiting.map(|(kind, number)| (kind, number, open)));
                    }
                    Decision::LimitReached(_) | Decision::Paced(_) => break,
                }
            }
            if !environment.is_idle() {
                environment.clock += STEP;
            }
            for (kind, number, open) in handed_back {
                self.hand_back(kind, number, open, second);
            }
        }
    }

    /// Hands back `number` messages of the same kind, spread over the delays that the worker may choose.
    fn hand_back(&mut self, (count, since): Kind, number: u64, open: OpenCircuit, second: u64) {
        self.hand_backs += number;
        let age = Duration::from_secs(second - since);
        let oldest = second.saturating_sub(MAX_AGE);
        let next = ((count + 1).min(MAX_COUNT), since.max(oldest - oldest % GRAIN));
        let pieces = number.min(122);
        for piece in 0..pieces {
            let share = number / pieces + u64::from(piece < number % pieces);
            let random = (piece as f64 + fastrand::f64()) / pieces as f64;
            let delay = backoff::hand_back(Tries { count, age }, open, random);
            let at = second + 1 + u64::from(delay);
            *self.returns.entry(at).or_default() += share;
            *self.due.entry(at).or_default().entry(next).or_default() += share;
        }
    }

    /// Whether every message is delivered.
    pub(super) fn is_idle(&self) -> bool {
        self.due.is_empty() && self.environments.iter().all(Environment::is_idle)
    }
}

impl Environment {
    fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.retries.is_empty() && self.waiting.is_empty()
    }

    /// Takes one of the messages of this kind that wait.
    fn take(&mut self, kind: Kind) {
        let waiting = self.waiting.get_mut(&kind).unwrap();
        *waiting -= 1;
        if *waiting == 0 {
            self.waiting.remove(&kind);
        }
    }
}
