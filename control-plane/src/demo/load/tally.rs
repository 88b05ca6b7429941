//! Latencies in logarithmic buckets: constant size, every quantile within 1%.

use std::time::Duration;

/// Each power of two of microseconds has 2^7 buckets: 1/128 relative width.
const BITS: u32 = 7;
const STEPS: u64 = 1 << BITS;
/// Enough for every microsecond count a `u64` can hold.
const BUCKETS: usize = ((64 - BITS as usize) + 1) << BITS;

/// A histogram of durations.
#[derive(Debug, Clone)]
pub struct Tally {
    buckets: Vec<u64>,
    count: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0 }
    }
}

impl Tally {
    /// Counts `times` occurrences of `value`.
    pub fn add(&mut self, value: Duration, times: u64) {
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(micros)] += times;
        self.count += times;
    }

    /// The smallest duration that at least the fraction `q` of the counted ones do not exceed, rounded up to its
    /// bucket's end; zero when nothing was counted.
    pub fn quantile(&self, q: f64) -> Duration {
        let rank = ((self.count as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(last_of(index));
            }
        }
        Duration::ZERO
    }
}

fn bucket(micros: u64) -> usize {
    if micros < STEPS {
        return micros as usize;
    }
    let shift = micros.ilog2() - BITS;
    (u64::from(shift + 1) * STEPS + ((micros >> shift) - STEPS)) as usize
}

/// The largest value of a bucket.
fn last_of(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return index;
    }
    let shift = index / STEPS - 1;
    let first = (STEPS + index % STEPS) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_they_say_and_are_narrow() {
        let mut rng = fastrand::Rng::with_seed(7);
        let edges = [0, 1, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS, u64::MAX / 2, u64::MAX];
        for value in edges.into_iter().chain((0..10_000).map(|_| rng.u64(..) >> rng.u32(0..64))) {
            let index = bucket(value);
            assert!(index < BUCKETS, "{value}");
            let last = last_of(index);
            assert!(last >= value, "{value} is above its bucket's end {last}");
            assert!((last - value) as f64 <= value as f64 / 128.0, "{value} and {last} share a bucket");
            assert!(last == u64::MAX || bucket(last + 1) == index + 1, "{value}: the next bucket is not next");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_counted_values() {
        let mut tally = Tally::default();
        assert_eq!(tally.quantile(0.5), Duration::ZERO);
        for micros in 1..=100 {
            tally.add(Duration::from_micros(micros), 1);
        }
        assert_eq!(tally.quantile(0.5), Duration::from_micros(50));
        assert_eq!(tally.quantile(0.99), Duration::from_micros(99));
        assert_eq!(tally.quantile(1.0), Duration::from_micros(100));
        assert_eq!(tally.quantile(0.0), Duration::from_micros(1));
        tally.add(Duration::from_secs(1), 900);
        let median = tally.quantile(0.5).as_secs_f64();
        assert!((1.0..1.01).contains(&median), "{median}");
    }
}
