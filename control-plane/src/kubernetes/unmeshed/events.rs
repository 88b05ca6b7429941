//! Events on unmeshed pods: one for a pod, whoever leads, refreshed while it lasts.
//!
//! An Event's name follows from its pod and cause, so that the API server itself says when there is one already. It
//! forgets Events after an hour; the reminder comes before that.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;

use super::{Cause, UnmeshedPod};
use crate::kubernetes::time::{RealTime, Time, sleep_until, within};

/// How often it is said again of a pod that stays so.
const REMINDER: Duration = Duration::from_mins(30);
/// Between two Events: a cluster of unmeshed pods must not become a flood for its API server.
const PACE: Duration = Duration::from_millis(100);
/// For one write.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Before what could not be written is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

const REASON: &str = "Unmeshed";
const CONTROLLER: &str = "weft.dev/control-plane";

/// Writes an Event on each of the pods `found`, while `leader` says that it is this replica's turn. `reporter` is this
/// replica's name. Ends with either.
pub async fn report(
    client: Client,
    reporter: &str,
    found: watch::Receiver<Arc<Vec<UnmeshedPod>>>,
    leader: watch::Receiver<bool>,
) {
    Reporter { client, instance: reporter.to_owned(), time: RealTime }.report(found, leader).await;
}

pub(super) struct Reporter<T> {
    pub(super) client: Client,
    pub(super) instance: String,
    pub(super) time: T,
}

impl<T: Time> Reporter<T> {
    pub(super) async fn report(
        self,
        mut found: watch::Receiver<Arc<Vec<UnmeshedPod>>>,
        mut leader: watch::Receiver<bool>,
    ) {
        loop {
            if leader.wait_for(|leads| *leads).await.is_err() {
                return;
            }
            tokio::select! {
                () = self.lead(&mut found) => return,
                lost = leader.wait_for(|leads| !*leads) => if lost.is_err() { return },
            }
        }
    }

    async fn lead(&self, found: &mut watch::Receiver<Arc<Vec<UnmeshedPod>>>) {
        let (mut said, time) = (Said::default(), &self.time);
        loop {
            let pods = Arc::clone(&found.borrow_and_update());
            said.forget_others(&pods);
            for pod in &*pods {
                if !said.is_due(pod, time.now()) {
                    continue;
                }
                let written = within(time, WRITE_LIMIT, self.write(pod, said.times(pod))).await;
                let is_written = matches!(written, Some(Ok(())));
                if let Some(Err(error)) = written {
                    // Its namespace may be going; the others' Events do not wait for it.
                    tracing::warn!(namespace = pod.namespace, pod = pod.name, %error, "no Event about an unmeshed pod");
                }
                let pause = if is_written { REMINDER } else { RETRY_PAUSE };
                said.note(pod, u32::from(is_written), time.now() + pause);
                time.sleep(PACE).await;
            }
            tokio::select! {
                changed = found.changed() => if changed.is_err() { return },
                () = sleep_until(time, said.next()) => {}
            }
        }
    }

    /// Makes the Event, or counts it up where it is there already; it was written `times` from here.
    async fn write(&self, pod: &UnmeshedPod, times: u32) -> Result<(), kube::Error> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &pod.namespace);
        let now = Timestamp::try_from(self.time.wall()).unwrap_or_default();
        let event = event(pod, &self.instance, now);
        match events.create(&PostParams::default(), &event).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            result => return result.map(drop),
        }
        // What another replica has counted is lost: nobody acts on the number.
        let count = i32::try_from(times.saturating_add(1)).unwrap_or(i32::MAX).max(2);
        let patch = Patch::Merge(json!({ "series": EventSeries { count, last_observed_time: MicroTime(now) } }));
        let name = event.metadata.name.unwrap_or_default();
        events.patch(&name, &PatchParams::default(), &patch).await.map(drop)
    }
}

/// How often it was said of which pod, and when it is to be said again.
#[derive(Debug, Default)]
pub(super) struct Said(HashMap<(String, Cause), (u32, Instant)>);

impl Said {
    pub(super) fn is_due(&self, pod: &UnmeshedPod, now: Instant) -> bool {
        self.0.get(&(pod.uid.clone(), pod.cause)).is_none_or(|(_, again)| *again <= now)
    }

    fn times(&self, pod: &UnmeshedPod) -> u32 {
        self.0.get(&(pod.uid.clone(), pod.cause)).map_or(0, |(times, _)| *times)
    }

    pub(super) fn note(&mut self, pod: &UnmeshedPod, times: u32, again: Instant) {
        let said = self.0.entry((pod.uid.clone(), pod.cause)).or_insert((0, again));
        *said = (said.0.saturating_add(times), again);
    }

    fn next(&self) -> Option<Instant> {
        self.0.values().map(|(_, again)| *again).min()
    }

    pub(super) fn forget_others(&mut self, pods: &[UnmeshedPod]) {
        let still: HashSet<_> = pods.iter().map(|pod| (pod.uid.as_str(), pod.cause)).collect();
        self.0.retain(|(uid, cause), _| still.contains(&(uid.as_str(), *cause)));
    }
}

pub(super) fn event(pod: &UnmeshedPod, reporter: &str, now: Timestamp) -> Event {
    Event {
        metadata: ObjectMeta { name: Some(name(pod)), namespace: Some(pod.namespace.clone()), ..ObjectMeta::default() },
        action: Some("Inject".to_owned()),
        event_time: Some(MicroTime(now)),
        note: Some(pod.explanation()),
        reason: Some(REASON.to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(CONTROLLER.to_owned()),
        // The API server takes 128 characters.
        reporting_instance: Some(reporter.chars().take(128).collect()),
        type_: Some("Warning".to_owned()),
        ..Event::default()
    }
}

/// The same on every replica for the same pod and cause.
fn name(pod: &UnmeshedPod) -> String {
    use std::fmt::Write;
    let hash = digest(&SHA256, format!("{}/{:?}", pod.uid, pod.cause).as_bytes());
    hash.as_ref()[..8].iter().fold("weft-unmeshed.".to_owned(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}
