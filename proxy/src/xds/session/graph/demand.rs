//! Bringing in force what was asked for, where destinations are asked for one by one.
//!
//! What is wanted follows from the destinations that are asked for, downwards: their listeners, those listeners' route
//! tables, the clusters of both, the clusters' endpoints. What is in force follows upwards: a connection waits for the
//! listener, and a listener in force means that all it leads to is there, or is said not to be.
//!
//! What is for our own workload comes without being named, and is never given up here.

use std::collections::BTreeSet;
use std::sync::Arc;

use weft_core::names::{ClusterName, DestinationName, ListenerName, RouteName};

use super::kind::Kind;
use super::references::{References, is_own};
use super::{Fresh, Graph};
use crate::state::Change;
use crate::xds::ResourceType;
use crate::xds::decode::Decoded;
use crate::xds::session::Answer;

impl Graph {
    /// Of a proxy that asks for destinations.
    pub(in crate::xds::session) fn on_demand() -> Self {
        Self { is_on_demand: true, ..Self::default() }
    }

    pub(in crate::xds::session) fn is_on_demand(&self) -> bool {
        self.is_on_demand
    }

    /// Goes on as a proxy that is told everything.
    pub(in crate::xds::session) fn want_everything(&mut self) {
        self.is_on_demand = false;
        self.destinations.want(BTreeSet::new());
        for kind in [&mut self.listeners, &mut self.clusters] {
            kind.wanted.clear();
            kind.unavailable.clear();
        }
    }

    /// Whether a resource is of use. What is neither our own workload's nor asked for crossed our giving it up.
    pub(in crate::xds::session) fn takes(&self, kind: ResourceType, decoded: &Decoded) -> bool {
        let is_wanted = self.kind(kind).wanted.contains(decoded.name());
        is_wanted || (kind.is_wildcard() && (!self.is_on_demand || is_own(decoded)))
    }

    pub(in crate::xds::session) fn ask(&mut self, names: impl IntoIterator<Item = Arc<str>>) {
        self.destinations.wanted.extend(names);
    }

    /// What was known of them is forgotten with the next settling.
    pub(in crate::xds::session) fn give_up<'n>(&mut self, names: impl IntoIterator<Item = &'n str>) -> bool {
        let mut was_held = false;
        for name in names {
            self.destinations.wanted.remove(name);
            self.destinations.unavailable.remove(name);
            was_held |= self.destinations.drop_held(name);
        }
        was_held
    }

    /// Who is behind an address, as far as it can be used.
    pub(in crate::xds::session) fn answer(&self, name: &str) -> Answer {
        let held = self.destinations.held.get(name);
        let left = self.destinations.left.get(name);
        let mut listeners =
            held.map(|held| &held.references).into_iter().chain(left).filter_map(|known| known.resource.as_deref());
        if listeners.clone().any(|listener| self.listeners.has_in_force(listener)) {
            return Answer::Service;
        }
        match held {
            Some(held) if held.references.resource.is_none() => Answer::Peer,
            Some(_) if listeners.all(|listener| self.listeners.is_settled(listener)) => Answer::Nobody,
            None if self.destinations.unavailable.contains_key(name) => Answer::Nobody,
            _ => Answer::Awaited,
        }
    }

    /// [`Self::settle`] where destinations are asked for.
    pub(super) fn settle_on_demand(&mut self, fresh: &mut Fresh, change: &mut Change) {
        self.clusters_in_force(fresh, change);
        self.put_in_force(ResourceType::Routes, fresh, change, |graph, _, new| graph.leads_to_clusters(new));
        self.put_in_force(ResourceType::Listener, fresh, change, |graph, is_new, new| {
            graph.leads_to_clusters(new) && graph.leads_to_routes(is_new, new)
        });
        self.put_in_force(ResourceType::Destination, fresh, change, |graph, _, new| {
            new.resource.as_ref().is_none_or(|listener| graph.listeners.is_settled(listener))
        });
        self.drop_unwanted(change);
        self.settle_all_endpoints(fresh, change);
    }

    /// A cluster waits for its endpoints, a new one too: whoever waits for it would find nobody.
    fn clusters_in_force(&mut self, fresh: &mut Fresh, change: &mut Change) {
        self.waiting_clusters = 0;
        for name in self.clusters.outdated() {
            let is_new = !self.clusters.left.contains_key(&name);
            let endpoints = self.clusters.held.get(&name).and_then(|held| held.references.resource.as_ref());
            let is_there = |name: &Arc<str>| {
                self.endpoints.held.contains_key(name) || self.endpoints.unavailable.contains_key(name)
            };
            let must_wait =
                if is_new { !endpoints.is_none_or(is_there) } else { self.clusters.must_wait(&name, &self.endpoints) };
            if must_wait {
                self.waiting_clusters += 1;
            } else {
                self.clusters.put_in_force(ResourceType::Cluster, &name, fresh, change);
            }
        }
    }

    /// Puts in force what is held of a type and leads to what is there; `is_ready` is told whether it is new, too.
    fn put_in_force(
        &mut self,
        kind: ResourceType,
        fresh: &mut Fresh,
        change: &mut Change,
        is_ready: impl Fn(&Self, bool, &References) -> bool,
    ) {
        for name in self.kind(kind).outdated() {
            let Some(held) = self.kind(kind).held.get(&name) else { continue };
            let is_new = !self.kind(kind).left.contains_key(&name);
            if held.is_own || is_ready(self, is_new, &held.references) {
                self.kind_mut(kind).put_in_force(kind, &name, fresh, change);
            }
        }
    }

    fn leads_to_clusters(&self, new: &References) -> bool {
        new.clusters.iter().all(|cluster| self.clusters.is_settled(cluster))
    }

    /// A refused table is waited for where an older listener works.
    fn leads_to_routes(&self, is_new: bool, new: &References) -> bool {
        let Some(table) = &new.resource else { return true };
        let is_refused = self.routes.unavailable.get(table) == Some(&super::Unavailable::Refused);
        self.routes.has_in_force(table) || (self.routes.is_settled(table) && (is_new || !is_refused))
    }

    /// Wants what is led to, and takes out of force what nothing in force leads to any more.
    fn drop_unwanted(&mut self, change: &mut Change) {
        for name in self.destinations.ghosts() {
            self.destinations.left.remove(&name);
            change.removed_destinations.push(DestinationName::new(name));
        }
        let listeners = self.destinations.named_by_held().chain(self.destinations.named_in_force()).collect();
        self.listeners.want(listeners);
        let in_force: BTreeSet<Arc<str>> = self.destinations.named_in_force().collect();
        for name in unused(&mut self.listeners, &in_force) {
            change.removed_listeners.push(ListenerName::new(name));
        }
        let routes = self.listeners.named_by_held().chain(self.listeners.named_in_force()).collect();
        self.routes.want(routes);
        let in_force = self.listeners.named_in_force().collect();
        for name in unused(&mut self.routes, &in_force) {
            change.removed_routes.push(RouteName::new(name));
        }
        let leading = self.listeners.of_others().chain(self.routes.of_others());
        let clusters = leading.flat_map(|references| references.clusters.iter().cloned()).collect();
        self.clusters.want(clusters);
        let leading = self.listeners.in_force().chain(self.routes.in_force());
        let in_force = leading.flat_map(|references| references.clusters.iter().cloned()).collect();
        for name in unused(&mut self.clusters, &in_force) {
            change.removed_clusters.push(ClusterName::new(name));
        }
    }
}

/// What is not held any more and nothing in force names; it is in force no longer.
fn unused(kind: &mut Kind, named: &BTreeSet<Arc<str>>) -> Vec<Arc<str>> {
    let gone: Vec<_> = kind.ghosts().into_iter().filter(|name| !named.contains(name)).collect();
    for name in &gone {
        kind.left.remove(name);
    }
    gone
}
