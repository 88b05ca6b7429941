//! Documents as snapshots: the same that a store gives, so that all who read those need not know where they come from.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::document::{Document, Key};
use crate::store::{Snapshot, Stored};

/// Who wrote a document that was made from an object of the cluster.
const AUTHOR: &str = "kubernetes";

/// The snapshot that follows one, in which some documents may be others or gone; `None` when all are the same. A document that did not change keeps its
/// memory, its revision and its time; `at` is now, in seconds since the Unix epoch.
///
/// Revisions count from 1 in each life of a replica: they tell what came before what, and are not compared between replicas.
pub(super) fn follow(before: &Snapshot, mut changed: BTreeMap<Key, Option<Document>>, at: i64) -> Option<Snapshot> {
    let revision = before.revision + 1;
    changed.retain(|key, document| before.documents.get(key).map(|stored| &stored.document) != document.as_ref());
    if changed.is_empty() && before.revision > 0 {
        return None;
    }
    let mut documents = before.documents.clone();
    for (key, document) in changed {
        match document {
            Some(document) => {
                let stored = Stored { document, revision, changed_at: at, author: AUTHOR.to_owned() };
                documents.insert(key, Arc::new(stored));
            }
            None => _ = documents.remove(&key),
        }
    }
    Some(Snapshot { revision, documents })
}
