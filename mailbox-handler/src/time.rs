//! The time of one invocation.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Time that is reserved at the end for the metrics and the response: an eighth of the invocation, and at most this.
const MAX_MARGIN: Duration = Duration::from_millis(500);

/// Maximum duration of one post.
const POST_TIMEOUT: Duration = Duration::from_secs(5);

/// The wall clock and the cutoff of one invocation. The wall clock is read once and then follows tokio's clock, so that
/// tests in virtual time move both.
#[derive(Debug, Clone, Copy)]
pub struct Time {
    /// The wall clock at the start.
    wall: SystemTime,
    /// The monotonic clock at the start.
    started: Instant,
    cutoff: Instant,
}

impl Time {
    /// Starts an invocation at `now` by this machine's clock, which Lambda ends at `lambda_deadline` by its own
    /// clock, at most `timeout` after its start. A deadline that has passed shows that the clocks differ; the timeout
    /// then counts.
    #[must_use]
    pub fn start(now: SystemTime, lambda_deadline: SystemTime, timeout: Duration) -> Self {
        let started = Instant::now();
        let total = match lambda_deadline.duration_since(now) {
            Ok(remaining) if !remaining.is_zero() => remaining.min(timeout),
            _ => timeout,
        };
        Self { wall: now, started, cutoff: started + total - MAX_MARGIN.min(total / 8) }
    }

    /// Returns the wall clock.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.wall + self.elapsed()
    }

    /// Returns how much of the invocation's time has passed.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns when all calls must have ended.
    #[must_use]
    pub fn cutoff(&self) -> Instant {
        self.cutoff
    }

    /// Returns how much time remains until the cutoff.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.cutoff.saturating_duration_since(Instant::now())
    }

    /// Returns how long a post that begins now may take: 5 s, and not past the cutoff.
    #[must_use]
    pub fn post_timeout(&self) -> Duration {
        self.remaining().min(POST_TIMEOUT)
    }
}

/// Returns a time in milliseconds since the epoch.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: SystemTime = SystemTime::UNIX_EPOCH;
    const TIMEOUT: Duration = Duration::from_secs(10);

    fn start(millis: u64) -> Time {
        Time::start(EPOCH, EPOCH + Duration::from_millis(millis), TIMEOUT)
    }

    #[tokio::test(start_paused = true)]
    async fn margin_is_left_before_the_deadline() {
        let remaining = [10_000, 800].map(|millis| start(millis).remaining().as_millis());
        assert_eq!(remaining, [9500, 700]);
    }

    #[tokio::test(start_paused = true)]
    async fn timeout_bounds_a_differing_clock() {
        let behind = Time::start(EPOCH, EPOCH + Duration::from_secs(3600), TIMEOUT);
        let ahead = Time::start(EPOCH + Duration::from_secs(3600), EPOCH, TIMEOUT);
        let remaining = [behind, ahead].map(|time| time.remaining().as_millis());
        assert_eq!(remaining, [9500, 9500]);
    }

    #[tokio::test(start_paused = true)]
    async fn posts_end_by_the_cutoff() {
        let time = start(10_000);
        assert_eq!(time.post_timeout(), POST_TIMEOUT);
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(time.post_timeout(), Duration::from_millis(3500));
        assert_eq!((time.now(), time.elapsed()), (EPOCH + Duration::from_secs(6), Duration::from_secs(6)));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(time.post_timeout(), Duration::ZERO);
    }
}
