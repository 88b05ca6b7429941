//! The objects of an installation, in the order in which they are applied.
//!
//! Each stands after what it needs: a namespace before what lives in it, accounts and roles before those who use them,
//! and the webhook configurations last, so that no pod is refused for want of a control plane that is not there yet.
//! Custom resource definitions are apart ([`custom_resource_definitions`]): they hold users' documents and stay when
//! the rest goes.

mod access;
mod cni;
mod control_plane;
#[cfg(test)]
mod tests;
mod webhooks;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use super::template::{MANAGER, NAMESPACE, Template, only_when, setting};
use super::values::Values;
use crate::kubernetes::{custom_resources, names};

/// Label of all our objects: what they belong to.
pub const NAME_LABEL: &str = "app.kubernetes.io/name";
/// Who looks after an object: we, or Helm.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// The part of us an object is for.
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// The version of the program that made an object.
pub const VERSION_LABEL: &str = "app.kubernetes.io/version";
/// What Pod Security admission holds the pods of a namespace to.
pub const POD_SECURITY_LABEL: &str = "pod-security.kubernetes.io/enforce";

/// Everything of an installation but custom resource definitions, in order.
pub fn manifests(values: &Values) -> Vec<Value> {
    let mut settings = values.to_json();
    settings[MANAGER] = json!(names::APP_NAME);
    templates().iter().filter_map(|template| template.fill(&settings)).collect()
}

/// The schemas of our documents.
pub fn custom_resource_definitions() -> Vec<Value> {
    let ours = |definition: &CustomResourceDefinition| {
        let mut definition = json!(definition);
        definition["metadata"]["labels"] = json!({NAME_LABEL: names::APP_NAME, MANAGED_BY_LABEL: names::APP_NAME});
        definition
    };
    custom_resources::all().iter().map(ours).collect()
}

/// The one source of manifests and chart.
pub(super) fn templates() -> Vec<Template> {
    let mut templates = vec![Template::when("createNamespace", namespace())];
    templates.extend(access::templates());
    templates.extend(control_plane::templates());
    templates.extend(cni::templates());
    templates.extend([webhooks::injector(), webhooks::validator()].map(Template::always));
    templates
}

fn namespace() -> Value {
    let mut labels = labels("namespace");
    labels[names::INJECT_LABEL] = json!(names::DISABLED);
    // The plugin's installer writes to the node's directories, which no other level allows.
    labels[only_when("capture=init", POD_SECURITY_LABEL)] = json!("restricted");
    labels[only_when("capture=cni", POD_SECURITY_LABEL)] = json!("privileged");
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": setting(NAMESPACE), "labels": labels},
    })
}

/// Labels of an object of ours.
fn labels(component: &str) -> Value {
    json!({
        NAME_LABEL: names::APP_NAME,
        MANAGED_BY_LABEL: setting(MANAGER),
        COMPONENT_LABEL: component,
        VERSION_LABEL: env!("CARGO_PKG_VERSION"),
    })
}

/// Labels by which pods of a component are found: those that never change.
fn selector(component: &str) -> Value {
    json!({NAME_LABEL: names::APP_NAME, COMPONENT_LABEL: component})
}

/// Metadata of an object in the system namespace.
fn namespaced(name: &str, component: &str) -> Value {
    json!({"name": name, "namespace": setting(NAMESPACE), "labels": labels(component)})
}

/// Metadata of an object of the whole cluster.
fn global(name: &str, component: &str) -> Value {
    json!({"name": name, "labels": labels(component)})
}
