//! What the API server asks us: pods to inject, documents to check.
//!
//! Neither configuration holds the certificate to trust (`caBundle`): the control plane puts its root there and keeps it,
//! and applying these again leaves it alone, as it is another manager's field.

use serde_json::{Value, json};

use super::global;
use crate::kubernetes::install::template::{NAMESPACE, setting};
use crate::kubernetes::names;

/// How long the API server waits for an answer. It is computed from what is in memory; what takes longer is lost.
const TIMEOUT_SECONDS: u32 = 5;

/// Pods of labelled namespaces, and labelled pods of others; never of the cluster's own namespaces or ours, so that no
/// failure of ours can keep the cluster from healing.
pub(super) fn injector() -> Value {
    let elsewhere = json!({
        "key": "kubernetes.io/metadata.name",
        "operator": "NotIn",
        "values": names::EXEMPT_NAMESPACES.iter().map(|name| json!(name)).chain([json!(setting(NAMESPACE))]).collect::<Value>(),
    });
    let labelled =
        |operator: &str, value: &str| json!({"key": names::INJECT_LABEL, "operator": operator, "values": [value]});
    let webhook = |name: &str, of_namespace: Value, of_pod: Value| {
        json!({
            "name": name,
            "clientConfig": client("/inject"),
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"], "scope": "Namespaced",
            }],
            "namespaceSelector": {"matchExpressions": [elsewhere, of_namespace]},
            "objectSelector": {"matchExpressions": [of_pod]},
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            // Others may add containers after us, whose probes are ours to see too.
            "reinvocationPolicy": "IfNeeded",
            "sideEffects": "None",
            "timeoutSeconds": TIMEOUT_SECONDS,
            "admissionReviewVersions": ["v1"],
        })
    };
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": global(names::INJECTOR, "injector"),
        "webhooks": [
            webhook("namespace.injector.weft.dev", labelled("In", names::ENABLED), labelled("NotIn", names::DISABLED)),
            webhook("pod.injector.weft.dev", labelled("NotIn", names::ENABLED), labelled("In", names::ENABLED)),
        ],
    })
}

/// Our own kinds: what no schema can say, because it is about several documents.
pub(super) fn validator() -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": global(names::VALIDATOR, "validator"),
        "webhooks": [{
            "name": "documents.validator.weft.dev",
            "clientConfig": client("/validate"),
            "rules": [{
                "apiGroups": ["weft.dev"], "apiVersions": ["*"], "resources": ["*"], "operations": ["CREATE", "UPDATE"], "scope": "*",
            }],
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "sideEffects": "None",
            "timeoutSeconds": TIMEOUT_SECONDS,
            "admissionReviewVersions": ["v1"],
        }],
    })
}

fn client(path: &str) -> Value {
    json!({"service": {"name": names::CONTROL_PLANE, "namespace": setting(NAMESPACE), "path": path, "port": 443}})
}
