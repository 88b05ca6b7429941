//! On which node a pod goes: one that takes it, with the fewest pods of the same kind.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, NodeSelectorTerm, Pod, Taint, Toleration};
use kube::ResourceExt;

/// The node for `pod`, next to the `placed` ones.
pub(super) fn choose(nodes: &[Arc<Node>], pod: &Pod, placed: &[(String, String)]) -> Option<String> {
    let kind = kind_of(pod);
    let fit = nodes.iter().filter(|node| takes(node, pod));
    let crowd = |node: &Node| {
        let here: Vec<_> = placed.iter().filter(|(on, _)| *on == node.name_any()).collect();
        (here.iter().filter(|(_, of)| *of == kind).count(), here.len(), node.name_any())
    };
    fit.min_by_key(|node| crowd(node)).map(|node| node.name_any())
}

/// What pods are spread by: who made them.
pub(super) fn kind_of(pod: &Pod) -> String {
    pod.owner_references().first().map(|owner| owner.uid.clone()).unwrap_or_default()
}

fn takes(node: &Node, pod: &Pod) -> bool {
    let (Some(place), Some(wants)) = (&node.spec, &pod.spec) else { return false };
    let tolerations = wants.tolerations.as_deref().unwrap_or_default();
    let keeps_out =
        |taint: &Taint| taint.effect != "PreferNoSchedule" && !tolerations.iter().any(|it| tolerates(it, taint));
    let is_cordoned = place.unschedulable == Some(true);
    let may = |taint: &str| tolerations.iter().any(|it| it.key.as_deref() == Some(taint) || it.key.is_none());
    if place.taints.iter().flatten().any(keeps_out) || is_cordoned && !may("node.kubernetes.io/unschedulable") {
        return false;
    }
    let selected = wants.node_selector.iter().flatten().all(|(key, value)| node.labels().get(key) == Some(value));
    let affinity = wants.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| is_named(node, term)))
}

/// The one kind of affinity that controllers set: a node by its name, for its pod of a `DaemonSet`.
fn is_named(node: &Node, term: &NodeSelectorTerm) -> bool {
    term.match_fields
        .iter()
        .flatten()
        .all(|field| field.key == "metadata.name" && field.values.iter().flatten().any(|name| *name == node.name_any()))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is_key = toleration.key.as_ref().is_none_or(|key| *key == taint.key);
    let is_effect = toleration.effect.as_ref().is_none_or(|effect| *effect == taint.effect);
    let exists = toleration.operator.as_deref() == Some("Exists");
    is_key
        && is_effect
        && (exists || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default())
}
