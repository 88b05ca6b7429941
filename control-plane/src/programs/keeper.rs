//! Carries a rollout out: asks the proxies it says, tells it what became of that, and tells people.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use tokio::sync::watch;
use tokio::task::JoinSet;
use weft_proxy::clock;

use super::rollout::{Ask, News, Outcome, Running};
use super::standing::Rollouts;
use crate::document::{Document, Key, Kind, MESH_NAME, ProxyUpgrade, WorkloadState};
use crate::store::Snapshot;

/// How long a proxy may take to answer: it gets the program within a minute, and the new one is configured within another.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(150);
/// Between two looks at who is connected, when nothing else happens.
const LOOK: Duration = Duration::from_secs(1);

/// A question under way.
pub type Asking = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// What the keeper works with.
pub struct Inputs {
    pub rollouts: Rollouts,
    /// The documents in force: what the mesh says, and which workloads there are.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The proxies that can be asked now.
    pub running: Arc<dyn Fn() -> Vec<Running> + Send + Sync>,
    /// Asks a proxy to replace its program, for at most [`ANSWER_LIMIT`].
    pub ask: Arc<dyn Fn(Ask) -> Asking + Send + Sync>,
}

impl std::fmt::Debug for Inputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inputs").finish_non_exhaustive()
    }
}

/// Carries it out until it is dropped.
pub async fn keep(inputs: Inputs) {
    let mut asking: JoinSet<(Ask, Outcome)> = JoinSet::new();
    loop {
        for ask in step(&inputs) {
            tracing::info!(
                workload = %ask.workload, version = ask.program.version, digest = ask.program.digest,
                "asking a proxy to replace its program"
            );
            let outcome = (inputs.ask)(ask.clone());
            asking.spawn(async move { (ask, outcome.await) });
        }
        let wake = {
            let now = clock::now();
            let next = inputs.rollouts.lock().next(now);
            next.map_or(LOOK, |next: Instant| next.saturating_duration_since(now).min(LOOK))
        };
        tokio::select! {
            Some(ended) = asking.join_next() => {
                // A question that panicked is a fault of ours, which ends a release.
                if let Ok((ask, outcome)) = ended {
                    let mut rollout = inputs.rollouts.lock();
                    rollout.answered(&ask.workload, &ask.program.digest, outcome, clock::now());
                }
            }
            () = tokio::time::sleep(wake) => {}
        }
    }
}

/// Looks at the world and says who is to be asked.
fn step(inputs: &Inputs) -> Vec<Ask> {
    let snapshot = Arc::clone(&inputs.snapshots.borrow());
    if snapshot.revision == 0 {
        // Nothing has been read yet: nobody has said anything.
        return Vec::new();
    }
    let running = (inputs.running)();
    let now = clock::now();
    let mut rollout = inputs.rollouts.lock();
    rollout.follow(policy(&snapshot));
    rollout.observe(&running, |workload| stays(&snapshot, workload), now);
    let asks = rollout.ask(now);
    let news = rollout.take_news();
    drop(rollout);
    tell(inputs, &news);
    asks
}

/// What the mesh says.
pub fn policy(snapshot: &Snapshot) -> ProxyUpgrade {
    let mesh = snapshot.documents.get(&Key::new(Kind::Mesh, "", MESH_NAME));
    match mesh.map(|stored| &stored.document) {
        Some(Document::Mesh(mesh)) => mesh.spec.proxy_upgrade,
        _ => ProxyUpgrade::default(),
    }
}

/// Whether a workload is there, and not about to end: one that ends does not begin with another program.
fn stays(snapshot: &Snapshot, workload: &str) -> bool {
    let Some((namespace, name)) = workload.split_once('/') else { return false };
    let found = snapshot.documents.get(&Key::new(Kind::Workload, namespace, name));
    match found.map(|stored| &stored.document) {
        Some(Document::Workload(workload)) => workload.spec.state != WorkloadState::Draining,
        _ => false,
    }
}

fn tell(inputs: &Inputs, news: &[News]) {
    for news in news {
        let result = match news {
            News::Replaced { workload } => {
                tracing::info!(%workload, "a proxy runs its new program");
                "replaced"
            }
            News::Failed { workload, result, why } => {
                tracing::warn!(
                    %workload, why,
                    "a proxy did not replace its program, so no other is asked to; set proxyUpgrade of the Mesh to \
                     on-restart and to live again to go on in spite of it"
                );
                result
            }
        };
        counter!("weft_proxy_upgrades_total", "result" => result).increment(1);
    }
    let standing = inputs.rollouts.standing();
    let sum = |count: fn(&super::rollout::Counts) -> usize| {
        standing.iter().map(|program| count(&program.counts)).sum::<usize>() as f64
    };
    gauge!("weft_control_plane_proxies_outdated").set(sum(|counts| counts.outdated));
    gauge!("weft_control_plane_proxies_being_replaced").set(sum(|counts| counts.under_way));
    let stopped = standing.iter().filter(|program| program.stopped.is_some()).count();
    gauge!("weft_control_plane_proxy_rollouts_stopped").set(stopped as f64);
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::mpsc;

    use super::*;
    use crate::document::{Source, read};
    use crate::programs::Facts;
    use crate::programs::rollout::{Rollout, SETTLING, Stage};
    use crate::store::{Signature, Store};

    const DOCUMENTS: &str = "
{apiVersion: weft.dev/v1alpha1, kind: Mesh, metadata: {name: default}, spec: {proxyUpgrade: live}}
---
{apiVersion: weft.dev/v1alpha1, kind: Workload, metadata: {name: one, namespace: a}, spec: {addresses: [10.0.0.1]}}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: leaving, namespace: a}
spec: {addresses: [10.0.0.2], state: draining}
";

    fn running(workload: &str, digest: &str) -> Running {
        Running {
            workload: workload.into(),
            version: "1.0.0".into(),
            digest: digest.into(),
            architecture: "x86_64".into(),
            replaceable: true,
        }
    }

    #[tokio::test]
    async fn a_workload_that_stays_is_asked_and_its_return_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let source = Source { name: "test".into(), text: DOCUMENTS.into() };
        let batch = crate::store::Batch { apply: read(&[source]).unwrap(), delete: Vec::new() };
        store.change(batch, &Signature { author: "test".into(), at: 1 }).unwrap();
        let program = Facts { architecture: "x86_64", version: "1.0.0".into(), digest: "new".into(), size: 1 };
        let rollouts = Rollouts::new(Rollout::new([program].iter(), clock::now().checked_sub(SETTLING).unwrap()));
        let proxies =
            Arc::new(Mutex::new(vec![running("a/leaving", "old"), running("a/one", "old"), running("b/x", "old")]));
        let (asked, mut asks) = mpsc::unbounded_channel();
        let (seen, changed) = (Arc::clone(&proxies), Arc::clone(&proxies));
        let inputs = Inputs {
            rollouts: rollouts.clone(),
            snapshots: store.subscribe(),
            running: Arc::new(move || seen.lock().unwrap().clone()),
            ask: Arc::new(move |ask: Ask| {
                asked.send(ask.workload.to_string()).unwrap();
                changed.lock().unwrap()[1] = running("a/one", "new");
                Box::pin(std::future::ready(Outcome::Upgraded))
            }),
        };
        let keeping = tokio::spawn(keep(inputs));
        assert_eq!(asks.recv().await.as_deref(), Some("a/one"), "one leaves, and nobody knows the other");
        let returned = async {
            while !matches!(rollouts.lock().trials()[0].stage("a/one"), Some(Stage::Replaced(_))) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), returned).await.expect("its return is seen");
        keeping.abort();
        assert!(asks.try_recv().is_err(), "nobody else is asked");
    }
}
