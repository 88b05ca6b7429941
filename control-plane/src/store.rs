//! Documents and their revisions on disk.
//!
//! One writer at a time turns a [`Batch`] into the next revision: documents, log entry and revision number are written
//! in one transaction, then everybody who [subscribed](Store::subscribe) sees the new [`Snapshot`]. A batch that
//! changes nothing makes no revision; one that is refused, or fails on disk, leaves everything as it was.
//! Calls block on the disk: asynchronous callers use `spawn_blocking`.

mod addresses;
mod lock;
mod plan;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::document::{Document, Key, Located, Problems, StoredFormatError};
pub use lock::{Lock, LockError};
use plan::{Plan, plan};

/// `KIND/NAMESPACE/NAME` to a [`Record`] in JSON.
const DOCUMENTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("documents");
/// Revision number to a [`Revision`] in JSON; only ever appended to.
const REVISIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("revisions");
/// [`FORMAT_ROW`] to the form of the two others. A store from before 0.2.0 has no such table: its form is the first.
const FORMAT: TableDefinition<'_, &str, u64> = TableDefinition::new("format");
const FORMAT_ROW: &str = "format";
/// The form that is written here. One that versions before this one would misread gets the next number.
const THIS_FORMAT: u64 = 1;

/// The documents of a mesh, in a file.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// Held by the one who writes.
    database: Mutex<Database>,
    current: watch::Sender<Arc<Snapshot>>,
}

/// All documents as of one revision.
#[derive(Debug, Default, PartialEq)]
pub struct Snapshot {
    /// 0 before the first change.
    pub revision: u64,
    pub documents: BTreeMap<Key, Arc<Stored>>,
}

/// A document in the store.
#[derive(Debug, PartialEq)]
pub struct Stored {
    pub document: Document,
    /// The revision that last changed it.
    pub revision: u64,
    /// Seconds since the Unix epoch.
    pub changed_at: i64,
    pub author: String,
}

/// What shall change, as one.
#[derive(Debug, Default, Clone)]
pub struct Batch {
    pub apply: Vec<Located>,
    /// Must exist.
    pub delete: Vec<Key>,
}

/// Who changes something, and when.
#[derive(Debug, Clone)]
pub struct Signature {
    pub author: String,
    /// Seconds since the Unix epoch.
    pub at: i64,
}

/// What a batch did to one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Created,
    Changed,
    Unchanged,
    Deleted,
}

/// What a batch did.
#[derive(Debug)]
pub struct Outcome {
    /// One for each document of the batch, in its order.
    pub changes: Vec<(Key, Action)>,
    /// The documents afterwards; of a dry run, as they would be.
    pub snapshot: Arc<Snapshot>,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    pub number: u64,
    /// Seconds since the Unix epoch.
    pub at: i64,
    pub author: String,
    pub changes: Vec<RevisionChange>,
}

/// What one revision did to one document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionChange {
    pub kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    pub name: String,
    pub action: Action,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<serde_json::Value>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{0}")]
    Refused(Problems),
    #[error("{}", missing(.0))]
    Missing(Vec<Key>),
    #[error("cannot {doing} the store at {}: {source}; check the disk and the permissions of the directory", .path.display())]
    Disk { doing: &'static str, path: PathBuf, source: Box<redb::Error> },
    #[error(
        "the store at {} is of form {found}, this version reads up to {THIS_FORMAT}; start the version that wrote it, or \
         the data of before (docs/versions.md, \"Going back\")", .path.display()
    )]
    Newer { path: PathBuf, found: u64 },
    #[error("the store at {} holds {key} in a form this version cannot read ({source}); start the version that wrote it", .path.display())]
    Format { path: PathBuf, key: String, source: StoredFormatError },
}

fn missing(keys: &[Key]) -> String {
    let list: Vec<String> = keys.iter().map(Key::to_string).collect();
    format!("{} does not exist; list what does with: weft get -A", list.join(", "))
}

/// A document as it lies on disk.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    revision: u64,
    changed_at: i64,
    author: String,
    document: serde_json::Value,
}

impl Action {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
        }
    }
}

impl Store {
    /// Opens the store of a data directory, or makes an empty one. The caller holds the directory's [`Lock`].
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join("store.redb");
        let (database, snapshot) = load(&path)?;
        Ok(Self { path, database: Mutex::new(database), current: watch::Sender::new(Arc::new(snapshot)) })
    }

    /// The documents now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.borrow())
    }

    /// Every new revision from here on; those in between may be skipped.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.current.subscribe()
    }

    /// Does a batch as one revision.
    pub fn change(&self, batch: Batch, signature: &Signature) -> Result<Outcome, StoreError> {
        // A panic while writing leaves the transaction undone, so the data behind a poisoned lock is whole.
        let database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.snapshot();
        let plan = plan(&before, batch)?;
        if plan.is_empty() {
            return Ok(Outcome { changes: plan.actions(), snapshot: before });
        }
        let revision = plan.revision(&before, signature);
        let after = Arc::new(plan.outcome(&before, signature));
        write(&database, &revision, &after).map_err(|source| self.disk("write to", source))?;
        self.current.send_replace(Arc::clone(&after));
        Ok(Outcome { changes: plan.actions(), snapshot: after })
    }

    /// What [`Store::change`] would do now.
    pub fn dry_run(&self, batch: Batch, signature: &Signature) -> Result<Outcome, StoreError> {
        let before = self.snapshot();
        let plan: Plan = plan(&before, batch)?;
        let snapshot = plan.outcome(&before, signature);
        // Nothing happened, so the revision is still the old one.
        let snapshot = Arc::new(Snapshot { revision: before.revision, ..snapshot });
        Ok(Outcome { changes: plan.actions(), snapshot })
    }

    /// Entries of the log, the newest first.
    pub fn history(&self, limit: usize) -> Result<Vec<Revision>, StoreError> {
        let database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let read = || -> Result<Vec<Vec<u8>>, redb::Error> {
            let table = database.begin_read()?.open_table(REVISIONS)?;
            table.iter()?.rev().take(limit).map(|entry| Ok(entry?.1.value().to_vec())).collect()
        };
        let entries = read().map_err(|source| self.disk("read", source))?;
        let parse = |bytes: &Vec<u8>| {
            serde_json::from_slice(bytes).map_err(|source| StoreError::Format {
                path: self.path.clone(),
                key: "a revision".into(),
                source: source.into(),
            })
        };
        entries.iter().map(parse).collect()
    }

    fn disk(&self, doing: &'static str, source: redb::Error) -> StoreError {
        StoreError::Disk { doing, path: self.path.clone(), source: Box::new(source) }
    }
}

/// Opens the file and reads all documents.
fn load(path: &Path) -> Result<(Database, Snapshot), StoreError> {
    type Rows = Vec<(String, Vec<u8>)>;
    let open = || -> Result<(Database, u64, u64, Rows), redb::Error> {
        let database = Database::create(path)?;
        let transaction = database.begin_write()?;
        let format = {
            let mut table = transaction.open_table(FORMAT)?;
            let found = table.get(FORMAT_ROW)?.map(|row| row.value());
            if found.is_none() {
                table.insert(FORMAT_ROW, THIS_FORMAT)?;
            }
            found.unwrap_or(THIS_FORMAT)
        };
        if format > THIS_FORMAT {
            // Its tables may be others: nothing of it is touched.
            return Ok((database, format, 0, Rows::new()));
        }
        let (revision, rows) = {
            // Opening makes the tables of a new file.
            let documents = transaction.open_table(DOCUMENTS)?;
            let revisions = transaction.open_table(REVISIONS)?;
            let revision = revisions.last()?.map_or(0, |(number, _)| number.value());
            let row = |entry: Result<(redb::AccessGuard<'_, &str>, redb::AccessGuard<'_, &[u8]>), _>| {
                entry.map(|(key, value)| (key.value().to_owned(), value.value().to_vec()))
            };
            (revision, documents.iter()?.map(row).collect::<Result<Rows, redb::StorageError>>()?)
        };
        transaction.commit()?;
        Ok((database, format, revision, rows))
    };
    let (database, format, revision, rows) =
        open().map_err(|source| StoreError::Disk { doing: "open", path: path.into(), source: Box::new(source) })?;
    if format > THIS_FORMAT {
        return Err(StoreError::Newer { path: path.into(), found: format });
    }
    let mut documents = BTreeMap::new();
    for (key, bytes) in rows {
        let stored = read_record(&bytes).map_err(|source| StoreError::Format { path: path.into(), key, source })?;
        documents.insert(stored.document.key(), Arc::new(stored));
    }
    Ok((database, Snapshot { revision, documents }))
}

fn read_record(bytes: &[u8]) -> Result<Stored, StoredFormatError> {
    let Record { revision, changed_at, author, document } = serde_json::from_slice(bytes)?;
    Ok(Stored { document: Document::from_json(document)?, revision, changed_at, author })
}

/// Writes a revision and the documents it changed in one transaction.
fn write(database: &Database, revision: &Revision, after: &Snapshot) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut documents = transaction.open_table(DOCUMENTS)?;
        for change in &revision.changes {
            let row = format!("{}/{}/{}", change.kind, change.namespace, change.name);
            let Some(document) = &change.after else {
                documents.remove(row.as_str())?;
                continue;
            };
            let record = Record {
                revision: after.revision,
                changed_at: revision.at,
                author: revision.author.clone(),
                document: document.clone(),
            };
            documents.insert(row.as_str(), to_bytes(&record)?.as_slice())?;
        }
        transaction.open_table(REVISIONS)?.insert(revision.number, to_bytes(revision)?.as_slice())?;
    }
    transaction.commit()?;
    Ok(())
}

fn to_bytes(value: &impl Serialize) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(value).map_err(|error| redb::Error::Io(error.into()))
}
