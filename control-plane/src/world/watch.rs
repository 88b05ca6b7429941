//! How news of a change reaches the sessions concerned, and how far each has come.
//!
//! An index leads from a resource to the sessions that asked for it; a change is noted in the inboxes of those and
//! nobody else wakes up. An inbox holds keys, not resources: whoever is slow finds the newest state when it comes
//! to look. It is bounded: past [`INBOX_LIMIT`] keys it says "everything", and the session compares all it has.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::resource::Kind;
use super::{View, WorkloadKey, World};

/// Keys an inbox holds before it says "everything": looking at a whole scope is then cheaper.
const INBOX_LIMIT: usize = 4096;

/// Resources that may have changed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Changes {
    pub keys: BTreeSet<(Kind, Arc<str>)>,
    /// More than could be listed.
    pub everything: bool,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && !self.everything
    }

    fn add(&mut self, kind: Kind, name: &Arc<str>) {
        if self.everything {
            return;
        }
        if self.keys.len() == INBOX_LIMIT {
            return self.add_everything();
        }
        self.keys.insert((kind, name.clone()));
    }

    fn add_everything(&mut self) {
        self.keys = BTreeSet::new();
        self.everything = true;
    }
}

/// What a session begins or ceases to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interest {
    Name(Kind, Arc<str>),
    NotName(Kind, Arc<str>),
    Wildcard(Kind),
    /// All that is for the session's own workload alone.
    OwnWildcard(Kind),
    /// Neither kind of wildcard.
    NotWildcard(Kind),
}

/// How far a session's client has come, as the session knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The newest revision of which the client has acknowledged everything that concerns it.
    pub acknowledged: u64,
    /// Everything the session knows of has been acknowledged.
    pub settled: bool,
    /// The newest revision of which the client has answered everything that concerns it, be it by a refusal.
    pub answered: u64,
    /// Everything the session knows of has been answered.
    pub quiet: bool,
    /// The client asks for what it uses when it uses it: what it begins to ask for makes it no less up to date than it was.
    pub on_demand: bool,
}

/// News for one session.
#[derive(Debug, Default)]
struct Inbox {
    content: Mutex<Content>,
    notify: Notify,
    /// What the session asks for by name: to be told, and taken out of the index at the end.
    names: Mutex<HashSet<(Kind, Arc<str>)>>,
}

#[derive(Debug, Default)]
struct Content {
    changes: Changes,
    /// Revision of the newest change noted here.
    revision: u64,
    /// Changes were taken and the session has not reported since.
    in_hand: bool,
    progress: Progress,
}

impl Content {
    fn is_settled(&self) -> bool {
        self.is_taken() && self.progress.settled
    }

    fn is_quiet(&self) -> bool {
        self.is_taken() && self.progress.quiet
    }

    /// The session knows of everything that is noted here.
    fn is_taken(&self) -> bool {
        self.changes.is_empty() && !self.in_hand
    }
}

impl Inbox {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self) -> MutexGuard<'_, HashSet<(Kind, Arc<str>)>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who asked for what.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    next_id: u64,
    /// The revision everybody concerned has been told of.
    revision: u64,
    inboxes: HashMap<u64, Arc<Inbox>>,
    workloads: HashMap<WorkloadKey, HashSet<u64>>,
    wildcards: [HashSet<u64>; Kind::ALL.len()],
    own_wildcards: [HashSet<u64>; Kind::ALL.len()],
    names: [HashMap<Arc<str>, HashSet<u64>>; Kind::ALL.len()],
}

impl Watchers {
    /// Notes the difference between two revisions with the sessions concerned.
    pub(super) fn tell(
        &mut self,
        revision: u64,
        shared: &[(Kind, Arc<str>)],
        scoped: &HashMap<WorkloadKey, Vec<(Kind, Arc<str>)>>,
    ) {
        let before = std::mem::replace(&mut self.revision, revision);
        let mut woken = HashSet::new();
        let mut note = |id: u64, inbox: &Inbox, key: Option<&(Kind, Arc<str>)>| {
            let mut content = inbox.content();
            if content.is_settled() {
                content.progress.acknowledged = content.progress.acknowledged.max(before);
            }
            if content.is_quiet() {
                content.progress.answered = content.progress.answered.max(before);
            }
            match key {
                Some((kind, name)) => content.changes.add(*kind, name),
                None => content.changes.add_everything(),
            }
            content.revision = revision;
            woken.insert(id);
        };
        if shared.len() > INBOX_LIMIT {
            self.inboxes.iter().for_each(|(id, inbox)| note(*id, inbox, None));
        } else {
            for key in shared {
                let named = self.names[key.0 as usize].get(&key.1);
                for id in self.wildcards[key.0 as usize].iter().chain(named.into_iter().flatten()) {
                    if let Some(inbox) = self.inboxes.get(id) {
                        note(*id, inbox, Some(key));
                    }
                }
            }
        }
        for (workload, keys) in scoped {
            for id in self.workloads.get(workload).into_iter().flatten() {
                let Some(inbox) = self.inboxes.get(id) else { continue };
                for key in keys.iter().filter(|(kind, name)| self.asked_for(*id, *kind, name)) {
                    note(*id, inbox, Some(key));
                }
            }
        }
        for id in woken {
            self.inboxes[&id].notify.notify_one();
        }
    }

    fn asked_for(&self, id: u64, kind: Kind, name: &str) -> bool {
        self.wildcards[kind as usize].contains(&id)
            || self.own_wildcards[kind as usize].contains(&id)
            || self.names[kind as usize].get(name).is_some_and(|ids| ids.contains(&id))
    }

    fn open(&mut self, workload: &WorkloadKey) -> (u64, Arc<Inbox>) {
        self.next_id += 1;
        let inbox = Arc::new(Inbox::default());
        self.inboxes.insert(self.next_id, inbox.clone());
        self.workloads.entry(workload.clone()).or_default().insert(self.next_id);
        (self.next_id, inbox)
    }

    fn close(&mut self, id: u64, workload: &WorkloadKey) {
        self.inboxes.remove(&id);
        for ids in self.wildcards.iter_mut().chain(&mut self.own_wildcards) {
            ids.remove(&id);
        }
        remove_from(&mut self.workloads, workload, id);
    }

    /// The text that all who ask for a name share.
    fn shared(&self, kind: Kind, name: Arc<str>) -> Arc<str> {
        self.names[kind as usize].get_key_value(&name).map_or(name, |(shared, _)| Arc::clone(shared))
    }

    fn note_interest(&mut self, id: u64, interest: &Interest) {
        match interest {
            Interest::Name(kind, name) => {
                self.names[*kind as usize].entry(name.clone()).or_default().insert(id);
            }
            Interest::NotName(kind, name) => remove_from(&mut self.names[*kind as usize], name, id),
            Interest::Wildcard(kind) => {
                self.wildcards[*kind as usize].insert(id);
            }
            Interest::OwnWildcard(kind) => {
                self.own_wildcards[*kind as usize].insert(id);
            }
            Interest::NotWildcard(kind) => {
                self.wildcards[*kind as usize].remove(&id);
                self.own_wildcards[*kind as usize].remove(&id);
            }
        }
    }

    /// Revision fully acknowledged by each session, by workload.
    pub(super) fn acknowledged(&self, workload: &str) -> Option<u64> {
        let ids = self.workloads.get(workload)?;
        ids.iter().filter_map(|id| self.inboxes.get(id)).map(|inbox| self.acknowledged_by(inbox)).min()
    }

    fn acknowledged_by(&self, inbox: &Inbox) -> u64 {
        let content = inbox.content();
        // What did not concern the session, it has applied.
        if content.is_settled() { self.revision } else { content.progress.acknowledged }
    }

    fn answered_by(&self, inbox: &Inbox) -> u64 {
        let content = inbox.content();
        if content.is_quiet() { self.revision } else { content.progress.answered }
    }
}

/// A name nobody asks for any more leaves the index.
fn remove_from<K: std::hash::Hash + Eq>(index: &mut HashMap<K, HashSet<u64>>, key: &K, id: u64) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

/// One session's view of the world and its inbox. Dropping it ends the session's interest.
#[derive(Debug)]
pub struct Watch {
    world: Arc<World>,
    id: u64,
    workload: WorkloadKey,
    inbox: Arc<Inbox>,
}

impl Watch {
    pub(super) fn new(world: Arc<World>, workload: WorkloadKey) -> Self {
        let (id, inbox) = world.watchers().open(&workload);
        Self { world, id, workload, inbox }
    }

    pub fn workload(&self) -> &WorkloadKey {
        &self.workload
    }

    /// Notes what the session asks for. To be called before looking at the [`Watch::view`] that answers
    /// it: a change in between is then in the inbox, or in the view, or in both.
    pub fn note_interest(&mut self, interests: impl IntoIterator<Item = Interest>) {
        let mut watchers = self.world.watchers();
        let mut names = self.inbox.names();
        for interest in interests {
            watchers.note_interest(self.id, &interest);
            match interest {
                Interest::Name(kind, name) => {
                    names.insert((kind, watchers.shared(kind, name)));
                }
                Interest::NotName(kind, name) => {
                    names.remove(&(kind, name));
                }
                Interest::Wildcard(_) | Interest::OwnWildcard(_) | Interest::NotWildcard(_) => {}
            }
        }
    }

    /// Completes when the inbox has been filled since the last call. Cancel safe.
    pub async fn changed(&self) {
        self.inbox.notify.notified().await;
    }

    /// Empties the inbox: what changed, up to which revision. [`Watch::report`] must follow.
    pub fn take(&self) -> (Changes, u64) {
        let mut content = self.inbox.content();
        content.in_hand = true;
        (std::mem::take(&mut content.changes), content.revision)
    }

    /// Says how far the client has come, with all that was taken in account.
    pub fn report(&self, progress: Progress) {
        let keeps = progress.on_demand && !(progress.settled && progress.quiet);
        let told = keeps.then(|| self.world.watchers());
        let mut content = self.inbox.content();
        if let Some(told) = told {
            // What did not concern it until now it has applied.
            if content.is_settled() {
                content.progress.acknowledged = content.progress.acknowledged.max(told.revision);
            }
            if content.is_quiet() {
                content.progress.answered = content.progress.answered.max(told.revision);
            }
        }
        let acknowledged = content.progress.acknowledged.max(progress.acknowledged);
        let answered = content.progress.answered.max(progress.answered);
        let progress = Progress { acknowledged, answered, ..progress };
        let is_news = std::mem::replace(&mut content.progress, progress) != progress;
        if std::mem::replace(&mut content.in_hand, false) || is_news {
            drop(content);
            self.world.stir();
        }
    }

    /// The resources in force, as this workload sees them.
    pub fn view(&self) -> View {
        self.world.view(&self.workload)
    }

    /// What says how far this session has come, for those who do not own it.
    pub fn standing(&self) -> Standing {
        Standing { world: self.world.clone(), inbox: self.inbox.clone() }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watchers = self.world.watchers();
        watchers.close(self.id, &self.workload);
        for (kind, name) in self.inbox.names().drain() {
            remove_from(&mut watchers.names[kind as usize], &name, self.id);
        }
    }
}

/// Where a session stands; see [`Watch::standing`].
#[derive(Debug, Clone)]
pub struct Standing {
    world: Arc<World>,
    inbox: Arc<Inbox>,
}

impl Standing {
    /// The newest revision of which the session's client has acknowledged everything that concerns it.
    pub fn acknowledged(&self) -> u64 {
        self.world.watchers().acknowledged_by(&self.inbox)
    }

    /// The newest revision of which the session's client has answered everything that concerns it.
    pub fn answered(&self) -> u64 {
        self.world.watchers().answered_by(&self.inbox)
    }

    /// What the session asks for by name.
    pub fn names(&self) -> Vec<(Kind, Arc<str>)> {
        self.inbox.names().iter().cloned().collect()
    }

    /// Something is known of the session that the world does not hold: see [`World::news`].
    pub fn stir(&self) {
        self.world.stir();
    }
}
