//! What became of a document, written back.
//!
//! | module | does |
//! |---|---|
//! | [`observed`] | an object as it was last seen |
//! | [`watching`] | one watch for each kind whose status is written |
//! | [`facts`] | what became of an object, and how far the proxies have come with it: pure |
//! | [`wanted`] | what the status of an object should be: pure |
//! | [`route`] | the same for routes of the Gateway API, which have an entry for each parent |
//! | [`proxies`] | what the connected proxies have applied and refused |
//! | [`report`], [`replicas`] | the same of those connected to other replicas |
//! | [`condition`] | conditions, and in what two of them differ |
//! | [`desk`] | which statuses are written now, and which have time |
//!
//! Our own kinds have two conditions. `Accepted`: valid and in force, or why not. `Programmed`: the connected proxies have
//! applied this generation; False with the words of one that refused it. Routes of the Gateway API have, for each service
//! that is a parent, what that API asks for and `weft.dev/Programmed`; entries of other controllers stay as they are.
//!
//! Only the leader watches and writes. News is gathered for [`GATHERING`] and then written as one, and only what differs:
//! a thousand proxies that acknowledge a change are one write for each object whose condition turns. Numbers in messages
//! are brought up to date at leisure. A write that fails is tried again, later each time; nothing queues, since what is to be
//! written is always made anew from what is known.
//!
//! Proxies that are connected to other replicas are those replicas' to know: the one that leads asks them ([`replicas`]).

mod condition;
mod desk;
mod facts;
mod observed;
mod proxies;
mod replicas;
mod report;
mod route;
#[cfg(test)]
mod tests;
mod wanted;
mod watching;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use kube::Client;
use kube::api::{Api, DynamicObject, Patch as ApiPatch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use weft_proxy::clock;

use super::custom_resources::api_resource;
use super::discovery::custom::CustomResource;
use super::discovery::object::ObjectName;
use super::discovery::{Reading, Readings};
use crate::compile::Findings;
use crate::serve::ProxyInfo;
use crate::store::Snapshot;
use condition::timestamp;
use desk::Desk;
use facts::{Facts, Patch};
use observed::{ObjectKey, Observed};
use proxies::Proxies;
use replicas::Others;
pub use replicas::Peers;
pub use report::Report;

/// From the first news to the writing: acknowledgements come in swarms, and people wait for a second at most.
const GATHERING: Duration = Duration::from_millis(200);
/// Writes under way at a time.
const CONCURRENT: usize = 8;
/// For one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// What watches tell, on its way here. They wait when it is full.
const QUEUE: usize = 256;
/// Field manager of what is written here, apart from that of what is installed.
const FIELD_MANAGER: &str = "weft-status";
const WRITES: &str = "weft_status_writes_total";

/// What statuses are made of.
#[derive(Clone)]
pub struct Inputs {
    pub client: Client,
    /// The documents; of revision 0 until they have been read.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What became of each object when it was last read: no older than the snapshot.
    pub readings: watch::Receiver<Arc<Readings>>,
    /// What the compiler has to say of the documents: told after the snapshot it is about.
    pub findings: watch::Receiver<Arc<Findings>>,
    /// The proxies that are connected.
    pub proxies: Arc<dyn Fn() -> Vec<ProxyInfo> + Send + Sync>,
    /// Changes when something about the proxies has: [`crate::world::World::news`].
    pub news: watch::Receiver<u64>,
    pub leader: watch::Receiver<bool>,
    pub peers: Peers,
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inputs").field("leader", &self.leader).finish_non_exhaustive()
    }
}

/// Keeps statuses while this replica leads. Ends when the control plane does; dropped, it leaves nothing half done.
pub async fn keep(inputs: Inputs) {
    metrics::describe_counter!(WRITES, "Statuses of objects written to the API server, by how that went");
    let mut leader = inputs.leader.clone();
    while leader.wait_for(|leads| *leads).await.is_ok() {
        tokio::select! {
            () = lead(inputs.clone()) => return,
            _ = leader.wait_for(|leads| !*leads) => {}
        }
    }
}

/// Watches and writes; ends when one of the inputs does.
async fn lead(mut inputs: Inputs) {
    let (seen, mut changes) = mpsc::channel(QUEUE);
    let mut watches = JoinSet::new();
    for (kind, versions) in watching::candidates() {
        watches.spawn(watching::watch(inputs.client.clone(), kind, versions, seen.clone()));
    }
    drop(seen);
    let (told, mut others) = watch::channel(Others::default());
    watches.spawn(replicas::follow(inputs.peers.clone(), inputs.snapshots.clone(), told));
    let mut desk = Desk::default();
    let mut due: Option<Instant> = None;
    loop {
        let is_news = tokio::select! {
            change = changes.recv() => {
                let Some(change) = change else { return };
                desk.take(change, clock::now());
                true
            }
            changed = inputs.snapshots.changed() => if changed.is_ok() { true } else { return },
            changed = inputs.readings.changed() => if changed.is_ok() { true } else { return },
            changed = inputs.findings.changed() => if changed.is_ok() { true } else { return },
            changed = others.changed() => if changed.is_ok() { true } else { return },
            changed = inputs.news.changed() => if changed.is_ok() { true } else { return },
            () = sleep_until(due.unwrap_or_else(clock::now).into()), if due.is_some() => false,
        };
        let now = clock::now();
        if is_news {
            let soon = now + GATHERING;
            due = Some(due.map_or(soon, |due| due.min(soon)));
        }
        if due.is_some_and(|due| due <= now) {
            due = round(&mut inputs, &mut others, &mut desk).await;
        }
    }
}

/// Writes what differs; returns when to look again although nothing has happened.
async fn round(inputs: &mut Inputs, others: &mut watch::Receiver<Others>, desk: &mut Desk) -> Option<Instant> {
    let snapshot = inputs.snapshots.borrow_and_update().clone();
    if snapshot.revision == 0 {
        return None;
    }
    // Marked as seen before it is looked at: what comes meanwhile is news again.
    inputs.news.mark_unchanged();
    let findings = inputs.findings.borrow_and_update().clone();
    let others = others.borrow_and_update().clone();
    let proxies = Proxies::new(&(inputs.proxies)(), others.groups(), others.silent);
    let readings = inputs.readings.borrow_and_update().clone();
    let of_object = |((resource, _), reading): (&(CustomResource, ObjectName), &Reading)| {
        (ObjectKey { api_version: resource.api_version.into(), key: reading.key.clone() }, reading.clone())
    };
    let readings = readings.iter().map(of_object).collect();
    let now = clock::now();
    let facts = Facts { snapshot: &snapshot, readings: &readings, findings: &findings, proxies: &proxies, now };
    let plan = desk.plan(&facts, &timestamp(clock::unix_seconds()));
    let client = &inputs.client;
    let writes = plan.writes.into_iter().map(|(object, write)| async move {
        let result = timeout(WRITE_TIMEOUT, put(client, &object, &write.patch)).await;
        let result = result.unwrap_or_else(|_| Err(Failure::Slow));
        (object, result)
    });
    let results: Vec<_> = stream::iter(writes).buffer_unordered(CONCURRENT).collect().await;
    for (object, result) in results {
        report(&object, &result);
        desk.written(&object, result.ok(), clock::now());
    }
    desk.next(plan.next, clock::now())
}

/// Why a status was not written.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the API server did not answer within {} s", WRITE_TIMEOUT.as_secs())]
    Slow,
    #[error("{0}")]
    Refused(#[from] kube::Error),
}

/// Writes one status; returns the object as it is then.
async fn put(client: &Client, object: &Observed, patch: &Patch) -> Result<Value, Failure> {
    let key = &object.id.key;
    let resource = api_resource(key.kind, &object.id.api_version);
    let api: Api<DynamicObject> = if key.kind.is_namespaced() {
        Api::namespaced_with(client.clone(), &key.namespace, &resource)
    } else {
        Api::all_with(client.clone(), &resource)
    };
    let written = match patch {
        Patch::Apply(status) => {
            // The uid keeps it from one that was made anew under the name.
            let body = json!({
                "apiVersion": resource.api_version, "kind": resource.kind,
                "metadata": {"name": &*key.name, "uid": object.uid}, "status": status,
            });
            api.patch_status(&key.name, &PatchParams::apply(FIELD_MANAGER).force(), &ApiPatch::Apply(body)).await?
        }
        Patch::Merge(status) => {
            let body = json!({"metadata": {"resourceVersion": object.resource_version}, "status": status});
            let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            api.patch_status(&key.name, &parameters, &ApiPatch::Merge(body)).await?
        }
    };
    Ok(watching::object(&resource, written))
}

fn report(object: &Observed, result: &Result<Value, Failure>) {
    let outcome = match result {
        Ok(_) => "written",
        // Somebody else wrote, or it is gone: the watch brings what there is now.
        Err(Failure::Refused(kube::Error::Api(status))) if status.is_conflict() || status.is_not_found() => "overtaken",
        Err(error) => {
            let key = &object.id.key;
            tracing::warn!(%key, %error, "the status of an object could not be written; it is tried again");
            "failed"
        }
    };
    metrics::counter!(WRITES, "result" => outcome).increment(1);
}
