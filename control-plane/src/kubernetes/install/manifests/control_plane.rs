//! The control plane: its pods, the service they stand behind, and what keeps enough of them.

use serde_json::{Value, json};

use super::{namespaced, selector};
use crate::kubernetes::install::template::{NAMESPACE, Template, only_when, setting};
use crate::kubernetes::names;

const COMPONENT: &str = "control-plane";
/// The volume and the file in it, of [`names::REPLICA_TOKEN_FILE`].
const REPLICA_TOKEN: &str = "replica-token";
/// User and group of the control plane's image: nobody's, by a number that Pod Security can see is not root.
const USER: i64 = 65532;
/// Proxies' streams are ended in order within this; the program itself gives them 5 s.
const GRACE_SECONDS: u32 = 30;

pub(super) fn templates() -> Vec<Template> {
    vec![
        Template::always(service()),
        Template::always(disruption_budget()),
        Template::always(deployment()),
        Template::when("autoscaling.enabled", autoscaler()),
    ]
}

fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": namespaced(names::CONTROL_PLANE, COMPONENT),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(COMPONENT),
            "ports": [
                {"name": "grpc-xds", "port": names::XDS_PORT, "targetPort": "xds", "protocol": "TCP"},
                {"name": "https-webhook", "port": 443, "targetPort": "webhook", "protocol": "TCP"},
                {"name": "http-api", "port": names::API_PORT, "targetPort": "api", "protocol": "TCP"},
            ],
        },
    })
}

/// One at a time: also right for a single replica, which must not keep its node from being drained.
fn disruption_budget() -> Value {
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": namespaced(names::CONTROL_PLANE, COMPONENT),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(COMPONENT)}},
    })
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": namespaced(names::CONTROL_PLANE, COMPONENT),
        "spec": {
            // Another one counts them where there is an autoscaler.
            only_when("!autoscaling.enabled", "replicas"): setting("replicas"),
            "revisionHistoryLimit": 3,
            // A new one first: injection never has fewer than all of its replicas because of an upgrade.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": selector(COMPONENT)},
            "template": {"metadata": pod_metadata(), "spec": pod()},
        },
    })
}

fn pod_metadata() -> Value {
    let mut labels = selector(COMPONENT);
    labels[names::INJECT_LABEL] = json!(names::DISABLED);
    json!({
        "labels": labels,
        "annotations": {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": names::API_PORT.to_string(),
            "prometheus.io/path": "/metrics",
        },
    })
}

fn pod() -> Value {
    json!({
        "serviceAccountName": names::CONTROL_PLANE,
        "automountServiceAccountToken": true,
        "priorityClassName": setting("priorityClass"),
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "imagePullSecrets": setting("images.pullSecrets"),
        "nodeSelector": setting("nodeSelector"),
        "tolerations": setting("tolerations"),
        "topologySpreadConstraints": [spread("topology.kubernetes.io/zone"), spread("kubernetes.io/hostname")],
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container()],
        // What replicas show to each other: for nothing else, and renewed by the kubelet.
        "volumes": [{"name": REPLICA_TOKEN, "projected": {"sources": [{"serviceAccountToken": {
            "audience": names::REPLICA_AUDIENCE,
            "expirationSeconds": 3600,
            "path": REPLICA_TOKEN,
        }}]}}],
    })
}

/// Wishes, not conditions: a cluster of one node gets all replicas too. Of one generation only, or the old pods of a
/// rolling update would push the new ones together.
fn spread(topology: &str) -> Value {
    json!({
        "maxSkew": 1,
        "topologyKey": topology,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector(COMPONENT)},
        "matchLabelKeys": ["pod-template-hash"],
    })
}

fn container() -> Value {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let port = |name: &str, port: u16| json!({"name": name, "containerPort": port, "protocol": "TCP"});
    json!({
        "name": "control-plane",
        "image": setting("images.controlPlane"),
        "imagePullPolicy": setting("images.pullPolicy"),
        "command": ["/weft", "control-plane", "--kubernetes"],
        "args": [
            "--listen", format!("[::]:{}", names::XDS_PORT),
            "--system-namespace", setting(NAMESPACE),
            "--trust-domain", setting("trustDomain"),
            "--proxy-image", setting("images.proxy"),
            "--pod-name", "$(POD_NAME)",
        ],
        "env": [
            field("POD_NAME", "metadata.name"),
            {"name": "WEFT_LOG", "value": setting("logLevel")},
            {"name": "WEFT_CAPTURE", "value": setting("capture")},
            {"name": "WEFT_PROXY_PULL_POLICY", "value": setting("images.pullPolicy")},
            {"name": "WEFT_PROXY_CPU_REQUEST", "value": setting("proxy.cpuRequest")},
            {"name": "WEFT_PROXY_MEMORY_REQUEST", "value": setting("proxy.memoryRequest")},
            {"name": "WEFT_PROXY_LOG_LEVEL", "value": setting("proxy.logLevel")},
            {"name": "WEFT_PROXY_DESTINATIONS", "value": setting("proxy.destinations")},
        ],
        "ports": [
            port("xds", names::XDS_PORT),
            port("webhook", names::WEBHOOK_PORT),
            port("api", names::API_PORT),
        ],
        // A minute for a first start, which makes the root and reads the whole cluster.
        "startupProbe": probe("/live", 1, 60),
        "readinessProbe": probe("/ready", 5, 2),
        "livenessProbe": probe("/live", 10, 3),
        "resources": setting("resources"),
        "volumeMounts": [{"name": REPLICA_TOKEN, "mountPath": names::REPLICA_TOKEN_DIRECTORY, "readOnly": true}],
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
    })
}

fn probe(path: &str, period: u32, failures: u32) -> Value {
    json!({
        "httpGet": {"path": path, "port": "api"},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    })
}

fn autoscaler() -> Value {
    json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": namespaced(names::CONTROL_PLANE, COMPONENT),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": names::CONTROL_PLANE},
            "minReplicas": setting("autoscaling.minReplicas"),
            "maxReplicas": setting("autoscaling.maxReplicas"),
            "metrics": [{
                "type": "Resource",
                "resource": {
                    "name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": setting("autoscaling.targetCpuPercent")},
                },
            }],
        },
    })
}
