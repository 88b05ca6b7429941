//! Which kinds of custom objects the API server serves, and a watch for each.
//!
//! The API server is asked every [`INTERVAL`] what it serves: whoever is authenticated may ask that, while definitions may
//! be read by few. While it does not answer, what was served stays so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::api::{Api, DynamicObject};
use kube::core::gvk::GroupVersion;
use kube::{Client, discovery};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::custom::CustomResource;
use super::grants::{self, Grant};
use super::health::Health;
use super::mirror::Step;
use super::objects::Update;
use super::watching::{Waits, Watching};
use crate::kubernetes::causes::chain;

/// A kind that is installed later is seen within this: a handful of small requests.
const INTERVAL: Duration = Duration::from_secs(10);

/// What the health of the watches calls this.
const RESOURCE: &str = "apis";

/// Keeps a watch for each kind of custom object that is served.
pub(super) struct Serving {
    pub(super) client: Client,
    pub(super) keeper: mpsc::Sender<Update>,
    pub(super) health: Arc<Health>,
    pub(super) rng: fastrand::Rng,
    pub(super) running: BTreeMap<CustomResource, Running>,
    /// The watch of grants, and under which version.
    pub(super) grants: Option<(&'static str, Running)>,
}

/// What the API server serves of what we know.
struct Served {
    kinds: BTreeSet<CustomResource>,
    /// Under which version there are grants.
    grants: Option<&'static str>,
}

/// A watch; it ends with this.
pub(super) struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Serving {
    /// Runs until nobody listens any more.
    pub(super) async fn run(mut self) {
        let mut waits = Waits::default();
        self.health.begins(RESOURCE);
        loop {
            let served = self.served().await;
            let now = weft_proxy::clock::now();
            let wait = match served {
                Ok(served) => {
                    waits.reset();
                    self.health.heard(RESOURCE, now);
                    self.health.synced(RESOURCE, now);
                    if self.follow(served).await.is_err() {
                        return;
                    }
                    INTERVAL
                }
                Err(reason) => {
                    if self.health.failed(RESOURCE, reason.clone(), now) {
                        tracing::warn!(%reason, "cannot ask the API server which kinds it serves; asking again");
                    }
                    waits.next(&mut self.rng)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.keeper.closed() => return,
            }
        }
    }

    /// Which kinds are served, each under the first of the API versions we know.
    async fn served(&self) -> Result<Served, String> {
        let mut kinds: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        let versions = CustomResource::candidates().flatten().map(|resource| resource.api_version);
        for version in versions.chain(grants::VERSIONS) {
            if !kinds.contains_key(version) {
                kinds.insert(version, self.kinds(version).await?);
            }
        }
        let is_served = |resource: &CustomResource| kinds[resource.api_version].contains(resource.kind.as_str());
        Ok(Served {
            kinds: CustomResource::candidates().filter_map(|versions| versions.into_iter().find(is_served)).collect(),
            grants: grants::VERSIONS.into_iter().find(|version| kinds[version].contains(grants::KIND)),
        })
    }

    /// The kinds of an API version; none where it is not served.
    async fn kinds(&self, api_version: &str) -> Result<BTreeSet<String>, String> {
        let version: GroupVersion = api_version.parse().map_err(|error| format!("{api_version}: {error}"))?;
        match discovery::pinned_group(&self.client, &version).await {
            Ok(group) => {
                Ok(group.versioned_resources(&version.version).into_iter().map(|(resource, _)| resource.kind).collect())
            }
            // Of a group nobody knows, the API server says so in plain text: there is no reason to read, only the code.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(BTreeSet::new()),
            Err(error) => Err(format!("{api_version}: {}", chain(&error))),
        }
    }

    /// Watches what is served, and nothing else; an error when nobody listens any more.
    async fn follow(&mut self, served: Served) -> Result<(), mpsc::error::SendError<Update>> {
        let Served { kinds: served, grants } = served;
        if grants != self.grants.as_ref().map(|(version, _)| *version) {
            self.grants = None;
            self.health.ends(grants::RESOURCE);
        }
        self.running.retain(|resource, _| {
            let stays = served.contains(resource);
            if !stays {
                self.health.ends(&resource.to_string());
                tracing::info!(%resource, "a kind is not served any more");
            }
            stays
        });
        // First which there are: what the watch of an unknown kind says is passed over.
        self.keeper.send(Update::Served(served.iter().cloned().collect(), grants.is_some())).await?;
        if let (Some(version), None) = (grants, &self.grants) {
            tracing::info!(resource = grants::RESOURCE, version, "a kind is watched");
            self.grants = Some((version, self.watch_grants(version)));
        }
        for resource in served {
            if !self.running.contains_key(&resource) {
                tracing::info!(%resource, version = resource.api_version, "a kind is watched");
                let running = self.watch(&resource);
                self.running.insert(resource, running);
            }
        }
        Ok(())
    }

    fn watch_grants(&mut self, version: &str) -> Running {
        let watching = Watching {
            api: Api::<DynamicObject>::all_with(self.client.clone(), &grants::api_resource(version)),
            resource: grants::RESOURCE.to_owned(),
            keep: |object| Grant::of(&object),
            tell: Box::new(Update::Grant),
            keeper: self.keeper.clone(),
            health: Arc::clone(&self.health),
        };
        Running(tokio::spawn(watching.run(self.rng.fork())).abort_handle())
    }

    fn watch(&mut self, resource: &CustomResource) -> Running {
        let kind = resource.clone();
        let watching = Watching {
            api: Api::<DynamicObject>::all_with(self.client.clone(), &resource.api_resource()),
            resource: resource.to_string(),
            keep: |object| Some(Box::new(object)),
            tell: Box::new(move |step: Step<Box<DynamicObject>>| Update::Custom(kind.clone(), step)),
            keeper: self.keeper.clone(),
            health: Arc::clone(&self.health),
        };
        Running(tokio::spawn(watching.run(self.rng.fork())).abort_handle())
    }
}
