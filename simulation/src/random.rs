//! Random latencies, from a seed.

use crate::model::QUEUE_LATENCY;

/// Random numbers of one part of the world.
#[derive(Debug)]
pub struct Random(fastrand::Rng);

impl Random {
    /// Creates a source that always gives the same numbers for the same seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// Returns a number from 0 (inclusive) to 1 (exclusive).
    pub fn unit(&mut self) -> f64 {
        self.0.f64()
    }

    /// Returns a number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0.u64(..limit.max(1))
    }

    /// Returns a lognormal number with this median, by the method of Box and Muller.
    pub fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        let (radius, angle) = ((-2.0 * (1.0 - self.unit()).ln()).sqrt(), std::f64::consts::TAU * self.unit());
        median * (sigma * radius * angle.cos()).exp()
    }

    /// Returns a latency of the queue in milliseconds.
    pub fn queue_latency(&mut self) -> f64 {
        let at = self.unit();
        let pairs = QUEUE_LATENCY.windows(2).find(|pair| at < pair[1].0);
        let Some([(low, from), (high, to)]) = pairs else { return QUEUE_LATENCY[4].1 };
        let part = (at - low) / (high - low);
        (from.ln() + part * (to / from).ln()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantiles(mut sample: impl FnMut() -> f64) -> [f64; 3] {
        let mut samples: Vec<_> = (0..100_000).map(|_| sample()).collect();
        samples.sort_by(f64::total_cmp);
        [0.5, 0.9, 0.99].map(|share| samples[(share * 100_000.0) as usize])
    }

    #[test]
    fn queue_latency_has_the_measured_quantiles() {
        let mut random = Random::of(1);
        let found = quantiles(|| random.queue_latency());
        for (found, expected) in found.into_iter().zip([16.0, 34.0, 105.0]) {
            assert!((found / expected - 1.0).abs() < 0.03, "{found} for {expected}");
        }
    }

    #[test]
    fn lognormal_has_its_median() {
        let mut random = Random::of(1);
        let [median, _, p99] = quantiles(|| random.lognormal(7.0, 0.75));
        assert!((median - 7.0).abs() < 0.1 && (38.0..43.0).contains(&p99), "{median}, {p99}");
    }
}
