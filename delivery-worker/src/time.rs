//! The time of one invocation.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::outcome::Cause;

/// What is kept of the invocation's time for settling, at most.
const MARGIN: Duration = Duration::from_secs(2);

/// How long one call may take, at most.
const CALL: Duration = Duration::from_secs(5);

/// What is kept of it for the report to reach Lambda, at most.
const REPORT: Duration = Duration::from_millis(300);

/// The time of one invocation: the wall clock, read once and carried on by tokio's, and the deadline. So tests
/// in virtual time move both.
#[derive(Debug, Clone, Copy)]
pub struct Time {
    wall: SystemTime,
    instant: Instant,
    deadline: Instant,
    settled: Instant,
}

impl Time {
    /// An invocation that begins at `now` and that Lambda ends at `lambda_deadline`. No post runs past that
    /// less 2 s, or less a quarter of the time where that is less.
    #[must_use]
    pub fn start(now: SystemTime, lambda_deadline: SystemTime) -> Self {
        let instant = Instant::now();
        let whole = lambda_deadline.duration_since(now).unwrap_or_default();
        Self {
            wall: now,
            instant,
            deadline: instant + whole - MARGIN.min(whole / 4),
            settled: instant + whole - REPORT.min(whole / 8),
        }
    }

    /// When the invocation began.
    #[must_use]
    pub fn started(&self) -> SystemTime {
        self.wall
    }

    /// The wall clock.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.wall + self.instant.elapsed()
    }

    /// When settling ends: what is not confirmed then is reported.
    #[must_use]
    pub fn settled(&self) -> Instant {
        self.settled
    }

    /// The deadline: no post begins or runs after it.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The deadline, or the time at which a message expires, where that is earlier.
    #[must_use]
    pub fn until(&self, expires_at: Option<SystemTime>) -> Instant {
        let expiry = expires_at.and_then(|expiry| expiry.duration_since(self.wall).ok());
        expiry
            .and_then(|expiry| self.instant.checked_add(expiry))
            .map_or(self.deadline, |at| at.min(self.deadline))
    }

    /// The wall clock's time at a later instant of this invocation.
    #[must_use]
    pub fn at(&self, instant: Instant) -> SystemTime {
        self.wall + instant.saturating_duration_since(self.instant)
    }

    /// How long a call may take that begins now: 5 s, and not past the deadline.
    #[must_use]
    pub fn call(&self) -> Duration {
        self.left().min(CALL)
    }

    /// Until when messages for the parts of an audience are waited for that are sent now. What they leave of the time
    /// is for settling.
    #[must_use]
    pub fn parts(&self) -> Instant {
        (Instant::now() + CALL).min(self.deadline + (self.settled - self.deadline) / 2)
    }

    /// How much of the invocation's time has passed.
    #[must_use]
    pub fn spent(&self) -> Duration {
        self.instant.elapsed()
    }

    /// Why a call was given up that ends now.
    #[must_use]
    pub fn late(&self, what: &str) -> Cause {
        match self.left() {
            Duration::ZERO => Cause::Deadline,
            _ => Cause::Table(format!("{what}: no answer within {} s", CALL.as_secs())),
        }
    }

    /// What is left for posts.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn left_of(seconds: u64) -> Duration {
        let now = SystemTime::UNIX_EPOCH;
        Time::start(now, now + Duration::from_secs(seconds)).left()
    }

    #[tokio::test(start_paused = true)]
    async fn settling_keeps_2_seconds_or_a_quarter() {
        assert_eq!(left_of(30).await, Duration::from_secs(28));
        assert_eq!(left_of(4).await, Duration::from_secs(3));
        assert_eq!(left_of(0).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wall_clock_goes_with_tokios() {
        let time = Time::start(SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + Duration::from_secs(8));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(time.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(5));
        assert_eq!((time.started(), time.left()), (SystemTime::UNIX_EPOCH, Duration::from_secs(1)));
    }
}
