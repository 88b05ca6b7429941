//! Which proxies are asked when to replace their program, and what ends that. Pure: what is seen and the time go in, who is
//! to be asked comes out.
//!
//! One [`Trial`] for each program, since each architecture has its own. It begins when this control plane does, and knows
//! of the proxies connected to it alone.
//!
//! Invariants:
//! - Only a proxy that says it can be replaced, of the program's architecture, of no newer version and not of its digest,
//!   is asked; and each once for as long as the mesh wants it. One that had the program and has another again is left alone:
//!   somebody wanted that, or the supervisor beside it did.
//! - Until one proxy has come back with the program and kept it for [`WATCH`], one is under way. From then on a tenth of
//!   those there are to replace, in each namespace one until one has kept it there.
//! - What goes wrong once ends it: a refusal, a proxy that does not come back, one that soon has another program again. Those
//!   that are under way are let finish. A pod that goes meanwhile is no failure.

#[cfg(test)]
mod tests;
mod trial;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Facts;
use crate::document::ProxyUpgrade;
pub use trial::{Counts, News, Stage, Stopped, Trial};

/// From the start of a control plane to its first question: by then its proxies have found it, and it knows how many a tenth
/// of them are.
pub const SETTLING: Duration = Duration::from_secs(5);
/// A proxy that answered, or fell silent, comes back with the program within this.
pub const RETURN: Duration = Duration::from_mins(2);
/// How long the first proxy keeps the program before others get it.
pub const WATCH: Duration = Duration::from_secs(10);
/// A program that a proxy loses within this after it came back with it has failed: the supervisor goes back to the old one
/// for a minute, and starts that first.
pub const PROBATION: Duration = RETURN;
/// How long a proxy that is away is remembered.
const MEMORY: Duration = Duration::from_mins(10);
/// Of a mesh however large.
const MOST_AT_ONCE: usize = 50;
/// The share of proxies that are replaced at once.
const SHARE: usize = 10;

/// A connected proxy, as it introduced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// `NAMESPACE/WORKLOAD`.
    pub workload: Arc<str>,
    pub version: String,
    pub digest: String,
    pub architecture: String,
    pub replaceable: bool,
}

/// What became of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The new program serves.
    Upgraded,
    /// Nothing was done, for this reason.
    Refused(String),
    /// No answer came: the proxy's stream ended, or it took too long.
    Silent,
}

/// The rollout of all programs of a control plane.
#[derive(Debug)]
pub struct Rollout {
    policy: ProxyUpgrade,
    trials: Vec<Trial>,
    begins: Instant,
}

/// A proxy to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub workload: Arc<str>,
    pub program: Facts,
}

impl Rollout {
    /// Nothing is asked before the policy says so.
    pub fn new<'f>(programs: impl Iterator<Item = &'f Facts>, now: Instant) -> Self {
        let trials = programs.map(|facts| Trial::new(facts.clone())).collect();
        Self { policy: ProxyUpgrade::default(), trials, begins: now + SETTLING }
    }

    /// What the mesh says. Whoever takes the rollout back and asks for it again has it begin anew, with those it had given up.
    pub fn follow(&mut self, policy: ProxyUpgrade) {
        if self.policy == ProxyUpgrade::Live && policy != self.policy {
            self.trials.iter_mut().for_each(Trial::begin_anew);
        }
        self.policy = policy;
    }

    pub fn policy(&self) -> ProxyUpgrade {
        self.policy
    }

    /// All proxies that are connected now; `stays` tells whether a workload is there, and not about to end.
    pub fn observe(&mut self, running: &[Running], stays: impl Fn(&str) -> bool, now: Instant) {
        for trial in &mut self.trials {
            trial.observe(running, &stays, now);
        }
    }

    /// What became of a question about the program of that digest.
    pub fn answered(&mut self, workload: &str, digest: &str, outcome: Outcome, now: Instant) {
        if let Some(trial) = self.trials.iter_mut().find(|trial| trial.program.digest == digest) {
            trial.answered(workload, outcome, now);
        }
    }

    /// Who is to be asked now; they count as asked from here on.
    pub fn ask(&mut self, now: Instant) -> Vec<Ask> {
        if self.policy != ProxyUpgrade::Live || now < self.begins {
            return Vec::new();
        }
        let ask = |trial: &mut Trial| -> Vec<Ask> {
            let workloads = trial.ask(now).into_iter();
            workloads.map(|workload| Ask { workload, program: trial.program.clone() }).collect()
        };
        self.trials.iter_mut().flat_map(ask).collect()
    }

    /// When time alone changes something next.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let begins = (now < self.begins).then_some(self.begins);
        self.trials.iter().filter_map(Trial::next).chain(begins).min()
    }

    /// What happened since this was asked last.
    pub fn take_news(&mut self) -> Vec<News> {
        self.trials.iter_mut().flat_map(|trial| std::mem::take(&mut trial.news)).collect()
    }

    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }
}
