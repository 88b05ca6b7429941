//! What the connected proxies made of the configuration, in the form that many objects can be held against quickly.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::document::Kind;
use crate::serve::ProxyInfo;

use super::observed::Observed;

/// Characters of a proxy's refusal that are repeated.
const REFUSAL_CHARACTERS: usize = 512;

/// All connected proxies that are known of, by the replica they are connected to.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    groups: Vec<Group>,
    /// Replicas whose proxies nobody knows.
    silent: usize,
}

/// The proxies of one replica that have had a configuration: those that are just starting say nothing about any object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    /// The newest revision each has answered, ascending.
    answered: Vec<u64>,
    refusals: Vec<Refusal>,
    /// What is in force there, by object; none of this replica's own, where that is known better.
    pub(super) objects: Option<BTreeMap<String, Standing>>,
}

/// Since which revision of a replica a generation of an object is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    pub(super) generation: i64,
    pub(super) since: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Refusal {
    workload: String,
    answered: u64,
    names: Vec<String>,
    more: bool,
    message: String,
}

/// How far an object has come.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) connected: usize,
    pub(super) applied: usize,
    pub(super) refused: usize,
    /// One of the proxies that refused, and what it said.
    pub(super) refusal: Option<String>,
    /// Replicas whose proxies nobody knows.
    pub(super) silent: usize,
}

impl Proxies {
    /// This replica's own, and those that the others tell of; `silent` of them tell nothing.
    pub(super) fn new(own: &[ProxyInfo], others: impl IntoIterator<Item = Group>, silent: usize) -> Self {
        Self { groups: std::iter::once(Group::new(own)).chain(others).collect(), silent }
    }

    /// What became of an object that is in force here since a revision.
    pub(super) fn tally(&self, object: &Observed, since: u64) -> Tally {
        let mut tally = Tally { silent: self.silent, ..Tally::default() };
        for group in &self.groups {
            // Where this generation is not in force yet, nobody has answered it.
            group.count(object, group.since(object).unwrap_or(since), &mut tally);
        }
        tally
    }
}

impl Group {
    pub(super) fn new(proxies: &[ProxyInfo]) -> Self {
        let known = || proxies.iter().filter(|proxy| proxy.answered_revision > 0 || !proxy.refused.is_empty());
        let mut answered: Vec<u64> = known().map(|proxy| proxy.answered_revision).collect();
        answered.sort_unstable();
        let refusals = known().flat_map(|proxy| {
            proxy.refused.iter().map(|refused| {
                let short = refused.refused.type_url.rsplit('.').next().unwrap_or_default();
                let message: String = refused.refused.message.chars().take(REFUSAL_CHARACTERS).collect();
                Refusal {
                    workload: proxy.workload.clone(),
                    answered: proxy.answered_revision,
                    names: refused.names.iter().map(ToString::to_string).collect(),
                    more: refused.more,
                    message: format!("{short}: {message}"),
                }
            })
        });
        Self { answered, refusals: refusals.collect(), objects: None }
    }

    /// The revision of this group's replica in which an object is in force; `None` for this replica's own.
    fn since(&self, object: &Observed) -> Option<u64> {
        let standing = self.objects.as_ref()?.get(&object.id.to_string());
        Some(standing.filter(|standing| standing.generation == object.generation).map_or(u64::MAX, |found| found.since))
    }

    fn count(&self, object: &Observed, since: u64, tally: &mut Tally) {
        let behind = self.answered.partition_point(|answered| *answered < since);
        tally.connected += self.answered.len();
        tally.applied += self.answered.len() - behind;
        let mut last = None;
        for refusal in &self.refusals {
            let concerns = refusal.more || refusal.names.iter().any(|name| made_of(object, &refusal.workload, name));
            // A proxy may refuse resources of several types; it is one proxy all the same.
            if !concerns || last == Some(&refusal.workload) {
                continue;
            }
            last = Some(&refusal.workload);
            tally.refused += 1;
            tally.applied = tally.applied.saturating_sub(usize::from(refusal.answered >= since));
            if tally.refusal.is_none() {
                tally.refusal = Some(format!("{}: {}", refusal.workload, refusal.message));
            }
        }
    }
}

/// Whether a resource of a proxy was made of an object: what is called `NAMESPACE/SERVICE:PORT` of services and the routes
/// that have them as parents, `inbound/PORT` of the proxy's own workload, and by the settings of the mesh.
fn made_of(object: &Observed, workload: &str, resource: &str) -> bool {
    let key = &object.id.key;
    let is_inbound = resource.starts_with("inbound/");
    let port_name = resource.strip_prefix("outbound/").unwrap_or(resource);
    let of_service = |name: &str, port: Option<u16>| {
        let rest = port_name.strip_prefix(&*key.namespace).and_then(|rest| rest.strip_prefix('/'));
        let number = rest.and_then(|rest| rest.strip_prefix(name)).and_then(|rest| rest.strip_prefix(':'));
        number.is_some_and(|number| port.is_none_or(|port| number.parse() == Ok(port)))
    };
    match key.kind {
        Kind::Mesh => is_inbound,
        Kind::Workload => is_inbound && workload.split_once('/') == Some((&*key.namespace, &*key.name)),
        Kind::Service => of_service(&key.name, None),
        _ => object.parents().any(|parent| of_service(parent.name, parent.port)),
    }
}
