//! Pods that should have a proxy and have none.
//!
//! They come about in two ways: a namespace was labelled and its pods not restarted, or the injector was not asked (its
//! webhook configuration was away or had been changed). Either way they talk in plaintext, so it is said aloud: in a
//! list for `weft check`, and as an Event on each pod.
//!
//! [`find`] decides, [`keep`] looks every [`INTERVAL`], [`report`] writes the Events, on the leader.

mod events;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use events::report;

use super::names;
use super::time::{RealTime, Time};

/// Between two looks: two of them and a write are less than the 10 s within which it is known.
pub const INTERVAL: Duration = Duration::from_secs(4);

/// A pod without the proxy it should have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UnmeshedPod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Who runs it, `ReplicaSet/orders-7d9f8`; none runs a bare pod.
    pub owner: Option<String>,
    pub cause: Cause,
}

/// Why a pod should have a proxy, and what keeps it from having one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// Its own label asks for it.
    AskedByPod,
    /// Its namespace's label asks for it.
    AskedByNamespace,
    /// Its own label asks for it, and pods in the host's network cannot have one.
    HostNetwork,
}

impl UnmeshedPod {
    /// What it means and what to do, in a sentence or two.
    pub fn explanation(&self) -> String {
        let label = names::INJECT_LABEL;
        let restart = match self.owner {
            Some(_) => "restart its workload (`kubectl rollout restart`) to have it injected",
            None => "delete it and create it again to have it injected",
        };
        match self.cause {
            Cause::AskedByPod => {
                format!("the pod has label {label}={} and runs without the proxy; {restart}", names::ENABLED)
            }
            Cause::AskedByNamespace => format!(
                "namespace {} has label {label}={} and the pod runs without the proxy; {restart}, or label the pod \
                 {label}={}",
                self.namespace,
                names::ENABLED,
                names::DISABLED
            ),
            Cause::HostNetwork => format!(
                "the pod has label {label}={} and hostNetwork: pods in the host's network cannot have a proxy; remove one \
                 of the two",
                names::ENABLED
            ),
        }
    }
}

/// The pods that should have a proxy and have none, in order of their names.
pub fn find(
    pods: impl IntoIterator<Item = impl Borrow<Pod>>,
    namespaces: impl IntoIterator<Item = impl Borrow<Namespace>>,
    system_namespace: &str,
) -> Vec<UnmeshedPod> {
    let asking: HashMap<String, bool> = namespaces
        .into_iter()
        .filter_map(|namespace| {
            let metadata = &namespace.borrow().metadata;
            let label = metadata.labels.as_ref().and_then(|labels| labels.get(names::INJECT_LABEL));
            Some((metadata.name.clone()?, label.is_some_and(|label| label == names::ENABLED)))
        })
        .collect();
    let mut found: Vec<_> = pods
        .into_iter()
        .filter_map(|pod| {
            let pod = pod.borrow();
            let namespace = pod.metadata.namespace.as_deref()?;
            if namespace == system_namespace || names::EXEMPT_NAMESPACES.contains(&namespace) {
                return None;
            }
            let cause = cause(pod, asking.get(namespace).copied().unwrap_or_default())?;
            Some(UnmeshedPod {
                namespace: namespace.to_owned(),
                name: pod.metadata.name.clone()?,
                uid: pod.metadata.uid.clone().unwrap_or_default(),
                owner: owner(pod),
                cause,
            })
        })
        .collect();
    found.sort_unstable();
    found
}

/// Why `pod` is unmeshed against its label or its namespace's; `None`: it is meshed, or need not be.
fn cause(pod: &Pod, namespace_asks: bool) -> Option<Cause> {
    if is_meshed(pod) || is_over(pod) {
        return None;
    }
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(names::INJECT_LABEL)).map(String::as_str);
    let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    match label {
        Some(names::ENABLED) if host_network => Some(Cause::HostNetwork),
        Some(names::ENABLED) => Some(Cause::AskedByPod),
        Some(names::DISABLED) => None,
        // A namespace's wish is not meant for what cannot be: agents of the node, pods of the kubelet's own files.
        _ if !namespace_asks || host_network || is_mirror(pod) => None,
        _ => Some(Cause::AskedByNamespace),
    }
}

fn is_meshed(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| {
        let native = spec.init_containers.iter().flatten();
        spec.containers.iter().chain(native).any(|container| container.name == names::PROXY_CONTAINER)
    })
}

/// Whether the pod has ended or is ending: nobody needs to restart it.
fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the kubelet made it from a file: no webhook ever sees such a pod.
fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key("kubernetes.io/config.mirror"))
}

fn owner(pod: &Pod) -> Option<String> {
    let owners = pod.metadata.owner_references.iter().flatten();
    owners.filter(|owner| owner.controller == Some(true)).map(|owner| format!("{}/{}", owner.kind, owner.name)).next()
}

/// Keeps `found` at what `look` finds, every [`INTERVAL`], until dropped.
pub async fn keep(look: impl FnMut() -> Vec<UnmeshedPod>, found: watch::Sender<Arc<Vec<UnmeshedPod>>>) {
    keep_by(&RealTime, look, found).await;
}

async fn keep_by<T: Time>(
    time: &T,
    mut look: impl FnMut() -> Vec<UnmeshedPod>,
    found: watch::Sender<Arc<Vec<UnmeshedPod>>>,
) {
    loop {
        let now = look();
        found.send_if_modified(|before| {
            let differs = **before != now;
            if differs {
                *before = Arc::new(now);
            }
            differs
        });
        time.sleep(INTERVAL).await;
    }
}
