//! Documents as snapshots: the same that a store gives, so that all who read those need not know where they come from.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::document::{Document, Key};
use crate::store::{Snapshot, Stored};

/// Who wrote a document that was made from an object of the cluster.
const AUTHOR: &str = "kubernetes";

/// The snapshot that follows one, or `None` when the documents are the same. A document that did not change keeps its
/// memory, its revision and its time; `at` is now, in seconds since the Unix epoch.
///
/// Revisions count from 1 in each life of a replica: they tell what came before what, and are not compared between replicas.
pub(super) fn follow(before: &Snapshot, documents: BTreeMap<Key, Document>, at: i64) -> Option<Snapshot> {
    let revision = before.revision + 1;
    let is_first = before.revision == 0;
    let mut is_other = is_first || documents.len() != before.documents.len();
    let mut after = BTreeMap::new();
    for (key, document) in documents {
        let stored = match before.documents.get(&key) {
            Some(stored) if stored.document == document => Arc::clone(stored),
            _ => {
                is_other = true;
                Arc::new(Stored { document, revision, changed_at: at, author: AUTHOR.to_owned() })
            }
        };
        after.insert(key, stored);
    }
    is_other.then_some(Snapshot { revision, documents: after })
}
