//! Quantiles of any number of latencies in a few kilobytes.

/// Latencies below this, in milliseconds, have a bucket each.
const EXACT: u64 = 1024;

/// Logarithm of the width of the other buckets: 1 %.
const WIDTH: f64 = 0.01;

/// Counts of latencies.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Histogram {
    buckets: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// Counts a latency.
    pub fn add(&mut self, millis: u64) {
        let bucket = match millis < EXACT {
            true => millis as usize,
            false => EXACT as usize + ((millis as f64 / EXACT as f64).ln() / WIDTH) as usize,
        };
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.total += 1;
    }

    /// Returns the number of latencies.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Returns the latency below or at which this share of them lies, in milliseconds and to 1 %. 0 without any.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return match bucket < EXACT as usize {
                    true => bucket as f64,
                    false => EXACT as f64 * ((bucket as f64 - EXACT as f64 + 0.5) * WIDTH).exp(),
                };
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact_to_a_percent() {
        let mut histogram = Histogram::default();
        (1..=100_000).for_each(|millis| histogram.add(millis));
        for share in [0.005, 0.5, 0.9, 0.99, 1.0] {
            let (found, expected) = (histogram.quantile(share), share * 100_000.0);
            assert!((found / expected - 1.0).abs() < 0.011, "{found} for {expected}");
        }
        assert_eq!(Histogram::default().quantile(0.5), 0.0);
    }
}
