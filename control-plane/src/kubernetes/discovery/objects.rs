//! Everything known of a cluster, and what the watches say to it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use kube::api::DynamicObject;

use super::custom::{Custom, CustomResource};
use super::mirror::{Mirror, Step};
use super::object::{ObjectName, PodFacts, Proxy, ServiceFacts, SliceFacts};
use super::translate::problems;
use super::{Bare, Reading, Readings};
use crate::document::{Document, Key};
use crate::kubernetes::names::{DISABLED, ENABLED};

/// What one of the watches says.
#[derive(Debug)]
pub enum Update {
    Service(Step<ServiceFacts>),
    Slice(Step<SliceFacts>),
    Pod(Step<PodFacts>),
    /// Whether it asks for proxies beside its pods.
    Namespace(Step<bool>),
    /// These kinds of custom objects, and no others, are there to be watched.
    Served(Vec<CustomResource>),
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
    /// In the order in which they win: `None` until the API server has been asked which there are.
    pub custom: Option<BTreeMap<CustomResource, Mirror<Custom>>>,
    /// Custom objects whose kind is not served any more.
    lost: BTreeSet<Key>,
}

/// Objects that are not what they were.
#[derive(Debug, Default)]
pub struct Changed {
    pub services: BTreeSet<ObjectName>,
    pub slices: BTreeSet<ObjectName>,
    pub pods: BTreeSet<ObjectName>,
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
            Update::Namespace(step) => self.namespaces.take(step, |new, _| new),
            Update::Served(served) => self.serve(served),
            // Of a kind that is not served any more, its watch may still say a last word.
            Update::Custom(resource, step) => match self.custom.as_mut().and_then(|all| all.get_mut(&resource)) {
                Some(mirror) => mirror.take(step, |object, before| Custom::read(&resource, *object, before)),
                None => false,
            },
        }
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
        Changed {
            services: self.services.take_changed(),
            slices: self.slices.take_changed(),
            pods: self.pods.take_changed(),
            custom,
        }
    }

    /// What the custom objects say of a document: the first of them counts.
    pub fn custom_document(&self, key: &Key) -> Option<&Document> {
        let name = ObjectName { namespace: Arc::clone(&key.namespace), name: Arc::clone(&key.name) };
        let of_kind = self.custom.iter().flatten().filter(|(resource, _)| resource.kind == key.kind);
        of_kind.filter_map(|(_, mirror)| mirror.get(&name)?.document.as_ref()).next()
    }

    /// Whether a complete list of every kind has been seen. Asked until it is so for the first time: a kind that appears
    /// later holds nobody up.
    pub fn is_synced(&self) -> bool {
        self.services.is_synced()
            && self.slices.is_synced()
            && self.pods.is_synced()
            && self.namespaces.is_synced()
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
                let problems = problems(&key, custom, is_first, self);
                let reading = Reading { key, generation: custom.generation, problems };
                readings.insert((resource.clone(), name.clone()), reading);
            }
        }
        readings
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
