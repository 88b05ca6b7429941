//! The CNI plugin's installer, one on each node. The plugin is the proxy's own program, whose image nodes have anyhow.

use serde_json::{Value, json};

use super::{namespaced, selector};
use crate::kubernetes::install::template::{NAMESPACE, Template, setting};
use crate::kubernetes::names;

const COMPONENT: &str = "cni";

pub(super) fn templates() -> Vec<Template> {
    vec![Template::when("capture=cni", daemon_set())]
}

fn daemon_set() -> Value {
    let mut labels = selector(COMPONENT);
    labels[names::INJECT_LABEL] = json!(names::DISABLED);
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": namespaced(names::CNI, COMPONENT),
        "spec": {
            "selector": {"matchLabels": selector(COMPONENT)},
            // A node whose installer is replaced still has its plugin.
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
            "template": {"metadata": {"labels": labels}, "spec": pod()},
        },
    })
}

fn pod() -> Value {
    json!({
        "serviceAccountName": names::CNI,
        "automountServiceAccountToken": true,
        "priorityClassName": setting("cni.priorityClass"),
        // It asks whether it is only replaced, and takes the plugin out if not.
        "terminationGracePeriodSeconds": 30,
        "imagePullSecrets": setting("images.pullSecrets"),
        "nodeSelector": {"kubernetes.io/os": "linux"},
        // Every node that takes pods, and before it does: the guard's own taint is one of them.
        "tolerations": [{"operator": "Exists"}],
        // Pods' network is what it helps to make.
        "hostNetwork": true,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container()],
        "volumes": [
            {"name": "binaries", "hostPath": {"path": setting("cni.binaryDirectory"), "type": "DirectoryOrCreate"}},
            {"name": "configurations", "hostPath": {"path": setting("cni.configurationDirectory"), "type": "DirectoryOrCreate"}},
        ],
    })
}

fn container() -> Value {
    json!({
        "name": "install",
        "image": setting("images.proxy"),
        "imagePullPolicy": setting("images.pullPolicy"),
        "command": ["/weft-proxy", "cni", "install"],
        "env": [
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "WEFT_SYSTEM_NAMESPACE", "value": setting(NAMESPACE)},
            {"name": "WEFT_LOG", "value": setting("logLevel")},
        ],
        // Ready is a node whose pods are captured: an installation waits for that, and `weft check` looks at it.
        "readinessProbe": {
            "exec": {"command": ["/weft-proxy", "cni", "check"]},
            "periodSeconds": 5,
            "timeoutSeconds": 5,
        },
        "resources": setting("cni.resources"),
        // The node's directories belong to root.
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "binaries", "mountPath": "/host/cni/bin"},
            {"name": "configurations", "mountPath": "/host/cni/net.d"},
        ],
    })
}
