//! The time of one invocation.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::outcome::Cause;

/// No post begins in the last part of an invocation: in its last 3 s, or in three eighths where that is less.
const LAST: Duration = Duration::from_secs(3);

/// Posts and table calls may use half of it. The other half is for settling.
const RUNNING: u32 = 2;

/// How long one call may take, at most.
const CALL: Duration = Duration::from_secs(5);

/// What is kept of it for the report to reach Lambda, at most.
const REPORT: Duration = Duration::from_millis(300);

/// A clock that is behind Lambda's by less is not corrected.
const TOLERANCE: Duration = Duration::from_secs(1);

/// Lambda runs no invocation for longer.
///
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/configuration-timeout.html>.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(900);

/// The time of one invocation: the wall clock, read once and carried on by tokio's, and the deadline. So tests
/// in virtual time move both.
#[derive(Debug, Clone, Copy)]
pub struct Time {
    wall: SystemTime,
    skewed: bool,
    instant: Instant,
    deadline: Instant,
    cutoff: Instant,
    settle_deadline: Instant,
}

impl Time {
    /// An invocation that begins at `now` by this machine's clock and that Lambda ends at `lambda_deadline` by its own,
    /// after the function's `timeout`. Where the two clocks cannot both be right, Lambda's counts: it is the one that
    /// SQS's times agree with, and no invocation takes longer than its timeout.
    #[must_use]
    pub fn start(now: SystemTime, lambda_deadline: SystemTime, timeout: Duration) -> Self {
        let instant = Instant::now();
        let left = lambda_deadline.duration_since(now).unwrap_or_default();
        let skewed = left > timeout + TOLERANCE || (left.is_zero() && !timeout.is_zero());
        let wall = match skewed {
            true => lambda_deadline.checked_sub(timeout).unwrap_or(now),
            false => now,
        };
        let whole = if skewed { timeout } else { left.min(timeout) };
        let last = LAST.min(whole * 3 / 8);
        Self {
            wall,
            skewed,
            instant,
            deadline: instant + whole - last,
            cutoff: instant + whole - last / RUNNING,
            settle_deadline: instant + whole - REPORT.min(whole / 8),
        }
    }

    /// Whether this machine's clock differs from Lambda's by more than an invocation can account for.
    #[must_use]
    pub fn is_skewed(&self) -> bool {
        self.skewed
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
    pub fn settle_deadline(&self) -> Instant {
        self.settle_deadline
    }

    /// The deadline: no post begins after it. Posts and table calls that have begun go on until the cutoff.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The deadline, or the time at which a message expires, where that is earlier.
    #[must_use]
    pub fn deadline_or_expiry(&self, expires_at: Option<SystemTime>) -> Instant {
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

    /// How long a call may take that begins now: 5 s, and not past the cutoff.
    #[must_use]
    pub fn call_timeout(&self) -> Duration {
        self.cutoff.saturating_duration_since(Instant::now()).min(CALL)
    }

    /// Whether the cutoff has come.
    #[must_use]
    pub fn is_past_cutoff(&self) -> bool {
        self.call_timeout().is_zero()
    }

    /// Until when messages for the parts of an audience are waited for that are sent now. What they leave of the time
    /// is for settling.
    #[must_use]
    pub fn fan_out_deadline(&self) -> Instant {
        (Instant::now() + CALL).min(self.cutoff)
    }

    /// How much of the invocation's time has passed.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.instant.elapsed()
    }

    /// Why a call was given up that ends now.
    #[must_use]
    pub fn timeout_cause(&self, what: &str) -> Cause {
        match self.is_past_cutoff() {
            true => Cause::Deadline,
            false => Cause::Table(format!("{what}: no answer within {} s", CALL.as_secs())),
        }
    }

    /// What is left for posts.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: SystemTime = SystemTime::UNIX_EPOCH;

    /// An invocation of so many milliseconds.
    fn of(millis: u64) -> Time {
        let whole = Duration::from_millis(millis);
        Time::start(EPOCH, EPOCH + whole, whole)
    }

    #[tokio::test(start_paused = true)]
    async fn last_3_s_begin_no_post() {
        let millis = |time: Duration| time.as_millis();
        for (whole, begins, runs, settles) in
            [(30_000, 27_000, 28_500, 29_700), (8_000, 5_000, 6_500, 7_700), (800, 500, 650, 700)]
        {
            let time = of(whole);
            let ends = [time.deadline, time.cutoff, time.settle_deadline].map(|at| millis(at - time.instant));
            assert_eq!(ends, [begins, runs, settles]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_run_until_the_cutoff() {
        let time = of(30_000);
        tokio::time::advance(Duration::from_millis(27_100)).await;
        assert_eq!((time.remaining(), time.call_timeout()), (Duration::ZERO, Duration::from_millis(1400)));
        assert_eq!(time.timeout_cause("Query"), Cause::Table("Query: no answer within 5 s".to_owned()));
        tokio::time::advance(Duration::from_millis(1400)).await;
        assert_eq!((time.is_past_cutoff(), time.timeout_cause("Query")), (true, Cause::Deadline));
    }

    #[tokio::test(start_paused = true)]
    async fn skewed_clock_is_clamped_to_the_timeout() {
        let (now, timeout) = (EPOCH + Duration::from_secs(3600), Duration::from_secs(30));
        let of = |deadline: SystemTime| Time::start(now, deadline, timeout);
        let whole = Duration::from_secs(27);
        assert_eq!((of(now + timeout).remaining(), of(now + timeout).is_skewed()), (whole, false));
        for skew in [2, 600].map(Duration::from_secs) {
            for lambda in [now + skew, now - timeout - skew] {
                let time = of(lambda + timeout);
                assert_eq!((time.remaining(), time.is_skewed()), (whole, true));
                assert_eq!(time.now(), lambda, "ages and expiries go by Lambda's clock");
            }
        }
        let less = of(now + Duration::from_secs(8));
        assert_eq!((less.remaining(), less.now(), less.is_skewed()), (Duration::from_secs(5), now, false));
    }

    #[tokio::test(start_paused = true)]
    async fn the_wall_clock_goes_with_tokios() {
        let time = of(8_000);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(time.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(5));
        assert_eq!((time.started(), time.remaining()), (SystemTime::UNIX_EPOCH, Duration::ZERO));
    }
}
