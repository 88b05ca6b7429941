//! The cluster's objects, watched, as documents.
//!
//! | module | does |
//! |---|---|
//! | [`object`] | what is kept of Services, EndpointSlices and Pods |
//! | [`custom`] | custom objects, read as documents |
//! | [`grants`] | what namespaces permit routes of others |
//! | [`mirror`] | a copy of all objects of one kind, never half a list |
//! | [`objects`] | all copies together, and what the watches say to them |
//! | [`translate`] | those as documents: pure |
//! | [`watching`] | one watch: begins again when it fails |
//! | [`serving`] | which custom kinds there are, and their watches |
//! | [`publication`] | documents as snapshots |
//! | [`bare`] | pods that should have a proxy and have none |
//! | [`health`] | how the watches are |
//!
//! One task keeps the copies. It publishes nothing until a complete list of every kind has been seen; then a change goes out
//! at once, and those right behind it together. While a watch is lost, what it said last stays in force.

mod bare;
pub mod custom;
mod grants;
pub mod health;
pub mod mirror;
pub mod object;
pub mod objects;
mod publication;
mod serving;
#[cfg(test)]
mod tests;
pub mod translate;
mod watching;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::PartialObjectMeta;
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::document::{Key, Locality};
use crate::kubernetes::names::{ENABLED, INJECT_LABEL};
use crate::store::Snapshot;
pub use bare::Bare;
use custom::CustomResource;
use health::Health;
use object::{ObjectName, PodFacts, ServiceFacts, SliceFacts};
use objects::{Objects, Update};
use serving::Serving;
use translate::Translator;
use watching::Watching;

/// What the watches say, on its way to the copies. They wait when it is full.
const QUEUE: usize = 1024;
/// Changes this close together are published together. A rollout changes something every few milliseconds.
const QUIET: Duration = Duration::from_millis(10);

/// What became of a custom object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// What it is called as a document.
    pub key: Key,
    /// `metadata.generation` of the object that was read.
    pub generation: i64,
    /// What is wrong with it, one sentence each: its last good version, if there was one, is in force. Empty: the snapshot
    /// has it as it is.
    pub problems: Vec<String>,
}

/// What became of all custom objects that are for us.
pub type Readings = BTreeMap<(CustomResource, ObjectName), Reading>;

/// A cluster that is being watched; dropping it ends that.
#[derive(Debug)]
pub struct Discovery {
    /// The documents. Of revision 0, and empty, until all watches have been synced.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Published after the snapshot they belong to.
    pub readings: watch::Receiver<Arc<Readings>>,
    pub bare: watch::Receiver<Arc<Bare>>,
    pub health: Arc<Health>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Discovery {
    /// Begins to watch a cluster.
    pub fn start(client: &Client, mut rng: fastrand::Rng) -> Self {
        let health = Arc::new(Health::default());
        let (keeper, updates) = mpsc::channel(QUEUE);
        let services = Watching {
            api: Api::<Service>::all(client.clone()),
            resource: "services".to_owned(),
            keep: |service| ServiceFacts::of(&service),
            tell: Box::new(Update::Service),
            keeper: keeper.clone(),
            health: Arc::clone(&health),
        };
        let slices = Watching {
            api: Api::<EndpointSlice>::all(client.clone()),
            resource: "endpointslices.discovery.k8s.io".to_owned(),
            keep: |slice| SliceFacts::of(&slice),
            tell: Box::new(Update::Slice),
            keeper: keeper.clone(),
            health: Arc::clone(&health),
        };
        let pods = Watching {
            api: Api::<Pod>::all(client.clone()),
            resource: "pods".to_owned(),
            keep: |pod| PodFacts::of(&pod),
            tell: Box::new(Update::Pod),
            keeper: keeper.clone(),
            health: Arc::clone(&health),
        };
        let namespaces = Watching {
            api: Api::<PartialObjectMeta<Namespace>>::all(client.clone()),
            resource: "namespaces".to_owned(),
            keep: |namespace| {
                let labels = namespace.metadata.labels.as_ref()?;
                Some(labels.get(INJECT_LABEL)? == ENABLED)
            },
            tell: Box::new(Update::Namespace),
            keeper: keeper.clone(),
            health: Arc::clone(&health),
        };
        let nodes = Watching {
            api: Api::<PartialObjectMeta<Node>>::all(client.clone()),
            resource: "nodes".to_owned(),
            keep: |node| Locality::of_labels(node.metadata.labels.as_ref()?),
            tell: Box::new(Update::Node),
            keeper: keeper.clone(),
            health: Arc::clone(&health),
        };
        let custom = Serving {
            client: client.clone(),
            keeper,
            health: Arc::clone(&health),
            rng: rng.fork(),
            running: BTreeMap::new(),
            grants: None,
        };
        let (snapshots, snapshots_seen) = watch::channel(Arc::default());
        let (readings, readings_seen) = watch::channel(Arc::default());
        let (bare, bare_seen) = watch::channel(Arc::default());
        let translator = Translator::default();
        let keeper = Keeper { updates, translator, snapshots, readings, bare, health: Arc::clone(&health) };
        let tasks = [
            tokio::spawn(services.run(rng.fork())),
            tokio::spawn(slices.run(rng.fork())),
            tokio::spawn(pods.run(rng.fork())),
            tokio::spawn(namespaces.run(rng.fork())),
            tokio::spawn(nodes.run(rng.fork())),
            tokio::spawn(custom.run()),
            tokio::spawn(keeper.run()),
        ];
        let tasks = tasks.map(|task| task.abort_handle()).into();
        Self { snapshots: snapshots_seen, readings: readings_seen, bare: bare_seen, health, tasks }
    }
}

/// Keeps the copies and publishes what they make.
struct Keeper {
    updates: mpsc::Receiver<Update>,
    translator: Translator,
    snapshots: watch::Sender<Arc<Snapshot>>,
    readings: watch::Sender<Arc<Readings>>,
    bare: watch::Sender<Arc<Bare>>,
    health: Arc<Health>,
}

impl Keeper {
    async fn run(mut self) {
        let mut objects = Objects::default();
        let mut is_dirty = false;
        // Once open, it stays so: a kind that appears later holds nobody up.
        let mut is_open = false;
        let mut next_at = weft_proxy::clock::now();
        loop {
            is_open = is_open || objects.is_synced();
            let is_due = is_dirty && is_open;
            let began = weft_proxy::clock::now();
            if is_due && began >= next_at {
                let Some(back) = self.publish(objects).await else { return };
                objects = back;
                is_dirty = false;
                next_at = after(began, weft_proxy::clock::now());
                continue;
            }
            tokio::select! {
                update = self.updates.recv() => {
                    let Some(update) = update else { return };
                    is_dirty |= objects.take(update);
                    // What has been said already belongs to what is published next.
                    for _ in 0..QUEUE {
                        let Ok(update) = self.updates.try_recv() else { break };
                        is_dirty |= objects.take(update);
                    }
                }
                () = tokio::time::sleep_until(next_at.into()), if is_due => {}
            }
        }
    }

    /// Translates off the asynchronous threads: a large cluster takes milliseconds.
    async fn publish(&mut self, mut objects: Objects) -> Option<Objects> {
        let before = Arc::clone(&self.snapshots.borrow());
        let at = weft_proxy::clock::unix_seconds();
        let mut translator = std::mem::take(&mut self.translator);
        let work = tokio::task::spawn_blocking(move || {
            let changed = objects.take_changed();
            let snapshot = publication::follow(&before, translator.follow(&objects, changed), at);
            (snapshot, objects.readings(), objects.bare(), objects, translator)
        });
        let (snapshot, readings, bare, objects);
        match work.await {
            Ok(done) => (snapshot, readings, bare, objects, self.translator) = done,
            Err(error) => {
                tracing::error!(%error, "translating the cluster's objects failed");
                return None;
            }
        };
        if let Some(snapshot) = snapshot {
            tracing::debug!(revision = snapshot.revision, documents = snapshot.documents.len(), "the cluster changed");
            self.snapshots.send_replace(Arc::new(snapshot));
        }
        // Whoever learns that an object was read finds it in the snapshot.
        send_news(&self.readings, readings);
        send_news(&self.bare, bare);
        self.health.published();
        Some(objects)
    }
}

/// Tells those who listen, if it is another than before.
fn send_news<T: PartialEq>(to: &watch::Sender<Arc<T>>, new: T) {
    to.send_if_modified(|known| {
        let is_other = **known != new;
        if is_other {
            *known = Arc::new(new);
        }
        is_other
    });
}

/// When the next publication may be: changes right behind this one come together, and where it takes long, half of the time
/// is left to others.
fn after(began: Instant, ended: Instant) -> Instant {
    ended + QUIET.max(ended.saturating_duration_since(began))
}
