//! Takes everything of ours away again, and says what stays.
//!
//! Objects are found by their labels, so that those of earlier versions go too; what the control plane made for itself
//! is found by its name. The webhook configurations go first: without a control plane behind them they would refuse
//! every pod of a meshed namespace. The namespace goes last, and only when nobody else lives in it.

use std::time::Duration;

use serde_json::Value;

use super::cluster::{Cluster, ClusterError, Kind, Reference};
use super::manifests::{COMPONENT_LABEL, MANAGED_BY_LABEL, NAME_LABEL};
use crate::kubernetes::names;

/// How long the plugin's installers may take to clean their nodes: twice what they are given to end.
const INSTALLERS: Duration = Duration::from_mins(1);
/// How long a namespace may take to be emptied.
const EMPTYING: Duration = Duration::from_mins(1);
/// Between two looks at them.
const LOOK: Duration = Duration::from_secs(1);

/// What goes, in order, and what does not.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Removal {
    pub objects: Vec<Reference>,
    /// Sentences: what stays, why, and what one may do about it.
    pub kept: Vec<String>,
    /// Pods with a proxy, `NAMESPACE/NAME`: they lose their control plane.
    pub meshed: Vec<String>,
    /// Who else looks after the installation.
    pub foreign: Option<String>,
}

/// Finds what an uninstall removes. `with_definitions`: the custom resource definitions too, and all documents with them.
pub async fn removal(cluster: &Cluster, namespace: &str, with_definitions: bool) -> Result<Removal, ClusterError> {
    let mut removal = Removal::default();
    let mut definitions = Vec::new();
    // The reverse of how they are made begins with the webhook configurations.
    for kind in Kind::ours().rev() {
        let found = cluster.ours(&kind).await?;
        match kind.name.as_str() {
            "CustomResourceDefinition" => definitions = found,
            // It is looked at when the rest is known.
            "Namespace" => {}
            _ => removal.objects.extend(found),
        }
    }
    for (kind, name) in [
        ("Lease", names::LEADER_LEASE),
        ("ConfigMap", names::BUNDLE_CONFIG_MAP),
        ("ConfigMap", names::VALUES_CONFIG_MAP),
        ("Secret", names::ROOT_SECRET),
    ] {
        let object = Reference::new(Kind::of(kind), namespace, name);
        if !removal.objects.contains(&object) && cluster.get(&object).await?.is_some() {
            removal.objects.push(object);
        }
    }
    removal.meshed = meshed(cluster).await?;
    removal.foreign = foreign(cluster, namespace).await?;
    if with_definitions {
        removal.objects.extend(definitions);
    } else if !definitions.is_empty() {
        removal.kept.push(format!(
            "{} custom resource definitions and the documents in them; --crds removes both",
            definitions.len()
        ));
    }
    own_namespace(cluster, namespace, &mut removal).await?;
    labelled_namespaces(cluster, &mut removal).await?;
    Ok(removal)
}

/// Deletes what was found; each is told when it is gone.
pub async fn remove(
    cluster: &Cluster,
    removal: &Removal,
    mut done: impl FnMut(&Reference),
) -> Result<(), ClusterError> {
    for object in &removal.objects {
        take_away(cluster, object).await?;
        done(object);
    }
    Ok(())
}

/// Deletes an object, and waits for what must be over before the next one goes.
pub(super) async fn take_away(cluster: &Cluster, object: &Reference) -> Result<(), ClusterError> {
    cluster.delete(object).await?;
    match object.kind.name.as_str() {
        "DaemonSet" => installers_gone(cluster, &object.namespace).await,
        "Namespace" => namespace_gone(cluster, object).await,
        _ => Ok(()),
    }
}

/// A namespace is emptied before it goes, and until then nothing can be installed into it. One that is held up by others'
/// finalizers is not waited for.
async fn namespace_gone(cluster: &Cluster, namespace: &Reference) -> Result<(), ClusterError> {
    let gone = async {
        while cluster.get(namespace).await?.is_some() {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    };
    tokio::time::timeout(EMPTYING, gone).await.unwrap_or(Ok(()))
}

/// The plugin's installers clean their nodes when they see that their DaemonSet is gone, for which they need their account
/// and role: those go after them. A node that does not answer is not waited for.
async fn installers_gone(cluster: &Cluster, namespace: &str) -> Result<(), ClusterError> {
    let labels = format!("{NAME_LABEL}={},{COMPONENT_LABEL}=cni", names::APP_NAME);
    let gone = async {
        while !cluster.list(&Kind::of("Pod"), Some(namespace), &labels).await?.is_empty() {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    };
    tokio::time::timeout(INSTALLERS, gone).await.unwrap_or(Ok(()))
}

/// Pods that have a proxy.
async fn meshed(cluster: &Cluster) -> Result<Vec<String>, ClusterError> {
    let pods = cluster.list(&Kind::of("Pod"), None, "").await?;
    let over = |pod: &Value| ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase);
    let name =
        |pod: &Value| Some(format!("{}/{}", pod["metadata"]["namespace"].as_str()?, pod["metadata"]["name"].as_str()?));
    Ok(pods.iter().filter(|pod| has_proxy(pod) && !over(pod)).filter_map(name).collect())
}

/// Whether a proxy runs in a pod.
pub(super) fn has_proxy(pod: &Value) -> bool {
    ["/spec/initContainers", "/spec/containers"]
        .iter()
        .filter_map(|pointer| pod.pointer(pointer)?.as_array())
        .flatten()
        .any(|container| container["name"] == names::PROXY_CONTAINER)
}

async fn foreign(cluster: &Cluster, namespace: &str) -> Result<Option<String>, ClusterError> {
    let object = Reference::new(Kind::of("Deployment"), namespace, names::CONTROL_PLANE);
    let deployment = cluster.get(&object).await?;
    let manager = deployment.as_ref().and_then(|it| it["metadata"]["labels"][MANAGED_BY_LABEL].as_str());
    Ok(manager.filter(|manager| *manager != names::APP_NAME).map(str::to_owned))
}

/// Our namespace goes with us, unless it was there before us or others live in it too.
async fn own_namespace(cluster: &Cluster, namespace: &str, removal: &mut Removal) -> Result<(), ClusterError> {
    let object = Reference::new(Kind::of("Namespace"), "", namespace);
    let Some(found) = cluster.get(&object).await? else { return Ok(()) };
    if !found["metadata"]["deletionTimestamp"].is_null() {
        removal.kept.push(format!("namespace {namespace}, which is being deleted already"));
        return Ok(());
    }
    if found["metadata"]["labels"][MANAGED_BY_LABEL] != names::APP_NAME {
        removal.kept.push(format!("namespace {namespace}, which this program did not make"));
        return Ok(());
    }
    let others = strangers(cluster, namespace, removal).await?;
    if others.is_empty() {
        removal.objects.push(object);
    } else {
        removal.kept.push(format!("namespace {namespace}, in which others live: {}", others.join(", ")));
    }
    Ok(())
}

/// What lives in our namespace and is not of ours; what Kubernetes itself puts into every namespace does not count.
async fn strangers(cluster: &Cluster, namespace: &str, removal: &Removal) -> Result<Vec<String>, ClusterError> {
    let everywhere = |object: &Reference| {
        matches!(
            (object.kind.name.as_str(), object.name.as_str()),
            ("ServiceAccount", "default") | ("ConfigMap", "kube-root-ca.crt")
        )
    };
    let mut others = Vec::new();
    let kinds = ["Deployment", "DaemonSet", "Service", "ConfigMap", "Secret", "ServiceAccount", "Pod"];
    for kind in kinds.map(Kind::of) {
        for item in cluster.list(&kind, Some(namespace), "").await? {
            let name = item["metadata"]["name"].as_str().unwrap_or_default();
            let object = Reference::new(kind.clone(), namespace, name);
            let of_ours = item["metadata"]["labels"][NAME_LABEL] == names::APP_NAME;
            if !of_ours && !everywhere(&object) && !removal.objects.contains(&object) {
                others.push(format!("{} {name}", kind.name));
            }
        }
    }
    Ok(others)
}

/// Labels are the users' word, and stay.
async fn labelled_namespaces(cluster: &Cluster, removal: &mut Removal) -> Result<(), ClusterError> {
    let labels = format!("{}={}", names::INJECT_LABEL, names::ENABLED);
    let found = cluster.list(&Kind::of("Namespace"), None, &labels).await?;
    let names: Vec<&str> = found.iter().filter_map(|it| it["metadata"]["name"].as_str()).collect();
    if !names.is_empty() {
        removal.kept.push(format!(
            "the label {labels} of namespaces {}: their pods start without proxies from now on",
            names.join(", ")
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kubernetes::install::cluster::Mode;
    use crate::kubernetes::install::testing::FakeApi;
    use crate::kubernetes::install::{Values, apply, manifests};

    async fn installed(api: &FakeApi, values: &Values) {
        for manifest in manifests(values) {
            api.cluster().apply(&Reference::of(&manifest), &manifest, Mode::Real).await.unwrap();
        }
        apply::remember(&api.cluster(), values).await.unwrap();
        for (kind, name) in
            [("secrets", "weft-root"), ("configmaps", "weft-bundle"), ("configmaps", "kube-root-ca.crt")]
        {
            let path = format!("/api/v1/namespaces/weft-system/{kind}/{name}");
            api.put(&path, json!({"metadata": {"name": name, "namespace": "weft-system"}}));
        }
    }

    fn names_of(removal: &Removal) -> Vec<String> {
        removal.objects.iter().map(Reference::to_string).collect()
    }

    #[tokio::test]
    async fn nothing_of_ours_is_left_and_the_webhooks_go_first() {
        let api = FakeApi::default();
        installed(&api, &Values::default().with_assignment("capture=cni").unwrap()).await;
        let found = removal(&api.cluster(), "weft-system", false).await.unwrap();
        let objects = names_of(&found);
        assert_eq!(
            objects[..2],
            ["ValidatingWebhookConfiguration weft-validator", "MutatingWebhookConfiguration weft-injector"]
        );
        assert_eq!(objects.last().map(String::as_str), Some("Namespace weft-system"));
        remove(&api.cluster(), &found, |_| {}).await.unwrap();
        // What Kubernetes made goes with the namespace.
        assert_eq!(api.paths(), ["/api/v1/namespaces/weft-system/configmaps/kube-root-ca.crt"]);
        let again = removal(&api.cluster(), "weft-system", false).await.unwrap();
        assert_eq!(again, Removal::default());
    }

    #[tokio::test]
    async fn a_namespace_others_live_in_stays_and_so_does_one_that_was_there() {
        let api = FakeApi::default();
        installed(&api, &Values::default()).await;
        api.put("/api/v1/namespaces/weft-system/secrets/theirs", json!({"metadata": {"name": "theirs"}}));
        let found = removal(&api.cluster(), "weft-system", false).await.unwrap();
        assert!(!names_of(&found).contains(&"Namespace weft-system".to_owned()));
        assert_eq!(found.kept, ["namespace weft-system, in which others live: Secret theirs"]);

        let api = FakeApi::default();
        api.put("/api/v1/namespaces/weft-system", json!({"metadata": {"name": "weft-system"}}));
        installed(&api, &Values { create_namespace: false, ..Values::default() }).await;
        let found = removal(&api.cluster(), "weft-system", false).await.unwrap();
        assert_eq!(found.kept, ["namespace weft-system, which this program did not make"]);
    }

    #[tokio::test]
    async fn definitions_stay_unless_they_are_asked_for() {
        let api = FakeApi::default();
        installed(&api, &Values::default()).await;
        let labels = json!({"app.kubernetes.io/name": "weft", "app.kubernetes.io/managed-by": "weft"});
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/meshes.weft.dev";
        api.put(path, json!({"metadata": {"name": "meshes.weft.dev", "labels": labels}}));
        let found = removal(&api.cluster(), "weft-system", false).await.unwrap();
        assert_eq!(found.kept, ["1 custom resource definitions and the documents in them; --crds removes both"]);
        let found = removal(&api.cluster(), "weft-system", true).await.unwrap();
        assert!(names_of(&found).contains(&"CustomResourceDefinition meshes.weft.dev".to_owned()), "{found:?}");
        assert!(found.kept.is_empty(), "{:?}", found.kept);
    }

    #[tokio::test]
    async fn the_plugins_account_stays_until_its_installers_have_cleaned_their_nodes() {
        let api = FakeApi::default();
        installed(&api, &Values::default().with_assignment("capture=cni").unwrap()).await;
        let labels = json!({"app.kubernetes.io/name": "weft", "app.kubernetes.io/component": "cni"});
        let pod = "/api/v1/namespaces/weft-system/pods/weft-cni-x";
        api.put(pod, json!({"metadata": {"name": "weft-cni-x", "labels": labels}}));
        let found = removal(&api.cluster(), "weft-system", false).await.unwrap();
        // The pod goes when it has been looked for once.
        let (watched, seen) = (api.clone(), std::sync::atomic::AtomicBool::new(false));
        api.rule(move |asked| {
            let is_look = asked.path.ends_with("/pods") && asked.query.contains("component%3Dcni");
            let first = is_look && !seen.swap(true, std::sync::atomic::Ordering::Relaxed);
            first.then(|| (200, json!({"items": [{"metadata": {"name": "weft-cni-x"}}]})))
        });
        watched.forget(pod);
        remove(&api.cluster(), &found, |_| {}).await.unwrap();
        let asked: Vec<String> = api.asked().iter().map(|asked| format!("{} {}", asked.method, asked.path)).collect();
        let last_look = asked.iter().rposition(|asked| asked == "GET /api/v1/namespaces/weft-system/pods");
        let daemon_set = asked.iter().position(|asked| asked.starts_with("DELETE") && asked.ends_with("/weft-cni"));
        let account =
            asked.iter().position(|asked| asked.starts_with("DELETE") && asked.ends_with("serviceaccounts/weft-cni"));
        assert!(daemon_set < last_look && last_look < account, "{asked:?}");
    }

    #[tokio::test]
    async fn pods_that_have_proxies_and_labels_of_users_are_told() {
        let api = FakeApi::default();
        installed(&api, &Values::default()).await;
        let pod = |name: &str, phase: &str, container: &str| {
            json!({
                "metadata": {"name": name, "namespace": "shop"},
                "spec": {"initContainers": [{"name": container}]},
                "status": {"phase": phase},
            })
        };
        api.put("/api/v1/namespaces/shop/pods/a", pod("a", "Running", "weft-proxy"));
        api.put("/api/v1/namespaces/shop/pods/b", pod("b", "Succeeded", "weft-proxy"));
        api.put("/api/v1/namespaces/shop/pods/c", pod("c", "Running", "other"));
        api.put(
            "/api/v1/namespaces/shop",
            json!({"metadata": {"name": "shop", "labels": {"weft.dev/inject": "enabled"}}}),
        );
        let found = removal(&api.cluster(), "weft-system", false).await.unwrap();
        assert_eq!(found.meshed, ["shop/a"]);
        assert_eq!(found.kept.len(), 1);
        assert!(found.kept[0].contains("namespaces shop"), "{:?}", found.kept);
    }
}
