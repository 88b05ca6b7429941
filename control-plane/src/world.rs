//! The resources in force, and who must hear of a change.
//!
//! [`World::publish`] takes what a compilation changed. Versions are content hashes, so equal content is no change whoever
//! compiled it and whenever. What a publication sets in motion is in proportion to the change: sessions it does not concern
//! are not woken.
//! Until the first publication the world is not synced, and nobody may be answered: an empty answer would
//! make proxies delete what they have.

mod canonical;
mod resource;
#[cfg(test)]
mod tests;
mod watch;

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::watch as signal;

pub(crate) use resource::content_hash;
pub use resource::{Kind, Resource};
use watch::Watchers;
pub use watch::{Changes, Interest, Progress, Standing, Watch};

/// Which workload: `NAMESPACE/NAME`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadKey(Arc<str>);

impl WorkloadKey {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for WorkloadKey {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for WorkloadKey {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl Borrow<str> for WorkloadKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

/// Resources by kind and name. A copy shares the kinds in which nothing changes.
#[derive(Debug, Default, Clone)]
struct Scope([Arc<BTreeMap<Arc<str>, Resource>>; Kind::ALL.len()]);

impl Scope {
    fn get(&self, kind: Kind, name: &str) -> Option<&Resource> {
        self.0[kind as usize].get(name)
    }

    /// Takes what is new; whether it is another than before. What did not change keeps its memory, so that all who hold a
    /// resource hold the same one.
    fn put(&mut self, mut resource: Resource) -> bool {
        if let Some(old) = self.get(resource.kind, &resource.name) {
            if old.version == resource.version {
                return false;
            }
            resource.name = old.name.clone();
        }
        Arc::make_mut(&mut self.0[resource.kind as usize]).insert(resource.name.clone(), resource);
        true
    }

    /// Takes one away; whether it was there.
    fn remove(&mut self, kind: Kind, name: &str) -> bool {
        self.get(kind, name).is_some() && Arc::make_mut(&mut self.0[kind as usize]).remove(name).is_some()
    }

    /// The scope that has these resources and no others, and the keys in which it differs from this one.
    fn become_these(&self, resources: Vec<Resource>) -> (Self, Changed) {
        let mut after = self.clone();
        let mut changed = Changed::new();
        let names: HashSet<(Kind, Arc<str>)> = resources.iter().map(|r| (r.kind, r.name.clone())).collect();
        for resource in resources {
            let key = (resource.kind, resource.name.clone());
            if after.put(resource) {
                changed.push(key);
            }
        }
        for key in self.keys().filter(|key| !names.contains(key)) {
            after.remove(key.0, &key.1);
            changed.push(key);
        }
        (after, changed)
    }

    fn keys(&self) -> impl Iterator<Item = (Kind, Arc<str>)> {
        Kind::ALL.into_iter().flat_map(|kind| self.0[kind as usize].keys().map(move |name| (kind, name.clone())))
    }
}

/// What a revision changes; of other resources nothing is said.
#[derive(Debug, Default)]
pub struct Change {
    /// For every proxy: new ones and other ones. Of two with one name the last counts.
    pub shared: Vec<Resource>,
    /// No longer for every proxy.
    pub gone: Vec<(Kind, Arc<str>)>,
    /// All that is for one workload alone; `None`: there is no such workload any more. Such a resource hides one that is for
    /// every proxy of the same name.
    pub own: BTreeMap<WorkloadKey, Option<Own>>,
}

/// Keys of resources that are not what they were.
type Changed = Vec<(Kind, Arc<str>)>;

/// What is for the proxy of one workload alone.
#[derive(Debug, Clone)]
pub struct Own {
    /// Service account of the workload: who has another one must not see this.
    pub account: Arc<str>,
    pub resources: Vec<Resource>,
}

/// The same, published.
#[derive(Debug)]
struct OwnScope {
    account: Arc<str>,
    scope: Scope,
}

/// One published revision.
#[derive(Debug, Default)]
struct Published {
    revision: u64,
    shared: Scope,
    scoped: Arc<HashMap<WorkloadKey, Arc<OwnScope>>>,
}

/// The resources in force.
#[derive(Debug)]
pub struct World {
    published: RwLock<Arc<Published>>,
    watchers: Mutex<Watchers>,
    /// One publication at a time.
    publishing: Mutex<()>,
    synced: signal::Sender<bool>,
    /// How often something has changed that [`World::news`] tells of.
    news: signal::Sender<u64>,
}

impl World {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            published: RwLock::default(),
            watchers: Mutex::default(),
            publishing: Mutex::default(),
            synced: signal::Sender::new(false),
            news: signal::Sender::new(0),
        })
    }

    /// Puts a revision in force and tells the sessions concerned.
    pub fn publish(&self, revision: u64, change: Change) {
        let _alone = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.published();
        let mut shared = before.shared.clone();
        let mut shared_changes = Changed::new();
        for (kind, name) in change.gone {
            if shared.remove(kind, &name) {
                shared_changes.push((kind, name));
            }
        }
        for resource in change.shared {
            let key = (resource.kind, resource.name.clone());
            if shared.put(resource) {
                shared_changes.push(key);
            }
        }
        let mut scoped = Arc::clone(&before.scoped);
        let mut scoped_changes = HashMap::new();
        let nothing = Scope::default();
        for (workload, own) in change.own {
            let old = before.scoped.get(&workload);
            let Some(Own { account, resources }) = own else {
                if let Some(old) = old {
                    scoped_changes.insert(workload.clone(), old.scope.keys().collect());
                    Arc::make_mut(&mut scoped).remove(&workload);
                }
                continue;
            };
            // What another account had is not this one's: all of it counts as changed, so that its sessions hear of it.
            let old = old.filter(|own| own.account == account);
            let (scope, changed) = old.map_or(&nothing, |own| &own.scope).become_these(resources);
            if old.is_none() || !changed.is_empty() {
                scoped_changes.insert(workload.clone(), changed);
                Arc::make_mut(&mut scoped).insert(workload, Arc::new(OwnScope { account, scope }));
            }
        }
        // First the state, then the news: who hears of a change finds it.
        let after = Published { revision, shared, scoped };
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(after);
        self.watchers().tell(revision, &shared_changes, &scoped_changes);
        self.synced.send_replace(true);
        self.stir();
    }

    /// Whether anything has been published.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Completes with the first publication. Cancel safe.
    pub async fn synced(&self) {
        // The sender lives as long as `self`, so that the wait ends in no other way.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// The revision in force; 0 before the first publication.
    pub fn revision(&self) -> u64 {
        self.published().revision
    }

    /// The newest revision of which every stream of this workload has acknowledged all that concerns it;
    /// `None` when it has no stream.
    pub fn acknowledged(&self, workload: &str) -> Option<u64> {
        self.watchers().acknowledged(workload)
    }

    /// The resources in force, as one workload sees them.
    pub fn view(&self, workload: &WorkloadKey) -> View {
        let published = self.published();
        let own = published.scoped.get(workload).cloned();
        View { published, own }
    }

    /// Changes whenever a revision is put in force, or how far a session's client has come. What has changed, whoever
    /// follows this looks up: it tells of many changes as of one.
    pub fn news(&self) -> signal::Receiver<u64> {
        self.news.subscribe()
    }

    /// Tells those who follow [`World::news`] to look.
    fn stir(&self) {
        self.news.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Begins a session of a workload.
    pub fn watch(self: &Arc<Self>, workload: WorkloadKey) -> Watch {
        Watch::new(self.clone(), workload)
    }

    fn published(&self) -> Arc<Published> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn watchers(&self) -> MutexGuard<'_, Watchers> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The resources of one revision, as one workload sees them.
#[derive(Debug, Clone)]
pub struct View {
    published: Arc<Published>,
    own: Option<Arc<OwnScope>>,
}

impl View {
    pub fn revision(&self) -> u64 {
        self.published.revision
    }

    /// The service account of the workload; `None` while nothing says that there is such a workload.
    pub fn account(&self) -> Option<&str> {
        self.own.as_ref().map(|own| &*own.account)
    }

    pub fn get(&self, kind: Kind, name: &str) -> Option<&Resource> {
        self.own.as_ref().and_then(|own| own.scope.get(kind, name)).or_else(|| self.published.shared.get(kind, name))
    }

    /// The same, where what is for the workload alone is what `adapt` makes of it; `None` takes a resource away.
    #[must_use]
    pub fn adapted(&self, adapt: impl Fn(&Resource) -> Option<Resource>) -> Self {
        let own = self.own.as_ref().map(|own| {
            let resources = own.scope.0.iter().flat_map(|kind| kind.values()).filter_map(&adapt).collect();
            let (scope, _) = Scope::default().become_these(resources);
            Arc::new(OwnScope { account: Arc::clone(&own.account), scope })
        });
        Self { published: Arc::clone(&self.published), own }
    }

    /// What is for the workload's own proxy alone, of this name.
    pub fn own(&self, kind: Kind, name: &str) -> Option<&Resource> {
        self.own.as_ref().and_then(|own| own.scope.get(kind, name))
    }

    /// All resources of a kind that are for the workload's own proxy alone, by name.
    pub fn all_own(&self, kind: Kind) -> impl Iterator<Item = &Resource> {
        self.own.iter().flat_map(move |own| own.scope.0[kind as usize].values())
    }

    /// All resources of a kind, own ones first, each group by name.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = &Resource> {
        let own = self.own.as_ref().map(|own| &own.scope.0[kind as usize]);
        let shared = self.published.shared.0[kind as usize].values();
        let visible = move |r: &&Resource| own.is_none_or(|own| !own.contains_key(&r.name));
        own.into_iter().flat_map(|own| own.values()).chain(shared.filter(visible))
    }
}
