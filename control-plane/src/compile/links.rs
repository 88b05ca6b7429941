//! Which documents have to do with each other, and so what a change touches.
//!
//! Services lead to ports of workloads, and those without an address to addresses of their own; where two services lead to
//! the same, one of them decides. Such a place is a [`Point`]. Routes stand between the services they are for and those they
//! send to. Links may be more than there are (an endpoint whose workload nobody knows yet), never fewer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;

use super::is_headless;
use super::selection::Selection;
use crate::document::{Backends, Document, Key, Kind, Manifest, Metadata, ServiceSpec, WorkloadSpec};
use crate::store::Stored;

/// The documents of a snapshot.
pub(super) type Documents = BTreeMap<Key, Arc<Stored>>;

/// Where services meet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Point {
    /// A port of a workload.
    Port(Key, u16),
    /// An address that is listened for on a pod's behalf.
    Socket(SocketAddr),
}

/// What a service leads to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct OfService {
    pub(super) workloads: BTreeSet<Key>,
    pub(super) points: BTreeSet<Point>,
}

/// The services a route speaks of.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct OfRoute {
    pub(super) parents: BTreeSet<Key>,
    pub(super) backends: BTreeSet<Key>,
}

/// All links, in both directions.
#[derive(Debug, Default)]
pub(super) struct Links {
    services: HashMap<Key, OfService>,
    routes: HashMap<Key, OfRoute>,
    /// Services that choose their workloads by labels.
    selecting: BTreeSet<Key>,
    by_workload: HashMap<Key, BTreeSet<Key>>,
    by_point: HashMap<Point, BTreeSet<Key>>,
    by_parent: HashMap<Key, BTreeSet<Key>>,
    by_backend: HashMap<Key, BTreeSet<Key>>,
}

impl Links {
    /// The links of all these documents.
    pub(super) fn of_all(documents: &Documents) -> Self {
        let mut links = Self::default();
        let selection = Selection::new(documents.values().map(|stored| &stored.document));
        for (service, selected) in &selection.services {
            let workloads = selected.iter().map(|position| key_of_workload(&selection.workloads[*position].metadata));
            links.set_service(&super::key_of(service), service, workloads);
        }
        for (key, stored) in documents {
            links.set_route(key, &stored.document);
        }
        links
    }

    /// Brings the links of a document up to date; returns what a service has ceased or begun to lead to.
    pub(super) fn follow(&mut self, key: &Key, documents: &Documents) -> BTreeSet<Point> {
        match documents.get(key).map(|stored| &stored.document) {
            Some(Document::Service(service)) => {
                let before = self.services.get(key).map(|links| links.points.clone()).unwrap_or_default();
                let selected = match &service.spec.backends {
                    Backends::Selector(labels) => selected(&key.namespace, labels, documents),
                    Backends::Endpoints(_) | Backends::Discovered(_) => Vec::new(),
                };
                self.set_service(key, service, selected.into_iter());
                before.symmetric_difference(&self.services[key].points).cloned().collect()
            }
            Some(document) => {
                self.set_route(key, document);
                BTreeSet::new()
            }
            None => self.remove(key),
        }
    }

    fn set_service(&mut self, key: &Key, service: &Manifest<ServiceSpec>, selected: impl Iterator<Item = Key>) {
        let new = OfService::of(service, selected);
        if matches!(service.spec.backends, Backends::Selector(_)) {
            self.selecting.insert(key.clone());
        } else {
            self.selecting.remove(key);
        }
        let old = self.services.get(key);
        if old == Some(&new) {
            return;
        }
        let nothing = OfService::default();
        let old = old.unwrap_or(&nothing);
        relate(&mut self.by_workload, key, &old.workloads, &new.workloads);
        relate(&mut self.by_point, key, &old.points, &new.points);
        self.services.insert(key.clone(), new);
    }

    fn set_route(&mut self, key: &Key, document: &Document) {
        let Some(new) = OfRoute::of(document) else { return };
        let old = self.routes.remove(key).unwrap_or_default();
        relate(&mut self.by_parent, key, &old.parents, &new.parents);
        relate(&mut self.by_backend, key, &old.backends, &new.backends);
        self.routes.insert(key.clone(), new);
    }

    fn remove(&mut self, key: &Key) -> BTreeSet<Point> {
        if let Some(old) = self.routes.remove(key) {
            relate(&mut self.by_parent, key, &old.parents, &BTreeSet::new());
            relate(&mut self.by_backend, key, &old.backends, &BTreeSet::new());
        }
        self.selecting.remove(key);
        let old = self.services.remove(key).unwrap_or_default();
        relate(&mut self.by_workload, key, &old.workloads, &BTreeSet::new());
        relate(&mut self.by_point, key, &old.points, &BTreeSet::new());
        old.points
    }

    pub(super) fn of_service(&self, key: &Key) -> Option<&OfService> {
        self.services.get(key)
    }

    pub(super) fn of_route(&self, key: &Key) -> Option<&OfRoute> {
        self.routes.get(key)
    }

    /// Services that lead to a workload, whether there is one of that name or not.
    pub(super) fn to_workload(&self, key: &Key) -> impl Iterator<Item = &Key> {
        self.by_workload.get(key).into_iter().flatten()
    }

    pub(super) fn to_point(&self, point: &Point) -> impl Iterator<Item = &Key> {
        self.by_point.get(point).into_iter().flatten()
    }

    /// Routes that are for a service.
    pub(super) fn for_parent(&self, key: &Key) -> impl Iterator<Item = &Key> {
        self.by_parent.get(key).into_iter().flatten()
    }

    /// Routes that speak of a service.
    pub(super) fn about(&self, key: &Key) -> impl Iterator<Item = &Key> {
        self.for_parent(key).chain(self.by_backend.get(key).into_iter().flatten())
    }

    /// Services that choose workloads by labels this one has.
    pub(super) fn selecting<'l>(
        &'l self,
        workload: &'l Manifest<WorkloadSpec>,
        documents: &'l Documents,
    ) -> impl Iterator<Item = &'l Key> {
        self.selecting.iter().filter(move |key| {
            let Some(Document::Service(service)) = documents.get(*key).map(|stored| &stored.document) else {
                return false;
            };
            matches!(&service.spec.backends, Backends::Selector(labels)
                if *key.namespace == *workload.metadata.namespace && has_all(&workload.metadata, labels))
        })
    }
}

impl OfService {
    /// `selected`: the workloads a selector chooses.
    fn of(service: &Manifest<ServiceSpec>, selected: impl Iterator<Item = Key>) -> Self {
        let mut links = Self::default();
        match &service.spec.backends {
            Backends::Endpoints(_) => {}
            Backends::Selector(_) => {
                for workload in selected {
                    let ports = service.spec.ports.iter();
                    links.points.extend(ports.map(|port| Point::Port(workload.clone(), port.target_port)));
                    links.workloads.insert(workload);
                }
            }
            Backends::Discovered(discovered) => {
                let is_headless = is_headless(service);
                for group in &discovered.groups {
                    for endpoint in &group.endpoints {
                        let workload = endpoint.workload.as_deref().and_then(|name| name.split_once('/'));
                        let workload = workload.map(|(namespace, name)| Key::new(Kind::Workload, namespace, name));
                        for mapping in &group.ports {
                            let port = |key: &Key| Point::Port(key.clone(), mapping.target_port);
                            links.points.extend(workload.as_ref().map(port));
                            let socket = || Point::Socket(SocketAddr::new(endpoint.address, mapping.target_port));
                            links.points.extend(is_headless.then(socket));
                        }
                        links.workloads.extend(workload);
                    }
                }
            }
        }
        links
    }
}

impl OfRoute {
    /// `None` where a document is no route.
    fn of(document: &Document) -> Option<Self> {
        let service = |namespace: &str, name: &str| Key::new(Kind::Service, namespace, name);
        let own = document.metadata().namespace.as_str();
        match document {
            Document::TlsRoute(route) => Some(Self {
                parents: route.spec.parent_refs.iter().map(|parent| service(own, &parent.name)).collect(),
                backends: route.spec.backends().map(|backend| service(own, &backend.name)).collect(),
            }),
            Document::HttpRoute(route) => Some(Self {
                parents: route.spec.parent_refs.iter().map(|parent| service(own, &parent.name)).collect(),
                backends: (route.spec.backends())
                    .map(|backend| service(backend.namespace.as_deref().unwrap_or(own), &backend.name))
                    .collect(),
            }),
            Document::Mesh(_) | Document::Service(_) | Document::Workload(_) => None,
        }
    }
}

/// Makes an index say of `key` what is in `new`, where it said what is in `old`.
fn relate<K: Hash + Ord + Clone>(
    index: &mut HashMap<K, BTreeSet<Key>>,
    key: &Key,
    old: &BTreeSet<K>,
    new: &BTreeSet<K>,
) {
    for gone in old.difference(new) {
        if let Some(keys) = index.get_mut(gone) {
            keys.remove(key);
            if keys.is_empty() {
                index.remove(gone);
            }
        }
    }
    for come in new.difference(old) {
        index.entry(come.clone()).or_default().insert(key.clone());
    }
}

/// The workloads of a namespace that have all these labels.
fn selected(namespace: &Arc<str>, labels: &BTreeMap<String, String>, documents: &Documents) -> Vec<Key> {
    let first = Key { kind: Kind::Workload, namespace: Arc::clone(namespace), name: Arc::from("") };
    let of_namespace =
        documents.range(first..).take_while(|(key, _)| key.kind == Kind::Workload && key.namespace == *namespace);
    let has_them = |stored: &Stored| !labels.is_empty() && has_all(stored.document.metadata(), labels);
    of_namespace.filter(|(_, stored)| has_them(stored)).map(|(key, _)| key.clone()).collect()
}

fn has_all(metadata: &Metadata, labels: &BTreeMap<String, String>) -> bool {
    labels.iter().all(|(label, value)| metadata.labels.get(label) == Some(value))
}

fn key_of_workload(metadata: &Metadata) -> Key {
    Key::new(Kind::Workload, &metadata.namespace, &metadata.name)
}
