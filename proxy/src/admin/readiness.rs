//! Ready is when every named part is up, and stops being so when draining begins.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

/// The parts that are still missing.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<watch::Sender<BTreeSet<&'static str>>>);

/// One missing part; it is up when this is dropped.
#[derive(Debug)]
pub struct Task {
    readiness: Readiness,
    name: &'static str,
}

impl Readiness {
    /// Announces a part that must be up.
    pub fn task(&self, name: &'static str) -> Task {
        self.0.send_modify(|missing| {
            missing.insert(name);
        });
        Task { readiness: self.clone(), name }
    }

    /// What is missing; empty when ready.
    pub fn missing(&self) -> Vec<&'static str> {
        self.0.borrow().iter().copied().collect()
    }

    /// Waits until nothing is missing but `other`.
    pub async fn all_but(&self, other: &'static str) {
        let is_up = |missing: &BTreeSet<_>| missing.iter().all(|&name| name == other);
        // The sender is ours.
        let _ = self.0.subscribe().wait_for(is_up).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.readiness.0.send_modify(|missing| {
            missing.remove(self.name);
        });
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
