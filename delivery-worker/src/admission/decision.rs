//! Combines the state machines into one decision for each post.

use std::{
    mem,
    time::{Duration, SystemTime},
};

use streamer_gateway::clock::Clock;
use streamer_message::ConnectionId;
use tokio::time::Instant;

use super::{
    breaker::{self, Change, CircuitBreaker, Health, OpenCircuit},
    concurrency::{ConcurrencyLimit, ThrottleScope},
    in_flight::{self, InFlight},
    pacer::Pacer,
};

/// Decides which posts may begin, and when.
#[derive(Debug, Default)]
pub struct Admission {
    clock: Clock,
    concurrency: ConcurrencyLimit,
    breaker: CircuitBreaker,
    pacer: Option<Pacer>,
    in_flight: InFlight,
    stats: Stats,
}

/// Proof that a post was admitted, to be [recorded](Admission::record) once with its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    breaker: breaker::Admitted,
    began: Instant,
}

/// The decision about a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The post begins now.
    Admit(Admitted),
    /// As many posts as allowed are in flight. Ask again when one of them ends, or at this time if given.
    LimitReached(Option<Instant>),
    /// The pacer has no token before this time.
    Paced(Instant),
    /// The circuit admits no post.
    CircuitOpen(OpenCircuit),
}

/// Measurements since the latest [`Admission::take_stats`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// The latency of each post that was answered or timed out. Its length is bounded by an invocation's posts.
    pub post_latencies: Vec<Duration>,
    /// Posts that were answered with 429.
    pub throttles: usize,
    /// Throttled posts for which one client was the cause.
    pub slow_clients: usize,
    /// How often the circuit opened.
    pub circuit_opened: usize,
    /// The highest share of the concurrency limit that was in use, from 0 to 1.
    pub utilization: f64,
}

impl Admission {
    /// Builds an admission with a closed circuit and the initial concurrency limit, and with a pacer if
    /// `posts_per_second` is given.
    #[must_use]
    pub fn new(posts_per_second: Option<u32>) -> Self {
        Self { pacer: posts_per_second.map(Pacer::new), ..Self::default() }
    }

    /// Sets the clock at the start of an invocation. The environment may have been frozen since the previous one.
    pub fn resume(&mut self, wall: SystemTime, now: Instant) {
        self.clock.resume(wall, now);
    }

    /// Decides whether a post may begin. [Record](Self::record) each admitted post exactly once.
    pub fn admit(&mut self, now: Instant) -> Decision {
        let now = self.clock.at(now);
        if let Some(open) = self.breaker.wait(now) {
            return Decision::CircuitOpen(open);
        }
        self.in_flight.advance(now);
        if self.in_flight.total() >= in_flight::MAX_POSTS {
            return Decision::LimitReached(None);
        }
        if self.in_flight.fresh() >= self.concurrency.limit() {
            return Decision::LimitReached(self.in_flight.next_slow().map(|at| self.clock.to_monotonic(at)));
        }
        if let Some(Err(at)) = self.pacer.as_mut().map(|pacer| pacer.try_acquire(now)) {
            return Decision::Paced(self.clock.to_monotonic(at));
        }
        match self.breaker.admit(now) {
            Err(open) => Decision::CircuitOpen(open),
            Ok(breaker) => {
                self.in_flight.begin(now);
                let utilization = self.in_flight.fresh() as f64 / self.concurrency.limit() as f64;
                self.stats.utilization = self.stats.utilization.max(utilization);
                Decision::Admit(Admitted { breaker, began: now })
            }
        }
    }

    /// Records the result and the latency of a post to `connection`, and returns the change of the circuit that it
    /// causes.
    pub fn record(
        &mut self,
        admitted: Admitted,
        connection: &ConnectionId,
        health: Health,
        latency: Duration,
        now: Instant,
    ) -> Option<Change> {
        let now = self.clock.at(now);
        match health {
            Health::Throttles => {
                self.stats.throttles += 1;
                match self.concurrency.record_throttle(connection, now) {
                    ThrottleScope::Client => self.stats.slow_clients += 1,
                    ThrottleScope::Account => {}
                }
            }
            Health::Works => self.concurrency.record_success(self.in_flight.fresh(), now),
            Health::Refuses | Health::Fails | Health::StillFails => self.concurrency.record_failure(now),
            Health::Unknown => {}
        }
        if health != Health::Unknown {
            self.stats.post_latencies.push(latency);
        }
        self.in_flight.end(admitted.began);
        let change = self.breaker.record(admitted.breaker, connection, health, now);
        self.stats.circuit_opened += usize::from(matches!(change, Some(Change::Opened(_))));
        change
    }

    /// Returns the concurrency limit.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.concurrency.limit()
    }

    /// Returns how many posts are in flight, slow ones included.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.total()
    }

    /// Returns whether the circuit is open or half-open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.breaker.is_open()
    }

    /// Returns the measurements since the latest call, and starts new ones.
    pub fn take_stats(&mut self) -> Stats {
        mem::take(&mut self.stats)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::concurrency, *};

    const BREAKER: breaker::Settings = breaker::Settings::DEFAULT;
    const LIMIT: concurrency::Settings = concurrency::Settings::DEFAULT;

    fn connection(number: usize) -> ConnectionId {
        format!("c{number}").try_into().unwrap()
    }

    fn admit(admission: &mut Admission, now: Instant) -> Admitted {
        match admission.admit(now) {
            Decision::Admit(admitted) => admitted,
            other => panic!("{other:?}"),
        }
    }

    /// Opens the circuit by posts that fail.
    fn open_circuit(admission: &mut Admission, now: Instant) {
        for number in 0..BREAKER.min_connections {
            let admitted = admit(admission, now);
            admission.record(admitted, &connection(number), Health::Fails, Duration::ZERO, now);
        }
    }

    /// Counts the posts that are admitted at `now`, of 1 000.
    fn count_admitted(admission: &mut Admission, now: Instant) -> usize {
        (0..1000).filter(|_| matches!(admission.admit(now), Decision::Admit(_))).count()
    }

    proptest! {
        /// Posts in flight stay within the limit, and posts begin at most at the pacer's rate.
        #[test]
        fn keeps_the_limit_and_the_rate(
            rate in prop::option::of(1_u32..500),
            events in prop::collection::vec((any::<bool>(), 0..40_u64, 0..4_usize, 0..9_usize), 0..1500),
        ) {
            let (mut admission, mut now) = (Admission::new(rate), Instant::now());
            let (began, mut in_flight, mut posts) = (now, Vec::new(), 0);
            for (begins, millis, health, number) in events {
                now += Duration::from_millis(millis);
                if begins {
                    for _ in 0..number * 30 {
                        match admission.admit(now) {
                            Decision::Admit(admitted) => {
                                in_flight.push(admitted);
                                posts += 1;
                                let is_fresh = |post: &&Admitted| now < post.began + in_flight::SLOW_AFTER;
                                prop_assert!(in_flight.iter().filter(is_fresh).count() <= admission.limit());
                                prop_assert!(in_flight.len() <= in_flight::MAX_POSTS);
                            }
                            Decision::LimitReached(_) => break,
                            Decision::Paced(at) => prop_assert!(at > now),
                            Decision::CircuitOpen(open) => {
                                prop_assert!(admission.is_open() && !open.wait.is_zero());
                            }
                        }
                    }
                } else if let Some(admitted) = in_flight.pop() {
                    let healths = [Health::Works, Health::Throttles, Health::Fails, Health::Unknown];
                    admission.record(admitted, &connection(number), healths[health], Duration::ZERO, now);
                }
                prop_assert!((LIMIT.min..=LIMIT.max).contains(&admission.limit()));
            }
            if let Some(rate) = rate {
                let burst = f64::from((rate / 2).max(1));
                let most = (now - began).as_secs_f64() * f64::from(rate) + burst + 1.0;
                prop_assert!(f64::from(posts) <= most);
            }
        }
    }

    #[test]
    fn open_circuit_takes_no_token() {
        let (mut admission, now) = (Admission::new(Some(1000)), Instant::now());
        open_circuit(&mut admission, now);
        let open = Decision::CircuitOpen(OpenCircuit { wait: BREAKER.initial_open, age: Duration::ZERO });
        assert!((0..10_000).all(|_| admission.admit(now) == open));
        assert!(matches!(admission.admit(now + BREAKER.initial_open), Decision::Admit(_)));
    }

    #[test]
    fn reached_limit_takes_no_token() {
        let (mut admission, now) = (Admission::new(Some(2000)), Instant::now());
        let admitted: Vec<_> = (0..LIMIT.initial).map(|_| admit(&mut admission, now)).collect();
        assert!((0..1000).all(|_| matches!(admission.admit(now), Decision::LimitReached(Some(_)))));
        admission.record(admitted[0], &connection(0), Health::Works, Duration::ZERO, now);
        assert!(matches!(admission.admit(now), Decision::Admit(_)));
    }

    #[test]
    fn slow_posts_leave_the_limit_to_others() {
        let (mut admission, now) = (Admission::new(None), Instant::now());
        (0..LIMIT.initial).for_each(|_| _ = admit(&mut admission, now));
        let Decision::LimitReached(Some(at)) = admission.admit(now) else { panic!("the limit is used up") };
        (0..LIMIT.initial).for_each(|_| _ = admit(&mut admission, at));
        let later = at + Duration::from_secs(60);
        let admitted = count_admitted(&mut admission, later);
        assert!(admitted <= LIMIT.initial);
        let last = later + Duration::from_secs(60);
        let admitted = admitted + count_admitted(&mut admission, last);
        assert_eq!(admitted, in_flight::MAX_POSTS - 2 * LIMIT.initial, "slow posts are bounded, too");
        assert_eq!(admission.admit(last), Decision::LimitReached(None));
    }

    /// The monotonic clock stops during the freeze.
    #[test]
    fn half_opens_in_time_after_a_freeze() {
        let (mut admission, now, wall) = (Admission::new(None), Instant::now(), SystemTime::UNIX_EPOCH);
        admission.resume(wall, now);
        open_circuit(&mut admission, now);
        admission.resume(wall + Duration::from_secs(4), now);
        let (wait, age) = (Duration::from_secs(1), Duration::from_secs(4));
        assert_eq!(admission.admit(now), Decision::CircuitOpen(OpenCircuit { wait, age }));
        admission.resume(wall + BREAKER.initial_open, now);
        assert!(matches!(admission.admit(now), Decision::Admit(_)));
    }

    #[test]
    fn pacer_waits_on_the_monotonic_clock() {
        let (mut admission, now, wall) = (Admission::new(Some(1)), Instant::now(), SystemTime::UNIX_EPOCH);
        admission.resume(wall, now);
        admission.resume(wall + Duration::from_secs(100), now);
        assert!(matches!(admission.admit(now), Decision::Admit(_)));
        assert_eq!(admission.admit(now), Decision::Paced(now + Duration::from_secs(1)));
    }
}
