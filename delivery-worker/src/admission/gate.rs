//! The async shell around [`Admission`], in which lanes wait for permits.

use std::sync::{Mutex, MutexGuard, PoisonError};

use streamer_message::ConnectionId;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    breaker::{Change, Health},
    decision::{Admission, Admitted, Decision},
};
use crate::{outcome::Cause, time::Time};

/// Gives lanes permits to post, in order of arrival.
#[derive(Debug, Default)]
pub struct Gate {
    admission: Mutex<Admission>,
    /// Held by the first lane in the queue; the others wait for it.
    turn: tokio::sync::Mutex<()>,
    /// Wakes the first lane when a post ends.
    post_ended: Notify,
}

/// The right to begin one post. Dropping it records the post's result, which is unknown unless
/// [`record`](Self::record) was called.
#[derive(Debug)]
pub struct Permit<'a> {
    gate: &'a Gate,
    connection: &'a ConnectionId,
    admitted: Admitted,
    began: Instant,
    health: Health,
}

impl Gate {
    /// Builds a gate with a new [`Admission`].
    #[must_use]
    pub fn new(posts_per_second: Option<u32>) -> Self {
        Self { admission: Mutex::new(Admission::new(posts_per_second)), ..Self::default() }
    }

    /// Sets the clock at the start of an invocation.
    pub fn resume(&self, time: &Time) {
        self.admission().resume(time.now(), Instant::now());
    }

    /// Waits until a post to `connection` may begin. The lanes ahead in the queue wait at most until the deadline of
    /// their invocation.
    ///
    /// # Errors
    /// [`Cause::CircuitOpen`] at once, or [`Cause::Deadline`] if there is no permit by `deadline`. Hand the message
    /// back for either.
    pub async fn acquire<'a>(
        &'a self,
        connection: &'a ConnectionId,
        deadline: Instant,
    ) -> Result<Permit<'a>, Cause> {
        let _turn = self.turn.lock().await;
        loop {
            let now = Instant::now();
            if now >= deadline {
                return Err(Cause::Deadline);
            }
            let decision = self.admission().admit(now);
            match decision {
                Decision::Admit(admitted) => {
                    let health = Health::Unknown;
                    return Ok(Permit { gate: self, connection, admitted, began: now, health });
                }
                Decision::CircuitOpen(open) => return Err(Cause::CircuitOpen(open)),
                Decision::LimitReached(retry_at) => {
                    let until = retry_at.map_or(deadline, |at| at.min(deadline));
                    _ = timeout_at(until, self.post_ended.notified()).await;
                }
                Decision::Paced(at) => sleep_until(at.min(deadline)).await,
            }
        }
    }

    /// Locks the admission behind the gate.
    pub fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// Returns when the post began.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Records the result of the post, and releases the permit.
    pub fn record(mut self, health: Health) {
        self.health = health;
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let latency = now - self.began;
        let change = self.gate.admission().record(self.admitted, self.connection, self.health, latency, now);
        match change {
            Some(Change::Opened(time)) => {
                tracing::error!(
                    seconds = time.as_secs(),
                    "circuit breaker opened: the management endpoint fails"
                );
            }
            Some(Change::Closed) => tracing::info!("circuit breaker closed"),
            None => {}
        }
        self.gate.post_ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;
    use proptest::prelude::*;

    use super::{
        super::{breaker, concurrency},
        *,
    };

    fn connection(number: usize) -> ConnectionId {
        format!("c{number}").try_into().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_permit_wakes_the_next_lane() {
        let (gate, connection) = (Gate::default(), connection(0));
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut permits = Vec::new();
        for _ in 0..concurrency::Settings::DEFAULT.initial {
            permits.push(gate.acquire(&connection, deadline).await.unwrap());
        }
        // Tokio lets a task take 128 locks before it has to yield.
        tokio::task::yield_now().await;
        let began = Instant::now();
        let mut next = std::pin::pin!(gate.acquire(&connection, deadline));
        assert!(next.as_mut().now_or_never().is_none(), "the limit is used up");
        drop(permits.pop());
        assert_eq!(next.await.unwrap().began(), began);
    }

    /// One lane of the property test.
    #[derive(Debug, Clone, Copy)]
    struct Lane {
        starts_after: Duration,
        post_takes: Duration,
        /// `None` drops the permit.
        health: Option<Health>,
        connection: usize,
    }

    fn lane() -> impl Strategy<Value = Lane> {
        let health = prop::sample::select(vec![
            Some(Health::Works),
            Some(Health::Works),
            Some(Health::Throttles),
            Some(Health::Fails),
            None,
        ]);
        (0..1450_u64, 0..300_u64, health, 0..9_usize).prop_map(|(starts, takes, health, connection)| Lane {
            starts_after: Duration::from_millis(starts),
            post_takes: Duration::from_millis(takes),
            health,
            connection,
        })
    }

    async fn run_lanes(lanes: &[Lane]) -> Result<(), TestCaseError> {
        let (gate, began) = (Gate::default(), Instant::now());
        let in_flight = std::cell::Cell::new(0_usize);
        let run = async |lane: &Lane| {
            tokio::time::sleep(lane.starts_after).await;
            let connection = connection(lane.connection);
            let deadline = began + Duration::from_millis(1500);
            let Ok(permit) = gate.acquire(&connection, deadline).await else { return true };
            in_flight.set(in_flight.get() + 1);
            let is_within_limit = in_flight.get() <= gate.admission().limit();
            let post = tokio::time::sleep(lane.post_takes);
            let is_answered = timeout_at(deadline, post).await.is_ok();
            in_flight.set(in_flight.get() - 1);
            match lane.health.filter(|_| is_answered) {
                Some(health) => permit.record(health),
                None => drop(permit),
            }
            is_within_limit
        };
        let within_limit = futures::future::join_all(lanes.iter().map(run)).await;
        prop_assert!(within_limit.into_iter().all(|is_within_limit| is_within_limit));
        prop_assert!(began.elapsed() <= Duration::from_millis(1501));
        prop_assert_eq!(gate.admission().in_flight(), 0);
        tokio::time::sleep(breaker::Settings::DEFAULT.initial_open).await;
        let (connection, deadline) = (connection(0), Instant::now() + Duration::from_secs(1));
        prop_assert!(gate.acquire(&connection, deadline).await.is_ok());
        Ok(())
    }

    proptest! {
        /// Lanes arrive, wait, post, fail and give up. Posts in flight stay within the limit. At the end no post is
        /// in flight, no lane waits, and the next post may begin.
        #[test]
        fn lanes_leave_the_gate_usable(lanes in prop::collection::vec(lane(), 0..700)) {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_time().start_paused(true).build().unwrap();
            runtime.block_on(run_lanes(&lanes))?;
        }
    }
}
