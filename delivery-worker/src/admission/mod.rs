//! Fan-out admission: which posts may begin, and when.
//!
//! [`Admission`] puts three state machines together, [`breaker`], [`concurrency`] and [`pacer`]: values that are told the
//! time, without I/O. [`Gate`] is the shell around it, where lanes wait for their turn. Both live as long as the
//! execution environment, so they follow a [`clock`] that goes on while the environment is frozen.

pub mod breaker;
pub mod clock;
pub mod concurrency;
pub mod in_flight;
pub mod pacer;
mod samples;
mod window;

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use streamer_message::ConnectionId;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};

use self::{
    breaker::{Change, CircuitBreaker, Health},
    clock::Clock,
    concurrency::{ConcurrencyLimit, Throttled},
    in_flight::InFlight,
    pacer::Pacer,
};
use crate::{outcome::Cause, time::Time};

/// Which posts may begin, and when.
#[derive(Debug, Default)]
pub struct Admission {
    clock: Clock,
    concurrency: ConcurrencyLimit,
    breaker: CircuitBreaker,
    pacer: Option<Pacer>,
    in_flight: InFlight,
    stats: Stats,
}

/// A post that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    circuit: breaker::Admitted,
    began: Instant,
}

/// What became of a post that wants to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It begins now.
    Admit(Admitted),
    /// As many posts as the limit allows are in flight: there may be a place when one of them ends, or then.
    LimitReached(Option<Instant>),
    /// The pace has no place before then.
    Paced(Instant),
    /// The circuit lets nothing through for so long.
    CircuitOpen(Duration),
}

/// What has happened since it was asked for last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// How long each post took that was answered, or was not in time: no more than an invocation makes.
    pub posts: Vec<Duration>,
    /// Posts that were answered with 429.
    pub throttles: usize,
    /// Those of them that were about one client only.
    pub slow_clients: usize,
    /// How often the circuit opened.
    pub circuit_opened: usize,
    /// The most posts that were in flight, of those that might have been, from 0 to 1.
    pub utilization: f64,
}

impl Admission {
    /// A closed circuit, the first limit, and at most so many posts a second where that is given.
    #[must_use]
    pub fn new(posts_per_second: Option<u32>) -> Self {
        Self { pacer: posts_per_second.map(Pacer::new), ..Self::default() }
    }

    /// Starts an invocation: the environment may have been frozen since the one before.
    pub fn resume(&mut self, wall: SystemTime, now: Instant) {
        self.clock.resume(wall, now);
    }

    /// Lets a post begin, or says why not. Each post that is let through is [recorded](Self::record) once.
    pub fn admit(&mut self, now: Instant) -> Decision {
        let now = self.clock.at(now);
        if let Some(wait) = self.breaker.wait(now) {
            return Decision::CircuitOpen(wait);
        }
        self.in_flight.advance(now);
        if self.in_flight.all() >= in_flight::MAX_POSTS {
            return Decision::LimitReached(None);
        }
        if self.in_flight.fresh() >= self.concurrency.limit() {
            return Decision::LimitReached(self.in_flight.next_slow().map(|at| self.clock.instant(at)));
        }
        if let Some(Err(at)) = self.pacer.as_mut().map(|pacer| pacer.try_acquire(now)) {
            return Decision::Paced(self.clock.instant(at));
        }
        match self.breaker.admit(now) {
            Err(wait) => Decision::CircuitOpen(wait),
            Ok(circuit) => {
                self.in_flight.begin(now);
                let used = self.in_flight.fresh() as f64 / self.concurrency.limit() as f64;
                self.stats.utilization = self.stats.utilization.max(used);
                Decision::Admit(Admitted { circuit, began: now })
            }
        }
    }

    /// Records what a post to `connection` said, and how long that took, and returns how the circuit has changed by it.
    pub fn record(
        &mut self,
        admitted: Admitted,
        connection: &ConnectionId,
        health: Health,
        took: Duration,
        now: Instant,
    ) -> Option<Change> {
        let now = self.clock.at(now);
        match health {
            Health::Throttles => {
                self.stats.throttles += 1;
                match self.concurrency.throttled(connection, now) {
                    Throttled::Client => self.stats.slow_clients += 1,
                    Throttled::Account => {}
                }
            }
            Health::Works => self.concurrency.succeeded(self.in_flight.fresh(), now),
            Health::Refuses | Health::Fails | Health::StillFails => self.concurrency.failed(now),
            Health::Unknown => {}
        }
        if health != Health::Unknown {
            self.stats.posts.push(took);
        }
        self.in_flight.end(admitted.began);
        let change = self.breaker.record(admitted.circuit, connection, health, now);
        self.stats.circuit_opened += usize::from(matches!(change, Some(Change::Opened(_))));
        change
    }

    /// Posts in flight, at most.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.concurrency.limit()
    }

    /// Whether the circuit is anything but closed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.breaker.is_open()
    }

    /// What has happened since this was called last.
    pub fn take_stats(&mut self) -> Stats {
        mem::take(&mut self.stats)
    }
}

/// Where lanes wait for their turn to post, in order of arrival.
#[derive(Debug, Default)]
pub struct Gate {
    admission: Mutex<Admission>,
    /// Who is next; the others wait for this.
    next: tokio::sync::Mutex<()>,
    /// Who is next waits here for a post to end.
    ended: Notify,
}

/// A post that may begin. It says what came of it, or nothing when it is dropped.
#[derive(Debug)]
pub struct Permit<'a> {
    gate: &'a Gate,
    connection: &'a ConnectionId,
    admitted: Admitted,
    began: Instant,
    health: Health,
}

impl Gate {
    /// A gate with a admission of its own.
    #[must_use]
    pub fn new(posts_per_second: Option<u32>) -> Self {
        Self { admission: Mutex::new(Admission::new(posts_per_second)), ..Self::default() }
    }

    /// Starts an invocation.
    pub fn resume(&self, time: &Time) {
        self.admission().resume(time.now(), Instant::now());
    }

    /// Waits until a post to `connection` may begin. Whoever is before it in the queue waits until the deadline of an
    /// invocation at most.
    ///
    /// # Errors
    /// [`Cause::CircuitOpen`] at once, or [`Cause::Deadline`] when its turn has not come by then.
    pub async fn acquire<'a>(
        &'a self,
        connection: &'a ConnectionId,
        deadline: Instant,
    ) -> Result<Permit<'a>, Cause> {
        let _next = self.next.lock().await;
        loop {
            let now = Instant::now();
            if now >= deadline {
                return Err(Cause::Deadline);
            }
            let admission = self.admission().admit(now);
            match admission {
                Decision::Admit(admitted) => {
                    return Ok(Permit {
                        gate: self,
                        connection,
                        admitted,
                        began: now,
                        health: Health::Unknown,
                    });
                }
                Decision::CircuitOpen(wait) => return Err(Cause::CircuitOpen(wait)),
                Decision::LimitReached(at) => {
                    let until = at.map_or(deadline, |at| at.min(deadline));
                    _ = timeout_at(until, self.ended.notified()).await;
                }
                Decision::Paced(at) => sleep_until(at.min(deadline)).await,
            }
        }
    }

    /// The admission behind it.
    pub fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// When the post began.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Says what came of the post.
    pub fn record(mut self, health: Health) {
        self.health = health;
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let took = now - self.began;
        let change = self.gate.admission().record(self.admitted, self.connection, self.health, took, now);
        match change {
            Some(Change::Opened(time)) => {
                tracing::error!(
                    seconds = time.as_secs(),
                    "the circuit has opened: the management endpoint fails"
                );
            }
            Some(Change::Closed) => tracing::info!("the circuit has closed"),
            None => {}
        }
        self.gate.ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    fn connection(number: usize) -> ConnectionId {
        format!("c{number}").try_into().unwrap()
    }

    proptest! {
        #[test]
        fn no_more_posts_are_in_flight_than_the_limit_and_the_pace_is_kept(
            pace in prop::option::of(1_u32..500),
            events in prop::collection::vec((any::<bool>(), 0..40_u64, 0..4_usize, 0..9_usize), 0..1500),
        ) {
            let (mut admission, mut now) = (Admission::new(pace), Instant::now());
            let (began, mut in_flight, mut posts) = (now, Vec::new(), 0);
            for (begins, millis, health, number) in events {
                now += Duration::from_millis(millis);
                if begins {
                    // Whoever waits asks again and again.
                    for _ in 0..number * 30 {
                        match admission.admit(now) {
                            Decision::Admit(admitted) => {
                                in_flight.push(admitted);
                                posts += 1;
                                let fresh = in_flight.iter().filter(|admitted| now < admitted.began + in_flight::SLOW_AFTER);
                                prop_assert!(fresh.count() <= admission.limit());
                                prop_assert!(in_flight.len() <= in_flight::MAX_POSTS);
                            }
                            Decision::LimitReached(_) => break,
                            Decision::Paced(at) => prop_assert!(at > now),
                            Decision::CircuitOpen(wait) => prop_assert!(admission.is_open() && !wait.is_zero()),
                        }
                    }
                } else if let Some(admitted) = in_flight.pop() {
                    let healths = [Health::Works, Health::Throttles, Health::Fails, Health::Unknown];
                    admission.record(admitted, &connection(number), healths[health], Duration::ZERO, now);
                }
                prop_assert!((concurrency::MIN..=concurrency::MAX).contains(&admission.limit()));
            }
            if let Some(pace) = pace {
                let most = (now - began).as_secs_f64() * f64::from(pace) + f64::from((pace / 10).max(1)) + 1.0;
                prop_assert!(f64::from(posts) <= most);
            }
        }
    }

    #[test]
    fn a_post_that_the_circuit_refuses_takes_no_place_of_the_pace() {
        let (mut admission, now) = (Admission::new(Some(1000)), Instant::now());
        for number in 0..breaker::MIN_CONNECTIONS {
            let Decision::Admit(admitted) = admission.admit(now) else { panic!("it is closed") };
            admission.record(admitted, &connection(number), Health::Fails, Duration::ZERO, now);
        }
        assert!((0..10_000).all(|_| admission.admit(now) == Decision::CircuitOpen(breaker::INITIAL_OPEN)));
        assert!(matches!(admission.admit(now + breaker::INITIAL_OPEN), Decision::Admit(_)));
    }

    #[test]
    fn full_limit_takes_no_token_of_the_pace() {
        let (mut admission, now) = (Admission::new(Some(2000)), Instant::now());
        let admitted: Vec<_> = (0..concurrency::INITIAL)
            .map(|_| match admission.admit(now) {
                Decision::Admit(admitted) => admitted,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!((0..1000).all(|_| matches!(admission.admit(now), Decision::LimitReached(Some(_)))));
        admission.record(admitted[0], &connection(0), Health::Works, Duration::ZERO, now);
        assert!(matches!(admission.admit(now), Decision::Admit(_)));
    }

    #[test]
    fn slow_posts_leave_the_limit_to_others() {
        let (mut admission, now) = (Admission::new(None), Instant::now());
        let go = |admission| matches!(admission, Decision::Admit(_));
        assert!((0..concurrency::INITIAL).all(|_| go(admission.admit(now))));
        let Decision::LimitReached(Some(at)) = admission.admit(now) else { panic!("the limit is used up") };
        assert!((0..concurrency::INITIAL).all(|_| go(admission.admit(at))));
        let later = at + Duration::from_secs(60);
        let begun = (0..1000).filter(|_| go(admission.admit(later))).count();
        assert!(begun <= concurrency::INITIAL);
        let last = later + Duration::from_secs(60);
        let begun = begun + (0..1000).filter(|_| go(admission.admit(last))).count();
        assert_eq!(begun, in_flight::MAX_POSTS - 2 * concurrency::INITIAL, "however many are slow");
        assert_eq!(admission.admit(last), Decision::LimitReached(None));
    }

    #[test]
    fn circuit_reopens_in_time_after_a_freeze() {
        let (mut admission, now, wall) = (Admission::new(None), Instant::now(), SystemTime::UNIX_EPOCH);
        admission.resume(wall, now);
        for number in 0..breaker::MIN_CONNECTIONS {
            let Decision::Admit(admitted) = admission.admit(now) else { panic!("it is closed") };
            admission.record(admitted, &connection(number), Health::Fails, Duration::ZERO, now);
        }
        admission.resume(wall + Duration::from_secs(4), now);
        assert_eq!(admission.admit(now), Decision::CircuitOpen(Duration::from_secs(1)));
        admission.resume(wall + breaker::INITIAL_OPEN, now);
        assert!(matches!(admission.admit(now), Decision::Admit(_)), "the monotonic clock stood still");
    }

    #[test]
    fn pace_waits_for_instants_of_the_running_clock() {
        let (mut admission, now, wall) = (Admission::new(Some(1)), Instant::now(), SystemTime::UNIX_EPOCH);
        admission.resume(wall, now);
        admission.resume(wall + Duration::from_secs(100), now);
        assert!(matches!(admission.admit(now), Decision::Admit(_)));
        assert_eq!(admission.admit(now), Decision::Paced(now + Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn post_without_verdict_wakes_the_next() {
        let (gate, one, deadline) =
            (Gate::default(), connection(0), Instant::now() + Duration::from_secs(60));
        let mut permits = Vec::new();
        for _ in 0..concurrency::INITIAL {
            permits.push(gate.acquire(&one, deadline).await.unwrap());
        }
        // Tokio lets a task take 128 locks before it has to yield.
        tokio::task::yield_now().await;
        let began = Instant::now();
        let mut next = std::pin::pin!(gate.acquire(&one, deadline));
        assert!(next.as_mut().now_or_never().is_none(), "the limit is used up");
        drop(permits.pop());
        assert_eq!(next.await.unwrap().began(), began);
    }

    /// Lanes come, wait, post, fail, give up and panic: the limit is never passed, and in the end nothing is in
    /// flight, nobody waits, and the next post may begin.
    async fn gate_is_left_clean(lanes: &[(u64, u64, usize, usize)]) -> Result<(), TestCaseError> {
        let (gate, began) = (Gate::default(), Instant::now());
        let in_flight = std::cell::Cell::new(0_usize);
        let run = async |&(starts, takes, end, number): &(u64, u64, usize, usize)| {
            tokio::time::sleep(Duration::from_millis(starts)).await;
            let (connection, deadline) = (connection(number), began + Duration::from_millis(1500));
            let Ok(permit) = gate.acquire(&connection, deadline).await else { return true };
            in_flight.set(in_flight.get() + 1);
            let kept = in_flight.get() <= gate.admission().limit();
            let post = tokio::time::sleep(Duration::from_millis(takes));
            let answered = timeout_at(deadline, post).await.is_ok();
            in_flight.set(in_flight.get() - 1);
            match end {
                0 | 1 if answered => permit.record(Health::Works),
                2 if answered => permit.record(Health::Throttles),
                3 if answered => permit.record(Health::Fails),
                _ => drop(permit),
            }
            kept
        };
        let kept = futures::future::join_all(lanes.iter().map(run)).await;
        prop_assert!(kept.into_iter().all(|kept| kept));
        prop_assert!(began.elapsed() <= Duration::from_millis(1501));
        prop_assert_eq!(gate.admission().in_flight.all(), 0);
        tokio::time::sleep(breaker::INITIAL_OPEN).await;
        let (connection, deadline) = (connection(0), Instant::now() + Duration::from_secs(1));
        prop_assert!(gate.acquire(&connection, deadline).await.is_ok());
        Ok(())
    }

    proptest! {
        #[test]
        fn a_gate_is_left_clean(
            lanes in prop::collection::vec((0..1450_u64, 0..300_u64, 0..5_usize, 0..9_usize), 0..700),
        ) {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_time().start_paused(true).build().unwrap();
            runtime.block_on(gate_is_left_clean(&lanes))?;
        }
    }
}
