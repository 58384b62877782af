//! The time of one invocation.
//!
//! ```text
//! start ─ posts begin ─ deadline ─ calls run ─ cutoff ─ settling ─ settle deadline ─ report ─ end
//! ```

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::outcome::Cause;

/// No post begins in the last 3 s of an invocation, or in its last three eighths if that is less.
const MAX_TAIL: Duration = Duration::from_secs(3);

/// Posts and table calls that have begun may use the first half of that tail. The second half is for settling.
const TAIL_PARTS: u32 = 2;

/// Maximum duration of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum time that is reserved at the end for the report to reach Lambda.
const MAX_REPORT: Duration = Duration::from_millis(300);

/// A clock that lags behind Lambda's by less than this is not corrected.
const TOLERANCE: Duration = Duration::from_secs(1);

/// Lambda's maximum timeout.
///
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/configuration-timeout.html>.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(900);

/// The wall clock and the deadlines of one invocation. The wall clock is read once and then follows tokio's clock, so
/// that tests in virtual time move both.
#[derive(Debug, Clone, Copy)]
pub struct Time {
    /// The wall clock at the start.
    wall: SystemTime,
    skewed: bool,
    /// The monotonic clock at the start.
    instant: Instant,
    deadline: Instant,
    cutoff: Instant,
    settle_deadline: Instant,
}

impl Time {
    /// Starts an invocation at `now` by this machine's clock, which Lambda ends at `lambda_deadline` by its own
    /// clock, at most `timeout` after its start.
    ///
    /// If both clocks cannot be right, the invocation follows Lambda's: it agrees with SQS's timestamps, and no
    /// invocation takes longer than its timeout.
    #[must_use]
    pub fn start(now: SystemTime, lambda_deadline: SystemTime, timeout: Duration) -> Self {
        let instant = Instant::now();
        let remaining = lambda_deadline.duration_since(now).unwrap_or_default();
        let skewed = remaining > timeout + TOLERANCE || (remaining.is_zero() && !timeout.is_zero());
        let wall = match skewed {
            true => lambda_deadline.checked_sub(timeout).unwrap_or(now),
            false => now,
        };
        let total = if skewed { timeout } else { remaining.min(timeout) };
        let tail = MAX_TAIL.min(total * 3 / 8);
        Self {
            wall,
            skewed,
            instant,
            deadline: instant + total - tail,
            cutoff: instant + total - tail / TAIL_PARTS,
            settle_deadline: instant + total - MAX_REPORT.min(total / 8),
        }
    }

    /// Returns whether this machine's clock and Lambda's cannot both be right.
    #[must_use]
    pub fn is_skewed(&self) -> bool {
        self.skewed
    }

    /// Returns the wall clock at the start of the invocation.
    #[must_use]
    pub fn started(&self) -> SystemTime {
        self.wall
    }

    /// Returns the wall clock.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.wall + self.instant.elapsed()
    }

    /// Returns when settling ends. The worker reports records whose settling is not confirmed by then.
    #[must_use]
    pub fn settle_deadline(&self) -> Instant {
        self.settle_deadline
    }

    /// Returns the deadline, after which no post begins. Posts and table calls that have begun run until the cutoff.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Returns the deadline, or the time at which a message expires if that is earlier.
    #[must_use]
    pub fn deadline_or_expiry(&self, expires_at: Option<SystemTime>) -> Instant {
        let expiry = expires_at.and_then(|expiry| expiry.duration_since(self.wall).ok());
        expiry
            .and_then(|expiry| self.instant.checked_add(expiry))
            .map_or(self.deadline, |at| at.min(self.deadline))
    }

    /// Returns the wall clock at a later instant of this invocation.
    #[must_use]
    pub fn at(&self, instant: Instant) -> SystemTime {
        self.wall + instant.saturating_duration_since(self.instant)
    }

    /// Returns how long a call that begins now may take: 5 s, and not past the cutoff.
    #[must_use]
    pub fn call_timeout(&self) -> Duration {
        self.calls_timeout(1)
    }

    /// Returns how long so many calls, one after another, may take: 5 s each, and not past the cutoff.
    #[must_use]
    pub fn calls_timeout(&self, calls: u32) -> Duration {
        self.cutoff.saturating_duration_since(Instant::now()).min(CALL_TIMEOUT * calls)
    }

    /// Returns whether the cutoff has passed.
    #[must_use]
    pub fn is_past_cutoff(&self) -> bool {
        self.call_timeout().is_zero()
    }

    /// Returns until when to wait for the confirmation of fan-out pages that are sent now: 5 s from now, and not past
    /// the cutoff, so that time for settling remains.
    #[must_use]
    pub fn fan_out_deadline(&self) -> Instant {
        (Instant::now() + CALL_TIMEOUT).min(self.cutoff)
    }

    /// Returns how much of the invocation's time has passed.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.instant.elapsed()
    }

    /// Returns the cause of a hand-back for which `call` just timed out.
    #[must_use]
    pub fn timeout_cause(&self, call: &str) -> Cause {
        match self.is_past_cutoff() {
            true => Cause::Deadline,
            false => Cause::Table(format!("{call}: no answer within {} s", CALL_TIMEOUT.as_secs())),
        }
    }

    /// Returns how much time remains in which posts may begin.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: SystemTime = SystemTime::UNIX_EPOCH;

    /// Starts an invocation that takes at most `millis`.
    fn start(millis: u64) -> Time {
        let timeout = Duration::from_millis(millis);
        Time::start(EPOCH, EPOCH + timeout, timeout)
    }

    /// The last 3 s, or three eighths of the time if that is less, are for running calls, settling and the report.
    #[tokio::test(start_paused = true)]
    async fn no_post_begins_in_the_tail() {
        for (total, deadline, cutoff, settle_deadline) in
            [(30_000, 27_000, 28_500, 29_700), (8_000, 5_000, 6_500, 7_700), (800, 500, 650, 700)]
        {
            let time = start(total);
            let offset = |at: Instant| (at - time.instant).as_millis();
            let offsets = [time.deadline, time.cutoff, time.settle_deadline].map(offset);
            assert_eq!(offsets, [deadline, cutoff, settle_deadline]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_run_until_the_cutoff() {
        let time = start(30_000);
        tokio::time::advance(Duration::from_millis(27_100)).await;
        assert_eq!((time.remaining(), time.call_timeout()), (Duration::ZERO, Duration::from_millis(1400)));
        assert_eq!(time.timeout_cause("Query"), Cause::Table("Query: no answer within 5 s".to_owned()));
        tokio::time::advance(Duration::from_millis(1400)).await;
        assert_eq!((time.is_past_cutoff(), time.timeout_cause("Query")), (true, Cause::Deadline));
    }

    #[tokio::test(start_paused = true)]
    async fn skewed_clock_is_clamped_to_the_timeout() {
        let (now, timeout) = (EPOCH + Duration::from_secs(3600), Duration::from_secs(30));
        let start = |lambda_deadline: SystemTime| Time::start(now, lambda_deadline, timeout);
        let full = Duration::from_secs(27);
        assert_eq!((start(now + timeout).remaining(), start(now + timeout).is_skewed()), (full, false));
        for skew in [2, 600].map(Duration::from_secs) {
            for lambda_now in [now + skew, now - timeout - skew] {
                let time = start(lambda_now + timeout);
                assert_eq!((time.remaining(), time.is_skewed()), (full, true));
                assert_eq!(time.now(), lambda_now, "ages and expiries follow Lambda's clock");
            }
        }
        let late = start(now + Duration::from_secs(8));
        let remaining = Duration::from_secs(5);
        assert_eq!((late.remaining(), late.now(), late.is_skewed()), (remaining, now, false));
    }

    #[tokio::test(start_paused = true)]
    async fn wall_clock_follows_tokio() {
        let time = start(8_000);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(time.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(5));
        assert_eq!((time.started(), time.remaining()), (SystemTime::UNIX_EPOCH, Duration::ZERO));
    }
}
