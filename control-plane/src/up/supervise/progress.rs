//! How far a pod is, and when something is due.

use std::time::{Duration, Instant};

use super::super::plane::WorkloadState;

const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// How far the two programs of a pod are.
pub(super) struct Progress {
    pub(super) proxy: Proxy,
    pub(super) proxy_failures: u32,
    pub(super) application: Application,
    pub(super) application_failures: u32,
    pub(super) published: Option<WorkloadState>,
    /// The control plane could not be told; try again then.
    pub(super) publish_again: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Proxy {
    Down { again: Instant },
    Starting,
    Ready,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Application {
    /// Not before the proxy is ready: it would speak past it.
    Waiting,
    Down {
        again: Instant,
    },
    /// Started, its port not open yet.
    Starting {
        since: Instant,
    },
    Running {
        since: Instant,
    },
}

impl Progress {
    /// At the start: nothing runs, and the workload's document says so.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            proxy: Proxy::Down { again: now },
            proxy_failures: 0,
            application: Application::Waiting,
            application_failures: 0,
            published: Some(WorkloadState::Unhealthy),
            publish_again: None,
        }
    }

    /// What others should be told.
    pub(super) fn state(&self) -> WorkloadState {
        match (self.proxy, self.application) {
            (Proxy::Ready, Application::Running { .. }) => WorkloadState::Ready,
            _ => WorkloadState::Unhealthy,
        }
    }

    /// When something is due without an event.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let proxy = if let Proxy::Down { again } = self.proxy { Some(again) } else { None };
        let application = if let Application::Down { again } = self.application { Some(again) } else { None };
        proxy.into_iter().chain(application).chain(self.publish_again).min()
    }
}

/// 1, 2, 4 .. 30 seconds.
pub(super) fn backoff(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.saturating_sub(1).min(5)).min(LONGEST_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_doubles_up_to_half_a_minute() {
        let seconds: Vec<u64> = (0..8).map(|failures| backoff(failures).as_secs()).collect();
        assert_eq!(seconds, [1, 1, 2, 4, 8, 16, 30, 30]);
    }
}
