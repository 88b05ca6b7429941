//! Documents as a store would have them, without one.

use std::sync::Arc;

use super::{Snapshot, Stored};
use crate::document::{Source, read};

/// The documents of a text, all of them of one revision.
pub(crate) fn snapshot(text: &str, revision: u64) -> Snapshot {
    let documents = read(&[Source { name: "a.yaml".to_owned(), text: text.to_owned() }]).unwrap();
    let stored = documents.into_iter().map(|located| {
        let stored = Stored { document: located.document, revision, changed_at: 5, author: "test".to_owned() };
        (stored.document.key(), Arc::new(stored))
    });
    Snapshot { revision, documents: stored.collect() }
}
