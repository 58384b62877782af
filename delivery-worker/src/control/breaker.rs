//! The circuit breaker: it keeps posts from an endpoint that fails.
//!
//! - *Closed*: every post is let through. When at least [`POSTS`] were answered in the last 10 s and half of them
//!   failed, the circuit opens. A failure says that the endpoint does not work: 5xx, 3xx, a timeout, a broken
//!   connection, and a 4xx which says nothing about message, connection or quota. 429 is none.
//! - *Open*: no post is let through, for 5 s at first, for twice as long each time it opens again, for 60 s at
//!   most.
//! - *Half-open*: [`PROBES`] posts are let through. Three that work close the circuit, one that fails opens it
//!   again. One that was throttled, or of which nothing came, gives its place back. Who finds no place waits 1 s.
//!
//! What is still in flight when the circuit changes says nothing about the new state, and changes nothing.
//!
//! No clock and no I/O: whoever asks says what time it is.

use std::time::Duration;

use tokio::time::Instant;

use super::window::Window;

/// Fewer posts in the window say nothing.
pub const POSTS: u32 = 20;

/// Posts that are let through while the circuit is half-open.
pub const PROBES: u32 = 3;

/// What is looked at.
const WINDOW: Duration = Duration::from_secs(10);

/// The window is counted in parts of this length.
const PART: Duration = Duration::from_secs(1);

/// How long the circuit is open at first.
pub const FIRST: Duration = Duration::from_secs(5);

/// And at most.
pub const MOST: Duration = Duration::from_secs(60);

/// How long to wait for who finds no place in a half-open circuit.
pub const NO_PLACE: Duration = Duration::from_secs(1);

/// What a post says about the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It works.
    Works,
    /// It works, but has too much to do.
    Throttles,
    /// It does not work.
    Fails,
    /// Nothing: the post was given up for another reason.
    Unknown,
}

/// A circuit breaker.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    /// How often the circuit has changed: what was let through before is not asked any more.
    changes: u64,
}

#[derive(Debug)]
enum State {
    Closed(Window),
    Open { until: Instant, opened_for: Duration },
    HalfOpen { opened_for: Duration, places: u32, works: u32 },
}

/// A post that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
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
        Self::Closed(Window::new(WINDOW, PART))
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::closed(), changes: 0 }
    }
}

impl Breaker {
    /// How long a post would have to wait that asks at `now`: while the circuit stays open, or 1 s where it is
    /// half-open and has no place. `None` where it would be let through.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Open { until, .. } if now < until => Some(until - now),
            State::HalfOpen { places: 0, .. } => Some(NO_PLACE),
            State::Closed(_) | State::Open { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Lets a post through.
    ///
    /// # Errors
    /// [How long to wait](Self::wait).
    pub fn admit(&mut self, now: Instant) -> Result<Pass, Duration> {
        if let Some(wait) = self.wait(now) {
            return Err(wait);
        }
        if let State::Open { opened_for, .. } = self.state {
            self.change(State::HalfOpen { opened_for, places: PROBES, works: 0 });
        }
        if let State::HalfOpen { places, .. } = &mut self.state {
            *places -= 1;
        }
        Ok(Pass { changes: self.changes })
    }

    /// Takes note of what a post said, and says how the circuit has changed by it.
    pub fn record(&mut self, pass: Pass, health: Health, now: Instant) -> Option<Change> {
        if pass.changes != self.changes {
            return None;
        }
        let opened_for = match &mut self.state {
            State::Closed(_) if health == Health::Unknown => return None,
            State::Closed(window) => {
                window.count(health == Health::Fails, now);
                let (posts, failed) = window.totals();
                if posts < POSTS || failed * 2 < posts {
                    return None;
                }
                FIRST
            }
            State::HalfOpen { opened_for, places, works } => match health {
                Health::Fails => (*opened_for * 2).min(MOST),
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
        !matches!(self.state, State::Closed(_))
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.changes += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn post(breaker: &mut Breaker, health: Health, now: Instant) -> Option<Change> {
        let pass = breaker.admit(now).unwrap();
        breaker.record(pass, health, now)
    }

    /// A circuit that opened at `now`.
    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        let last = (0..POSTS).map(|_| post(&mut breaker, Health::Fails, now)).last().unwrap();
        assert_eq!(last, Some(Change::Opened(FIRST)));
        breaker
    }

    /// A circuit that is half-open at `now`.
    fn half_open(now: Instant) -> Breaker {
        opened(now - FIRST)
    }

    #[test]
    fn nineteen_failures_say_nothing() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..POSTS - 1 {
            assert_eq!(post(&mut breaker, Health::Fails, now), None);
        }
        assert!(!breaker.is_open());
        assert_eq!(post(&mut breaker, Health::Fails, now), Some(Change::Opened(FIRST)));
    }

    #[test]
    fn half_of_the_posts_open_it_and_fewer_do_not() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(post(&mut breaker, Health::Works, now), None);
            assert_eq!(post(&mut breaker, Health::Throttles, now), None, "429 is no failure");
            assert_eq!(post(&mut breaker, Health::Fails, now), None);
        }
        let opens = (0..300).position(|_| post(&mut breaker, Health::Fails, now).is_some());
        assert_eq!(opens, Some(99), "200 of 400");
    }

    #[test]
    fn what_is_older_than_10_s_does_not_count() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        (0..100).for_each(|_| assert_eq!(post(&mut breaker, Health::Works, now), None));
        let later = now + WINDOW;
        let opens = (0..20).position(|_| post(&mut breaker, Health::Fails, later).is_some());
        assert_eq!(opens, Some(19));

        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..1000 {
            now += seconds(0.6);
            assert_eq!(post(&mut breaker, Health::Fails, now), None, "never 20 in a window");
        }
    }

    #[test]
    fn open_it_lets_nothing_through_and_says_for_how_long() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.admit(now), Err(FIRST));
        assert_eq!(breaker.admit(now + seconds(4.5)), Err(seconds(0.5)));
        assert!(breaker.admit(now + FIRST).is_ok());
    }

    #[test]
    fn half_open_it_lets_three_probes_through_and_the_others_wait_1_s() {
        let now = Instant::now();
        let mut breaker = half_open(now);
        assert!((0..PROBES).all(|_| breaker.admit(now).is_ok()));
        assert_eq!(breaker.admit(now), Err(NO_PLACE));
    }

    #[test]
    fn three_probes_that_work_close_it() {
        let now = Instant::now();
        let mut breaker = half_open(now);
        let passes = [(); 3].map(|()| breaker.admit(now).unwrap());
        let changes = passes.map(|pass| breaker.record(pass, Health::Works, now));
        assert_eq!(changes, [None, None, Some(Change::Closed)]);
        assert!((0..100).all(|_| breaker.admit(now).is_ok()));
    }

    #[test]
    fn one_probe_that_fails_opens_it_for_twice_as_long_up_to_60_s() {
        let mut now = Instant::now();
        let mut breaker = half_open(now);
        for expected in [10, 20, 40, 60, 60] {
            let [works, fails] = [(); 2].map(|()| breaker.admit(now).unwrap());
            assert_eq!(breaker.record(works, Health::Works, now), None);
            let opened = breaker.record(fails, Health::Fails, now);
            assert_eq!(opened, Some(Change::Opened(Duration::from_secs(expected))));
            now += Duration::from_secs(expected);
        }
        let passes = [(); 3].map(|()| breaker.admit(now).unwrap());
        assert_eq!(passes.map(|pass| breaker.record(pass, Health::Works, now))[2], Some(Change::Closed));
        let last = (0..POSTS).map(|_| post(&mut breaker, Health::Fails, now)).last().unwrap();
        assert_eq!(last, Some(Change::Opened(FIRST)), "once closed, it begins with 5 s again");
    }

    #[test]
    fn a_probe_that_was_throttled_or_given_up_gives_its_place_back() {
        let now = Instant::now();
        let mut breaker = half_open(now);
        for health in [Health::Throttles, Health::Unknown] {
            let passes = [(); 3].map(|()| breaker.admit(now).unwrap());
            assert_eq!(breaker.admit(now), Err(NO_PLACE));
            assert!(passes.into_iter().all(|pass| breaker.record(pass, health, now).is_none()));
        }
        assert!((0..PROBES).all(|_| breaker.admit(now).is_ok()));
    }

    #[test]
    fn what_was_let_through_before_a_change_says_nothing_after_it() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        let late: Vec<_> = (0..10).map(|_| breaker.admit(now).unwrap()).collect();
        (0..POSTS).for_each(|_| _ = post(&mut breaker, Health::Fails, now));
        let half_open = now + FIRST;
        let probe = breaker.admit(half_open).unwrap();
        for (pass, health) in late.into_iter().zip([Health::Works, Health::Fails].into_iter().cycle()) {
            assert_eq!(breaker.record(pass, health, half_open), None);
        }
        assert!(breaker.admit(half_open).is_ok(), "it is half-open, with its places");
        assert_eq!(breaker.record(probe, Health::Works, half_open), None);
    }

    proptest! {
        /// Whatever comes of the posts, and in whichever order: an open circuit lets nothing through, a half-open
        /// one never more than three at a time, and as soon as the endpoint works the circuit closes.
        #[test]
        fn it_lets_through_only_its_probes_and_never_sticks(
            events in prop::collection::vec(
                (prop::bool::weighted(0.55), 0..400_u64, 0..6_usize, any::<prop::sample::Index>()),
                0..400,
            ),
        ) {
            let mut now = Instant::now();
            let mut breaker = opened(now);
            let (mut in_flight, mut open_until) = (Vec::<Pass>::new(), Some(now + FIRST));
            for (begins, millis, health, which) in events {
                now += Duration::from_millis(millis);
                if begins {
                    let Ok(pass) = breaker.admit(now) else { continue };
                    prop_assert!(open_until.is_none_or(|until| now >= until), "a post in an open circuit");
                    in_flight.push(pass);
                    let probes = in_flight.iter().filter(|other| **other == pass).count();
                    prop_assert!(!breaker.is_open() || probes <= PROBES as usize, "{} probes", probes);
                } else if !in_flight.is_empty() {
                    let pass = in_flight.swap_remove(which.index(in_flight.len()));
                    let healths = [Health::Works, Health::Works, Health::Throttles, Health::Unknown, Health::Fails, Health::Fails];
                    match breaker.record(pass, healths[health], now) {
                        Some(Change::Opened(time)) => open_until = Some(now + time),
                        Some(Change::Closed) => open_until = None,
                        None => {}
                    }
                }
            }
            for pass in in_flight {
                breaker.record(pass, Health::Unknown, now);
            }
            now = open_until.map_or(now, |until| until.max(now));
            for _ in 0..PROBES {
                if breaker.is_open() {
                    let pass = breaker.admit(now);
                    prop_assert!(pass.is_ok(), "it sticks");
                    breaker.record(pass.unwrap(), Health::Works, now);
                }
            }
            prop_assert!(!breaker.is_open());
        }
    }
}
