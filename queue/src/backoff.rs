//! Delays between two attempts of a call.

use std::time::Duration;

/// Window before the second attempt.
const INITIAL_WINDOW: Duration = Duration::from_millis(50);

/// Largest window between two attempts.
const MAX_WINDOW: Duration = Duration::from_secs(1);

/// Returns the delay after so many attempts: up to 50 ms after the first, and up to twice as long after each further
/// one, up to 1 s. `random` is from 0 (inclusive) to 1 (exclusive).
pub(crate) fn delay(attempts: u32, random: f64) -> Duration {
    let window = INITIAL_WINDOW.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1)));
    window.min(MAX_WINDOW).mul_f64(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_doubles_up_to_1_s() {
        let delays = [1, 2, 5, 6, 40, u32::MAX].map(|attempts| delay(attempts, 1.0).as_millis());
        assert_eq!(delays, [50, 100, 800, 1000, 1000, 1000]);
        assert_eq!(delay(6, 0.5), Duration::from_millis(500));
    }
}
