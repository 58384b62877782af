//! Fan-out control: which posts may begin, and when.
//!
//! [`Control`] puts three state machines together, [`breaker`], [`limiter`] and [`pace`]: values that are told the
//! time, without I/O. [`Gate`] is the shell around it, where lanes wait for their turn. Both live as long as the
//! execution environment.

pub mod breaker;
pub mod limiter;
pub mod pace;
mod window;

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use streamer_message::ConnectionId;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};

use self::{
    breaker::{Breaker, Change, Health, Pass},
    limiter::{Limiter, Throttled},
    pace::Pace,
};
use crate::outcome::Cause;

/// Which posts may begin, and when.
#[derive(Debug, Default)]
pub struct Control {
    limiter: Limiter,
    breaker: Breaker,
    pace: Option<Pace>,
    in_flight: usize,
    tally: Tally,
}

/// What became of a post that wants to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It begins now.
    Go(Pass),
    /// As many posts as the limit allows are in flight.
    Full,
    /// The pace has no place before then.
    At(Instant),
    /// The circuit lets nothing through for so long.
    Open(Duration),
}

/// What has happened since it was asked for last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
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

impl Control {
    /// A closed circuit, the first limit, and at most so many posts a second where that is given.
    #[must_use]
    pub fn new(posts_per_second: Option<u32>) -> Self {
        Self { pace: posts_per_second.map(Pace::new), ..Self::default() }
    }

    /// Lets a post begin, or says why not. Whoever is let through comes back to [`record`](Self::record).
    pub fn admit(&mut self, now: Instant) -> Admission {
        if let Some(wait) = self.breaker.wait(now) {
            return Admission::Open(wait);
        }
        if self.in_flight >= self.limiter.limit() {
            return Admission::Full;
        }
        if let Some(Err(at)) = self.pace.as_mut().map(|pace| pace.take(now)) {
            return Admission::At(at);
        }
        match self.breaker.admit(now) {
            Err(wait) => Admission::Open(wait),
            Ok(pass) => {
                self.in_flight += 1;
                let used = self.in_flight as f64 / self.limiter.limit() as f64;
                self.tally.utilization = self.tally.utilization.max(used);
                Admission::Go(pass)
            }
        }
    }

    /// Takes note of what a post to `connection` said, and how long that took, and says how the circuit has
    /// changed by it.
    pub fn record(
        &mut self,
        pass: Pass,
        connection: &ConnectionId,
        health: Health,
        took: Duration,
        now: Instant,
    ) -> Option<Change> {
        match health {
            Health::Throttles => {
                self.tally.throttles += 1;
                match self.limiter.throttled(connection, now) {
                    Throttled::Client => self.tally.slow_clients += 1,
                    Throttled::Account => {}
                }
            }
            Health::Works => self.limiter.succeeded(self.in_flight, now),
            Health::Fails => self.limiter.failed(now),
            Health::Unknown => {}
        }
        if health != Health::Unknown {
            self.tally.posts.push(took);
        }
        self.in_flight -= 1;
        let change = self.breaker.record(pass, health, now);
        self.tally.circuit_opened += usize::from(matches!(change, Some(Change::Opened(_))));
        change
    }

    /// Posts in flight, at most.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limiter.limit()
    }

    /// Whether the circuit is anything but closed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.breaker.is_open()
    }

    /// What has happened since this was called last.
    pub fn take_tally(&mut self) -> Tally {
        mem::take(&mut self.tally)
    }
}

/// Where lanes wait for their turn to post, in order of arrival.
#[derive(Debug, Default)]
pub struct Gate {
    control: Mutex<Control>,
    /// Who is next; the others wait for this.
    next: tokio::sync::Mutex<()>,
    /// Who is next waits here for a post to end.
    ended: Notify,
}

/// A post that may begin. It says what came of it, or nothing when it is dropped.
#[derive(Debug)]
pub struct Ticket<'a> {
    gate: &'a Gate,
    connection: &'a ConnectionId,
    pass: Pass,
    began: Instant,
    health: Health,
}

impl Gate {
    /// A gate with a control of its own.
    #[must_use]
    pub fn new(posts_per_second: Option<u32>) -> Self {
        Self { control: Mutex::new(Control::new(posts_per_second)), ..Self::default() }
    }

    /// Waits until a post to `connection` may begin. Whoever is before it in the queue waits until the deadline of an
    /// invocation at most.
    ///
    /// # Errors
    /// [`Cause::CircuitOpen`] at once, or [`Cause::Deadline`] when its turn has not come by then.
    pub async fn pass<'a>(
        &'a self,
        connection: &'a ConnectionId,
        deadline: Instant,
    ) -> Result<Ticket<'a>, Cause> {
        let _next = self.next.lock().await;
        loop {
            let now = Instant::now();
            if now >= deadline {
                return Err(Cause::Deadline);
            }
            let admission = self.control().admit(now);
            match admission {
                Admission::Go(pass) => {
                    return Ok(Ticket { gate: self, connection, pass, began: now, health: Health::Unknown });
                }
                Admission::Open(wait) => return Err(Cause::CircuitOpen(wait)),
                Admission::Full => _ = timeout_at(deadline, self.ended.notified()).await,
                Admission::At(at) => sleep_until(at.min(deadline)).await,
            }
        }
    }

    /// The control behind it.
    pub fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket<'_> {
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

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let took = now - self.began;
        let change = self.gate.control().record(self.pass, self.connection, self.health, took, now);
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
            let (mut control, mut now) = (Control::new(pace), Instant::now());
            let (began, mut in_flight, mut posts) = (now, Vec::new(), 0);
            for (begins, millis, health, number) in events {
                now += Duration::from_millis(millis);
                if begins {
                    // Whoever waits asks again and again.
                    for _ in 0..number * 30 {
                        match control.admit(now) {
                            Admission::Go(pass) => {
                                in_flight.push(pass);
                                posts += 1;
                                prop_assert!(in_flight.len() <= control.limit());
                            }
                            Admission::Full => break,
                            Admission::At(at) => prop_assert!(at > now),
                            Admission::Open(wait) => prop_assert!(control.is_open() && !wait.is_zero()),
                        }
                    }
                } else if let Some(pass) = in_flight.pop() {
                    let healths = [Health::Works, Health::Throttles, Health::Fails, Health::Unknown];
                    control.record(pass, &connection(number), healths[health], Duration::ZERO, now);
                }
                prop_assert!((limiter::LEAST..=limiter::MOST).contains(&control.limit()));
            }
            if let Some(pace) = pace {
                let most = (now - began).as_secs_f64() * f64::from(pace) + f64::from((pace / 10).max(1)) + 1.0;
                prop_assert!(f64::from(posts) <= most);
            }
        }
    }

    #[test]
    fn a_post_that_the_circuit_refuses_takes_no_place_of_the_pace() {
        let (mut control, now) = (Control::new(Some(1000)), Instant::now());
        for _ in 0..breaker::POSTS {
            let Admission::Go(pass) = control.admit(now) else { panic!("it is closed") };
            control.record(pass, &connection(0), Health::Fails, Duration::ZERO, now);
        }
        assert!((0..10_000).all(|_| control.admit(now) == Admission::Open(breaker::FIRST)));
        assert!(matches!(control.admit(now + breaker::FIRST), Admission::Go(_)));
    }

    /// Lanes come, wait, post, fail, give up and panic: the limit is never passed, and in the end nothing is in
    /// flight, nobody waits, and the next post may begin.
    async fn gate_is_left_clean(lanes: &[(u64, u64, usize, usize)]) -> Result<(), TestCaseError> {
        let (gate, began) = (Gate::default(), Instant::now());
        let in_flight = std::cell::Cell::new(0_usize);
        let run = async |&(starts, takes, end, number): &(u64, u64, usize, usize)| {
            tokio::time::sleep(Duration::from_millis(starts)).await;
            let (connection, deadline) = (connection(number), began + Duration::from_millis(1500));
            let Ok(ticket) = gate.pass(&connection, deadline).await else { return true };
            in_flight.set(in_flight.get() + 1);
            let kept = in_flight.get() <= gate.control().limit();
            let post = tokio::time::sleep(Duration::from_millis(takes));
            let answered = timeout_at(deadline, post).await.is_ok();
            in_flight.set(in_flight.get() - 1);
            match end {
                0 | 1 if answered => ticket.record(Health::Works),
                2 if answered => ticket.record(Health::Throttles),
                3 if answered => ticket.record(Health::Fails),
                _ => drop(ticket),
            }
            kept
        };
        let kept = futures::future::join_all(lanes.iter().map(run)).await;
        prop_assert!(kept.into_iter().all(|kept| kept));
        prop_assert!(began.elapsed() <= Duration::from_millis(1501));
        prop_assert_eq!(gate.control().in_flight, 0);
        tokio::time::sleep(breaker::FIRST).await;
        let (connection, deadline) = (connection(0), Instant::now() + Duration::from_secs(1));
        prop_assert!(gate.pass(&connection, deadline).await.is_ok());
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
