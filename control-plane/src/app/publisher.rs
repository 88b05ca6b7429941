//! Documents in force: compiled and handed to the side that faces the proxies, each revision as it comes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use weft_proxy::clock;

use crate::compile::{Compiler, Findings};
use crate::store::Snapshot;
use crate::verdicts::Verdicts;
use crate::world::Change;

/// Longest pause after a compilation: no change waits much longer for it.
const LONGEST_REST: Duration = Duration::from_millis(300);

/// Puts in force what a revision changes.
pub type Publish = Box<dyn FnMut(u64, Change) + Send>;

/// Puts documents in force.
pub struct Publisher {
    pub publish: Publish,
    /// What proxies report of undeclared ports.
    pub verdicts: Arc<Verdicts>,
    pub compiler: Compiler,
    /// What the compiler has to say of the documents in force: told after they are.
    pub findings: watch::Sender<Arc<Findings>>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

impl Publisher {
    /// Compiles the documents of a revision and puts them in force. Takes its time: asynchronous callers use
    /// `spawn_blocking`.
    pub fn publish(&mut self, snapshot: &Arc<Snapshot>) {
        let outcome = self.compiler.follow(snapshot, &self.verdicts.seen());
        self.verdicts.published(outcome.verdicts);
        let (shared, own) = (outcome.change.shared.len(), outcome.change.own.len());
        tracing::debug!(revision = snapshot.revision, made = outcome.made, shared, own, "compiled");
        (self.publish)(snapshot.revision, outcome.change);
        for warning in self.compiler.findings().warnings.values().flatten() {
            tracing::debug!(revision = snapshot.revision, "{warning}");
        }
        self.findings.send_replace(Arc::new(self.compiler.findings().clone()));
    }

    /// Publishes every revision, or the newest when they come faster than that takes; and the one in force again when
    /// proxies saw something new. Ends when no revision can come any more.
    pub async fn follow(mut self, mut revisions: watch::Receiver<Arc<Snapshot>>) {
        loop {
            let verdicts = Arc::clone(&self.verdicts);
            tokio::select! {
                changed = revisions.changed() => if changed.is_err() { return },
                () = verdicts.changed() => {}
            }
            let snapshot = Arc::clone(&revisions.borrow_and_update());
            if snapshot.revision == 0 {
                // Nothing has been read yet: an empty answer would make proxies forget what they have.
                continue;
            }
            let work = tokio::task::spawn_blocking(move || {
                let began = clock::now();
                self.publish(&snapshot);
                (began.elapsed(), self)
            });
            let took;
            match work.await {
                Ok(done) => (took, self) = done,
                Err(error) => {
                    tracing::error!(%error, "compiling the documents failed");
                    return;
                }
            }
            // A large mesh in which something changes all the time leaves half of the time to others.
            tokio::time::sleep(took.min(LONGEST_REST)).await;
        }
    }
}
