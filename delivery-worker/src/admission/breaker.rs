//! Circuit breaker: stops posts to a management endpoint that fails.
//!
//! The breaker counts connections, not posts. Each connection counts once, by its latest sample, which is
//! kept for 5 to 10 s. So a few failing connections cannot stop the others, however many posts they receive.
//!
//! [`Settings`] holds the thresholds; the numbers below are its defaults.
//!
//! # Samples
//!
//! | [`Health`] | the post's result | sample |
//! |---|---|---|
//! | `Works` | 2xx, 400, 410, 413 | success |
//! | `Throttles` | 429 | success |
//! | `Refuses` | any other 4xx, such as 401, 403, 404 | refusal |
//! | `Fails` | 3xx, 408, 5xx, timeout, broken connection | failure |
//! | `StillFails` | an in-place retry failed as well | none |
//! | `Unknown` | the post was given up for another reason | none |
//!
//! # Trips when
//!
//! A *closed* circuit admits every post. It opens when both hold:
//!
//! - at least 20 connections have a sample ([`min_connections`](Settings::min_connections));
//! - the samples of at least half of them are failures ([`min_failed_percent`](Settings::min_failed_percent)).
//!
//! A refusal counts as a failure only while no sample is a success, and only from 1 s after the first refusal since
//! the latest success ([`refusal_delay`](Settings::refusal_delay)): API Gateway refuses a post faster than it
//! accepts one.
//!
//! # While open
//!
//! An *open* circuit admits no post. It stays open for 5 s ([`initial_open`](Settings::initial_open)). Each time that
//! a probe fails, it stays open for twice as long, up to 20 s ([`max_open`](Settings::max_open)). A longer time would
//! save few posts, and delay the recovery: the maximum delay of a hand-back comes after it.
//!
//! # Recovers when
//!
//! After that time the circuit is *half-open* and admits 3 posts as probes ([`probes`](Settings::probes)).
//!
//! - Three probes that work close the circuit.
//! - One probe that fails or is refused, an in-place retry included, opens it again.
//! - A probe that was throttled or has no result makes room for another one.
//! - A post that arrives while all probes are in flight has to wait for 1 s ([`probe_wait`](Settings::probe_wait)).
//!
//! # Never counts
//!
//! The result of a post that was admitted before the latest change of state.
//!
//! The breaker has no clock and does no I/O: callers pass the time.

use std::time::Duration;

use streamer_message::ConnectionId;
use tokio::time::Instant;

use super::samples::{Sample, Samples};

/// Thresholds of a [`CircuitBreaker`].
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    // Trips when
    /// Minimum number of connections with a sample. Fewer show nothing about the endpoint. Default: 20.
    pub min_connections: usize,
    /// Minimum percentage of those connections whose sample is a failure. Default: 50.
    pub min_failed_percent: usize,
    /// Time from the first refusal since the latest success until refusals count. Default: 1 s.
    pub refusal_delay: Duration,

    // While open
    /// Time for which a closed circuit opens. Default: 5 s.
    pub initial_open: Duration,
    /// Maximum of that time, which doubles each time a probe fails. Default: 20 s.
    pub max_open: Duration,

    // Recovers when
    /// Number of posts that a half-open circuit admits, and that must work to close it. Default: 3.
    pub probes: u32,
    /// Delay for posts that arrive while all probes are in flight. Default: 1 s.
    pub probe_wait: Duration,
}

impl Settings {
    /// The documented defaults.
    pub const DEFAULT: Self = Self {
        min_connections: 20,
        min_failed_percent: 50,
        refusal_delay: Duration::from_secs(1),
        initial_open: Duration::from_secs(5),
        max_open: Duration::from_secs(20),
        probes: 3,
        probe_wait: Duration::from_secs(1),
    };
}

/// The state of the management endpoint that a post's result shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It works.
    Works,
    /// It works, but the account or the client is over its limit.
    Throttles,
    /// It refuses the request for a reason other than the message.
    Refuses,
    /// It does not work.
    Fails,
    /// It does not work, and an earlier post of the same pair in this invocation failed as well.
    StillFails,
    /// Unknown: the post was given up for another reason.
    Unknown,
}

/// A circuit breaker.
#[derive(Debug)]
pub struct CircuitBreaker {
    settings: Settings,
    state: State,
    /// Number of state changes so far. Results of posts that were admitted in an earlier epoch are ignored.
    epoch: u64,
}

#[derive(Debug)]
enum State {
    Closed { samples: Box<Samples>, refused_since: Option<Instant> },
    Open { since: Instant, until: Instant, open_time: Duration },
    HalfOpen { since: Instant, open_time: Duration, free_probes: u32, successes: u32 },
}

/// A circuit that admits no post.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenCircuit {
    /// The time until it may admit one.
    pub wait: Duration,
    /// The time since it opened. It goes on while probes fail.
    pub age: Duration,
}

/// Proof that the circuit breaker admitted a post, to be [recorded](CircuitBreaker::record) with its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    epoch: u64,
}

/// A change of state that operators are informed about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The circuit opened, for this long.
    Opened(Duration),
    /// The circuit closed.
    Closed,
}

impl State {
    fn closed() -> Self {
        Self::Closed { samples: Box::default(), refused_since: None }
    }
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self { settings: Settings::DEFAULT, state: State::closed(), epoch: 0 }
    }
}

impl CircuitBreaker {
    /// Returns how long a post that arrives at `now` has to wait, or `None` if it would be admitted: the rest of the
    /// time for which the circuit is open, or 1 s while all probes are in flight.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Option<OpenCircuit> {
        let (since, wait) = match self.state {
            State::Open { since, until, .. } if now < until => (since, until - now),
            State::HalfOpen { since, free_probes: 0, .. } => (since, self.settings.probe_wait),
            State::Closed { .. } | State::Open { .. } | State::HalfOpen { .. } => return None,
        };
        Some(OpenCircuit { wait, age: now.saturating_duration_since(since) })
    }

    /// Admits a post.
    ///
    /// # Errors
    /// The [time to wait](Self::wait) before asking again.
    pub fn admit(&mut self, now: Instant) -> Result<Admitted, OpenCircuit> {
        if let Some(open) = self.wait(now) {
            return Err(open);
        }
        if let State::Open { since, open_time, .. } = self.state {
            let free_probes = self.settings.probes;
            self.change(State::HalfOpen { since, open_time, free_probes, successes: 0 });
        }
        if let State::HalfOpen { free_probes, .. } = &mut self.state {
            *free_probes -= 1;
        }
        Ok(Admitted { epoch: self.epoch })
    }

    /// Records the result of a post to `connection`, and returns the change of state that it causes.
    pub fn record(
        &mut self,
        admitted: Admitted,
        connection: &ConnectionId,
        health: Health,
        now: Instant,
    ) -> Option<Change> {
        if admitted.epoch != self.epoch {
            return None;
        }
        let settings = self.settings;
        let (since, open_time) = match &mut self.state {
            State::Closed { samples, refused_since } => {
                let sample = match health {
                    Health::Works | Health::Throttles => Sample::Success,
                    Health::Refuses => Sample::Refusal,
                    Health::Fails => Sample::Failure,
                    Health::StillFails | Health::Unknown => return None,
                };
                samples.record(connection, sample, now);
                match sample {
                    Sample::Success => *refused_since = None,
                    Sample::Refusal => _ = refused_since.get_or_insert(now),
                    Sample::Failure => {}
                }
                if !trips(&settings, samples, *refused_since, now) {
                    return None;
                }
                (now, settings.initial_open)
            }
            State::HalfOpen { since, open_time, free_probes, successes } => match health {
                Health::Refuses | Health::Fails | Health::StillFails => {
                    (*since, (*open_time * 2).min(settings.max_open))
                }
                Health::Throttles | Health::Unknown => {
                    *free_probes += 1;
                    return None;
                }
                Health::Works => {
                    *successes += 1;
                    if *successes < settings.probes {
                        return None;
                    }
                    self.change(State::closed());
                    return Some(Change::Closed);
                }
            },
            State::Open { .. } => return None,
        };
        self.change(State::Open { since, until: now + open_time, open_time });
        Some(Change::Opened(open_time))
    }

    /// Returns whether the circuit is open or half-open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.epoch += 1;
    }
}

/// Returns whether the samples open a closed circuit.
fn trips(settings: &Settings, samples: &Samples, refused_since: Option<Instant>, now: Instant) -> bool {
    let refused_for = refused_since.map(|since| now.saturating_duration_since(since));
    let refusals_count =
        refused_for.is_some_and(|time| time >= settings.refusal_delay) && samples.count(Sample::Success) == 0;
    let refused = if refusals_count { samples.count(Sample::Refusal) } else { 0 };
    let failed = samples.count(Sample::Failure) + refused;
    let connections = samples.connections();
    connections >= settings.min_connections && failed * 100 >= connections * settings.min_failed_percent
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::samples::MAX_GENERATION_AGE, *};

    const MIN_CONNECTIONS: usize = Settings::DEFAULT.min_connections;
    const INITIAL_OPEN: Duration = Settings::DEFAULT.initial_open;
    const PROBES: u32 = Settings::DEFAULT.probes;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn connection(number: usize) -> ConnectionId {
        format!("c{number}").try_into().unwrap()
    }

    fn post_to(breaker: &mut CircuitBreaker, number: usize, health: Health, now: Instant) -> Option<Change> {
        let admitted = breaker.admit(now).unwrap();
        breaker.record(admitted, &connection(number), health, now)
    }

    /// Posts to this many connections, and returns the number of posts that opened the circuit.
    fn posts_until_open(
        breaker: &mut CircuitBreaker,
        connections: usize,
        health: Health,
        now: Instant,
    ) -> Option<usize> {
        let opening = (0..connections).position(|number| post_to(breaker, number, health, now).is_some());
        opening.map(|index| index + 1)
    }

    /// Returns the time for which a post has to wait.
    fn wait(breaker: &CircuitBreaker, now: Instant) -> Option<Duration> {
        breaker.wait(now).map(|open| open.wait)
    }

    fn record_probe(
        breaker: &mut CircuitBreaker,
        probe: Admitted,
        health: Health,
        now: Instant,
    ) -> Option<Change> {
        breaker.record(probe, &connection(0), health, now)
    }

    /// Returns a circuit that opened at `now`.
    fn opened(now: Instant) -> CircuitBreaker {
        let mut breaker = CircuitBreaker::default();
        let posts = posts_until_open(&mut breaker, MIN_CONNECTIONS, Health::Fails, now);
        assert_eq!(posts, Some(MIN_CONNECTIONS));
        breaker
    }

    /// Returns a circuit that is half-open at `now`.
    fn half_open(now: Instant) -> CircuitBreaker {
        opened(now - INITIAL_OPEN)
    }

    #[test]
    fn stays_closed_below_min_connections() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        for _ in 0..10 {
            assert_eq!(posts_until_open(&mut breaker, MIN_CONNECTIONS - 1, Health::Fails, now), None);
        }
        assert!(!breaker.is_open());
        let last = post_to(&mut breaker, MIN_CONNECTIONS, Health::Fails, now);
        assert_eq!(last, Some(Change::Opened(INITIAL_OPEN)));
    }

    #[test]
    fn opens_when_half_of_connections_fail() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        for number in 0..100 {
            assert_eq!(post_to(&mut breaker, number, Health::Works, now), None);
            let throttled = post_to(&mut breaker, 100 + number, Health::Throttles, now);
            assert_eq!(throttled, None, "429 is not a failure");
        }
        let mut fails = |number: usize| post_to(&mut breaker, 200 + number, Health::Fails, now);
        let opening = (0..300).position(|number| fails(number).is_some());
        assert_eq!(opening, Some(199), "200 of 400 connections fail");
    }

    #[test]
    fn one_connection_never_opens_it() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        for _ in 0..1000 {
            assert_eq!(post_to(&mut breaker, 0, Health::Fails, now), None);
        }
    }

    #[test]
    fn in_place_retries_count_only_as_probes() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        assert_eq!(posts_until_open(&mut breaker, 1000, Health::StillFails, now), None);
        assert_eq!(posts_until_open(&mut half_open(now), 1, Health::StillFails, now), Some(1));
    }

    #[test]
    fn latest_sample_of_a_connection_counts() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        assert_eq!(posts_until_open(&mut breaker, 19, Health::Fails, now), None);
        assert_eq!(posts_until_open(&mut breaker, 19, Health::Works, now), None);
        let twentieth = post_to(&mut breaker, 19, Health::Fails, now);
        assert_eq!(twentieth, None, "19 connections have recovered");
    }

    #[test]
    fn refusals_count_while_nothing_works() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        let refused = posts_until_open(&mut breaker, 40, Health::Refuses, now);
        assert_eq!(refused, None, "a slower success may follow");
        let later = now + Settings::DEFAULT.refusal_delay;
        let refused = post_to(&mut breaker, 0, Health::Refuses, later);
        assert_eq!(refused, Some(Change::Opened(INITIAL_OPEN)));
    }

    #[test]
    fn refusals_do_not_count_beside_success() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        for second in 0..60 {
            let at = now + seconds(f64::from(second));
            assert_eq!(posts_until_open(&mut breaker, 40, Health::Refuses, at), None);
            assert_eq!(post_to(&mut breaker, 100, Health::Works, at), None);
        }
        let last = now + seconds(59.0);
        let opening = (0..60).position(|n| post_to(&mut breaker, 200 + n, Health::Fails, last).is_some());
        assert_eq!(opening, Some(40), "failures count: 41 of 82 connections");
    }

    #[test]
    fn samples_older_than_10_s_expire() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        for number in 0..100 {
            assert_eq!(post_to(&mut breaker, 100 + number, Health::Works, now), None);
        }
        let later = now + 2 * MAX_GENERATION_AGE;
        assert_eq!(posts_until_open(&mut breaker, 20, Health::Fails, later), Some(20));

        let (mut breaker, mut now) = (CircuitBreaker::default(), Instant::now());
        for number in 0..1000 {
            now += seconds(0.6);
            let failed = post_to(&mut breaker, number, Health::Fails, now);
            assert_eq!(failed, None, "never 20 connections within 10 s");
        }
    }

    #[test]
    fn open_circuit_admits_no_post() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(wait(&breaker, now), Some(INITIAL_OPEN));
        assert_eq!(wait(&breaker, now + seconds(4.5)), Some(seconds(0.5)));
        assert!(breaker.admit(now + seconds(4.5)).is_err());
        assert!(breaker.admit(now + INITIAL_OPEN).is_ok());
    }

    /// Further posts wait for 1 s.
    #[test]
    fn half_open_circuit_admits_three_probes() {
        let now = Instant::now();
        let mut breaker = half_open(now);
        assert!((0..PROBES).all(|_| breaker.admit(now).is_ok()));
        assert_eq!(wait(&breaker, now), Some(Settings::DEFAULT.probe_wait));
    }

    #[test]
    fn three_successful_probes_close_it() {
        let now = Instant::now();
        let mut breaker = half_open(now);
        let probes = [(); 3].map(|()| breaker.admit(now).unwrap());
        let changes = probes.map(|probe| record_probe(&mut breaker, probe, Health::Works, now));
        assert_eq!(changes, [None, None, Some(Change::Closed)]);
        assert!((0..100).all(|_| breaker.admit(now).is_ok()));
    }

    /// The time doubles up to 20 s, and starts at 5 s again once the circuit has closed. So does the age.
    #[test]
    fn failed_probe_doubles_the_open_time() {
        let mut now = Instant::now();
        let mut breaker = half_open(now);
        let began = now - INITIAL_OPEN;
        for expected in [10, 20, 20, 20] {
            let [success, failure] = [(); 2].map(|()| breaker.admit(now).unwrap());
            assert_eq!(record_probe(&mut breaker, success, Health::Works, now), None);
            let opened = record_probe(&mut breaker, failure, Health::Fails, now);
            assert_eq!(opened, Some(Change::Opened(Duration::from_secs(expected))));
            assert_eq!(breaker.wait(now).map(|open| open.age), Some(now - began));
            now += Duration::from_secs(expected);
        }
        let probes = [(); 3].map(|()| breaker.admit(now).unwrap());
        let changes = probes.map(|probe| record_probe(&mut breaker, probe, Health::Works, now));
        assert_eq!(changes[2], Some(Change::Closed));
        let posts = posts_until_open(&mut breaker, MIN_CONNECTIONS, Health::Fails, now);
        assert_eq!(posts, Some(MIN_CONNECTIONS));
        assert_eq!(breaker.wait(now), Some(OpenCircuit { wait: INITIAL_OPEN, age: Duration::ZERO }));
    }

    #[test]
    fn throttled_or_abandoned_probe_is_replaced() {
        let now = Instant::now();
        let mut breaker = half_open(now);
        for health in [Health::Throttles, Health::Unknown] {
            let probes = [(); 3].map(|()| breaker.admit(now).unwrap());
            assert_eq!(wait(&breaker, now), Some(Settings::DEFAULT.probe_wait));
            let changes = probes.map(|probe| record_probe(&mut breaker, probe, health, now));
            assert_eq!(changes, [None; 3]);
        }
        assert!((0..PROBES).all(|_| breaker.admit(now).is_ok()));
    }

    #[test]
    fn results_from_earlier_states_are_ignored() {
        let now = Instant::now();
        let mut breaker = CircuitBreaker::default();
        let late: Vec<_> = (0..10).map(|_| breaker.admit(now).unwrap()).collect();
        _ = posts_until_open(&mut breaker, MIN_CONNECTIONS, Health::Fails, now);
        let half_open = now + INITIAL_OPEN;
        let probe = breaker.admit(half_open).unwrap();
        for (admitted, health) in late.into_iter().zip([Health::Works, Health::Fails].into_iter().cycle()) {
            assert_eq!(record_probe(&mut breaker, admitted, health, half_open), None);
        }
        assert!(breaker.admit(half_open).is_ok(), "it is half-open and has free probes");
        assert_eq!(record_probe(&mut breaker, probe, Health::Works, half_open), None);
    }

    proptest! {
        /// For all results in any order: an open circuit admits no post, a half-open one has at most three probes in
        /// flight, and the circuit closes as soon as the endpoint works.
        #[test]
        fn admits_only_probes_and_always_recovers(
            events in prop::collection::vec(
                (prop::bool::weighted(0.55), 0..400_u64, 0..8_usize, any::<prop::sample::Index>()),
                0..400,
            ),
        ) {
            let mut now = Instant::now();
            let mut breaker = opened(now);
            let (mut in_flight, mut open_until) = (Vec::<Admitted>::new(), Some(now + INITIAL_OPEN));
            for (begins, millis, health, index) in events {
                now += Duration::from_millis(millis);
                if begins {
                    let Ok(admitted) = breaker.admit(now) else { continue };
                    prop_assert!(open_until.is_none_or(|until| now >= until), "a post in an open circuit");
                    in_flight.push(admitted);
                    let probes = in_flight.iter().filter(|other| **other == admitted).count();
                    prop_assert!(!breaker.is_open() || probes <= PROBES as usize, "{} probes", probes);
                } else if !in_flight.is_empty() {
                    let admitted = in_flight.swap_remove(index.index(in_flight.len()));
                    let healths = [
                        Health::Works,
                        Health::Works,
                        Health::Throttles,
                        Health::Unknown,
                        Health::Refuses,
                        Health::StillFails,
                        Health::Fails,
                        Health::Fails,
                    ];
                    match breaker.record(admitted, &connection(index.index(60)), healths[health], now) {
                        Some(Change::Opened(time)) => open_until = Some(now + time),
                        Some(Change::Closed) => open_until = None,
                        None => {}
                    }
                }
            }
            for admitted in in_flight {
                record_probe(&mut breaker, admitted, Health::Unknown, now);
            }
            now = open_until.map_or(now, |until| until.max(now));
            for _ in 0..PROBES {
                if breaker.is_open() {
                    let probe = breaker.admit(now);
                    prop_assert!(probe.is_ok(), "the circuit does not recover");
                    record_probe(&mut breaker, probe.unwrap(), Health::Works, now);
                }
            }
            prop_assert!(!breaker.is_open());
        }
    }
}
