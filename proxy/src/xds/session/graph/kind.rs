//! The resources of one type: held, in force, wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::references::References;
use crate::state::Change;
use crate::xds::ResourceType;
use crate::xds::decode::{Decoded, decode_as};
use crate::xds::session::Fresh;
use crate::xds::session::body::{Packed, Templates};

/// The resources of one type.
#[derive(Debug, Default)]
pub(super) struct Kind {
    pub(super) held: BTreeMap<Arc<str>, Held>,
    /// What is in force and is not what is held: older, or held no more.
    pub(super) left: BTreeMap<Arc<str>, Arc<References>>,
    /// Names something held or in force refers to, and destinations asked for; of wildcard types only where destinations are
    /// asked for.
    pub(super) wanted: BTreeSet<Arc<str>>,
    /// Wanted names that were answered by something we do not hold.
    pub(super) unavailable: BTreeMap<Arc<str>, Unavailable>,
    pub(super) templates: Templates,
    /// What most resources of some types name; one for all of them.
    pub(super) nothing: Arc<References>,
    /// How many were held when the tables were last built anew.
    pub(super) built_with: usize,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) version: Arc<str>,
    pub(super) body: Packed,
    pub(super) references: Arc<References>,
    pub(super) is_in_force: bool,
    /// For our own workload alone: it is there without being named.
    pub(super) is_own: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unavailable {
    /// The server says it does not exist.
    Absent,
    /// It came and could not be used.
    Refused,
}

impl Held {
    /// Whether what is held says the same in other bytes. Maps have no order on the wire, so a server that encodes
    /// anew sends other bytes for the same thing; nothing in force may be disturbed by that.
    pub(super) fn means(&self, kind: ResourceType, decoded: &Decoded) -> bool {
        decode_as(kind, decoded.name(), &self.body.bytes()).is_ok_and(|held| held == *decoded)
    }
}

impl Kind {
    /// Builds the tables anew when they have grown much: filled one by one in order, their nodes stay half empty.
    pub(super) fn rebuild(&mut self) {
        if self.held.len() > self.built_with * 5 / 4 + 64 {
            self.built_with = self.held.len();
            self.held = std::mem::take(&mut self.held).into_iter().collect();
        }
    }

    /// Held, and in force at another version or not at all.
    pub(super) fn outdated(&self) -> Vec<Arc<str>> {
        self.held.iter().filter(|(_, held)| !held.is_in_force).map(|(name, _)| Arc::clone(name)).collect()
    }

    pub(super) fn is_outdated(&self, name: &str) -> bool {
        self.held.get(name).is_some_and(|held| !held.is_in_force)
    }

    /// In force and not held any more.
    pub(super) fn ghosts(&self) -> Vec<Arc<str>> {
        self.left.keys().filter(|&name| !self.held.contains_key(name)).cloned().collect()
    }

    /// Whether any version of it is in force.
    pub(super) fn has_in_force(&self, name: &str) -> bool {
        self.left.contains_key(name) || self.held.get(name).is_some_and(|held| held.is_in_force)
    }

    /// In force, or never will be for all the server says.
    pub(super) fn is_settled(&self, name: &str) -> bool {
        self.unavailable.contains_key(name) || self.has_in_force(name)
    }

    /// Wanted names without any answer.
    pub(super) fn unanswered(&self) -> usize {
        let is_open = |name: &&Arc<str>| !self.held.contains_key(*name) && !self.unavailable.contains_key(*name);
        self.wanted.iter().filter(is_open).count()
    }

    /// What everything held or in force refers to, but for what is for our own workload.
    pub(super) fn of_others(&self) -> impl Iterator<Item = &References> {
        let held = self.held.values().filter(|held| !held.is_own).map(|held| &*held.references);
        held.chain(self.left.values().map(|references| &**references))
    }

    /// What everything in force refers to.
    pub(super) fn in_force(&self) -> impl Iterator<Item = &References> {
        let held = self.held.values().filter(|held| held.is_in_force).map(|held| &*held.references);
        held.chain(self.left.values().map(|references| &**references))
    }

    /// Forgets what is held; it stays in force where it is. True when there was something.
    pub(super) fn drop_held(&mut self, name: &str) -> bool {
        let Some((name, held)) = self.held.remove_entry(name) else { return false };
        if held.is_in_force {
            self.left.insert(name, held.references);
        }
        true
    }

    pub(super) fn named_by_held(&self) -> impl Iterator<Item = Arc<str>> {
        self.held.values().filter_map(|held| held.references.resource.clone())
    }

    pub(super) fn named_in_force(&self) -> impl Iterator<Item = Arc<str>> {
        self.in_force().filter_map(|references| references.resource.clone())
    }

    /// Whether the held version of `name` would replace a working one by one whose `named` resource is not there yet.
    ///
    /// A refused resource is waited for as well: the server will correct it, and until then the old version works.
    pub(super) fn must_wait(&self, name: &str, named: &Kind) -> bool {
        let Some(needed) = self.held.get(name).and_then(|held| held.references.resource.as_ref()) else {
            return false;
        };
        let is_there = named.held.contains_key(needed) || named.unavailable.get(needed) == Some(&Unavailable::Absent);
        self.left.contains_key(name) && !is_there
    }

    /// Wants exactly these names; what was held for others is forgotten, because nobody will keep it up to date.
    pub(super) fn want(&mut self, wanted: BTreeSet<Arc<str>>) {
        let is_unwanted = |(name, held): &(&Arc<str>, &Held)| !held.is_own && !wanted.contains(*name);
        let unwanted: Vec<_> = self.held.iter().filter(is_unwanted).map(|(name, _)| Arc::clone(name)).collect();
        for name in unwanted {
            self.drop_held(&name);
        }
        self.unavailable.retain(|name, _| wanted.contains(name));
        self.wanted = wanted;
    }

    pub(super) fn put_in_force(&mut self, kind: ResourceType, name: &Arc<str>, fresh: &mut Fresh, change: &mut Change) {
        let Some(held) = self.held.get_mut(name) else { return };
        let decoded = fresh.remove(&(kind, Arc::clone(name)));
        // What is held was read before, so reading it again succeeds; if it ever did not, the old version would stay.
        let Some(decoded) = decoded.or_else(|| decode_as(kind, name, &held.body.bytes()).ok()) else { return };
        match decoded {
            Decoded::Listener(spec) => change.listeners.push(spec),
            Decoded::Routes(spec) => change.routes.push(spec),
            Decoded::Cluster(spec) => change.clusters.push(spec),
            Decoded::Endpoints(spec) => change.endpoints.push(spec),
            Decoded::Destination(spec) => change.destinations.push(spec),
        }
        held.is_in_force = true;
        self.left.remove(name);
    }
}
