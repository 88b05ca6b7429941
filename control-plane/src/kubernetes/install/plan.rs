//! What an installation would change, by the server's own word: each object is applied as a dry run and compared with
//! what is there, so that defaults and fields of others are no differences.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::cluster::{Cluster, ClusterError, Kind, Mode, Reference};
use super::manifests::MANAGED_BY_LABEL;
use crate::kubernetes::names;

/// Fields the server writes with every change: no news by themselves.
const BOOKKEEPING: [&str; 5] = ["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"];
/// Differences shown of one object.
const MOST_DIFFERENCES: usize = 20;

/// What happens to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Created,
    /// With the fields: `spec.replicas: 2 -> 3`.
    Changed(Vec<String>),
    Unchanged,
    /// It was part of an earlier installation, and is of none any more.
    Deleted,
}

impl Action {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed(_) => "changed",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
        }
    }
}

/// One object of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub object: Reference,
    pub action: Action,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(
        "{object} belongs to {manager}, which would undo what is done here; go on with {manager} (`helm upgrade`, `helm uninstall`), or remove its release first"
    )]
    Foreign { object: Box<Reference>, manager: String },
}

/// The steps that lead from what is there to the manifests, in the order they are done.
pub async fn plan(cluster: &Cluster, manifests: &[Value]) -> Result<Vec<Step>, PlanError> {
    let mut steps = Vec::with_capacity(manifests.len());
    for manifest in manifests {
        let object = Reference::of(manifest);
        let action = match cluster.get(&object).await? {
            None => Action::Created,
            Some(before) => {
                own(&object, &before)?;
                let after = cluster.apply(&object, manifest, Mode::DryRun).await?;
                compared(&before, &after)
            }
        };
        steps.push(Step { object, action });
    }
    steps.extend(superfluous(cluster, manifests).await?);
    Ok(steps)
}

/// Refuses what another program looks after.
fn own(object: &Reference, before: &Value) -> Result<(), PlanError> {
    let manager =
        before.pointer("/metadata/labels").and_then(|labels| labels.get(MANAGED_BY_LABEL)).and_then(Value::as_str);
    match manager {
        Some(manager) if manager != names::APP_NAME => {
            Err(PlanError::Foreign { object: Box::new(object.clone()), manager: manager.to_owned() })
        }
        _ => Ok(()),
    }
}

/// What an earlier installation left that these manifests do not hold: its CNI plugin, say.
async fn superfluous(cluster: &Cluster, manifests: &[Value]) -> Result<Vec<Step>, ClusterError> {
    let wanted: BTreeSet<Reference> = manifests.iter().map(Reference::of).collect();
    let mut steps = Vec::new();
    for kind in Kind::ours().rev().filter(is_replaceable) {
        let found = cluster.ours(&kind).await?;
        let unwanted = found.into_iter().filter(|object| !wanted.contains(object));
        steps.extend(unwanted.map(|object| Step { object, action: Action::Deleted }));
    }
    Ok(steps)
}

/// Whether objects of a kind are of an installation alone. Namespaces and definitions hold what is of others, and what
/// the control plane keeps for itself is no manifest.
fn is_replaceable(kind: &Kind) -> bool {
    !["Namespace", "CustomResourceDefinition", "Secret", "ConfigMap", "Lease"].contains(&kind.name.as_str())
}

/// What an apply did, or would do, to an object.
pub fn compared(before: &Value, after: &Value) -> Action {
    let mut differences = Vec::new();
    compare("", before, after, &mut differences);
    if differences.is_empty() {
        return Action::Unchanged;
    }
    if differences.len() > MOST_DIFFERENCES {
        let more = differences.len() - MOST_DIFFERENCES;
        differences.truncate(MOST_DIFFERENCES);
        differences.push(format!("... and {more} more"));
    }
    Action::Changed(differences)
}

fn compare(path: &str, before: &Value, after: &Value, differences: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let skipped =
                    (path == "metadata" && BOOKKEEPING.contains(&key.as_str())) || (path.is_empty() && key == "status");
                if !skipped {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    compare(
                        &path,
                        old.get(key).unwrap_or(&Value::Null),
                        new.get(key).unwrap_or(&Value::Null),
                        differences,
                    );
                }
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                compare(&format!("{path}[{index}]"), old, new, differences);
            }
        }
        (old, new) if old == new => {}
        (old, new) => differences.push(format!("{path}: {} -> {}", Short(old), Short(new))),
    }
}

/// A value on a part of a line.
struct Short<'v>(&'v Value);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 60;
        let text = match self.0 {
            Value::Null => return f.write_str("(none)"),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let short: String = text.chars().take(MOST).collect();
        write!(f, "{short}{}", if short.len() < text.len() { "..." } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kubernetes::install::testing::FakeApi;
    use crate::kubernetes::install::{Values, manifests};

    fn actions(steps: &[Step]) -> Vec<(&str, String)> {
        steps.iter().map(|step| (step.action.as_str(), step.object.to_string())).collect()
    }

    async fn installed(api: &FakeApi, values: &Values) {
        for manifest in manifests(values) {
            api.cluster().apply(&Reference::of(&manifest), &manifest, Mode::Real).await.unwrap();
        }
    }

    #[tokio::test]
    async fn in_an_empty_cluster_everything_is_created_and_a_plan_changes_nothing() {
        let api = FakeApi::default();
        let steps = plan(&api.cluster(), &manifests(&Values::default())).await.unwrap();
        assert!(steps.iter().all(|step| step.action == Action::Created), "{steps:?}");
        assert_eq!((api.paths(), api.writes()), (Vec::new(), Vec::new()));
    }

    #[tokio::test]
    async fn what_is_there_is_unchanged_and_a_setting_shows_as_its_field() {
        let api = FakeApi::default();
        installed(&api, &Values::default()).await;
        let steps = plan(&api.cluster(), &manifests(&Values::default())).await.unwrap();
        assert!(steps.iter().all(|step| step.action == Action::Unchanged), "{steps:?}");
        let more = Values::default().with_assignment("replicas=3").unwrap();
        let steps = plan(&api.cluster(), &manifests(&more)).await.unwrap();
        let changed: Vec<&Step> = steps.iter().filter(|step| step.action != Action::Unchanged).collect();
        assert_eq!(changed.len(), 1, "{changed:?}");
        assert_eq!(changed[0].action, Action::Changed(vec!["spec.replicas: 2 -> 3".into()]));
        assert_eq!(changed[0].object.to_string(), "Deployment weft-system/weft-control-plane");
    }

    #[tokio::test]
    async fn what_an_installation_no_longer_has_is_deleted_but_never_what_the_control_plane_keeps() {
        let api = FakeApi::default();
        installed(&api, &Values::default().with_assignment("capture=cni").unwrap()).await;
        api.put(
            "/api/v1/namespaces/weft-system/secrets/weft-root",
            json!({"metadata": {"name": "weft-root", "namespace": "weft-system", "labels": {
                "app.kubernetes.io/name": "weft", "app.kubernetes.io/managed-by": "weft"}}}),
        );
        let steps = plan(&api.cluster(), &manifests(&Values::default())).await.unwrap();
        let deleted: Vec<String> =
            actions(&steps).into_iter().filter(|(action, _)| *action == "deleted").map(|(_, object)| object).collect();
        let expected = [
            "DaemonSet weft-system/weft-cni",
            "RoleBinding weft-system/weft-cni",
            "Role weft-system/weft-cni",
            "ClusterRoleBinding weft-cni",
            "ClusterRole weft-cni",
            "ServiceAccount weft-system/weft-cni",
        ];
        assert_eq!(deleted, expected);
    }

    #[tokio::test]
    async fn what_helm_looks_after_is_left_to_helm() {
        let api = FakeApi::default();
        installed(&api, &Values::default()).await;
        let path = "/apis/apps/v1/namespaces/weft-system/deployments/weft-control-plane";
        let mut deployment = api.object(path).unwrap();
        deployment["metadata"]["labels"]["app.kubernetes.io/managed-by"] = json!("Helm");
        api.put(path, deployment);
        let refusal = plan(&api.cluster(), &manifests(&Values::default())).await.unwrap_err().to_string();
        assert!(refusal.starts_with("Deployment weft-system/weft-control-plane belongs to Helm"), "{refusal}");
    }

    #[test]
    fn long_values_are_cut_and_bookkeeping_is_no_difference() {
        let before = json!({"metadata": {"uid": "a", "labels": {"x": "1"}}, "status": 1, "spec": {"l": [1, 2], "t": "b".repeat(99)}});
        let after =
            json!({"metadata": {"uid": "b", "labels": {"x": "2"}}, "status": 2, "spec": {"l": [1, 3], "t": null}});
        let Action::Changed(differences) = compared(&before, &after) else { panic!("they differ") };
        assert_eq!(differences[..2], ["metadata.labels.x: 1 -> 2", "spec.l[1]: 2 -> 3"]);
        assert_eq!(differences[2], format!("spec.t: {}... -> (none)", "b".repeat(60)));
    }
}
