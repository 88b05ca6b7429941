//! Who may do what: each account exactly what its program does, and names instead of kinds wherever there are names.

use serde_json::{Value, json};

use super::{global, namespaced};
use crate::document::Kind;
use crate::kubernetes::install::template::{NAMESPACE, Template, setting};
use crate::kubernetes::names;

const CONTROL_PLANE: &str = "control-plane";
const READER: &str = "reader";
const OPERATOR: &str = "operator";
const CNI: &str = "cni";

/// Reading that follows changes.
const FOLLOW: [&str; 3] = ["get", "list", "watch"];
/// Following and changing one named object.
const KEEP: [&str; 5] = ["get", "list", "watch", "update", "patch"];

pub(super) fn templates() -> Vec<Template> {
    let mut templates: Vec<Template> = [
        account(names::CONTROL_PLANE, CONTROL_PLANE),
        account(names::READER, READER),
        account(names::OPERATOR, OPERATOR),
        control_plane_in_the_cluster(),
        cluster_binding(names::CONTROL_PLANE, CONTROL_PLANE),
        control_plane_at_home(),
        binding(names::CONTROL_PLANE, CONTROL_PLANE),
        reader(),
        operator(),
    ]
    .into_iter()
    .map(Template::always)
    .collect();
    let cni =
        [account(names::CNI, CNI), cni(), cluster_binding(names::CNI, CNI), cni_at_home(), binding(names::CNI, CNI)];
    templates.extend(cni.map(|body| Template::when("capture=cni", body)));
    templates
}

fn account(name: &str, component: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": namespaced(name, component),
        // Pods that need a token say so.
        "automountServiceAccountToken": false,
    })
}

/// What the control plane reads everywhere, and the few things it writes there.
fn control_plane_in_the_cluster() -> Value {
    let documents: Vec<String> = Kind::ALL.iter().map(|kind| plural(*kind)).collect();
    let states: Vec<String> = documents.iter().map(|plural| format!("{plural}/status")).collect();
    let named = |resource: &str, name: &str| {
        json!({
            "apiGroups": ["admissionregistration.k8s.io"], "resources": [resource], "resourceNames": [name], "verbs": KEEP,
        })
    };
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": global(names::CONTROL_PLANE, CONTROL_PLANE),
        "rules": [
            // What is where: services, their endpoints, the pods behind them, and the zones of their nodes.
            {"apiGroups": [""], "resources": ["services", "pods", "nodes", "namespaces"], "verbs": FOLLOW},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": FOLLOW},
            // Users' documents, and what became of them.
            {"apiGroups": ["weft.dev"], "resources": documents, "verbs": FOLLOW},
            {"apiGroups": ["weft.dev"], "resources": states, "verbs": ["update", "patch"]},
            {"apiGroups": ["gateway.networking.k8s.io"], "resources": ["httproutes", "tlsroutes", "referencegrants"], "verbs": FOLLOW},
            {
                "apiGroups": ["gateway.networking.k8s.io"],
                "resources": ["httproutes/status", "tlsroutes/status"],
                "verbs": ["update", "patch"],
            },
            // Who a proxy is.
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
            // What users should know of their pods.
            {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
            // The root's certificate in our own two webhook configurations.
            named("mutatingwebhookconfigurations", names::INJECTOR),
            named("validatingwebhookconfigurations", names::VALIDATOR),
        ],
    })
}

/// What the control plane keeps in its own namespace. Nobody can be allowed to create an object of one name alone.
fn control_plane_at_home() -> Value {
    let create =
        |group: &str, resource: &str| json!({"apiGroups": [group], "resources": [resource], "verbs": ["create"]});
    let keep = |group: &str, resource: &str, name: &str| json!({"apiGroups": [group], "resources": [resource], "resourceNames": [name], "verbs": KEEP});
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": namespaced(names::CONTROL_PLANE, CONTROL_PLANE),
        "rules": [
            create("", "secrets"),
            keep("", "secrets", names::ROOT_SECRET),
            create("", "configmaps"),
            keep("", "configmaps", names::BUNDLE_CONFIG_MAP),
            create("coordination.k8s.io", "leases"),
            keep("coordination.k8s.io", "leases", names::LEADER_LEASE),
        ],
    })
}

/// What a person needs for `weft status`, `weft get` and the like: administrators bind people to it. The account of the same
/// name has no rights at all; its tokens say to the control plane that their bearer is one of these people. Each replica is
/// asked for the proxies that are connected to it, and pods have no names to list here.
fn reader() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": namespaced(names::READER, READER),
        "rules": asking(&[names::READER], &["get"]),
    })
}

/// What a person needs to change what running proxies do, `weft proxy log-level` with a level, beside reading: a role of its
/// own, as its tokens say another thing. The account has no rights at all either.
fn operator() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": namespaced(names::OPERATOR, OPERATOR),
        "rules": asking(&[names::READER, names::OPERATOR], &["get", "update"]),
    })
}

/// The way to the control plane's replicas with tokens of these accounts.
fn asking(accounts: &[&str], verbs: &[&str]) -> Value {
    let service = format!("http:{}:{}", names::CONTROL_PLANE, names::API_PORT);
    json!([
        {
            "apiGroups": [""],
            "resources": ["serviceaccounts/token"],
            "resourceNames": accounts,
            "verbs": ["create"],
        },
        {"apiGroups": [""], "resources": ["services/proxy"], "resourceNames": [service], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["pods/proxy"], "verbs": verbs},
    ])
}

/// What the CNI plugin needs to know of the pod it is called for, and the taint it takes off its node.
fn cni() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": global(names::CNI, CNI),
        "rules": [
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"]},
        ],
    })
}

/// An installer that is told to end asks whether all of them are: then it takes the plugin out of its node.
fn cni_at_home() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": namespaced(names::CNI, CNI),
        "rules": [
            {"apiGroups": ["apps"], "resources": ["daemonsets"], "resourceNames": [names::CNI], "verbs": ["get"]},
        ],
    })
}

fn cluster_binding(name: &str, component: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": global(name, component),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": setting(NAMESPACE)}],
    })
}

fn binding(name: &str, component: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": namespaced(name, component),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": setting(NAMESPACE)}],
    })
}

/// A kind as the API server's paths have it.
fn plural(kind: Kind) -> String {
    let name = kind.as_str().to_ascii_lowercase();
    if name.ends_with('h') { format!("{name}es") } else { format!("{name}s") }
}
