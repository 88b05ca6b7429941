//! What a client asked for of one type, and what it was told.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::super::{Acks, Star};
use crate::world::{Kind, Resource, View};

/// What the client has of a name, as far as we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Held {
    /// It has been told nothing yet.
    Untold,
    /// It knows that there is none.
    Missing,
    Version(Arc<str>),
}

#[derive(Debug)]
pub(super) struct Entry {
    /// Asked for by name, not only through the wildcard.
    pub(super) named: bool,
    pub(super) held: Held,
}

/// What the client asked for of one type, and what it was told.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    /// A request for the type has been seen.
    pub(super) opened: bool,
    pub(super) wildcard: bool,
    /// What the wildcard covers.
    pub(super) star: Star,
    pub(super) entries: HashMap<Arc<str>, Entry>,
    /// To be answered, changed or not.
    pub(super) owed: BTreeSet<Arc<str>>,
    /// To be sent, changed or not, if there: endpoints of a changed cluster.
    pub(super) following: BTreeSet<Arc<str>>,
    /// To be compared with what the client has.
    pub(super) changed: BTreeSet<Arc<str>>,
    /// To compare all.
    pub(super) scan: bool,
    /// A response is due even when it is empty: it tells that there is nothing.
    pub(super) greet: bool,
    /// Gone, but perhaps in use: see `removals_due` of the session.
    pub(super) leaving: BTreeSet<Arc<str>>,
    pub(super) acks: Acks,
}

impl Subscription {
    pub(super) fn is_waiting(&self) -> bool {
        self.scan || !self.changed.is_empty()
    }

    /// Everything sent and acknowledged.
    pub(super) fn is_quiet(&self) -> bool {
        !self.is_waiting() && self.acks.in_flight.is_empty()
    }

    pub(super) fn asks_for(&self, name: &str) -> bool {
        self.wildcard || self.entries.get(name).is_some_and(|entry| entry.named)
    }

    /// The resource of a name, as far as the client asks for it.
    pub(super) fn find<'v>(&self, kind: Kind, name: &str, view: &'v View) -> Option<&'v Resource> {
        let is_named = || self.entries.get(name).is_some_and(|entry| entry.named);
        match self.star {
            Star::Own if !is_named() => view.own(kind, name),
            Star::Own | Star::Everything => view.get(kind, name),
        }
    }

    /// Notes what the client is told of `name`, under the name's shared text.
    pub(super) fn told(&mut self, name: Arc<str>, held: Held) {
        let named = self.entries.remove_entry(&name).is_some_and(|(_, entry)| entry.named);
        // What only the wildcard asked for is forgotten once it is gone.
        if named || held != Held::Missing {
            self.entries.insert(name, Entry { named, held });
        }
    }

    /// Names that may have changed and are asked for.
    pub(super) fn take_candidates(&mut self, kind: Kind, view: &View) -> BTreeSet<Arc<str>> {
        let mut candidates = std::mem::take(&mut self.changed);
        if std::mem::take(&mut self.scan) {
            candidates.extend(self.entries.keys().cloned());
            if self.wildcard {
                match self.star {
                    Star::Everything => candidates.extend(view.all(kind).map(|resource| resource.name.clone())),
                    Star::Own => candidates.extend(view.all_own(kind).map(|resource| resource.name.clone())),
                }
            }
        }
        candidates.retain(|name| self.asks_for(name));
        candidates
    }
}
