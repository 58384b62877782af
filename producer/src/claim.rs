//! Those who wait for their entries to get onto the queue.

use std::{future::pending, sync::Arc, time::Duration};

use futures::future::Shared;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use crate::{
    buffer::{Buffer, LINGER, Place},
    entry::Entry,
    outbox::{Call, CallFuture, LOOK, Outbox, Outcomes, Seat},
    producer::SendError,
    queue::Failure,
};

/// The longest pause before the second try; it doubles with each further one.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest pause of all.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// With less than this left there is no further try.
const LAST_TRY: Duration = Duration::from_millis(10);

/// Somebody's entry, until it is on the queue or given up. Dropping it gives it up.
pub struct Claim {
    pub outbox: Arc<Outbox>,
    pub place: Place,
    pub entry: Arc<Entry>,
}

impl Claim {
    /// Sees to it that the entry gets onto the queue, with as many calls as its time allows.
    pub async fn settle(
        self,
        mut call: oneshot::Receiver<Call>,
        deadline: Deadline,
    ) -> Result<(), SendError> {
        let mut cause = None;
        let passed = |cause: Option<&str>, otherwise| deadline.passed(cause.unwrap_or(otherwise));
        let mut pause = PAUSE;
        loop {
            let Some(Call { outcomes, index }) = self.called(call, deadline).await else {
                return Err(passed(cause.as_deref(), "it has not left yet, behind other messages"));
            };
            let Some(outcomes) = look_after(outcomes, deadline).await else {
                return Err(passed(cause.as_deref(), "the queue has not answered"));
            };
            match outcomes.get(index) {
                Some(Ok(())) => return Ok(()),
                Some(Err(Failure::Refused { code, message })) => {
                    return Err(SendError::Refused { code: code.clone(), message: message.clone() });
                }
                Some(Err(Failure::NotTaken(why))) => cause = Some(why.clone()),
                None => {}
            }
            let left = deadline.at.saturating_duration_since(Instant::now());
            if left < LAST_TRY {
                return Err(passed(cause.as_deref(), "the queue has not answered"));
            }
            sleep(pause.mul_f64(fastrand::f64()).min(left / 2)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            call = self.again();
        }
    }

    /// Lets the entry wait for another call.
    fn again(&self) -> oneshot::Receiver<Call> {
        let call = self.wait(&mut self.outbox.locked(), Instant::now());
        self.outbox.begin();
        call
    }

    /// Lets the entry wait for a call.
    pub fn wait(&self, buffer: &mut Buffer<Seat>, now: Instant) -> oneshot::Receiver<Call> {
        let (told, call) = oneshot::channel();
        buffer.wait(self.place, Seat { entry: Arc::clone(&self.entry), told }, now);
        call
    }

    /// Waits for the call that the entry is in.
    async fn called(&self, mut call: oneshot::Receiver<Call>, deadline: Deadline) -> Option<Call> {
        let now = Instant::now();
        let linger = now + LINGER.min(deadline.at.saturating_duration_since(now) / 2);
        tokio::select! {
            biased;
            call = &mut call => return call.ok(),
            () = sleep_until(linger) => self.outbox.begin(),
        }
        tokio::select! {
            biased;
            call = &mut call => call.ok(),
            () = sleep_until(deadline.at) => None,
            () = self.outbox.drive() => pending().await,
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Dropped when the lock is not held any more: it wakes somebody.
        let seat = self.outbox.locked().leave(self.place);
        drop(seat);
        self.outbox.begin();
    }
}

/// What comes of a call, if that comes in time.
async fn look_after(outcomes: Shared<CallFuture>, deadline: Deadline) -> Option<Outcomes> {
    loop {
        let look = deadline.at.min(Instant::now() + LOOK);
        match timeout_at(look, outcomes.clone()).await {
            Ok(outcomes) => return Some(outcomes),
            Err(_) if look == deadline.at => return None,
            Err(_) => {}
        }
    }
}

/// Until when something is to be done, and how long that was.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    pub at: Instant,
    pub time: Duration,
}

impl Deadline {
    /// What is said when it has passed.
    pub fn passed(self, cause: &str) -> SendError {
        SendError::OutOfTime { time: self.time, cause: cause.to_owned() }
    }
}
