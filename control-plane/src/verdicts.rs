//! What proxies saw the undeclared ports of their own workloads speak, and what that makes of service ports.
//!
//! A workload's word counts for its own ports alone: the proxy that takes its inbound connections reports, its
//! certificate says under which account it runs, and the documents say which workloads of that account have which
//! undeclared ports. What callers see of others is not asked for, so nobody can turn another's port. A service port is
//! what most of its workloads say; while none says anything it stays what it was.
//!
//! Kept in memory: a proxy reports anew on each stream of configuration, so that a control plane that starts again knows
//! within seconds. It holds one verdict for each undeclared port of a workload or a service, and nothing for others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use weft_core::detection::Verdict;
use weft_core::names::SpiffeId;

/// Reports are gathered for so long before they are put in force: a rollout brings many at once, and whoever reports
/// another thing each time costs one compilation a second. 1 s: a proxy waits for none of it.
const GATHERING: Duration = Duration::from_secs(1);

/// A workload with ports of undeclared protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Undeclared {
    pub service_account: String,
    pub ports: BTreeSet<u16>,
}

/// What a compilation changed; `None`: there is nothing to be said any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// What undeclared service ports are taken for, by `NAMESPACE/SERVICE:PORT`.
    pub services: BTreeMap<String, Option<Verdict>>,
    /// Workloads with ports of undeclared protocol, by `NAMESPACE/NAME`.
    pub undeclared: BTreeMap<String, Option<Undeclared>>,
}

/// What is known when documents are compiled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// By workload, `NAMESPACE/NAME`, and target port.
    reports: BTreeMap<String, BTreeMap<u16, Verdict>>,
    /// By service port, `NAMESPACE/SERVICE:PORT`, as it is in force.
    services: BTreeMap<String, Verdict>,
}

impl Seen {
    /// What a service port speaks that leads to these ports of workloads.
    pub fn verdict(&self, service_port: &str, targets: impl IntoIterator<Item = (String, u16)>) -> Option<Verdict> {
        let before = self.services.get(service_port).copied();
        let mut votes = [0_usize; Verdict::ALL.len()];
        if !self.reports.is_empty() {
            for (workload, target_port) in targets {
                if let Some(verdict) = self.reports.get(&workload).and_then(|ports| ports.get(&target_port)) {
                    votes[*verdict as usize] += 1;
                }
            }
        }
        // Of equals what is in force stays, else the first: bytes are never wrong.
        let weight = |verdict: &Verdict| (votes[*verdict as usize], before == Some(*verdict));
        let most = Verdict::ALL.into_iter().rev().max_by_key(weight);
        most.filter(|verdict| votes[*verdict as usize] > 0).or(before)
    }

    /// The workloads whose reports are not the same in both.
    pub fn differing<'s>(&'s self, other: &'s Self) -> impl Iterator<Item = &'s str> {
        let old = self.reports.iter().filter(|(name, ports)| other.reports.get(*name) != Some(ports));
        let new = other.reports.keys().filter(|name| !self.reports.contains_key(*name));
        old.map(|(name, _)| name.as_str()).chain(new.map(String::as_str))
    }
}

/// Why a report was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("workload `{workload}` runs under the service account `{expected}`, the certificate says `{found}`")]
pub struct NotItsOwn {
    pub workload: String,
    pub expected: String,
    pub found: String,
}

/// The reports, and what was made of them.
#[derive(Debug, Default)]
pub struct Verdicts {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    seen: Arc<Seen>,
    undeclared: BTreeMap<String, Undeclared>,
}

impl Verdicts {
    /// Takes what the proxy of a workload in the identity's namespace saw; what it reported before is forgotten.
    ///
    /// # Errors
    /// When the workload is not the identity's.
    pub fn report(
        &self,
        identity: &SpiffeId,
        workload: &str,
        ports: impl IntoIterator<Item = (u16, Verdict)>,
    ) -> Result<(), NotItsOwn> {
        let workload = format!("{}/{workload}", identity.namespace());
        let mut state = self.state();
        // A workload that has gone, or says now what its ports speak: its proxy has not heard of it yet.
        let Some(undeclared) = state.undeclared.get(&workload) else { return Ok(()) };
        if undeclared.service_account != identity.service_account() {
            let (expected, found) = (undeclared.service_account.clone(), identity.service_account().to_owned());
            return Err(NotItsOwn { workload, expected, found });
        }
        let ports: BTreeMap<u16, Verdict> =
            ports.into_iter().filter(|(port, _)| undeclared.ports.contains(port)).collect();
        if !ports.is_empty() && state.seen.reports.get(&workload) != Some(&ports) {
            Arc::make_mut(&mut state.seen).reports.insert(workload, ports);
            self.news.notify_one();
        }
        Ok(())
    }

    /// What to compile with.
    pub fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.state().seen)
    }

    /// What was compiled is in force. What was reported of workloads and ports that are not undeclared any more is
    /// forgotten.
    pub fn published(&self, change: Change) {
        let Change { services, undeclared } = change;
        if services.is_empty() && undeclared.is_empty() {
            return;
        }
        let mut state = self.state();
        let State { seen, undeclared: known } = &mut *state;
        let seen = Arc::make_mut(seen);
        for (port, verdict) in services {
            match verdict {
                Some(verdict) => _ = seen.services.insert(port, verdict),
                None => _ = seen.services.remove(&port),
            }
        }
        for (workload, undeclared) in undeclared {
            if let Some(undeclared) = undeclared {
                if let Some(ports) = seen.reports.get_mut(&workload) {
                    ports.retain(|port, _| undeclared.ports.contains(port));
                }
                known.insert(workload, undeclared);
            } else {
                seen.reports.remove(&workload);
                known.remove(&workload);
            }
        }
    }

    /// What service ports are taken for.
    pub fn services(&self) -> BTreeMap<String, Verdict> {
        self.state().seen.services.clone()
    }

    /// Waits until reports say something new and have been gathered. Dropped before, it may forget that: whoever
    /// compiles for another reason then compiles with them.
    pub async fn changed(&self) {
        self.news.notified().await;
        tokio::time::sleep(GATHERING).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use weft_core::detection::Verdict::{ClientFirst, Http1, ServerFirst, Tls};

    use super::*;

    const MAIL: &str = "default/mail:25";

    /// Workloads of the account `mail` with the undeclared port 2525.
    fn verdicts(workloads: &[&str]) -> Verdicts {
        let verdicts = Verdicts::default();
        verdicts.published(Change { services: BTreeMap::new(), undeclared: undeclared(workloads) });
        verdicts
    }

    /// Of `a`, `b` and `c`, these are there.
    fn undeclared(workloads: &[&str]) -> BTreeMap<String, Option<Undeclared>> {
        let own = Undeclared { service_account: "mail".to_owned(), ports: BTreeSet::from([2525]) };
        let of = |name: &str| (format!("default/{name}"), workloads.contains(&name).then(|| own.clone()));
        ["a", "b", "c"].map(of).into()
    }

    fn account(namespace: &str, account: &str) -> SpiffeId {
        SpiffeId::workload("shop.local", namespace, account)
    }

    /// What the service is taken for, and put in force.
    fn compiled(verdicts: &Verdicts, workloads: &[&str]) -> Option<Verdict> {
        let targets = workloads.iter().map(|workload| (format!("default/{workload}"), 2525));
        let verdict = verdicts.seen().verdict(MAIL, targets);
        let services = BTreeMap::from([(MAIL.to_owned(), verdict)]);
        verdicts.published(Change { services, undeclared: undeclared(workloads) });
        verdict
    }

    #[test]
    fn a_service_port_is_what_most_of_its_workloads_say() {
        let table: &[(&[Verdict], Option<Verdict>)] = &[
            (&[], None),
            (&[ServerFirst], Some(ServerFirst)),
            (&[Http1, Http1, ServerFirst], Some(Http1)),
            (&[Http1, ServerFirst], Some(ServerFirst)),
            (&[Http1, Tls, ClientFirst], Some(ClientFirst)),
        ];
        for (reports, expected) in table {
            let names = ["a", "b", "c"];
            let verdicts = verdicts(&names);
            for (name, verdict) in names.iter().zip(*reports) {
                verdicts.report(&account("default", "mail"), name, [(2525, *verdict)]).unwrap();
            }
            assert_eq!(compiled(&verdicts, &names), *expected, "{reports:?}");
        }
    }

    #[test]
    fn among_equals_the_verdict_in_force_stays() {
        let verdicts = verdicts(&["a", "b"]);
        verdicts.report(&account("default", "mail"), "a", [(2525, Http1)]).unwrap();
        assert_eq!(compiled(&verdicts, &["a", "b"]), Some(Http1));
        verdicts.report(&account("default", "mail"), "b", [(2525, ServerFirst)]).unwrap();
        assert_eq!(compiled(&verdicts, &["a", "b"]), Some(Http1));
    }

    #[test]
    fn a_verdict_outlives_the_workloads_that_said_it() {
        let verdicts = verdicts(&["a"]);
        verdicts.report(&account("default", "mail"), "a", [(2525, ServerFirst)]).unwrap();
        assert_eq!(compiled(&verdicts, &["a"]), Some(ServerFirst));
        assert_eq!(compiled(&verdicts, &["b"]), Some(ServerFirst));
        let services = BTreeMap::from([(MAIL.to_owned(), None)]);
        verdicts.published(Change { services, undeclared: undeclared(&[]) });
        assert_eq!(*verdicts.seen(), Seen::default(), "a service that is gone is forgotten");
    }

    #[test]
    fn a_workload_speaks_for_itself_alone() {
        let verdicts = verdicts(&["a"]);
        let refused = verdicts.report(&account("default", "evil"), "a", [(2525, ClientFirst)]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "workload `default/a` runs under the service account `mail`, the certificate says `evil`"
        );
        // Of another namespace, nobody it knows, and a port that is not undeclared.
        verdicts.report(&account("other", "mail"), "a", [(2525, ClientFirst)]).unwrap();
        verdicts.report(&account("default", "mail"), "b", [(2525, ClientFirst)]).unwrap();
        verdicts.report(&account("default", "mail"), "a", [(80, ClientFirst)]).unwrap();
        assert_eq!(*verdicts.seen(), Seen::default());
    }

    #[tokio::test]
    async fn only_what_is_new_is_news() {
        let verdicts = verdicts(&["a"]);
        let report = |verdict| verdicts.report(&account("default", "mail"), "a", [(2525, verdict)]).unwrap();
        let is_news = async || tokio::time::timeout(Duration::ZERO, verdicts.news.notified()).await.is_ok();
        report(Http1);
        assert!(is_news().await);
        report(Http1);
        assert!(!is_news().await);
        report(Tls);
        report(Http1);
        assert!(is_news().await);
        assert!(!is_news().await, "told once");
    }
}
