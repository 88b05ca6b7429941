//! A pod with a proxy beside it: one function for the webhook and the command line.
//!
//! [`inject`] is pure: a pod as JSON, what is known of its namespace and the mesh's settings in, the pod with its proxy
//! out. It works on the JSON as it was sent, because a newer Kubernetes has fields that no type of ours knows, and none of
//! them may get lost; types are only looked through.
//!
//! What a pod gets, in this order: the init container that captures (not where a CNI plugin does), the proxy as a native
//! sidecar, and then its own init containers, which so have their network through the proxy already. Beside these a
//! volume with a token for the proxy alone, its probes led through the proxy, and two annotations.
//!
//! Injecting what is injected changes nothing. When the settings have changed since, our containers are replaced; when
//! other webhooks have added containers since, their probes are led through the proxy too, and all else stays as it is,
//! with what the API server and its limit ranges have filled in.

mod annotations;
mod conflicts;
mod container;
mod departure;
mod error;
mod manifest;
mod patch;
mod probes;
mod proxy_patch;
mod quantity;
mod settings;
#[cfg(test)]
pub(crate) mod tests;
mod yaml;

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{Container, Namespace, PodSpec, PodTemplateSpec};
use serde_json::{Value, json};
use weft_proxy::capture::rules_of_pod;

use super::names;
use annotations::Overrides;
use container::Parts;
use error::shortened;
use probes::Probes;

pub use annotations::warnings;
pub use error::InjectError;
pub use manifest::{Finding, Manifest, SourceError, documents, to_json, to_yaml};
pub use patch::between;
pub use quantity::{Quantity, QuantityError};
pub use settings::{Capture, InjectOptions, InjectSettings, PullPolicy, Variables, VariablesError};

/// Of `kubectl logs` and `exec`: which container is meant when none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// On pods the kubelet made from files: the API server only shows them.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// What Pod Security admission holds the pods of a namespace to.
const POD_SECURITY: &str = "pod-security.kubernetes.io/enforce";
/// Its levels that forbid the capability to administer a network.
const WITHOUT_NET_ADMIN: [&str; 2] = ["baseline", "restricted"];

/// What counts of the namespace a pod is in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceFacts {
    pub name: String,
    pub labels: BTreeMap<String, String>,
}

impl NamespaceFacts {
    /// A namespace whose pods are to be injected, as far as is known.
    pub fn enabled(name: impl Into<String>) -> Self {
        let labels = BTreeMap::from([(names::INJECT_LABEL.to_owned(), names::ENABLED.to_owned())]);
        Self { name: name.into(), labels }
    }

    pub fn is_enabled(&self) -> bool {
        self.labels.get(names::INJECT_LABEL).is_some_and(|value| value == names::ENABLED)
    }
}

impl From<&Namespace> for NamespaceFacts {
    fn from(namespace: &Namespace) -> Self {
        let metadata = &namespace.metadata;
        Self { name: metadata.name.clone().unwrap_or_default(), labels: metadata.labels.clone().unwrap_or_default() }
    }
}

/// What became of a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Injected {
    /// The whole pod, with its proxy.
    Changed(Value),
    Unchanged(Reason),
}

/// Why a pod stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    ExemptNamespace(String),
    NamespaceNotEnabled(String),
    Disabled,
    MirrorPod,
    HostNetwork,
    Windows,
    AlreadyInjected,
}

impl Reason {
    /// Whether the pod was meant to have a proxy and cannot: its author wants to know.
    pub fn is_surprising(&self) -> bool {
        matches!(self, Self::HostNetwork | Self::Windows)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExemptNamespace(name) => write!(f, "namespace {name} is the cluster's or the mesh's own"),
            Self::NamespaceNotEnabled(name) => {
                write!(
                    f,
                    "neither the pod nor namespace {name} has the label {}={}",
                    names::INJECT_LABEL,
                    names::ENABLED
                )
            }
            Self::Disabled => write!(f, "its label says {}={}", names::INJECT_LABEL, names::DISABLED),
            Self::MirrorPod => f.write_str("the kubelet made it from a file, and nothing can change it"),
            Self::HostNetwork => {
                f.write_str("it uses its node's network (hostNetwork), where capture would take the node's traffic")
            }
            Self::Windows => f.write_str("it is of Windows, which the proxy does not run on"),
            Self::AlreadyInjected => f.write_str("it has its proxy already"),
        }
    }
}

/// Puts a proxy beside a pod, or beside a pod template: an object with `metadata` and `spec`.
pub fn inject(pod: &Value, namespace: &NamespaceFacts, settings: &InjectSettings) -> Result<Injected, InjectError> {
    let view = View::of(pod)?;
    if let Some(reason) = view.excused(namespace, settings)? {
        return Ok(Injected::Unchanged(reason));
    }
    let overrides = Overrides::read(&view.annotations)?;
    let rules = rules_of_pod(|name| view.annotations.get(name).map(String::as_str))?;
    let parts = Parts::new(&view.spec, &overrides, &rules, settings)?;
    if parts.init.is_some() {
        refuse_where_forbidden(namespace)?;
    }
    let stored = view.stored_probes()?;
    conflicts::check(&view.spec, view.applications())?;

    let mut after = pod.clone();
    let departure = departure::seconds(&view.annotations, &view.spec)?;
    let probes = redirect_probes(&mut after["spec"], &view, &stored, departure)?;
    let hash = parts.hash();
    let is_current = view.annotations.get(names::INJECTED_ANNOTATION) == Some(&hash);
    put_containers(&mut after["spec"], &parts, &probes, is_current);
    put_volume(&mut after["spec"], parts.volume, is_current);
    let annotations = &mut after["metadata"]["annotations"];
    annotations[names::INJECTED_ANNOTATION] = json!(hash);
    if parts.init.is_none() {
        // The node's plugin need not ask for the whole pod, then, to see that nothing else captures.
        annotations[names::CAPTURE] = json!("cni");
    }
    if let Some(first) = view.spec.containers.first().filter(|_| annotations.get(DEFAULT_CONTAINER).is_none()) {
        annotations[DEFAULT_CONTAINER] = json!(first.name);
    }
    Ok(if after == *pod { Injected::Unchanged(Reason::AlreadyInjected) } else { Injected::Changed(after) })
}

/// A pod, as far as our types know it.
struct View {
    annotations: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    spec: PodSpec,
}

impl View {
    fn of(pod: &Value) -> Result<Self, InjectError> {
        let template: PodTemplateSpec =
            serde_path_to_error::deserialize(pod).map_err(|error| InjectError::Malformed {
                path: shortened(&error.path().to_string()),
                what: shortened(&error.inner().to_string()),
            })?;
        let metadata = template.metadata.unwrap_or_default();
        let missing = || InjectError::Malformed { path: "spec".into(), what: "it is missing".into() };
        Ok(Self {
            annotations: metadata.annotations.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            spec: template.spec.ok_or_else(missing)?,
        })
    }

    /// Whether this pod has no proxy, rightly; the pod's own label counts before its namespace's.
    fn excused(&self, namespace: &NamespaceFacts, settings: &InjectSettings) -> Result<Option<Reason>, InjectError> {
        let name = &namespace.name;
        if names::EXEMPT_NAMESPACES.contains(&name.as_str()) || *name == settings.system_namespace {
            return Ok(Some(Reason::ExemptNamespace(name.clone())));
        }
        if self.annotations.contains_key(MIRROR) {
            return Ok(Some(Reason::MirrorPod));
        }
        match self.labels.get(names::INJECT_LABEL).map(String::as_str) {
            Some(names::ENABLED) => {}
            Some(names::DISABLED) => return Ok(Some(Reason::Disabled)),
            Some(other) => {
                let allowed = format!("{}, {}", names::ENABLED, names::DISABLED);
                return Err(InjectError::Label { name: names::INJECT_LABEL, value: shortened(other), allowed });
            }
            None if namespace.is_enabled() => {}
            None => return Ok(Some(Reason::NamespaceNotEnabled(name.clone()))),
        }
        if self.spec.host_network == Some(true) {
            return Ok(Some(Reason::HostNetwork));
        }
        let is_windows = self.spec.os.as_ref().is_some_and(|os| os.name == "windows");
        Ok(is_windows.then_some(Reason::Windows))
    }

    fn init_containers(&self) -> &[Container] {
        self.spec.init_containers.as_deref().unwrap_or_default()
    }

    /// The containers that are not ours.
    fn applications(&self) -> impl Iterator<Item = &Container> {
        self.spec.containers.iter().chain(self.init_containers().iter().filter(|container| !is_ours(&container.name)))
    }

    /// The probes an earlier injection led through the proxy. Also refuses a pod that has our names without being ours.
    fn stored_probes(&self) -> Result<Probes, InjectError> {
        let ours = [names::PROXY_CONTAINER, names::INIT_CONTAINER];
        let taken = |place, name| Err(InjectError::NameTaken { place, name });
        for name in ours {
            if self.spec.containers.iter().any(|container| container.name == name) {
                return taken("a container", name);
            }
        }
        if !self.annotations.contains_key(names::INJECTED_ANNOTATION) {
            for name in ours {
                if self.init_containers().iter().any(|container| container.name == name) {
                    return taken("an init container", name);
                }
            }
            let volumes = self.spec.volumes.as_deref().unwrap_or_default();
            if volumes.iter().any(|volume| volume.name == names::TOKEN_VOLUME) {
                return taken("a volume", names::TOKEN_VOLUME);
            }
            return Ok(Probes::default());
        }
        let proxy = self.init_containers().iter().find(|container| container.name == names::PROXY_CONTAINER);
        let variables = proxy.and_then(|proxy| proxy.env.as_deref()).unwrap_or_default();
        let stored = variables.iter().find(|variable| variable.name == container::APP_PROBES);
        let text = stored.and_then(|variable| variable.value.as_deref()).unwrap_or("{}");
        Probes::from_variable(text).map_err(|error| InjectError::StoredProbes {
            container: names::PROXY_CONTAINER,
            variable: container::APP_PROBES,
            what: shortened(&error.to_string()),
        })
    }
}

fn is_ours(container: &str) -> bool {
    container == names::PROXY_CONTAINER || container == names::INIT_CONTAINER
}

/// The API server would refuse the pod a moment later, in words that do not say what to do.
fn refuse_where_forbidden(namespace: &NamespaceFacts) -> Result<(), InjectError> {
    match namespace.labels.get(POD_SECURITY) {
        Some(level) if WITHOUT_NET_ADMIN.contains(&level.as_str()) => {
            Err(InjectError::PodSecurity { namespace: namespace.name.clone(), level: level.clone() })
        }
        _ => Ok(()),
    }
}

fn redirect_probes(
    spec: &mut Value,
    view: &View,
    stored: &Probes,
    departure: Option<i64>,
) -> Result<Probes, InjectError> {
    let mut collected = Probes::default();
    for (index, container) in view.spec.containers.iter().enumerate() {
        probes::redirect(&mut spec["containers"][index], container, stored, &mut collected)?;
        departure::give(&mut spec["containers"][index], container, departure, &mut collected);
    }
    for (index, container) in view.init_containers().iter().enumerate() {
        // Only those that stay may have probes.
        if !is_ours(&container.name) && container.restart_policy.as_deref() == Some("Always") {
            probes::redirect(&mut spec["initContainers"][index], container, stored, &mut collected)?;
        }
    }
    Ok(collected)
}

/// Ours first, then the pod's own. Those of an injection with the same settings stay, with all that was filled in since.
fn put_containers(spec: &mut Value, parts: &Parts, probes: &Probes, is_current: bool) {
    let list = spec["initContainers"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let (ours, others): (Vec<Value>, Vec<Value>) =
        list.into_iter().partition(|container| container["name"].as_str().is_some_and(is_ours));
    let kept =
        |wanted: &Value| ours.iter().find(|container| container["name"] == wanted["name"]).filter(|_| is_current);
    let mut proxy = kept(&parts.proxy).unwrap_or(&parts.proxy).clone();
    container::set_probes(&mut proxy, probes);
    let init = parts.init.as_ref().map(|init| kept(init).unwrap_or(init).clone());
    spec["initContainers"] = init.into_iter().chain([proxy]).chain(others).collect();
}

fn put_volume(spec: &mut Value, wanted: Value, is_current: bool) {
    if !spec["volumes"].is_array() {
        spec["volumes"] = json!([]);
    }
    let Some(volumes) = spec["volumes"].as_array_mut() else { return };
    match volumes.iter_mut().find(|volume| volume["name"] == wanted["name"]) {
        Some(_) if is_current => {}
        Some(volume) => *volume = wanted,
        None => volumes.push(wanted),
    }
}
