//! API Gateway: one account's quota, the latency of posts, failures, slow clients and connections that are gone.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use streamer_gateway::{Gateway, PostResult};
use streamer_message::ConnectionId;
use streamer_tests::gateway::status;

use super::{Clock, Cpu, Meter, meter::Figures, note::Note};
use crate::{
    model::{Emulator, POST_CPU, POST_MEDIAN, POST_SIGMA, Setup, THROTTLE_MILLIS},
    random::Random,
};

/// One account in a Region. All clones are the same account.
#[derive(Debug, Clone)]
pub struct Account {
    clock: Clock,
    setup: Arc<Setup>,
    meter: Meter,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    random: Random,
    tokens: f64,
    /// When the tokens were counted, in milliseconds.
    at: u64,
    /// When an emulator has answered all posts, in milliseconds.
    free_at: f64,
}

/// The answer to a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Delivered,
    Gone,
    Throttled,
    SlowClient,
    Failed,
}

/// The worker's way to the account, from one execution environment.
#[derive(Debug, Clone)]
pub struct Line {
    /// The account.
    pub account: Account,
    /// The environment's CPU.
    pub cpu: Cpu,
}

impl Account {
    /// Creates an account whose burst is unused.
    #[must_use]
    pub fn new(clock: Clock, setup: Arc<Setup>, meter: Meter, seed: u64) -> Self {
        let state = State { random: Random::of(seed), tokens: setup.account.1, at: 0, free_at: 0.0 };
        Self { clock, setup, meter, state: Arc::new(Mutex::new(state)) }
    }

    /// Decides about a post that arrives now: its latency in milliseconds, and its answer.
    fn decide(&self, connection: &ConnectionId) -> (f64, Answer) {
        let (now, Setup { account, faults, outage, stub, emulator, .. }) =
            (self.clock.millis(), &*self.setup);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (rate, burst) = *account;
        state.tokens = (state.tokens + (now - state.at) as f64 * rate / 1000.0).min(burst);
        state.at = now;
        if state.tokens < 1.0 {
            return (THROTTLE_MILLIS, Answer::Throttled);
        }
        state.tokens -= 1.0;
        let latency = match (stub, emulator) {
            (Some((latency, _)), _) => millis(*latency),
            (None, Some(emulator)) => state.queued(now, emulator),
            (None, None) => state.random.lognormal(POST_MEDIAN, POST_SIGMA),
        };
        let (chance, nature) = (state.random.unit(), nature(connection.as_str()));
        let is_down = (outage.0 * 1000..outage.1 * 1000).contains(&now);
        let answer = if is_down || chance < faults.failing {
            Answer::Failed
        } else if nature < faults.gone {
            Answer::Gone
        } else if nature > 1.0 - faults.slow && chance > 0.5 {
            Answer::SlowClient
        } else {
            Answer::Delivered
        };
        (latency, answer)
    }
}

impl State {
    /// Returns the latency of a post to an emulator, which takes one at a time.
    fn queued(&mut self, now: u64, emulator: &Emulator) -> f64 {
        let now = now as f64;
        self.free_at = self.free_at.max(now) + millis(emulator.post_of_many);
        self.free_at - now + millis(emulator.post) - millis(emulator.post_of_many)
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Returns a number from 0 to 1 that decides whether a connection is gone or slow, or a user is away: the same at any
/// time.
pub(super) fn nature(name: &str) -> f64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64
}

impl Gateway for Line {
    async fn post(&self, connection: &ConnectionId, payload: Bytes) -> PostResult {
        let Account { clock, meter, setup, .. } = &self.account;
        let cost = setup.stub.map_or(POST_CPU, |(_, cpu)| cpu);
        let sent_at = self.cpu.charge(cost);
        let (latency, answer) = self.account.decide(connection);
        {
            let mut figures = meter.figures();
            figures.posts += 1;
            match answer {
                Answer::Throttled => figures.throttled += 1,
                _ => Figures::count(&mut figures.admitted, clock.millis()),
            }
        }
        clock.wait_until(sent_at + latency).await;
        let mut figures = meter.figures();
        let (now, note) = (clock.millis(), Note::read(&payload));
        match (answer, note) {
            (Answer::Delivered | Answer::Gone, Some(note)) => {
                figures.reach(connection, note, answer == Answer::Gone, now);
            }
            (Answer::SlowClient, _) => figures.slow += 1,
            (Answer::Failed, _) => figures.failed += 1,
            (_, _) => {}
        }
        status(match answer {
            Answer::Delivered => 200,
            Answer::Gone => 410,
            Answer::Throttled | Answer::SlowClient => 429,
            Answer::Failed => 503,
        })
    }
}
