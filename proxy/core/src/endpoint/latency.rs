//! Averages that fade with time: a peak EWMA of latency and a share of failures, each one atomic word.
//!
//! A word holds a value (`f32`) and the millisecond it was written, so both change together without a lock. Readers
//! work out the decay and never write. Times wrap after 49 days: a value untouched for exactly that long looks fresh
//! for a moment, which one answer corrects.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::INITIAL_RTT;

/// Time constant of the decay. 10 s, as in linkerd and Finagle: a peak is remembered for some tens of seconds.
const DECAY_MS: f32 = 10_000.0;

/// Least weight of one answer in the share of failures: at high rates the share covers the last twenty or so
/// answers, so that a sudden failure shows within a handful of requests.
const LEAST_WEIGHT: f32 = 0.05;

/// A smaller share of failures is none, and successes need not write it any more.
const NO_FAILURES: f32 = 0.001;

/// A time this little in the "future" is a worker that read its clock a moment earlier, not a wrap.
const CLOCK_DISORDER_MS: u32 = 60_000;

/// Peak EWMA: rises at once to a slower answer, falls with the time constant; nanoseconds, 0 is "never measured".
#[derive(Debug, Default)]
pub(super) struct PeakEwma(Faded);

impl PeakEwma {
    /// The average and how much of it still counts.
    pub(super) fn read(&self, now_ms: u64) -> (f32, f32) {
        let (value, freshness) = self.0.read(now_ms);
        if value > 0.0 { (value, freshness) } else { (0.0, 0.0) }
    }

    pub(super) fn value(&self) -> f32 {
        self.0.read(0).0
    }

    pub(super) fn observe(&self, latency: Duration, now_ms: u64) {
        let sample = nanos(latency);
        self.0.update(now_ms, |value, freshness| {
            if sample >= value {
                Some(sample)
            } else if freshness < 1.0 {
                Some(value * freshness + sample * (1.0 - freshness))
            } else {
                // Written this very millisecond: a faster answer weighs nothing yet, and not writing keeps the
                // cache line shared under load.
                None
            }
        });
    }

    /// An answer that was at least this slow: may raise the average, never lower it.
    pub(super) fn observe_at_least(&self, latency: Duration, now_ms: u64) {
        let sample = nanos(latency);
        self.0.update(now_ms, |value, _| {
            let known = if value > 0.0 { value } else { nanos(INITIAL_RTT) };
            (sample > known).then_some(sample)
        });
    }

    /// An answer of one that was not asked for a while because of its average: a quicker one takes the geometric mean's place,
    /// so that three of them make good a hundredfold peak. Each alone proves little, and a slow one restores the peak.
    pub(super) fn observe_again(&self, latency: Duration, now_ms: u64) {
        let sample = nanos(latency);
        self.0.update(now_ms, |value, _| Some(if sample >= value { sample } else { (value * sample).sqrt() }));
    }

    pub(super) fn restart(&self, latency: Duration, now_ms: u64) {
        self.0.update(now_ms, |_, _| Some(nanos(latency)));
    }
}

/// Recent share of failures, 0 to 1; fades towards none.
#[derive(Debug, Default)]
pub(super) struct FailureShare(Faded);

impl FailureShare {
    pub(super) fn read(&self, now_ms: u64) -> f32 {
        let (value, freshness) = self.0.read(now_ms);
        value * freshness
    }

    pub(super) fn observe(&self, failed: bool, now_ms: u64) {
        self.0.update(now_ms, |value, freshness| {
            if value <= 0.0 && !failed {
                return None;
            }
            let weight = (1.0 - freshness).max(LEAST_WEIGHT);
            let share = value * (1.0 - weight) + if failed { weight } else { 0.0 };
            Some(if share < NO_FAILURES { 0.0 } else { share })
        });
    }

    pub(super) fn restart(&self) {
        self.0.0.store(0, Relaxed);
    }
}

/// A value and the millisecond it was written.
#[derive(Debug, Default)]
struct Faded(AtomicU64);

impl Faded {
    /// The value as written and how much of it still counts (`exp(-age / DECAY_MS)`).
    fn read(&self, now_ms: u64) -> (f32, f32) {
        let (value, written) = unpack(self.0.load(Relaxed));
        (value, freshness(written, now_ms as u32))
    }

    /// Replaces the value by what `next` makes of value and freshness; `None` leaves it untouched.
    fn update(&self, now_ms: u64, next: impl Fn(f32, f32) -> Option<f32>) {
        let now = now_ms as u32;
        // `Err` is "left untouched": nothing to do.
        let _ = self.0.fetch_update(Relaxed, Relaxed, |word| {
            let (value, written) = unpack(word);
            next(value, freshness(written, now)).map(|value| pack(value, now))
        });
    }
}

fn freshness(written: u32, now: u32) -> f32 {
    let age = now.wrapping_sub(written);
    if age == 0 || age > u32::MAX - CLOCK_DISORDER_MS { 1.0 } else { faded(age as f32) }
}

/// How much of a value counts at this age.
pub(super) fn freshness_after(age: Duration) -> f32 {
    faded(age.as_millis() as f32)
}

fn faded(age_ms: f32) -> f32 {
    (-age_ms / DECAY_MS).exp()
}

/// At least one nanosecond: 0 means "never measured".
fn nanos(latency: Duration) -> f32 {
    (latency.as_nanos() as f32).max(1.0)
}

fn pack(value: f32, written: u32) -> u64 {
    u64::from(value.to_bits()) << 32 | u64::from(written)
}

fn unpack(word: u64) -> (f32, u32) {
    (f32::from_bits((word >> 32) as u32), word as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// The average in milliseconds as it counts now, had the endpoint no prior.
    fn value_ms(average: &PeakEwma) -> f32 {
        average.value() / 1e6
    }

    #[test]
    fn a_peak_counts_at_once_and_fades_over_ten_seconds() {
        let average = PeakEwma::default();
        average.observe(MS(10), 0);
        average.observe(MS(1000), 1);
        assert!((value_ms(&average) - 1000.0).abs() < 1.0, "{average:?}");
        for ms in 2..10_000 {
            average.observe(MS(10), ms);
        }
        // 10 + 990 / e
        assert!((value_ms(&average) - 374.0).abs() < 5.0, "{average:?}");
        for ms in 10_000..60_000 {
            average.observe(MS(10), ms);
        }
        assert!(value_ms(&average) < 13.0, "{average:?}");
    }

    #[test]
    fn the_decay_depends_on_time_not_on_how_often_one_measures() {
        let (often, seldom) = (PeakEwma::default(), PeakEwma::default());
        often.observe(MS(1000), 0);
        seldom.observe(MS(1000), 0);
        for ms in 1..=5000 {
            for _ in 0..3 {
                often.observe(MS(10), ms);
            }
        }
        seldom.observe(MS(10), 5000);
        assert!((value_ms(&often) - value_ms(&seldom)).abs() < 5.0, "{often:?} {seldom:?}");
    }

    #[test]
    fn reading_twice_equals_reading_once() {
        let average = PeakEwma::default();
        average.observe(MS(100), 0);
        let first = average.read(20_000);
        assert_eq!(average.read(20_000), first);
        assert_eq!(average.read(0), (1e8, 1.0), "a reader wrote");
    }

    #[test]
    fn a_failure_raises_the_latency_but_never_lowers_it() {
        let average = PeakEwma::default();
        average.observe_at_least(MS(1), 5);
        assert_eq!(average.read(5), (0.0, 0.0), "a fast failure made a newborn look fast");
        average.observe(MS(50), 10);
        average.observe_at_least(MS(1), 60_000);
        assert!((value_ms(&average) - 50.0).abs() < 0.1);
        average.observe_at_least(MS(5000), 60_001);
        assert!((value_ms(&average) - 5000.0).abs() < 1.0);
    }

    #[test]
    fn three_quick_answers_to_a_second_look_make_good_a_hundredfold_peak_and_a_slow_one_restores_it() {
        let average = PeakEwma::default();
        average.observe(MS(1000), 0);
        for (sample, expected) in [(10, 100.0), (10, 31.6), (10, 17.8), (500, 500.0)] {
            average.observe_again(MS(sample), 1);
            assert!((value_ms(&average) - expected).abs() < 0.1, "{average:?} after {sample} ms");
        }
    }

    #[test]
    fn clocks_slightly_out_of_order_do_not_fade_the_value() {
        let average = PeakEwma::default();
        average.observe(MS(100), 500);
        assert_eq!(average.read(499), (1e8, 1.0));
    }

    #[test]
    fn failures_show_within_a_few_requests_and_fade() {
        let share = FailureShare::default();
        for ms in 0..5 {
            share.observe(true, ms);
        }
        assert!((0.2..0.3).contains(&share.read(5)), "{share:?}");
        for ms in 5..105 {
            share.observe(true, ms);
        }
        assert!(share.read(105) > 0.98, "{share:?}");
        assert!((0.3..0.4).contains(&share.read(10_105)), "{share:?}");
        for ms in 105..405 {
            share.observe(false, ms);
        }
        assert!(share.read(405) <= 0.0, "{share:?}");
    }

    #[test]
    fn one_failure_per_hundred_is_a_share_of_about_one_percent() {
        let share = FailureShare::default();
        let mut sum = 0.0;
        for request in 0..10_000_u64 {
            share.observe(request % 100 == 0, request);
            sum += share.read(request);
        }
        assert!((0.007..0.013).contains(&(sum / 10_000.0)), "{}", sum / 10_000.0);
    }
}
