//! A directory of documents, kept in the store.
//!
//! The directory is the truth about the documents it holds: whatever changes in it, all of it is read again and applied,
//! and documents that came from it and are gone from it are deleted. Reading everything makes the order and the number
//! of events meaningless, so editors that rename and replace, and events that get lost, do no harm.
//!
//! The first reading is taken as a whole or not at all. Later, a file that cannot be used counts as it last could,
//! so that a typing error neither deletes nor holds up anything else; it is reported until it is repaired.

pub mod files;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};

use crate::document::{Key, Located, Problem, Problems, Source, duplicates, read};
use crate::store::{Batch, Signature, Store, StoreError};

/// Events closer together than this are one change: saving a file makes several.
const QUIET: Duration = Duration::from_millis(50);
/// A directory in which something changes all the time is still read this often.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long until a directory that cannot be watched is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Why a directory cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error(
        "cannot read the directory of documents {}: {source}; name an existing one with --config-dir", .path.display()
    )]
    Read { path: PathBuf, source: std::io::Error },
}

/// A directory and what was last read there.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    files: BTreeMap<PathBuf, File>,
    /// Whether the whole directory has been in the store once.
    complete: bool,
}

/// What one file holds.
#[derive(Debug)]
struct File {
    text: Result<String, String>,
    documents: Result<Vec<Located>, Problems>,
    /// The documents it had in the store when it last could be used.
    applied: Option<Vec<Located>>,
}

impl Directory {
    pub fn open(path: &Path) -> Result<Self, WatchError> {
        let error = |source| WatchError::Read { path: path.to_owned(), source };
        let path = path.canonicalize().map_err(error)?;
        std::fs::read_dir(&path).map_err(error)?;
        Ok(Self { path, files: BTreeMap::new(), complete: false })
    }

    /// Brings the store to what the directory holds now; what could not be used is told line by line. Blocks.
    pub fn sync(&mut self, store: &Store, at: i64) -> Vec<String> {
        let changed = match files::scan(&self.path) {
            Ok(found) => self.take(found),
            Err(source) => {
                let error = WatchError::Read { path: self.path.clone(), source };
                return vec![error.to_string()];
            }
        };
        let mut problems: Vec<Problem> =
            self.files.values().filter_map(|file| file.documents.as_ref().err()).flat_map(|p| p.0.clone()).collect();
        if !self.complete && !problems.is_empty() {
            return lines(&problems);
        }
        let author = match &changed[..] {
            [path] => format!("file:{}", path.display()),
            _ => self.author(),
        };
        // Files whose content is new are those that may be put back when something is wrong.
        let mut fresh: HashSet<PathBuf> = self.usable().map(|(path, _)| path.clone()).collect();
        loop {
            match self.apply(store, &fresh, &Signature { author: author.clone(), at }) {
                Ok(()) => {
                    self.complete = true;
                    return lines(&problems);
                }
                Err(StoreError::Refused(Problems(refused))) => {
                    let blamed = self.blame(&refused, &fresh);
                    problems.extend(refused);
                    if !self.complete || blamed.is_empty() {
                        return lines(&problems);
                    }
                    fresh.retain(|path| !blamed.contains(path));
                }
                Err(error) => {
                    let mut lines = lines(&problems);
                    lines.push(error.to_string());
                    return lines;
                }
            }
        }
    }

    /// Why it cannot be read now, if so.
    fn unread(&self) -> Option<WatchError> {
        let source = std::fs::read_dir(&self.path).err()?;
        Some(WatchError::Read { path: self.path.clone(), source })
    }

    /// Takes over what was found; which files are new, different or gone.
    fn take(&mut self, found: BTreeMap<PathBuf, Result<String, String>>) -> Vec<PathBuf> {
        let mut changed: Vec<PathBuf> = self.files.keys().filter(|path| !found.contains_key(*path)).cloned().collect();
        self.files.retain(|path, _| found.contains_key(path));
        for (path, text) in found {
            if self.files.get(&path).is_some_and(|file| file.text == text) {
                continue;
            }
            let documents = parse(&path, &text);
            let applied = self.files.remove(&path).and_then(|file| file.applied);
            changed.push(path.clone());
            self.files.insert(path, File { text, documents, applied });
        }
        changed
    }

    /// Files that can be read and hold something else than what is in the store.
    fn usable(&self) -> impl Iterator<Item = (&PathBuf, &Vec<Located>)> {
        self.files.iter().filter_map(|(path, file)| {
            let documents = file.documents.as_ref().ok()?;
            (file.applied.as_ref() != Some(documents)).then_some((path, documents))
        })
    }

    /// Applies the fresh files as they are now and all others as they last were.
    fn apply(&mut self, store: &Store, fresh: &HashSet<PathBuf>, signature: &Signature) -> Result<(), StoreError> {
        let mut apply: Vec<Located> = Vec::new();
        for (path, file) in &self.files {
            let documents = if fresh.contains(path) { file.documents.as_ref().ok() } else { file.applied.as_ref() };
            apply.extend(documents.into_iter().flatten().cloned());
        }
        let twice = duplicates(&apply);
        if !twice.is_empty() {
            return Err(StoreError::Refused(Problems(twice)));
        }
        let kept: HashSet<Key> = apply.iter().map(|located| located.document.key()).collect();
        let delete = self.ours(store).filter(|key| !kept.contains(key)).collect();
        let outcome = store.change(Batch { apply, delete }, signature)?;
        for (key, action) in outcome.changes.iter().filter(|(_, action)| *action != crate::store::Action::Unchanged) {
            tracing::info!(document = %key, action = action.as_str(), revision = outcome.snapshot.revision, "from files");
        }
        for (path, file) in &mut self.files {
            if fresh.contains(path) {
                file.applied = file.documents.as_ref().ok().cloned();
            }
        }
        Ok(())
    }

    /// Documents in the store whose last author is this directory. What somebody has changed by hand since is theirs.
    fn ours(&self, store: &Store) -> impl Iterator<Item = Key> {
        let whole = self.author();
        let inside = format!("{whole}/");
        let snapshot = store.snapshot();
        let is_ours = move |author: &str| author == whole || author.starts_with(&inside);
        let keys: Vec<Key> = snapshot
            .documents
            .iter()
            .filter(|(_, stored)| is_ours(&stored.author))
            .map(|(key, _)| key.clone())
            .collect();
        keys.into_iter()
    }

    /// The fresh files to leave out because of these problems: those that hold a document a problem is about, or all
    /// when only old ones do.
    fn blame(&self, problems: &[Problem], fresh: &HashSet<PathBuf>) -> HashSet<PathBuf> {
        let about: HashSet<&str> = problems.iter().map(|problem| problem.document.as_str()).collect();
        let holds_one = |path: &PathBuf| {
            let documents = self.files.get(path).and_then(|file| file.documents.as_ref().ok());
            documents.into_iter().flatten().any(|located| about.contains(located.document.key().to_string().as_str()))
        };
        let named: HashSet<PathBuf> = fresh.iter().filter(|path| holds_one(path)).cloned().collect();
        if named.is_empty() { fresh.clone() } else { named }
    }

    fn author(&self) -> String {
        format!("file:{}", self.path.display())
    }
}

/// Keeps a directory in the store for as long as the future is polled; `problems` holds what is wrong right now.
pub async fn keep(mut directory: Directory, store: Arc<Store>, problems: watch::Sender<Vec<String>>) {
    loop {
        let stirred = Arc::new(Notify::new());
        let watched = identity(&directory.path);
        let watcher = match watcher(&directory.path, Arc::clone(&stirred)) {
            Ok(watcher) => watcher,
            Err(error) => {
                // Where it is not there, that is told in the words of its reading: they do not change while nothing does.
                let unread = directory.unread().map(|error| error.to_string());
                let what = unread.unwrap_or_else(|| format!("cannot watch {}: {error}", directory.path.display()));
                report(&problems, vec![what]);
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        // What changed before the watch began is found by reading once now.
        stirred.notify_one();
        loop {
            stirred.notified().await;
            settle(&stirred).await;
            let (store, at) = (Arc::clone(&store), weft_proxy::clock::unix_seconds());
            let synced = tokio::task::spawn_blocking(move || {
                let found = directory.sync(&store, at);
                (directory, found)
            });
            let Ok((back, found)) = synced.await else {
                tracing::error!("reading the directory of documents failed; it is not kept any more");
                return;
            };
            directory = back;
            report(&problems, found);
            if watched.is_none() || identity(&directory.path) != watched {
                break;
            }
        }
        // The watch went with the directory; it is made again for what stands in its place, if anything does yet.
        drop(watcher);
        tokio::time::sleep(RETRY).await;
    }
}

/// Which directory stands there: one that was moved away and made anew has the same name.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir)?;
    Some((metadata.dev(), metadata.ino()))
}

fn watcher(path: &Path, stirred: Arc<Notify>) -> notify::Result<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
        // Our own reading.
        Ok(event) if matches!(event.kind, EventKind::Access(_)) => {}
        Ok(_) => stirred.notify_one(),
        Err(error) => {
            tracing::warn!(%error, "watching the directory of documents");
            stirred.notify_one();
        }
    })?;
    watcher.watch(path, RecursiveMode::Recursive)?;
    Ok(watcher)
}

/// Waits until nothing has happened for a moment.
async fn settle(stirred: &Notify) {
    let quiet = async { while tokio::time::timeout(QUIET, stirred.notified()).await.is_ok() {} };
    // Elapsed patience is as good as quiet.
    let _ = tokio::time::timeout(PATIENCE, quiet).await;
}

fn report(problems: &watch::Sender<Vec<String>>, found: Vec<String>) {
    problems.send_if_modified(|known| {
        if *known == found {
            return false;
        }
        for problem in &found {
            tracing::warn!("not applied: {problem}");
        }
        if found.is_empty() && !known.is_empty() {
            tracing::info!("all documents of the directory are applied again");
        }
        *known = found;
        true
    });
}

fn parse(path: &Path, text: &Result<String, String>) -> Result<Vec<Located>, Problems> {
    let name = path.display().to_string();
    match text {
        Ok(text) => read(&[Source { name, text: text.clone() }]),
        Err(what) => {
            let place = crate::document::Place { source: name.into(), position: None };
            Err(Problems(vec![Problem { place, document: String::new(), field: String::new(), what: what.clone() }]))
        }
    }
}

fn lines(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}
