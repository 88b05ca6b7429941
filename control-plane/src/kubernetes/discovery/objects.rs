//! Everything known of a cluster, and what the watches say to it.

use std::collections::{BTreeMap, HashSet};

use kube::api::DynamicObject;

use super::custom::{Custom, CustomResource};
use super::mirror::{Mirror, Step};
use super::object::{PodFacts, ServiceFacts, SliceFacts};
use super::translate::problems;
use super::{Reading, Readings};
use crate::document::Key;

/// What one of the watches says.
#[derive(Debug)]
pub enum Update {
    Service(Step<ServiceFacts>),
    Slice(Step<SliceFacts>),
    Pod(Step<PodFacts>),
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
    /// In the order in which they win: `None` until the API server has been asked which there are.
    pub custom: Option<BTreeMap<CustomResource, Mirror<Custom>>>,
}

impl Objects {
    /// Takes what a watch says; returns whether anything is different now.
    pub fn take(&mut self, update: Update) -> bool {
        match update {
            Update::Service(step) => self.services.take(step, |new, _| new),
            Update::Slice(step) => self.slices.take(step, |new, _| new),
            Update::Pod(step) => self.pods.take(step, |new, _| new),
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
        self.custom = Some(next);
        is_other
    }

    /// Whether a complete list of every kind has been seen. Asked until it is so for the first time: a kind that appears
    /// later holds nobody up.
    pub fn is_synced(&self) -> bool {
        self.services.is_synced()
            && self.slices.is_synced()
            && self.pods.is_synced()
            && self.custom.as_ref().is_some_and(|all| all.values().all(Mirror::is_synced))
    }

    /// Custom objects by what they are called as documents, in the order in which they win.
    pub fn custom_objects(&self) -> impl Iterator<Item = (Key, &Custom)> {
        let all = self.custom.iter().flatten();
        all.flat_map(|(resource, mirror)| mirror.iter().map(|(name, custom)| (resource.key(name), custom)))
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
}
