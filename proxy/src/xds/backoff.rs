//! How long to wait before the next attempt to reach the control plane: exponential with full jitter.
//!
//! Full jitter (a uniform draw between nothing and the limit) spreads a fleet that lost its control plane at one
//! moment over the whole interval; equal steps would bring it back in waves.

use std::time::Duration;

/// Limit of the first wait. 100 ms: a restarted control plane is found again at once.
pub const FIRST: Duration = Duration::from_millis(100);
/// Limit of every later wait. 10 s: longest a proxy may stay without news after the control plane is back.
pub const LONGEST: Duration = Duration::from_secs(10);

/// Waits between attempts; pure but for the chance it is given.
#[derive(Debug)]
pub struct Backoff {
    chance: fastrand::Rng,
    limit: Duration,
}

impl Backoff {
    pub fn new(chance: fastrand::Rng) -> Self {
        Self { chance, limit: FIRST }
    }

    /// The wait before the next attempt; the limit doubles up to [`LONGEST`].
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.limit.mul_f64(self.chance.f64());
        self.limit = (self.limit * 2).min(LONGEST);
        wait
    }

    /// The last attempt worked: the next wait is a first one.
    pub fn reset(&mut self) {
        self.limit = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_below_a_limit_that_doubles_to_the_longest() {
        for seed in 0..100 {
            let mut backoff = Backoff::new(fastrand::Rng::with_seed(seed));
            for limit in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000] {
                let wait = backoff.next_wait();
                assert!(wait <= Duration::from_millis(limit), "seed {seed}: {wait:?} exceeds {limit} ms");
            }
        }
    }

    #[test]
    fn waits_of_many_proxies_spread_over_the_whole_interval() {
        let mut tenths = [0; 10];
        for seed in 0..1000 {
            let wait = Backoff::new(fastrand::Rng::with_seed(seed)).next_wait();
            tenths[(wait.as_micros() / 10_000).min(9) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| *count > 50), "{tenths:?}");
    }

    #[test]
    fn after_success_the_next_wait_is_a_first_one() {
        let mut backoff = Backoff::new(fastrand::Rng::with_seed(7));
        for _ in 0..20 {
            backoff.next_wait();
        }
        backoff.reset();
        assert!(backoff.next_wait() <= FIRST);
    }
}
