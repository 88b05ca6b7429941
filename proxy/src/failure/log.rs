//! Failures in the log: each code once a second, with how many went untold. A service that is down fails every request,
//! and a log that repeats it as often costs more than the requests did.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use super::{Failed, Failure, Level};

/// Between two lines about one code.
const QUIET: Duration = Duration::from_secs(1);

/// What one worker has told.
#[derive(Debug, Default)]
pub struct FailureLog(Quiet<Failure>);

/// Lines of a few kinds, each once in a while.
#[derive(Debug)]
pub struct Quiet<K>(RefCell<HashMap<K, Told>>);

impl<K> Default for Quiet<K> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

#[derive(Debug, Clone, Copy)]
struct Told {
    at: Instant,
    untold: u64,
}

impl FailureLog {
    /// Logs a failure at its level, unless its code was told a moment ago.
    pub fn note(&self, failed: &Failed, destination: &str, now: Instant) {
        let Some(untold) = self.0.turn(failed.failure, now) else { return };
        let facts = failed.failure.facts();
        let (code, text, detail) = (facts.code, facts.text, &*failed.detail);
        match facts.level {
            Level::Debug => tracing::debug!(code, destination, detail, untold, "{text}"),
            Level::Info => tracing::info!(code, destination, detail, untold, "{text}"),
            Level::Warn => tracing::warn!(code, destination, detail, untold, "{text}"),
        }
    }
}

impl<K: Eq + Hash> Quiet<K> {
    /// How many of its kind went untold since the last line; `None` when this one does too.
    pub fn turn(&self, kind: K, now: Instant) -> Option<u64> {
        let mut all = self.0.borrow_mut();
        match all.get_mut(&kind) {
            Some(told) if now.saturating_duration_since(told.at) < QUIET => {
                told.untold += 1;
                None
            }
            told => {
                let untold = told.map_or(0, |told| told.untold);
                all.insert(kind, Told { at: now, untold: 0 });
                Some(untold)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_once_a_second_with_how_many_were_not() {
        let (log, now) = (Quiet::default(), crate::clock::now());
        assert_eq!(log.turn(Failure::NoRoute, now), Some(0));
        assert_eq!(log.turn(Failure::NoRoute, now + QUIET / 2), None);
        assert_eq!(log.turn(Failure::NoCluster, now), Some(0), "another code waits for this one");
        assert_eq!(log.turn(Failure::NoRoute, now + QUIET / 2), None);
        assert_eq!(log.turn(Failure::NoRoute, now + QUIET), Some(2));
        assert_eq!(log.turn(Failure::NoRoute, now + 3 * QUIET), Some(0));
    }
}
