//! What is held, what is in force, and how one follows the other without a gap.
//!
//! *Held* is what the server last said and we accepted. *In force* is what the emitted changes amount to. They differ
//! where following at once would break traffic (make before break):
//! - a listener or cluster in force stays at its old version until the routes or endpoints its new version names have
//!   arrived, or were reported not to exist;
//! - a cluster the server removed stays until no listener or route in force refers to it, its endpoints with it;
//! - a route table the server removed stays while a listener in force names it (Envoy ignores its removal altogether).
//!
//! A removed endpoint set of a cluster that is held empties it, as in Envoy: a server that means "none for the moment"
//! sends an empty one.
//!
//! One type's resources are a [`Kind`]; what these do to each other is here, and in [`demand`] for a proxy that asks for
//! destinations.

mod demand;
mod kind;
mod references;
mod shared_names;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use weft_core::names::{ClusterName, ListenerName, RouteName};

use super::{Fresh, Resource, Stored};
use crate::state::Change;
use crate::xds::ResourceType;
use crate::xds::decode::Decoded;
use kind::{Held, Kind, Unavailable};
pub(super) use references::is_own;
use references::references;

/// Resources by type and name, and what they refer to.
#[derive(Debug, Default)]
pub(super) struct Graph {
    clusters: Kind,
    endpoints: Kind,
    listeners: Kind,
    routes: Kind,
    destinations: Kind,
    /// Listeners and clusters of others are wanted as destinations that were asked for lead to them.
    is_on_demand: bool,
    /// Of services: few, and each in many clusters.
    namespaces: BTreeSet<Arc<str>>,
    /// Clusters whose held version waits for endpoints.
    waiting_clusters: usize,
}

impl Graph {
    /// Takes a resource in; false when the same version of the same was held already.
    pub(super) fn accept(&mut self, resource: Resource, decoded: &Decoded) -> bool {
        let kind = self.kind_mut(resource.kind);
        kind.unavailable.remove(&resource.name);
        if let Some(held) = kind.held.get_mut(&resource.name)
            && (held.body.bytes() == resource.body || held.means(resource.kind, decoded))
        {
            let changed = held.version != resource.version;
            held.version = resource.version;
            return changed;
        }
        let references = references(decoded);
        let references = if references.is_empty() { Arc::clone(&kind.nothing) } else { Arc::new(references) };
        let body = kind.templates.pack(&resource.body);
        kind.drop_held(&resource.name);
        let held = Held { version: resource.version, body, references, is_in_force: false, is_own: is_own(decoded) };
        kind.held.insert(resource.name, held);
        true
    }

    /// The server says the resource does not exist; true when it was held.
    pub(super) fn remove(&mut self, kind: ResourceType, name: &str) -> bool {
        let kind = self.kind_mut(kind);
        if kind.wanted.contains(name) {
            kind.unavailable.insert(name.into(), Unavailable::Absent);
        }
        kind.drop_held(name)
    }

    /// A version of the resource came that cannot be used. An older one that is held stays.
    pub(super) fn refuse(&mut self, kind: ResourceType, name: &str) {
        let kind = self.kind_mut(kind);
        if kind.wanted.contains(name) && !kind.held.contains_key(name) {
            kind.unavailable.insert(name.into(), Unavailable::Refused);
        }
    }

    pub(super) fn wanted(&self, kind: ResourceType) -> &BTreeSet<Arc<str>> {
        &self.kind(kind).wanted
    }

    pub(super) fn version(&self, kind: ResourceType, name: &str) -> Option<&str> {
        self.kind(kind).held.get(name).map(|held| &*held.version)
    }

    pub(super) fn versions(&self, kind: ResourceType) -> HashMap<String, String> {
        let held = self.kind(kind).held.iter();
        held.map(|(name, held)| (name.to_string(), held.version.to_string())).collect()
    }

    pub(super) fn held_count(&self, kind: ResourceType) -> usize {
        self.kind(kind).held.len()
    }

    pub(super) fn stored(&self) -> Vec<Stored> {
        let of_kind = |kind: ResourceType| {
            self.kind(kind).held.iter().map(move |(name, held)| Stored {
                kind,
                name: Arc::clone(name),
                version: Arc::clone(&held.version),
                body: held.body.clone(),
            })
        };
        ResourceType::ALL.into_iter().flat_map(of_kind).collect()
    }

    /// Names that something refers to, without any answer.
    pub(super) fn awaited(&self) -> usize {
        [&self.endpoints, &self.routes, &self.listeners, &self.clusters].into_iter().map(Kind::unanswered).sum()
    }

    /// Whether an endpoint response may put a cluster in force, so that [`Self::settle_endpoints`] is not enough.
    pub(super) fn clusters_are_waiting(&self) -> bool {
        self.waiting_clusters > 0
    }

    /// Brings what is in force as close to what is held as it may come, and says what changed.
    ///
    /// `fresh` are specs already decoded; others are decoded again from what is held.
    pub(super) fn settle(&mut self, mut fresh: Fresh) -> Change {
        let mut change = Change::default();
        if self.is_on_demand {
            self.settle_on_demand(&mut fresh, &mut change);
        } else {
            self.settle_listeners(&mut fresh, &mut change);
            self.settle_routes(&mut fresh, &mut change);
            self.settle_clusters(&mut fresh, &mut change);
            self.settle_all_endpoints(&mut fresh, &mut change);
        }
        for kind in ResourceType::ALL {
            self.kind_mut(kind).rebuild();
        }
        change
    }

    /// [`Self::settle`] after a response that touched only endpoint sets and no cluster waits for any: the work is
    /// proportional to the response, not to the mesh.
    pub(super) fn settle_endpoints(&mut self, touched: &BTreeSet<Arc<str>>, mut fresh: Fresh) -> Change {
        let mut change = Change::default();
        for name in touched {
            if self.endpoints.is_outdated(name) {
                self.endpoints.put_in_force(ResourceType::Endpoints, name, &mut fresh, &mut change);
            } else if !self.endpoints.held.contains_key(name) && self.is_named_by_held_cluster(name) {
                self.drop_endpoints(name, &mut change);
            }
        }
        change
    }

    fn settle_listeners(&mut self, fresh: &mut Fresh, change: &mut Change) {
        for name in self.listeners.outdated() {
            if !self.listeners.must_wait(&name, &self.routes) {
                self.listeners.put_in_force(ResourceType::Listener, &name, fresh, change);
            }
        }
        for name in self.listeners.ghosts() {
            self.listeners.left.remove(&name);
            change.removed_listeners.push(ListenerName::new(name));
        }
    }

    fn settle_routes(&mut self, fresh: &mut Fresh, change: &mut Change) {
        let wanted = self.listeners.named_by_held().chain(self.listeners.named_in_force()).collect();
        self.routes.want(wanted);
        for name in self.routes.outdated() {
            self.routes.put_in_force(ResourceType::Routes, &name, fresh, change);
        }
        for name in self.routes.ghosts() {
            if !self.routes.wanted.contains(&name) {
                self.routes.left.remove(&name);
                change.removed_routes.push(RouteName::new(name));
            }
        }
    }

    fn settle_clusters(&mut self, fresh: &mut Fresh, change: &mut Change) {
        self.waiting_clusters = 0;
        for name in self.clusters.outdated() {
            if self.clusters.must_wait(&name, &self.endpoints) {
                self.waiting_clusters += 1;
            } else {
                self.clusters.put_in_force(ResourceType::Cluster, &name, fresh, change);
            }
        }
        let ghosts = self.clusters.ghosts();
        if ghosts.is_empty() {
            return;
        }
        let users = self.listeners.in_force().chain(self.routes.in_force());
        let used: BTreeSet<Arc<str>> = users.flat_map(|references| references.clusters.iter().cloned()).collect();
        for name in ghosts {
            if !used.contains(&name) {
                self.clusters.left.remove(&name);
                change.removed_clusters.push(ClusterName::new(name));
            }
        }
    }

    fn settle_all_endpoints(&mut self, fresh: &mut Fresh, change: &mut Change) {
        let named: BTreeSet<Arc<str>> = self.clusters.named_by_held().collect();
        let wanted = named.iter().cloned().chain(self.clusters.named_in_force()).collect();
        self.endpoints.want(wanted);
        for name in self.endpoints.outdated() {
            self.endpoints.put_in_force(ResourceType::Endpoints, &name, fresh, change);
        }
        for name in self.endpoints.ghosts() {
            // Wanted, but by nothing held: the cluster itself is only kept for those who still use it.
            let lingers = self.endpoints.wanted.contains(&name) && !named.contains(&name);
            if !lingers {
                self.drop_endpoints(&name, change);
            }
        }
    }

    fn drop_endpoints(&mut self, name: &Arc<str>, change: &mut Change) {
        if self.endpoints.left.remove(name).is_some() {
            change.removed_endpoints.push(ClusterName::new(Arc::clone(name)));
        }
    }

    fn is_named_by_held_cluster(&self, name: &str) -> bool {
        self.clusters.held.values().any(|held| held.references.resource.as_deref() == Some(name))
    }

    fn kind(&self, kind: ResourceType) -> &Kind {
        match kind {
            ResourceType::Cluster => &self.clusters,
            ResourceType::Endpoints => &self.endpoints,
            ResourceType::Listener => &self.listeners,
            ResourceType::Routes => &self.routes,
            ResourceType::Destination => &self.destinations,
        }
    }

    fn kind_mut(&mut self, kind: ResourceType) -> &mut Kind {
        match kind {
            ResourceType::Cluster => &mut self.clusters,
            ResourceType::Endpoints => &mut self.endpoints,
            ResourceType::Listener => &mut self.listeners,
            ResourceType::Routes => &mut self.routes,
            ResourceType::Destination => &mut self.destinations,
        }
    }
}
