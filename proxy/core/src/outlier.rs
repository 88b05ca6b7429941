//! Ejection after consecutive failures, and the guarded return.
//!
//! ```text
//!            N failures in a row                 time is over, a request claims the probe
//!  Admitted ---------------------> Ejected until T ------------------------------> Probing
//!     ^                              ^      ^                                      |  |  |
//!     |                              |      +---- nothing told: T is now ----------+  |  |
//!     |                              +----------- probe failed: twice as long --------+  |
//!     +------------------------------------------ probe succeeded -----------------------+
//! ```
//!
//! The whole state of an endpoint is one atomic word, and each arrow is one compare-and-swap: of several workers that
//! see the same reason one wins, and a probe that was overtaken changes nothing. Requests that were under way when
//! the endpoint was ejected do not count, whatever their outcome.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;

use crate::model::OutlierPolicy;

/// How long a probe may stay silent before another request may try. 10 s: one request that is slow by nature
/// (long poll) must not keep a recovered endpoint out.
pub(crate) const PROBE_PATIENCE: Duration = Duration::from_secs(10);

/// A year: keeps sums and products of times in range, whatever a policy says.
const FOR_EVER: Duration = Duration::from_hours(365 * 24);

/// An endpoint was taken out: for logs and counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// How long; a guarded return follows.
    pub duration: Duration,
    /// Whether the endpoint was out already and failed its guarded return.
    pub again: bool,
}

/// Where an endpoint stands; times are milliseconds since the endpoint's birth.
#[derive(Debug, Default)]
pub(crate) struct Standing(AtomicU64);

/// The one request allowed through to an endpoint that returns. Holds the exact word its claim wrote.
#[derive(Debug)]
pub(crate) struct Probe(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// In use, since the time.
    Admitted,
    /// Out, until the time.
    Ejected,
    /// One request is trying; another may from the time on.
    Probing,
}

#[derive(Debug, Clone, Copy)]
struct State {
    phase: Phase,
    /// Ejections since the endpoint was last quiet for long.
    ejections: u8,
    at_ms: u64,
}

const AT_BITS: u32 = 54;
const EJECTION_BITS: u32 = 8;

impl State {
    fn unpack(word: u64) -> Self {
        let phase = match word >> (AT_BITS + EJECTION_BITS) {
            0 => Phase::Admitted,
            1 => Phase::Ejected,
            _ => Phase::Probing,
        };
        Self { phase, ejections: (word >> AT_BITS) as u8, at_ms: word & ((1 << AT_BITS) - 1) }
    }

    fn pack(self) -> u64 {
        let phase = match self.phase {
            Phase::Admitted => 0,
            Phase::Ejected => 1,
            Phase::Probing => 2,
        };
        phase << (AT_BITS + EJECTION_BITS) | u64::from(self.ejections) << AT_BITS | self.at_ms & ((1 << AT_BITS) - 1)
    }
}

impl Standing {
    pub(crate) fn is_admitted(&self) -> bool {
        State::unpack(self.0.load(Ordering::Acquire)).phase == Phase::Admitted
    }

    /// Takes an admitted endpoint out; `None` when it is out already.
    pub(crate) fn eject(&self, now_ms: u64, policy: &OutlierPolicy, rng: &mut Rng) -> Option<Duration> {
        let word = self.0.load(Ordering::Acquire);
        let state = State::unpack(word);
        if state.phase != Phase::Admitted {
            return None;
        }
        let quiet_ms = now_ms.saturating_sub(state.at_ms);
        let ejections = if quiet_ms >= millis(policy.max_ejection) { 0 } else { state.ejections };
        self.eject_from(word, ejections, now_ms, policy, rng)
    }

    /// Claims the guarded return when the ejection is over and nobody else is trying.
    pub(crate) fn claim_probe(&self, now_ms: u64) -> Option<Probe> {
        let word = self.0.load(Ordering::Acquire);
        let state = State::unpack(word);
        if state.phase == Phase::Admitted || now_ms < state.at_ms {
            return None;
        }
        let claimed = State { phase: Phase::Probing, at_ms: now_ms + millis(PROBE_PATIENCE), ..state }.pack();
        self.replace(word, claimed).then_some(Probe(claimed))
    }

    /// The probe succeeded; `false` when it was overtaken.
    pub(crate) fn readmit(&self, probe: &Probe, now_ms: u64) -> bool {
        let state = State { phase: Phase::Admitted, at_ms: now_ms, ..State::unpack(probe.0) };
        self.replace(probe.0, state.pack())
    }

    /// The probe failed: out again, for longer. `None` when it was overtaken.
    pub(crate) fn eject_again(
        &self,
        probe: &Probe,
        now_ms: u64,
        policy: &OutlierPolicy,
        rng: &mut Rng,
    ) -> Option<Duration> {
        self.eject_from(probe.0, State::unpack(probe.0).ejections, now_ms, policy, rng)
    }

    /// The probe ended without an outcome: the next request may try at once.
    pub(crate) fn release(&self, probe: &Probe) {
        let state = State { phase: Phase::Ejected, at_ms: 0, ..State::unpack(probe.0) };
        self.replace(probe.0, state.pack());
    }

    fn eject_from(
        &self,
        word: u64,
        ejections: u8,
        now_ms: u64,
        policy: &OutlierPolicy,
        rng: &mut Rng,
    ) -> Option<Duration> {
        let duration = ejection_time(policy, ejections, rng);
        let until = now_ms + millis(duration).max(1);
        let state = State { phase: Phase::Ejected, ejections: ejections.saturating_add(1), at_ms: until };
        self.replace(word, state.pack()).then_some(duration)
    }

    fn replace(&self, from: u64, to: u64) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// Doubles with each ejection before; +-50 % so that many proxies do not probe in step; never above the longest.
fn ejection_time(policy: &OutlierPolicy, ejections_before: u8, rng: &mut Rng) -> Duration {
    let doubled = policy.base_ejection.saturating_mul(1_u32.checked_shl(ejections_before.into()).unwrap_or(u32::MAX));
    let longest = policy.max_ejection.min(FOR_EVER);
    doubled.min(longest).mul_f64(0.5 + rng.f64()).min(longest)
}

/// Whether one more of `ready` endpoints may go when `ejected` of them are out. The share is computed after the
/// ejection; one of several may always go (unless the share is 0), the only one never.
pub(crate) fn may_eject(ready: usize, ejected: usize, policy: &OutlierPolicy) -> bool {
    let after = ejected + 1;
    let percent = policy.max_ejected_percent as usize;
    ready >= 2 && percent > 0 && (after == 1 || after.saturating_mul(100) <= ready.saturating_mul(percent))
}

fn millis(duration: Duration) -> u64 {
    duration.min(FOR_EVER).as_millis() as u64
}

#[cfg(test)]
mod tests;
