//! Keeps the last good configuration on disk up to date without standing in the way.

use std::convert::Infallible;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Chain;
use super::asking::Asking;
use crate::clock;
use crate::xds::last_good::{self, LastGoodError};
use crate::xds::session::{Session, Stored};

/// Shortest time between two writes: a storm of updates costs one write a second.
const INTERVAL: Duration = Duration::from_secs(1);

/// Wait after a failed write.
const RETRY: Duration = Duration::from_mins(1);

/// Longest wait for the disk at shutdown.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Writes what a session holds, when it changed, at most once an [`INTERVAL`], on the blocking pool.
#[derive(Debug)]
pub(super) struct Snapshots {
    path: Option<PathBuf>,
    node: String,
    /// What is on disk is out of date.
    is_due: bool,
    not_before: Instant,
    /// Whether the file is ours: of two proxies of a handover one writes.
    is_ours: watch::Receiver<bool>,
    /// At most one write at a time.
    writing: Option<JoinHandle<Result<(), LastGoodError>>>,
}

impl Snapshots {
    pub(super) fn new(path: Option<PathBuf>, node: String, is_ours: watch::Receiver<bool>) -> Self {
        Self { path, node, is_due: false, not_before: clock::now(), is_ours, writing: None }
    }

    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// The session holds something else than before.
    pub(super) fn held_changed(&mut self) {
        self.is_due = self.path.is_some();
    }

    /// Writes when a write is due; never returns. To be raced against what the client waits for: dropping it loses
    /// nothing.
    pub(super) async fn tend(&mut self, session: &Session, asking: Option<&Asking>) -> Infallible {
        loop {
            self.written().await;
            if !self.is_due {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(self.not_before.saturating_duration_since(clock::now())).await;
            if self.is_ours.wait_for(|is_ours| *is_ours).await.is_err() {
                std::future::pending::<()>().await;
            }
            self.start(session, asking);
        }
    }

    /// Brings the file up to date at shutdown, as far as the disk allows.
    pub(super) async fn finish(&mut self, session: &Session, asking: Option<&Asking>) {
        let finishing = async {
            self.written().await;
            if self.is_due && *self.is_ours.borrow() {
                self.start(session, asking);
                self.written().await;
            }
        };
        if tokio::time::timeout(FINISH_TIMEOUT, finishing).await.is_err() {
            tracing::warn!("the last good configuration was not written within {FINISH_TIMEOUT:?}");
        }
    }

    fn start(&mut self, session: &Session, asking: Option<&Asking>) {
        let Some(path) = self.path.clone() else { return };
        let (node, held, asked) = (self.node.clone(), session.stored(), asking.map(Asking::used));
        self.is_due = false;
        self.not_before = clock::now() + INTERVAL;
        self.writing = Some(tokio::task::spawn_blocking(move || {
            last_good::write(&path, &node, asked.as_deref(), held.iter().map(Stored::resource))
        }));
    }

    /// A full or read-only disk is not cured by trying every second.
    fn failed(&mut self, error: &dyn Error) {
        tracing::warn!(error = %Chain(error), retry = ?RETRY, "the last good configuration on disk is out of date");
        self.is_due = true;
        self.not_before = clock::now() + RETRY;
    }

    /// Waits for the write under way, if any.
    async fn written(&mut self) {
        let Some(writing) = &mut self.writing else { return };
        let result = writing.await;
        self.writing = None;
        let label = if matches!(result, Ok(Ok(()))) { "written" } else { "failed" };
        metrics::counter!("weft_xds_state_file_writes_total", "result" => label).increment(1);
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.failed(&error),
            Err(error) => self.failed(&error),
        }
    }
}
