//! Pods: those that could not start, and those that started without a proxy.

use std::collections::BTreeMap;

use serde_json::Value;

use super::neighbours::pod_security;
use super::{Circumstances, Finding, is_injected, label, name, some_of};
use crate::kubernetes::install::cluster::{ClusterError, Kind};
use crate::kubernetes::install::uninstall::has_proxy;
use crate::kubernetes::install::values::Capture;
use crate::kubernetes::names;

/// What Pod Security says to an init container with `NET_ADMIN`, namespace by namespace.
pub(super) async fn security(at: &Circumstances<'_>) -> Result<Vec<Finding>, ClusterError> {
    const CHECK: &str = "pod security";
    let namespaces = at.cluster.list(&Kind::of("Namespace"), None, "").await?;
    let injected: Vec<&Value> = namespaces.iter().filter(|it| is_injected(it)).collect();
    if at.values.capture == Capture::Cni {
        return Ok(vec![Finding::ok(
            CHECK,
            format!("{} labelled namespaces; capture by the CNI plugin fits every level", injected.len()),
        )]);
    }
    let strict = injected.iter().filter(|it| pod_security(it) != "privileged");
    let strict: Vec<String> = strict.map(|it| format!("{} ({})", name(it), pod_security(it))).collect();
    Ok(vec![if strict.is_empty() {
        Finding::ok(
            CHECK,
            format!("{} labelled namespaces; none forbids the init container that captures", injected.len()),
        )
    } else {
        Finding::failed(
            CHECK,
            format!(
                "pods of {} are refused: their Pod Security level forbids the capability NET_ADMIN of the init container that captures",
                some_of(&strict)
            ),
            "capture by the CNI plugin: `weft upgrade --set capture=cni`",
        )
    }])
}

/// Pods that should have a proxy and have none.
pub(super) async fn unmeshed(at: &Circumstances<'_>) -> Result<Vec<Finding>, ClusterError> {
    const CHECK: &str = "unmeshed pods";
    let namespaces = at.cluster.list(&Kind::of("Namespace"), None, "").await?;
    let namespaces: BTreeMap<&str, &Value> = namespaces.iter().map(|it| (name(it), it)).collect();
    let pods = at.cluster.list(&Kind::of("Pod"), None, "").await?;
    let lacking = pods.iter().filter(|pod| {
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
        let of_namespace = namespaces.get(namespace).is_some_and(|it| is_injected(it));
        namespace != at.values.system_namespace && should_have_proxy(pod, namespace, of_namespace) && !has_proxy(pod)
    });
    let lacking: Vec<String> = lacking
        .map(|pod| format!("{}/{}", pod["metadata"]["namespace"].as_str().unwrap_or_default(), name(pod)))
        .collect();
    Ok(vec![if lacking.is_empty() {
        Finding::ok(CHECK, "every pod that is labelled for it has a proxy")
    } else {
        Finding::warning(
            CHECK,
            format!("{} started without a proxy: their traffic is neither encrypted nor measured", some_of(&lacking)),
            "restart them: `kubectl -n NAMESPACE rollout restart deployment NAME`",
        )
    }])
}

/// A pod's own label counts before its namespace's; what shares its node's network has no network to capture.
fn should_have_proxy(pod: &Value, namespace: &str, of_namespace: bool) -> bool {
    let is_over = ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase);
    let is_meant = match label(pod, names::INJECT_LABEL) {
        Some(names::ENABLED) => true,
        Some(names::DISABLED) => false,
        _ => of_namespace,
    };
    is_meant
        && !is_over
        && pod["spec"]["hostNetwork"] != true
        && pod["metadata"]["deletionTimestamp"].is_null()
        && !names::EXEMPT_NAMESPACES.contains(&namespace)
}
