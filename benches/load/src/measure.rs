//! A window of time: what the subject spent, what was done, and how long it took, as JSON on standard output.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use crate::spent::{Spent, Watched};

/// The only place that reads the clock.
#[allow(clippy::disallowed_methods)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Time is what this program waits for.
#[allow(clippy::disallowed_methods)]
pub(crate) fn wait(time: Duration) {
    std::thread::sleep(time);
}

/// How long to load, and how much of it counts.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Window {
    /// Seconds of load that count
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Seconds of load before that: pools and buffers fill
    #[arg(long, default_value_t = 0.3)]
    warm_up: f64,
    #[command(flatten)]
    watched: Watched,
}

impl Window {
    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up)
    }

    pub(crate) fn seconds(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Starts to count.
    pub(crate) fn open(&self) -> Result<Open<'_>> {
        Ok(Open { watched: &self.watched, before: self.watched.read()?, since: now() })
    }
}

/// A window that has begun.
#[derive(Debug)]
pub(crate) struct Open<'a> {
    watched: &'a Watched,
    before: Spent,
    since: Instant,
}

/// What was done within a window.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    /// Why the first of them failed.
    pub(crate) failure: Option<String>,
    pub(crate) bytes: u64,
    /// Handshakes that resumed a session.
    pub(crate) resumed: u64,
    pub(crate) latencies: Vec<Duration>,
}

impl Done {
    pub(crate) fn fail(&mut self, count: u64, why: &str) {
        self.failed += count;
        self.failure.get_or_insert_with(|| why.to_owned());
    }

    pub(crate) fn succeed(&mut self, latency: Duration) {
        self.requests += 1;
        self.latencies.push(latency);
    }
}

impl Open<'_> {
    /// Ends it and prints what came of it.
    pub(crate) fn close(self, mut done: Done) -> Result<()> {
        let (after, seconds) = (self.watched.read()?, self.since.elapsed().as_secs_f64());
        let spent = |of: fn(&Spent) -> f64| of(&after) - of(&self.before);
        done.latencies.sort_unstable();
        let percentile = |share: f64| {
            let last = done.latencies.len().saturating_sub(1);
            let found = done.latencies.get((last as f64 * share).round() as usize);
            found.copied().unwrap_or_default().as_secs_f64() * 1e6
        };
        let report = json!({
            "requests": done.requests,
            "failed": done.failed,
            "failure": done.failure,
            "bytes": done.bytes,
            "resumed": done.resumed,
            "seconds": seconds,
            "processor": spent(|spent| spent.processor),
            "user": spent(|spent| spent.user),
            "system": spent(|spent| spent.system),
            "anybody": spent(|spent| spent.anybody),
            "load": spent(|spent| spent.load),
            "p50_us": percentile(0.5),
            "p99_us": percentile(0.99),
            "max_us": percentile(1.0),
        });
        println!("{report}");
        Ok(())
    }
}
