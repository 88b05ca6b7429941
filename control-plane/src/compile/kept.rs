//! What was made of documents, kept to be held against what is made next.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use weft_core::detection::Verdict;

use super::destinations::{self, Claim};
use crate::verdicts::{self, Undeclared};
use crate::world::{self, Change, Resource};

/// What was made of a service.
#[derive(Debug, Default, PartialEq)]
pub(super) struct OfService {
    pub(super) resources: Vec<Resource>,
    pub(super) claims: BTreeSet<Claim>,
    pub(super) verdicts: BTreeMap<String, Verdict>,
}

/// What was made of a workload.
#[derive(Debug, PartialEq)]
pub(super) struct OfWorkload {
    pub(super) account: Arc<str>,
    pub(super) resources: Vec<Resource>,
    pub(super) undeclared: BTreeSet<u16>,
}

impl OfService {
    fn by_name(&self) -> HashMap<(world::Kind, &str), &Resource> {
        self.resources.iter().map(|resource| ((resource.kind, &*resource.name), resource)).collect()
    }

    /// What has to be told of the one that comes after this.
    pub(super) fn compare(&self, after: Option<&Self>, change: &mut Change, verdicts: &mut verdicts::Change) {
        let nothing = Self::default();
        let after = after.unwrap_or(&nothing);
        let (old, new) = (self.by_name(), after.by_name());
        let is_other = |resource: &&Resource| {
            let old = old.get(&(resource.kind, &*resource.name));
            old.is_none_or(|old| old.version != resource.version)
        };
        change.shared.extend(after.resources.iter().filter(is_other).cloned());
        let is_gone = |resource: &&Resource| !new.contains_key(&(resource.kind, &*resource.name));
        change.gone.extend(self.resources.iter().filter(is_gone).map(|old| (old.kind, old.name.clone())));
        let gone = self.verdicts.keys().filter(|port| !after.verdicts.contains_key(*port));
        verdicts.services.extend(gone.map(|port| (port.clone(), None)));
        let turned = after.verdicts.iter().filter(|(port, verdict)| self.verdicts.get(*port) != Some(verdict));
        verdicts.services.extend(turned.map(|(port, verdict)| (port.clone(), Some(*verdict))));
    }
}

impl From<super::OfService> for OfService {
    fn from(made: super::OfService) -> Self {
        let resources = encoded(made.resources);
        // A listener's name is in memory once, however many addresses it has.
        let listeners: HashMap<&str, &Arc<str>> = (resources.iter())
            .filter(|resource| resource.kind == world::Kind::Listener)
            .map(|resource| (&*resource.name, &resource.name))
            .collect();
        let claim = |(address, listener): (SocketAddr, String)| {
            let listener =
                listeners.get(listener.as_str()).map_or_else(|| listener.as_str().into(), |name| Arc::clone(name));
            (destinations::canonical(address), listener)
        };
        let claims = made.listens.into_iter().map(claim).collect();
        Self { resources, claims, verdicts: made.verdicts }
    }
}

impl OfWorkload {
    pub(super) fn undeclared(&self) -> Option<Undeclared> {
        let of = |ports| Undeclared { service_account: self.account.to_string(), ports };
        Some(self.undeclared.clone()).filter(|ports| !ports.is_empty()).map(of)
    }
}

impl From<super::OfWorkload> for OfWorkload {
    fn from(made: super::OfWorkload) -> Self {
        Self { account: made.account.into(), resources: encoded(made.resources), undeclared: made.undeclared }
    }
}

impl From<super::Resource> for Resource {
    fn from(made: super::Resource) -> Self {
        Self::encoded(made.type_url, made.name, &made.body)
    }
}

fn encoded(resources: Vec<super::Resource>) -> Vec<Resource> {
    resources.into_iter().map(Resource::from).collect()
}
