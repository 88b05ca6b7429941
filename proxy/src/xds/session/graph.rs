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

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use weft_core::model::{ClusterSpec, EndpointSource, ListenerSpec, RouteSource, RouteTableSpec};
use weft_core::names::{ClusterName, ListenerName, RouteName};

use super::body::{Packed, Templates};
use super::{Fresh, Resource, Stored};
use crate::state::Change;
use crate::xds::ResourceType;
use crate::xds::decode::{Decoded, decode_as};

/// Resources by type and name, and what they refer to.
#[derive(Debug, Default)]
pub(super) struct Graph {
    clusters: Kind,
    endpoints: Kind,
    listeners: Kind,
    routes: Kind,
    /// Of services: few, and each in many clusters.
    namespaces: BTreeSet<Arc<str>>,
    /// Clusters whose held version waits for endpoints.
    waiting_clusters: usize,
}

/// The resources of one type.
#[derive(Debug, Default)]
struct Kind {
    held: BTreeMap<Arc<str>, Held>,
    /// What is in force and is not what is held: older, or held no more.
    left: BTreeMap<Arc<str>, Arc<References>>,
    /// Names something held or in force refers to; unused for wildcard types.
    wanted: BTreeSet<Arc<str>>,
    /// Wanted names that were answered by something we do not hold.
    unavailable: BTreeMap<Arc<str>, Unavailable>,
    templates: Templates,
    /// What most resources of some types name; one for all of them.
    nothing: Arc<References>,
    /// How many were held when the tables were last built anew.
    built_with: usize,
}

#[derive(Debug)]
struct Held {
    version: Arc<str>,
    body: Packed,
    references: Arc<References>,
    is_in_force: bool,
}

impl Held {
    /// Whether what is held says the same in other bytes. Maps have no order on the wire, so a server that encodes
    /// anew sends other bytes for the same thing; nothing in force may be disturbed by that.
    fn means(&self, kind: ResourceType, decoded: &Decoded) -> bool {
        decode_as(kind, "", &self.body.bytes()).is_ok_and(|held| held == *decoded)
    }
}

/// What a resource names.
#[derive(Debug, Default)]
struct References {
    /// The endpoint set of a cluster, or the route table of a listener.
    resource: Option<Arc<str>>,
    /// Clusters a listener or a route table sends to.
    clusters: Box<[Arc<str>]>,
}

impl References {
    fn is_empty(&self) -> bool {
        self.resource.is_none() && self.clusters.is_empty()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unavailable {
    /// The server says it does not exist.
    Absent,
    /// It came and could not be used.
    Refused,
}

impl Graph {
    /// Makes the names in `decoded` the ones that are held already: most of a service's resources have one name.
    pub(super) fn share_names(&mut self, decoded: &mut Decoded) {
        if let Decoded::Cluster(spec) = decoded {
            self.share_namespace(spec);
        }
        let share = |name: &mut ClusterName| {
            if let Some((known, _)) = self.clusters.held.get_key_value(name.as_str()) {
                *name = ClusterName::new(Arc::clone(known));
            }
        };
        let share_routes = |table: &mut RouteTableSpec| {
            for route in table.virtual_hosts.iter_mut().flat_map(|host| &mut host.routes) {
                route.clusters.iter_mut().for_each(|weighted| share(&mut weighted.cluster));
            }
            if let Some((known, _)) = self.clusters.held.get_key_value(table.name.as_str()) {
                table.name = RouteName::new(Arc::clone(known));
            }
        };
        match decoded {
            Decoded::Cluster(spec) => {
                share(&mut spec.name);
                match &mut spec.endpoints {
                    EndpointSource::Discovered(name) if *name == spec.name => name.clone_from(&spec.name),
                    EndpointSource::AnyPort { endpoints: name, .. } if *name == spec.name => {
                        name.clone_from(&spec.name);
                    }
                    EndpointSource::Discovered(name) | EndpointSource::AnyPort { endpoints: name, .. } => share(name),
                    EndpointSource::Static(_) | EndpointSource::OriginalDestination => {}
                }
            }
            Decoded::Endpoints(spec) => share(&mut spec.name),
            Decoded::Routes(spec) => share_routes(spec),
            Decoded::Listener(spec) => {
                if let Some(cluster) = &mut spec.cluster {
                    share(cluster);
                }
                match &mut spec.routes {
                    Some(RouteSource::Named(name)) => {
                        if let Some((known, _)) = self.clusters.held.get_key_value(name.as_str()) {
                            *name = RouteName::new(Arc::clone(known));
                        }
                    }
                    Some(RouteSource::Inline(table)) => share_routes(table),
                    None => {}
                }
            }
        }
    }

    fn share_namespace(&mut self, spec: &mut ClusterSpec) {
        let namespace = &mut spec.service.namespace;
        match self.namespaces.get(namespace) {
            Some(known) => namespace.clone_from(known),
            None => _ = self.namespaces.insert(Arc::clone(namespace)),
        }
    }

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
        let held = Held { version: resource.version, body, references, is_in_force: false };
        kind.held.insert(resource.name, held);
        true
    }

    /// The server says the resource does not exist; true when it was held.
    pub(super) fn remove(&mut self, kind: ResourceType, name: &str) -> bool {
        let is_wanted = !kind.is_wildcard() && self.wants(kind, name);
        let kind = self.kind_mut(kind);
        if is_wanted {
            kind.unavailable.insert(name.into(), Unavailable::Absent);
        }
        kind.drop_held(name)
    }

    /// A version of the resource came that cannot be used. An older one that is held stays.
    pub(super) fn refuse(&mut self, kind: ResourceType, name: &str) {
        if kind.is_wildcard() || !self.wants(kind, name) {
            return;
        }
        let kind = self.kind_mut(kind);
        if !kind.held.contains_key(name) {
            kind.unavailable.insert(name.into(), Unavailable::Refused);
        }
    }

    /// Whether a resource of this name is of use.
    pub(super) fn wants(&self, kind: ResourceType, name: &str) -> bool {
        kind.is_wildcard() || self.kind(kind).wanted.contains(name)
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

    /// Wanted names without any answer.
    pub(super) fn awaited(&self) -> usize {
        let unanswered = |kind: &Kind| {
            kind.wanted
                .iter()
                .filter(|&name| !kind.held.contains_key(name) && !kind.unavailable.contains_key(name))
                .count()
        };
        unanswered(&self.endpoints) + unanswered(&self.routes)
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
        self.settle_listeners(&mut fresh, &mut change);
        self.settle_routes(&mut fresh, &mut change);
        self.settle_clusters(&mut fresh, &mut change);
        self.settle_all_endpoints(&mut fresh, &mut change);
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
        }
    }

    fn kind_mut(&mut self, kind: ResourceType) -> &mut Kind {
        match kind {
            ResourceType::Cluster => &mut self.clusters,
            ResourceType::Endpoints => &mut self.endpoints,
            ResourceType::Listener => &mut self.listeners,
            ResourceType::Routes => &mut self.routes,
        }
    }
}

impl Kind {
    /// Builds the tables anew when they have grown much: filled one by one in order, their nodes stay half empty.
    fn rebuild(&mut self) {
        if self.held.len() > self.built_with * 5 / 4 + 64 {
            self.built_with = self.held.len();
            self.held = std::mem::take(&mut self.held).into_iter().collect();
        }
    }

    /// Held, and in force at another version or not at all.
    fn outdated(&self) -> Vec<Arc<str>> {
        self.held.iter().filter(|(_, held)| !held.is_in_force).map(|(name, _)| Arc::clone(name)).collect()
    }

    fn is_outdated(&self, name: &str) -> bool {
        self.held.get(name).is_some_and(|held| !held.is_in_force)
    }

    /// In force and not held any more.
    fn ghosts(&self) -> Vec<Arc<str>> {
        self.left.keys().filter(|&name| !self.held.contains_key(name)).cloned().collect()
    }

    /// What everything in force refers to.
    fn in_force(&self) -> impl Iterator<Item = &References> {
        let held = self.held.values().filter(|held| held.is_in_force).map(|held| &*held.references);
        held.chain(self.left.values().map(|references| &**references))
    }

    /// Forgets what is held; it stays in force where it is. True when there was something.
    fn drop_held(&mut self, name: &str) -> bool {
        let Some((name, held)) = self.held.remove_entry(name) else { return false };
        if held.is_in_force {
            self.left.insert(name, held.references);
        }
        true
    }

    fn named_by_held(&self) -> impl Iterator<Item = Arc<str>> {
        self.held.values().filter_map(|held| held.references.resource.clone())
    }

    fn named_in_force(&self) -> impl Iterator<Item = Arc<str>> {
        self.in_force().filter_map(|references| references.resource.clone())
    }

    /// Whether the held version of `name` would replace a working one by one whose `named` resource is not there yet.
    ///
    /// A refused resource is waited for as well: the server will correct it, and until then the old version works.
    fn must_wait(&self, name: &str, named: &Kind) -> bool {
        let Some(needed) = self.held.get(name).and_then(|held| held.references.resource.as_ref()) else {
            return false;
        };
        let is_there = named.held.contains_key(needed) || named.unavailable.get(needed) == Some(&Unavailable::Absent);
        self.left.contains_key(name) && !is_there
    }

    /// Wants exactly these names; what was held for others is forgotten, because nobody will keep it up to date.
    fn want(&mut self, wanted: BTreeSet<Arc<str>>) {
        let unwanted: Vec<_> = self.held.keys().filter(|&name| !wanted.contains(name)).cloned().collect();
        for name in unwanted {
            self.drop_held(&name);
        }
        self.unavailable.retain(|name, _| wanted.contains(name));
        self.wanted = wanted;
    }

    fn put_in_force(&mut self, kind: ResourceType, name: &Arc<str>, fresh: &mut Fresh, change: &mut Change) {
        let Some(held) = self.held.get_mut(name) else { return };
        let decoded = fresh.remove(&(kind, Arc::clone(name)));
        // What is held was read before, so reading it again succeeds; if it ever did not, the old version would stay.
        let Some(decoded) = decoded.or_else(|| decode_as(kind, name, &held.body.bytes()).ok()) else { return };
        match decoded {
            Decoded::Listener(spec) => change.listeners.push(spec),
            Decoded::Routes(spec) => change.routes.push(spec),
            Decoded::Cluster(spec) => change.clusters.push(spec),
            Decoded::Endpoints(spec) => change.endpoints.push(spec),
        }
        held.is_in_force = true;
        self.left.remove(name);
    }
}

fn references(decoded: &Decoded) -> References {
    match decoded {
        Decoded::Cluster(spec) => match &spec.endpoints {
            EndpointSource::Discovered(name) | EndpointSource::AnyPort { endpoints: name, .. } => {
                References { resource: Some(name.shared()), clusters: Box::default() }
            }
            EndpointSource::Static(_) | EndpointSource::OriginalDestination => References::default(),
        },
        Decoded::Listener(spec) => listener_references(spec),
        Decoded::Routes(spec) => References { resource: None, clusters: route_clusters(spec).into() },
        Decoded::Endpoints(_) => References::default(),
    }
}

fn listener_references(spec: &ListenerSpec) -> References {
    let mut references = References::default();
    let mut clusters = Vec::new();
    match &spec.routes {
        Some(RouteSource::Named(name)) => references.resource = Some(name.shared()),
        Some(RouteSource::Inline(table)) => clusters = route_clusters(table),
        None => {}
    }
    let by_name = spec.server_names.iter().flat_map(|names| &names.clusters).map(|weighted| &weighted.cluster);
    clusters.extend(spec.cluster.iter().chain(by_name).map(ClusterName::shared));
    references.clusters = clusters.into();
    references
}

fn route_clusters(table: &RouteTableSpec) -> Vec<Arc<str>> {
    let routes = table.virtual_hosts.iter().flat_map(|host| &host.routes);
    let shares = routes.flat_map(|route| &route.clusters);
    let clusters: BTreeSet<Arc<str>> = shares.map(|weighted| weighted.cluster.shared()).collect();
    clusters.into_iter().collect()
}
