//! The circuit breaker: it keeps posts from an endpoint that fails.
//!
//! It counts connections, each by its latest answer within the last 5 to 10 s, so that no few connections stop the
//! others, however often they are posted to.
//!
//! - *Closed*: every post may begin. The circuit opens when at least [`MIN_CONNECTIONS`] connections have answered and half
//!   of them failed: 5xx, 3xx, a timeout, a broken connection. 429 is not a failure. A further try of the same post is
//!   not counted. A 4xx that is neither the message's nor the quota's fault (401, 403, 404, …) is a refusal, which is
//!   fast: it counts as a failure only while no post has worked, and from 1 s after the first refusal on, since
//!   refusals outrun the posts that work.
//! - *Open*: no post begins, for 5 s at first, for twice as long each time the circuit opens again, for 60 s at most.
//! - *Half-open*: [`PROBES`] posts may begin. Three that work close the circuit, one that fails or is refused opens it
//!   again. A throttled probe and one without a result give their places back. A post that finds no place waits 1 s.
//!
//! Posts that were in flight when the circuit changed say nothing about the new state, and change nothing.
//!
//! No clock and no I/O: callers admitted the time.

use std::time::Duration;

use streamer_message::ConnectionId;
use tokio::time::Instant;

use super::samples::{Sample, Samples};

/// Fewer connections say nothing about the endpoint.
pub const MIN_CONNECTIONS: usize = 20;

/// Refusals count from so long after the first of them on.
pub const MIN_REFUSAL_TIME: Duration = Duration::from_secs(1);

/// Posts that are let through while the circuit is half-open.
pub const PROBES: u32 = 3;

/// How long the circuit is open at first.
pub const INITIAL_OPEN: Duration = Duration::from_secs(5);

/// And at most.
pub const MAX_OPEN: Duration = Duration::from_secs(60);

/// Delay for posts that find no place while all probes are in flight.
pub const PROBE_WAIT: Duration = Duration::from_secs(1);

/// What a post says about the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It works.
    Works,
    /// It works, but has too much to do.
    Throttles,
    /// It refuses the request for a reason that is not the message's.
    Refuses,
    /// It does not work.
    Fails,
    /// It does not work, as at the same pair's post before.
    StillFails,
    /// Nothing: the post was given up for another reason.
    Unknown,
}

/// A circuit breaker.
#[derive(Debug)]
pub struct CircuitBreaker {
    state: State,
    /// How often the circuit has changed: what was let through before is not asked any more.
    changes: u64,
}

#[derive(Debug)]
enum State {
    Closed { samples: Box<Samples>, refusing_since: Option<Instant> },
    Open { until: Instant, opened_for: Duration },
    HalfOpen { opened_for: Duration, places: u32, works: u32 },
}

/// A post that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    changes: u64,
}

/// How the circuit has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It has opened.
    Opened(Duration),
    /// It has closed.
    Closed,
}

impl State {
    fn closed() -> Self {
        Self::Closed { samples: Box::default(), refusing_since: None }
    }
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self { state: State::closed(), changes: 0 }
    }
}

impl CircuitBreaker {
    /// How long a post would have to wait that asks at `now`: while the circuit stays open, or 1 s where it is
    /// half-open and has no place. `None` where it would be let through.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Open { until, .. } if now < until => Some(until - now),
            State::HalfOpen { places: 0, .. } => Some(PROBE_WAIT),
            State::Closed { .. } | State::Open { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Lets a post through.
    ///
    /// # Errors
    /// [How long to wait](Self::wait).
    pub fn admit(&mut self, now: Instant) -> Result<Admitted, Duration> {
        if let Some(wait) = self.wait(now) {
            return Err(wait);
        }
        if let State::Open { opened_for, .. } = self.state {
            self.change(State::HalfOpen { opened_for, places: PROBES, works: 0 });
        }
        if let State::HalfOpen { places, .. } = &mut self.state {
            *places -= 1;
        }
        Ok(Admitted { changes: self.changes })
    }

    /// Records what a post to `connection` said, and returns how the circuit has changed by it.
    pub fn record(
        &mut self,
        admitted: Admitted,
        connection: &ConnectionId,
        health: Health,
        now: Instant,
    ) -> Option<Change> {
        if admitted.changes != self.changes {
            return None;
        }
        let opened_for = match &mut self.state {
            State::Closed { samples, refusing_since } => {
                let sample = match health {
                    Health::Works | Health::Throttles => Sample::Worked,
                    Health::Refuses => Sample::Refused,
                    Health::Fails => Sample::Failed,
                    Health::StillFails | Health::Unknown => return None,
                };
                samples.count(connection, sample, now);
                match sample {
                    Sample::Worked => *refusing_since = None,
                    Sample::Refused => _ = refusing_since.get_or_insert(now),
                    Sample::Failed => {}
                }
                if !is_failing(samples, *refusing_since, now) {
                    return None;
                }
                INITIAL_OPEN
            }
            State::HalfOpen { opened_for, places, works } => match health {
                Health::Refuses | Health::Fails | Health::StillFails => (*opened_for * 2).min(MAX_OPEN),
                Health::Throttles | Health::Unknown => {
                    *places += 1;
                    return None;
                }
                Health::Works => {
                    *works += 1;
                    if *works < PROBES {
                        return None;
                    }
                    self.change(State::closed());
                    return Some(Change::Closed);
                }
            },
            State::Open { .. } => return None,
        };
        self.change(State::Open { until: now + opened_for, opened_for });
        Some(Change::Opened(opened_for))
    }

    /// Whether the circuit is anything but closed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.changes += 1;
    }
}

/// Whether at least half of the connections, and enough of them, failed at last.
fn is_failing(samples: &Samples, refusing_since: Option<Instant>, now: Instant) -> bool {
    let refused_long =
        refusing_since.is_some_and(|since| now.saturating_duration_since(since) >= MIN_REFUSAL_TIME);
    let refused = match refused_long && samples.with(Sample::Worked) == 0 {
        true => samples.with(Sample::Refused),
        false => 0,
    };
    let connections = samples.connections();
    connections >= MIN_CONNECTIONS && (samples.with(Sample::Failed) + refused) * 2 >= connections
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::samples::GENERATION, *};

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

    /// Posts to so many connections, and returns after how many the circuit opened.
    fn opens(
        breaker: &mut CircuitBreaker,
        connections: usize,
        health: Health,
        now: Instant,
    ) -> Option<usize> {
        (0..connections).position(|number| post_to(breaker, number, health, now).is_some()).map(|n| n + 1)
    }

    /// Records what a probe said.
    fn probed(
        breaker: &mut CircuitBreaker,
        admitted: Admitted,
        health: Health,
        now: Instant,
    ) -> Option<Change> {
        breaker.record(admitted, &connection(0), health, now)
    }

    /// A circuit that opened at `now`.
    fn opened(now: Instant) -> CircuitBreaker {
        let mut breaker = CircuitBreaker::default();
        assert_eq!(opens(&mut breaker, MIN_CONNECTIONS, Health::Fails, now), Some(MIN_CONNECTIONS));
        breaker
    }

    /// A circuit that is half-open at `now`.
    fn half_open(now: Instant) -> CircuitBreaker {
        opened(now - INITIAL_OPEN)
    }

    #[test]
    fn nineteen_failing_connections_say_nothing() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        for _ in 0..10 {
            assert_eq!(opens(&mut breaker, MIN_CONNECTIONS - 1, Health::Fails, now), None);
        }
        assert!(!breaker.is_open());
        let last = post_to(&mut breaker, MIN_CONNECTIONS, Health::Fails, now);
        assert_eq!(last, Some(Change::Opened(INITIAL_OPEN)));
    }

    #[test]
    fn half_of_connections_open_it() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        for number in 0..100 {
            assert_eq!(post_to(&mut breaker, number, Health::Works, now), None);
            assert_eq!(
                post_to(&mut breaker, 100 + number, Health::Throttles, now),
                None,
                "429 is no failure"
            );
        }
        let failing =
            |breaker: &mut CircuitBreaker, number: usize| post_to(breaker, 200 + number, Health::Fails, now);
        let opened = (0..300).position(|number| failing(&mut breaker, number).is_some());
        assert_eq!(opened, Some(199), "200 of 400");
    }

    #[test]
    fn one_connection_never_opens_it() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        for _ in 0..1000 {
            assert_eq!(post_to(&mut breaker, 0, Health::Fails, now), None);
        }
    }

    #[test]
    fn further_tries_of_a_post_do_not_count() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        assert_eq!(opens(&mut breaker, 1000, Health::StillFails, now), None);
        assert_eq!(opens(&mut half_open(now), 1, Health::StillFails, now), Some(1), "as a probe it does");
    }

    #[test]
    fn latest_answer_of_a_connection_counts() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        assert_eq!(opens(&mut breaker, 19, Health::Fails, now), None);
        assert_eq!(opens(&mut breaker, 19, Health::Works, now), None);
        assert_eq!(post_to(&mut breaker, 19, Health::Fails, now), None, "19 have recovered");
    }

    #[test]
    fn refusals_count_where_nothing_works() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        assert_eq!(
            opens(&mut breaker, 40, Health::Refuses, now),
            None,
            "a post that works may be on its way"
        );
        let later = now + MIN_REFUSAL_TIME;
        assert_eq!(post_to(&mut breaker, 0, Health::Refuses, later), Some(Change::Opened(INITIAL_OPEN)));
    }

    #[test]
    fn refusals_do_not_count_beside_a_post_that_works() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        for second in 0..60 {
            let at = now + seconds(f64::from(second));
            assert_eq!(opens(&mut breaker, 40, Health::Refuses, at), None);
            assert_eq!(post_to(&mut breaker, 100, Health::Works, at), None);
        }
        let fails = (0..60)
            .position(|n| post_to(&mut breaker, 200 + n, Health::Fails, now + seconds(59.0)).is_some());
        assert_eq!(fails, Some(40), "failures still do: 41 of 82");
    }

    #[test]
    fn answers_older_than_10_s_do_not_count() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        for number in 0..100 {
            assert_eq!(post_to(&mut breaker, 100 + number, Health::Works, now), None);
        }
        assert_eq!(opens(&mut breaker, 20, Health::Fails, now + 2 * GENERATION), Some(20));

        let (mut breaker, mut now) = (CircuitBreaker::default(), Instant::now());
        for number in 0..1000 {
            now += seconds(0.6);
            assert_eq!(post_to(&mut breaker, number, Health::Fails, now), None, "never 20 in a window");
        }
    }

    #[test]
    fn open_it_lets_nothing_through_and_says_for_how_long() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.admit(now), Err(INITIAL_OPEN));
        assert_eq!(breaker.admit(now + seconds(4.5)), Err(seconds(0.5)));
        assert!(breaker.admit(now + INITIAL_OPEN).is_ok());
    }

    #[test]
    fn half_open_it_lets_three_probes_through_and_the_others_wait_1_s() {
        let now = Instant::now();
        let mut breaker = half_open(now);
        assert!((0..PROBES).all(|_| breaker.admit(now).is_ok()));
        assert_eq!(breaker.admit(now), Err(PROBE_WAIT));
    }

    #[test]
    fn three_probes_that_work_close_it() {
        let now = Instant::now();
        let mut breaker = half_open(now);
        let admitted = [(); 3].map(|()| breaker.admit(now).unwrap());
        let changes = admitted.map(|admitted| probed(&mut breaker, admitted, Health::Works, now));
        assert_eq!(changes, [None, None, Some(Change::Closed)]);
        assert!((0..100).all(|_| breaker.admit(now).is_ok()));
    }

    #[test]
    fn one_probe_that_fails_opens_it_for_twice_as_long_up_to_60_s() {
        let mut now = Instant::now();
        let mut breaker = half_open(now);
        for expected in [10, 20, 40, 60, 60] {
            let [works, fails] = [(); 2].map(|()| breaker.admit(now).unwrap());
            assert_eq!(probed(&mut breaker, works, Health::Works, now), None);
            let opened = probed(&mut breaker, fails, Health::Fails, now);
            assert_eq!(opened, Some(Change::Opened(Duration::from_secs(expected))));
            now += Duration::from_secs(expected);
        }
        let admitted = [(); 3].map(|()| breaker.admit(now).unwrap());
        assert_eq!(
            admitted.map(|admitted| probed(&mut breaker, admitted, Health::Works, now))[2],
            Some(Change::Closed)
        );
        assert_eq!(opens(&mut breaker, MIN_CONNECTIONS, Health::Fails, now), Some(MIN_CONNECTIONS));
        assert_eq!(breaker.admit(now), Err(INITIAL_OPEN), "once closed, it begins with 5 s again");
    }

    #[test]
    fn a_probe_that_was_throttled_or_given_up_gives_its_place_back() {
        let now = Instant::now();
        let mut breaker = half_open(now);
        for health in [Health::Throttles, Health::Unknown] {
            let admitted = [(); 3].map(|()| breaker.admit(now).unwrap());
            assert_eq!(breaker.admit(now), Err(PROBE_WAIT));
            assert!(
                admitted.into_iter().all(|admitted| probed(&mut breaker, admitted, health, now).is_none())
            );
        }
        assert!((0..PROBES).all(|_| breaker.admit(now).is_ok()));
    }

    #[test]
    fn what_was_let_through_before_a_change_says_nothing_after_it() {
        let now = Instant::now();
        let mut breaker = CircuitBreaker::default();
        let late: Vec<_> = (0..10).map(|_| breaker.admit(now).unwrap()).collect();
        _ = opens(&mut breaker, MIN_CONNECTIONS, Health::Fails, now);
        let half_open = now + INITIAL_OPEN;
        let probe = breaker.admit(half_open).unwrap();
        for (admitted, health) in late.into_iter().zip([Health::Works, Health::Fails].into_iter().cycle()) {
            assert_eq!(probed(&mut breaker, admitted, health, half_open), None);
        }
        assert!(breaker.admit(half_open).is_ok(), "it is half-open, with its places");
        assert_eq!(probed(&mut breaker, probe, Health::Works, half_open), None);
    }

    proptest! {
        /// Whatever comes of the posts, and in whichever order: an open circuit lets nothing through, a half-open
        /// one never more than three at a time, and as soon as the endpoint works the circuit closes.
        #[test]
        fn it_lets_through_only_its_probes_and_never_sticks(
            events in prop::collection::vec(
                (prop::bool::weighted(0.55), 0..400_u64, 0..8_usize, any::<prop::sample::Index>()),
                0..400,
            ),
        ) {
            let mut now = Instant::now();
            let mut breaker = opened(now);
            let (mut in_flight, mut open_until) = (Vec::<Admitted>::new(), Some(now + INITIAL_OPEN));
            for (begins, millis, health, which) in events {
                now += Duration::from_millis(millis);
                if begins {
                    let Ok(admitted) = breaker.admit(now) else { continue };
                    prop_assert!(open_until.is_none_or(|until| now >= until), "a post in an open circuit");
                    in_flight.push(admitted);
                    let probes = in_flight.iter().filter(|other| **other == admitted).count();
                    prop_assert!(!breaker.is_open() || probes <= PROBES as usize, "{} probes", probes);
                } else if !in_flight.is_empty() {
                    let admitted = in_flight.swap_remove(which.index(in_flight.len()));
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
                    match breaker.record(admitted, &connection(which.index(60)), healths[health], now) {
                        Some(Change::Opened(time)) => open_until = Some(now + time),
                        Some(Change::Closed) => open_until = None,
                        None => {}
                    }
                }
            }
            for admitted in in_flight {
                probed(&mut breaker, admitted, Health::Unknown, now);
            }
            now = open_until.map_or(now, |until| until.max(now));
            for _ in 0..PROBES {
                if breaker.is_open() {
                    let admitted = breaker.admit(now);
                    prop_assert!(admitted.is_ok(), "it sticks");
                    probed(&mut breaker, admitted.unwrap(), Health::Works, now);
                }
            }
            prop_assert!(!breaker.is_open());
        }
    }
}
