//! Everything known of a cluster, and what the watches say to it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use kube::api::DynamicObject;

use super::custom::{Custom, CustomResource};
use super::grants::Grant;
use super::mirror::{Mirror, Step};
use super::object::{ObjectName, PodFacts, Proxy, ServiceFacts, SliceFacts};
use super::{Bare, Reading, Readings};
use crate::document::{Document, Key, Kind, Locality};
use crate::kubernetes::names::{DISABLED, ENABLED};

/// What one of the watches says.
#[derive(Debug)]
pub enum Update {
    Service(Step<ServiceFacts>),
    Slice(Step<SliceFacts>),
    Pod(Step<PodFacts>),
    /// Whether it asks for proxies beside its pods.
    Namespace(Step<bool>),
    /// Where it is.
    Node(Step<Locality>),
    /// These kinds of custom objects, and no others, are there to be watched, and grants or none.
    Served(Vec<CustomResource>, bool),
    Grant(Step<Grant>),
    Custom(CustomResource, Step<Box<DynamicObject>>),
}

/// The objects of a cluster, as far as they matter.
#[derive(Debug, Default)]
pub struct Objects {
    pub services: Mirror<ServiceFacts>,
    pub slices: Mirror<SliceFacts>,
    pub pods: Mirror<PodFacts>,
    /// Those that say whether their pods should have proxies, and what they say.
    pub namespaces: Mirror<bool>,
    /// Those that say where they are.
    pub nodes: Mirror<Locality>,
    /// In the order in which they win: `None` until the API server has been asked which there are.
    pub custom: Option<BTreeMap<CustomResource, Mirror<Custom>>>,
    /// What namespaces permit; `None`: nobody serves such objects.
    pub grants: Option<Mirror<Grant>>,
    /// Custom objects whose kind is not served any more.
    lost: BTreeSet<Key>,
    lost_grants: BTreeSet<ObjectName>,
}

/// Objects that are not what they were.
#[derive(Debug, Default)]
pub struct Changed {
    pub services: BTreeSet<ObjectName>,
    pub slices: BTreeSet<ObjectName>,
    pub pods: BTreeSet<ObjectName>,
    pub nodes: BTreeSet<ObjectName>,
    pub grants: BTreeSet<ObjectName>,
    /// Custom objects, by what they are called as documents.
    pub custom: BTreeSet<Key>,
}

impl Objects {
    /// Takes what a watch says; returns whether anything is different now.
    pub fn take(&mut self, update: Update) -> bool {
        match update {
            Update::Service(step) => self.services.take(step, |new, _| new),
            Update::Slice(step) => self.slices.take(step, |new, _| new),
            Update::Pod(step) => self.pods.take(step, |new, _| new),
            Update::Node(step) => self.nodes.take(step, |new, _| new),
            Update::Namespace(step) => self.namespaces.take(step, |new, _| new),
            Update::Served(served, grants) => {
                let is_other = self.serve_grants(grants);
                self.serve(served) || is_other
            }
            Update::Grant(step) => self.grants.as_mut().is_some_and(|grants| grants.take(step, |new, _| new)),
            // Of a kind that is not served any more, its watch may still say a last word.
            Update::Custom(resource, step) => match self.custom.as_mut().and_then(|all| all.get_mut(&resource)) {
                Some(mirror) => mirror.take(step, |object, before| Custom::read(&resource, *object, before)),
                None => false,
            },
        }
    }

    /// Where they are served no more, they permit nothing.
    fn serve_grants(&mut self, is_served: bool) -> bool {
        if is_served {
            self.grants.get_or_insert_default();
            return false;
        }
        let Some(grants) = self.grants.take() else { return false };
        self.lost_grants.extend(grants.iter().map(|(name, _)| name.clone()));
        !self.lost_grants.is_empty()
    }

    fn serve(&mut self, served: Vec<CustomResource>) -> bool {
        let before = self.custom.take();
        let is_first = before.is_none();
        let mut before = before.unwrap_or_default();
        let known = before.len();
        let next: BTreeMap<CustomResource, Mirror<Custom>> = served
            .into_iter()
            .map(|resource| (resource.clone(), before.remove(&resource).unwrap_or_default()))
            .collect();
        let is_other = is_first || next.len() != known || !before.is_empty();
        for (resource, mirror) in &before {
            self.lost.extend(mirror.iter().map(|(name, _)| resource.key(name)));
        }
        self.custom = Some(next);
        is_other
    }

    /// What is not what it was when this was last asked.
    pub fn take_changed(&mut self) -> Changed {
        let mut custom = std::mem::take(&mut self.lost);
        for (resource, mirror) in self.custom.iter_mut().flatten() {
            custom.extend(mirror.take_changed().iter().map(|name| resource.key(name)));
        }
        let mut grants = std::mem::take(&mut self.lost_grants);
        grants.extend(self.grants.iter_mut().flat_map(Mirror::take_changed));
        Changed {
            services: self.services.take_changed(),
            slices: self.slices.take_changed(),
            pods: self.pods.take_changed(),
            nodes: self.nodes.take_changed(),
            grants,
            custom,
        }
    }

    /// What the custom objects say of a document: the first of them counts.
    pub fn custom_document(&self, key: &Key) -> Option<Document> {
        let name = ObjectName { namespace: Arc::clone(&key.namespace), name: Arc::clone(&key.name) };
        let mut of_kind = self.custom.iter().flatten().filter(|(resource, _)| resource.kind == key.kind);
        let first = of_kind.find_map(|(resource, mirror)| Some((resource, mirror.get(&name)?.document.as_ref()?)));
        let (resource, mut document) = first.map(|(resource, document)| (resource, document.clone()))?;
        if let Document::HttpRoute(route) = &mut document {
            for backend in route.spec.rules.iter_mut().flat_map(|rule| &mut rule.backend_refs) {
                let other = backend.namespace.as_deref();
                backend.permitted = other.is_some_and(|other| self.permits(resource, key, other, &backend.name));
            }
        }
        Some(document)
    }

    /// Whether a namespace permits a route of another one to send to a service of its own.
    fn permits(&self, resource: &CustomResource, route: &Key, namespace: &str, service: &str) -> bool {
        let mut grants = self.grants.iter().flat_map(Mirror::iter).filter(|(name, _)| &*name.namespace == namespace);
        grants.any(|(_, grant)| grant.permits(resource.group(), &route.namespace, service))
    }

    /// HTTPRoutes that send to services of one of these namespaces, from another one.
    pub fn routes_into(&self, namespaces: &BTreeSet<&str>) -> impl Iterator<Item = Key> {
        let routes = self.custom.iter().flatten().filter(|(resource, _)| resource.kind == Kind::HttpRoute);
        let leads_there = |custom: &Custom| match &custom.document {
            Some(Document::HttpRoute(route)) => route
                .spec
                .backends()
                .any(|backend| backend.namespace.as_deref().is_some_and(|other| namespaces.contains(other))),
            _ => false,
        };
        routes.flat_map(move |(resource, mirror)| {
            mirror.iter().filter(move |(_, custom)| leads_there(custom)).map(|(name, _)| resource.key(name))
        })
    }

    /// Whether a complete list of every kind has been seen. Asked until it is so for the first time: a kind that appears
    /// later holds nobody up.
    pub fn is_synced(&self) -> bool {
        self.services.is_synced()
            && self.slices.is_synced()
            && self.pods.is_synced()
            && self.namespaces.is_synced()
            && self.nodes.is_synced()
            && self.grants.as_ref().is_none_or(Mirror::is_synced)
            && self.custom.as_ref().is_some_and(|all| all.values().all(Mirror::is_synced))
    }

    /// What became of each custom object.
    pub fn readings(&self) -> Readings {
        let mut readings = Readings::new();
        let mut seen: HashSet<Key> = HashSet::new();
        for (resource, mirror) in self.custom.iter().flatten() {
            for (name, custom) in mirror.iter().filter(|(_, custom)| custom.is_ours()) {
                let key = resource.key(name);
                let is_first = if custom.document.is_some() { seen.insert(key.clone()) } else { true };
                let problems = self.problems(&key, custom, is_first);
                let reading = Reading { key, generation: custom.generation, problems };
                readings.insert((resource.clone(), name.clone()), reading);
            }
        }
        readings
    }

    /// What became of a custom object; of one that the cluster itself shadows, that.
    fn problems(&self, key: &Key, custom: &Custom, is_first: bool) -> Vec<String> {
        let own = custom.problems.iter().flat_map(|problems| &problems.0).map(|problem| match problem.field.as_str() {
            "" => problem.what.clone(),
            field => format!("{field}: {}", problem.what),
        });
        let shadow = if self.shadows(key) {
            Some(format!("the cluster itself has {key}, which counts; give this one another name"))
        } else if !is_first {
            Some(format!("an object of another API group is {key} already, and counts; remove one of them"))
        } else {
            None
        };
        own.chain(shadow).collect()
    }

    /// Whether the cluster itself has what a custom object of this name would describe.
    fn shadows(&self, key: &Key) -> bool {
        let name = || ObjectName { namespace: key.namespace.clone(), name: key.name.clone() };
        match key.kind {
            Kind::Service => self.services.get(&name()).is_some_and(|service| !service.ports.is_empty()),
            Kind::Workload => {
                self.pods.get(&name()).is_some_and(|pod| pod.mesh().is_some() && !pod.addresses.is_empty())
            }
            _ => false,
        }
    }

    /// Pods without a proxy that say they want one, or whose namespace says so and they do not object; with the namespaces
    /// that say so.
    pub fn bare(&self) -> Bare {
        let asking = self.namespaces.iter().filter(|(_, asks)| **asks).map(|(name, _)| &name.name);
        let namespaces: Vec<Arc<str>> = asking.cloned().collect();
        let candidate = |(name, pod): (&ObjectName, &PodFacts)| match &pod.proxy {
            Proxy::Absent(bare) if !pod.terminating => {
                let asks = match bare.label.as_deref() {
                    Some(ENABLED) => true,
                    Some(DISABLED) => false,
                    _ => namespaces.contains(&name.namespace),
                };
                asks.then(|| (name.clone(), (**bare).clone()))
            }
            _ => None,
        };
        let pods = self.pods.iter().filter_map(candidate).collect();
        Bare { pods, namespaces }
    }
}
