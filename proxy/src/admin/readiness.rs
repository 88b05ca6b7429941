//! Ready is when every named part is up, and stops being so when draining begins.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The parts that are still missing.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeSet<&'static str>>>);

/// One missing part; it is up when this is dropped.
#[derive(Debug)]
pub struct Task {
    readiness: Readiness,
    name: &'static str,
}

impl Readiness {
    /// Announces a part that must be up.
    pub fn task(&self, name: &'static str) -> Task {
        self.with(|missing| missing.insert(name));
        Task { readiness: self.clone(), name }
    }

    /// What is missing; empty when ready.
    pub fn missing(&self) -> Vec<&'static str> {
        self.with(|missing| missing.iter().copied().collect())
    }

    fn with<T>(&self, change: impl FnOnce(&mut BTreeSet<&'static str>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.readiness.with(|missing| missing.remove(self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_when_every_part_is_up() {
        let readiness = Readiness::default();
        let (listeners, certificate) = (readiness.task("listeners"), readiness.task("certificate"));
        drop(listeners);
        assert_eq!(readiness.missing(), ["certificate"]);
        drop(certificate);
        assert!(readiness.missing().is_empty());
    }
}
