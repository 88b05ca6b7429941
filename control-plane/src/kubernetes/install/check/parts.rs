//! Whether the programs run.

use serde_json::Value;

use super::{Circumstances, Finding, name, some_of};
use crate::kubernetes::install::apply::{Installation, rollout};
use crate::kubernetes::install::cluster::{ClusterError, Kind, Reference};
use crate::kubernetes::install::manifests::{COMPONENT_LABEL, NAME_LABEL};
use crate::kubernetes::install::values::Capture;
use crate::kubernetes::names;

pub(super) async fn control_plane(
    at: &Circumstances<'_>,
    installed: &Installation,
) -> Result<Vec<Finding>, ClusterError> {
    const CHECK: &str = "control plane";
    let object = Reference::new(Kind::of("Deployment"), &installed.namespace, names::CONTROL_PLANE);
    let deployment = at.cluster.get(&object).await?;
    let waits = match &deployment {
        None => Some("it is gone".to_owned()),
        // Done as it is said, and nothing runs all the same.
        Some(it) if it.pointer("/spec/replicas").and_then(Value::as_u64) == Some(0) => {
            Some(format!("{} is scaled to 0 replicas", names::CONTROL_PLANE))
        }
        Some(it) => rollout(names::CONTROL_PLANE, it),
    };
    let mut findings = vec![match waits {
        None => Finding::ok(CHECK, format!("{} in {} runs", installed.version, installed.namespace)),
        Some(what) => Finding::failed(
            CHECK,
            what,
            format!(
                "see why with `kubectl -n {0} describe pods` and `kubectl -n {0} logs deployment/{1}`",
                installed.namespace,
                names::CONTROL_PLANE
            ),
        ),
    }];
    let own = env!("CARGO_PKG_VERSION");
    if installed.version != own {
        findings.push(Finding::warning(
            CHECK,
            format!("it is of version {}, this program of {own}", installed.version),
            "use the program of its version, or update it with `weft upgrade`",
        ));
    }
    Ok(findings)
}

/// The plugin, and the nodes that wait for it.
pub(super) async fn cni(at: &Circumstances<'_>, installed: &Installation) -> Result<Vec<Finding>, ClusterError> {
    const CHECK: &str = "cni";
    if installed.capture != Capture::Cni {
        return Ok(Vec::new());
    }
    let object = Reference::new(Kind::of("DaemonSet"), &installed.namespace, names::CNI);
    let daemon_set = at.cluster.get(&object).await?;
    let mut waits = daemon_set
        .as_ref()
        .map_or_else(|| Some(format!("DaemonSet {} is gone", names::CNI)), |it| rollout(names::CNI, it));
    if let Some(what) = &mut waits {
        let without = unready(at, installed).await?;
        if !without.is_empty() {
            *what = format!("{what}; not on nodes {}", some_of(&without));
        }
    }
    let mut findings = vec![match waits {
        None => Finding::ok(CHECK, "the plugin is on every node"),
        Some(what) => Finding::failed(
            CHECK,
            what,
            format!(
                "see why with `kubectl -n {0} describe pods` and `kubectl -n {0} logs daemonset/{1}`, or install it again with \
                 `weft upgrade`: meshed pods do not start on nodes without it",
                installed.namespace,
                names::CNI
            ),
        ),
    }];
    let nodes = at.cluster.list(&Kind::of("Node"), None, "").await?;
    let tainted = |node: &&Value| {
        node.pointer("/spec/taints")
            .and_then(|taints| taints.as_array())
            .is_some_and(|taints| taints.iter().any(|taint| taint["key"] == names::CNI_TAINT))
    };
    let waiting: Vec<String> = nodes.iter().filter(tainted).map(|node| name(node).to_owned()).collect();
    if !waiting.is_empty() {
        findings.push(Finding::warning(
            CHECK,
            format!("nodes {} wait for the plugin (taint {})", some_of(&waiting), names::CNI_TAINT),
            "see the log of the plugin's pod on that node; it takes the taint off when the plugin is there",
        ));
    }
    Ok(findings)
}

/// Nodes whose installer says that their pods are not captured.
async fn unready(at: &Circumstances<'_>, installed: &Installation) -> Result<Vec<String>, ClusterError> {
    let labels = format!("{NAME_LABEL}={},{COMPONENT_LABEL}=cni", names::APP_NAME);
    let pods = at.cluster.list(&Kind::of("Pod"), Some(&installed.namespace), &labels).await?;
    let is_ready = |pod: &Value| {
        let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
        conditions.into_iter().flatten().any(|it| it["type"] == "Ready" && it["status"] == "True")
    };
    let node = |pod: &Value| pod.pointer("/spec/nodeName").and_then(Value::as_str).map(str::to_owned);
    Ok(pods.iter().filter(|pod| !is_ready(pod)).filter_map(node).collect())
}
