//! The roots where others look for them: `caBundle` of our webhook configurations, and ConfigMap `weft-bundle`.
//!
//! The leader writes them by server-side apply, under a field manager of their own, and watches: whoever changes or
//! clears them (an upgrade, a tool that restores what it knows) finds them mended at once. What is not there is not made,
//! but for the ConfigMap: webhook configurations come and go with the installation.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::kubernetes::names;
use crate::kubernetes::time::{RealTime, Time, sleep_until, within};

/// Between two writes of one object: somebody who writes it back every time is not fought faster than this.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// After a write that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// For one write.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Keeps `bundle` (PEM) in its three places while `leader` says that it is this replica's turn. Ends with `leader`.
pub async fn keep_bundle(client: Client, namespace: &str, bundle: &str, leader: watch::Receiver<bool>) {
    keep_bundle_by(&RealTime, &client, namespace, bundle, leader).await;
}

pub(super) async fn keep_bundle_by<T: Time>(
    time: &T,
    client: &Client,
    namespace: &str,
    bundle: &str,
    mut leader: watch::Receiver<bool>,
) {
    let mutating = ApiResource::erase::<MutatingWebhookConfiguration>(&());
    let validating = ApiResource::erase::<ValidatingWebhookConfiguration>(&());
    let injector = Kept::webhooks(client, time, mutating, names::INJECTOR);
    let validator = Kept::webhooks(client, time, validating, names::VALIDATOR);
    let config_map = Kept::config_map(client, time, namespace);
    loop {
        if leader.wait_for(|leads| *leads).await.is_err() {
            return;
        }
        tokio::select! {
            _ = async { tokio::join!(injector.keep(bundle), validator.keep(bundle), config_map.keep(bundle)) } => {}
            lost = leader.wait_for(|leads| !*leads) => if lost.is_err() { return },
        }
    }
}

/// An object with the roots in it.
struct Kept<T> {
    time: T,
    objects: Api<DynamicObject>,
    resource: ApiResource,
    name: &'static str,
    place: Place,
}

#[derive(Clone, Copy)]
enum Place {
    CaBundles,
    ConfigMap,
}

impl<T: Time> Kept<T> {
    fn webhooks(client: &Client, time: &T, resource: ApiResource, name: &'static str) -> Self {
        let objects = Api::all_with(client.clone(), &resource);
        Self { time: time.clone(), objects, resource, name, place: Place::CaBundles }
    }

    fn config_map(client: &Client, time: &T, namespace: &str) -> Self {
        let resource = ApiResource::erase::<ConfigMap>(&());
        let objects = Api::namespaced_with(client.clone(), namespace, &resource);
        Self { time: time.clone(), objects, resource, name: names::BUNDLE_CONFIG_MAP, place: Place::ConfigMap }
    }

    /// Watches the object and writes it whenever the roots are not in it.
    async fn keep(&self, bundle: &str) {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut events = watcher(self.objects.clone(), config).default_backoff().boxed();
        // The object as it was seen last; what the listing under way has shown is taken over when it is complete.
        let (mut current, mut listed) = (None, None);
        let mut known = false;
        let mut not_before: Option<Instant> = None;
        loop {
            let patch = if known { self.patch(current.as_ref(), bundle) } else { None };
            let due = patch.as_ref().map(|_| not_before.unwrap_or_else(|| self.time.now()));
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(watcher::Event::Init)) => listed = None,
                    Some(Ok(watcher::Event::InitApply(object))) => listed = Some(object),
                    Some(Ok(watcher::Event::InitDone)) => (current, known) = (listed.take(), true),
                    Some(Ok(watcher::Event::Apply(object))) => current = Some(object),
                    Some(Ok(watcher::Event::Delete(_))) => current = None,
                    Some(Err(error)) => tracing::debug!(%error, name = self.name, "the watch broke off"),
                    // The stream of a watcher never ends.
                    None => return,
                },
                () = sleep_until(&self.time, due) => {
                    let Some(patch) = patch else { continue };
                    not_before = Some(match self.write(&patch).await {
                        Some(written) => {
                            // The watch tells the same later; until then it must not be written again.
                            current = Some(written);
                            self.time.now() + LEAST_PAUSE
                        }
                        None => self.time.now() + RETRY_PAUSE,
                    });
                }
            }
        }
    }

    async fn write(&self, patch: &Value) -> Option<DynamicObject> {
        let parameters = PatchParams::apply(names::BUNDLE_FIELD_MANAGER).force();
        let (kind, name) = (&self.resource.kind, self.name);
        let patch = Patch::Apply(patch);
        let writing = self.objects.patch(name, &parameters, &patch);
        match within(&self.time, WRITE_LIMIT, writing).await {
            Some(Ok(written)) => {
                tracing::info!(kind, name, "the roots were put in place");
                return Some(written);
            }
            Some(Err(error)) => tracing::warn!(kind, name, %error, "the roots were not put in place, trying again"),
            None => tracing::warn!(kind, name, "the roots were not put in place within {WRITE_LIMIT:?}, trying again"),
        }
        None
    }

    /// What to apply so that the roots are in the object; `None`: they are, or there is nothing they could be in.
    fn patch(&self, current: Option<&DynamicObject>, bundle: &str) -> Option<Value> {
        let mut patch = json!({
            "apiVersion": self.resource.api_version,
            "kind": self.resource.kind,
            "metadata": { "name": self.name },
        });
        match self.place {
            Place::ConfigMap => {
                let held = current.and_then(|object| object.data["data"][names::BUNDLE_KEY].as_str());
                if held == Some(bundle) {
                    return None;
                }
                patch["metadata"]["labels"] = json!({
                    "app.kubernetes.io/name": names::APP_NAME,
                    "app.kubernetes.io/managed-by": names::APP_NAME,
                });
                patch["data"] = json!({ names::BUNDLE_KEY: bundle });
            }
            Place::CaBundles => {
                let object = current?;
                let webhooks = object.data["webhooks"].as_array().filter(|webhooks| !webhooks.is_empty())?;
                let wanted = serde_json::to_value(ByteString(bundle.as_bytes().to_vec())).ok()?;
                if webhooks.iter().all(|webhook| webhook["clientConfig"]["caBundle"] == wanted) {
                    return None;
                }
                // Of this very object: one that was deleted meanwhile is not made again as a torso.
                patch["metadata"]["uid"] = json!(object.metadata.uid);
                patch["webhooks"] = webhooks
                    .iter()
                    .map(|webhook| json!({ "name": webhook["name"], "clientConfig": { "caBundle": wanted } }))
                    .collect();
            }
        }
        Some(patch)
    }
}
