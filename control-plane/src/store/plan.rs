//! What a batch does to a snapshot: pure, so that a dry run and the real one cannot differ.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::addresses::allocate;
use super::{Action, Batch, Revision, RevisionChange, Signature, Snapshot, StoreError, Stored};
use crate::document::{Document, Key, Located, Manifest, Problem, Problems, ServiceSpec};

/// The steps of a batch, each with what stands afterwards.
pub(super) struct Plan {
    steps: Vec<(Key, Action, Option<Document>)>,
}

/// Checks a batch against the documents there are and fills in what the store decides.
pub(super) fn plan(before: &Snapshot, mut batch: Batch) -> Result<Plan, StoreError> {
    let missing: Vec<Key> = batch.delete.iter().filter(|key| !before.documents.contains_key(key)).cloned().collect();
    if !missing.is_empty() {
        return Err(StoreError::Missing(missing));
    }
    settle_addresses(before, &mut batch)?;
    let mut seen = HashSet::new();
    let mut steps = Vec::new();
    for Located { document, .. } in batch.apply {
        let key = document.key();
        seen.insert(key.clone());
        let action = match before.documents.get(&key) {
            None => Action::Created,
            Some(stored) if stored.document == document => Action::Unchanged,
            Some(_) => Action::Changed,
        };
        steps.push((key, action, Some(document)));
    }
    // A document both applied and deleted stays: it has only moved between sources.
    for key in batch.delete {
        if seen.insert(key.clone()) {
            steps.push((key, Action::Deleted, None));
        }
    }
    Ok(Plan { steps })
}

/// Gives every service its virtual addresses: its own, those it had, or free ones, in this order.
fn settle_addresses(before: &Snapshot, batch: &mut Batch) -> Result<(), StoreError> {
    let services = |located: &Located| matches!(located.document, Document::Service(_));
    if !batch.apply.iter().any(services) {
        return Ok(());
    }
    let replaced: HashSet<Key> =
        batch.apply.iter().map(|located| located.document.key()).chain(batch.delete.iter().cloned()).collect();
    let mut taken: HashMap<IpAddr, Key> = HashMap::new();
    for (key, stored) in before.documents.iter().filter(|(key, _)| !replaced.contains(*key)) {
        if let Document::Service(service) = &stored.document {
            taken.extend(service.spec.addresses.iter().map(|address| (*address, key.clone())));
        }
    }
    let mut problems = Vec::new();
    // What is asked for goes before what is free to choose, whatever the order of the documents.
    for located in &mut batch.apply {
        let key = located.document.key();
        let Document::Service(service) = &mut located.document else { continue };
        keep_earlier(before, &key, service);
        for (index, address) in service.spec.addresses.iter().enumerate() {
            let Some(owner) = taken.insert(*address, key.clone()).filter(|owner| *owner != key) else { continue };
            let what = format!("{address} already belongs to {owner}; choose another, or leave it out to be given one");
            let field = format!("spec.addresses[{index}]");
            problems.push(Problem::of(&key, located.place.clone(), &field, what));
            taken.insert(*address, owner);
        }
    }
    for located in &mut batch.apply {
        let key = located.document.key();
        let Document::Service(service) = &mut located.document else { continue };
        if !service.spec.addresses.is_empty() {
            continue;
        }
        if let Some(addresses) = allocate(&key, &taken) {
            taken.extend(addresses.map(|address| (address, key.clone())));
            service.spec.addresses = addresses.to_vec();
        } else {
            let what = "10.96.0.0/16 has no free address left; give one of another network".to_owned();
            problems.push(Problem::of(&key, located.place.clone(), "spec.addresses", what));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(StoreError::Refused(Problems(problems))) }
}

/// A service applied again without addresses keeps those it has.
fn keep_earlier(before: &Snapshot, key: &Key, service: &mut Manifest<ServiceSpec>) {
    if !service.spec.addresses.is_empty() {
        return;
    }
    if let Some(Document::Service(earlier)) = before.documents.get(key).map(|stored| &stored.document) {
        service.spec.addresses.clone_from(&earlier.spec.addresses);
    }
}

impl Plan {
    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.steps.iter().all(|(_, action, _)| *action == Action::Unchanged)
    }

    pub(super) fn actions(&self) -> Vec<(Key, Action)> {
        self.steps.iter().map(|(key, action, _)| (key.clone(), *action)).collect()
    }

    /// The steps that change something.
    fn changes(&self) -> impl Iterator<Item = &(Key, Action, Option<Document>)> {
        self.steps.iter().filter(|(_, action, _)| *action != Action::Unchanged)
    }

    /// The entry for the log.
    pub(super) fn revision(&self, before: &Snapshot, signature: &Signature) -> Revision {
        let change = |(key, action, after): &(Key, Action, Option<Document>)| RevisionChange {
            kind: key.kind.to_string(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            action: *action,
            before: before.documents.get(key).map(|stored| stored.document.to_json()),
            after: after.as_ref().map(Document::to_json),
        };
        Revision {
            number: before.revision + 1,
            at: signature.at,
            author: signature.author.clone(),
            changes: self.changes().map(change).collect(),
        }
    }

    /// All documents afterwards.
    pub(super) fn outcome(&self, before: &Snapshot, signature: &Signature) -> Snapshot {
        let revision = before.revision + 1;
        let mut documents: BTreeMap<Key, Arc<Stored>> = before.documents.clone();
        for (key, _, after) in self.changes() {
            let Some(document) = after.clone() else {
                documents.remove(key);
                continue;
            };
            let stored = Stored { document, revision, changed_at: signature.at, author: signature.author.clone() };
            documents.insert(key.clone(), Arc::new(stored));
        }
        Snapshot { revision, documents }
    }
}
