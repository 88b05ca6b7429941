//! How far the proxies of this control plane are with its programs, in words and numbers for people.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Facts;
use super::rollout::{Counts, Rollout, Running, Stage, Trial};
use crate::document::ProxyUpgrade;

/// The rollout, shared by the one who carries it out and those who ask how far it is.
#[derive(Debug, Clone)]
pub struct Rollouts(Arc<Mutex<Rollout>>);

/// One program, and how far its proxies are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub program: Facts,
    pub counts: Counts,
    /// Which proxy failed, and why.
    pub stopped: Option<String>,
}

impl Rollouts {
    pub fn new(rollout: Rollout) -> Self {
        Self(Arc::new(Mutex::new(rollout)))
    }

    pub fn lock(&self) -> MutexGuard<'_, Rollout> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of each program.
    pub fn standing(&self) -> Vec<Standing> {
        let of_program = |trial: &Trial| Standing {
            program: trial.program.clone(),
            counts: trial.counts(),
            stopped: trial.stopped.as_ref().map(|stopped| format!("{}: {}", stopped.workload, stopped.why)),
        };
        self.lock().trials().iter().map(of_program).collect()
    }

    /// A few words on each of these proxies, by workload.
    pub fn words(&self, running: &[Running]) -> BTreeMap<Arc<str>, String> {
        let rollout = self.lock();
        let of = |proxy: &Running| (Arc::clone(&proxy.workload), words(&rollout, proxy));
        running.iter().map(of).collect()
    }
}

fn words(rollout: &Rollout, proxy: &Running) -> String {
    let Some(trial) = rollout.trials().iter().find(|trial| trial.program.architecture == proxy.architecture) else {
        return "no program".to_owned();
    };
    if !trial.is_outdated(proxy) {
        // Of the same version by another build, it is what it should be as well.
        let is_ours = proxy.digest == trial.program.digest || trial.order(proxy) == Some(Ordering::Equal);
        return if is_ours { "current" } else { "newer" }.to_owned();
    }
    let is_live = rollout.policy() == ProxyUpgrade::Live;
    match trial.stage(&proxy.workload) {
        Some(Stage::Asked | Stage::Awaited(_)) => "being replaced".to_owned(),
        Some(Stage::Left(why)) => format!("outdated: {why}"),
        _ if !proxy.replaceable => "outdated, until it restarts: it cannot be replaced while it runs".to_owned(),
        _ if !is_live => "outdated, until it restarts".to_owned(),
        _ if trial.stopped.is_some() => "outdated: the rollout has stopped".to_owned(),
        _ => "outdated: waits for its turn".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::programs::Facts;
    use crate::programs::rollout::{Outcome, SETTLING};

    fn running(workload: &str, digest: &str) -> Running {
        Running {
            workload: workload.into(),
            version: "1.0.0".into(),
            digest: digest.into(),
            architecture: "x86_64".into(),
            replaceable: true,
        }
    }

    fn rollouts(policy: ProxyUpgrade) -> (Rollouts, Instant) {
        let program = Facts { architecture: "x86_64", version: "1.0.0".into(), digest: "new".into(), size: 1 };
        let now = weft_proxy::clock::now();
        let mut rollout = Rollout::new([program].iter(), now);
        rollout.follow(policy);
        (Rollouts::new(rollout), now + SETTLING)
    }

    #[test]
    fn each_proxy_is_told_how_far_it_is() {
        let all = [
            running("a/has-it", "new"),
            Running { version: "1.0.1".into(), ..running("a/newer", "other") },
            Running { architecture: "s390x".into(), ..running("a/foreign", "other") },
            Running { replaceable: false, version: "0.9.0".into(), ..running("a/fixed", "other") },
            Running { replaceable: false, ..running("a/alone", "other") },
            running("a/plain", "old"),
        ];
        let told = |rollouts: &Rollouts| {
            rollouts.lock().observe(&all, |_| true, weft_proxy::clock::now());
            let words = rollouts.words(&all);
            all.iter().map(|proxy| words[&proxy.workload].clone()).collect::<Vec<_>>()
        };
        let fixed = "outdated, until it restarts: it cannot be replaced while it runs";
        let (rollouts, _) = rollouts(ProxyUpgrade::OnRestart);
        assert_eq!(
            told(&rollouts),
            ["current", "newer", "no program", fixed, "current", "outdated, until it restarts"]
        );
        rollouts.lock().follow(ProxyUpgrade::Live);
        assert_eq!(told(&rollouts)[5], "outdated: waits for its turn");
    }

    #[test]
    fn what_ended_the_rollout_is_told_with_the_pod_and_the_reason() {
        let (rollouts, now) = rollouts(ProxyUpgrade::Live);
        let both = [running("a/one", "old"), running("a/two", "old")];
        rollouts.lock().observe(&both, |_| true, now);
        let asked = rollouts.lock().ask(now);
        assert_eq!(rollouts.words(&both)[&asked[0].workload], "being replaced");
        rollouts.lock().answered(&asked[0].workload, "new", Outcome::Refused("no room".into()), now);
        let standing = rollouts.standing();
        assert_eq!(standing[0].stopped, Some(format!("{}: it refused: no room", asked[0].workload)));
        let words = rollouts.words(&both);
        assert_eq!(words[&asked[0].workload], "outdated: refused: no room");
        let other = both.iter().find(|proxy| proxy.workload != asked[0].workload).unwrap();
        assert_eq!(words[&other.workload], "outdated: the rollout has stopped");
    }
}
