//! The world's clock, which is tokio's.

use std::time::{Duration, SystemTime};

use streamer_tests::event::epoch;
use tokio::time::{Instant, sleep_until};

/// The world's clock, in milliseconds since its beginning: tokio's timers know no less.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Starts the clock.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Returns the time.
    #[must_use]
    pub fn millis(self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }

    /// Returns the time as the wall clock shows it.
    #[must_use]
    pub fn wall(self) -> SystemTime {
        epoch() + self.0.elapsed()
    }

    /// Waits until a time, rounded to the next whole millisecond up or down, so that many waits have no bias.
    pub async fn wait_until(self, millis: f64) {
        sleep_until(self.0 + Duration::from_millis(millis.round() as u64)).await;
    }
}
