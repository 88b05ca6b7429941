//! Puts a plan in force, remembers with which settings, and waits until it runs.
//!
//! Doing it again does nothing: what is unchanged is not touched, and what was remembered is where the next one starts.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::{Cluster, ClusterError, Kind, Mode, Reference};
use super::manifests::{COMPONENT_LABEL, MANAGED_BY_LABEL, NAME_LABEL, VERSION_LABEL};
use super::plan::{Action, Step};
use super::uninstall::take_away;
use super::values::{Capture, Values, ValuesError};
use crate::kubernetes::names;

/// Between two looks at what is being started.
const LOOK: Duration = Duration::from_secs(1);

/// What is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    pub namespace: String,
    pub version: String,
    /// Who looks after it: `weft`, or another's name.
    pub manager: String,
    pub capture: Capture,
}

/// Why an installation did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("the settings of the last installation cannot be read: {0}; correct ConfigMap {namespace}/{name}, or start from the defaults with --reset", namespace = .1, name = names::VALUES_CONFIG_MAP)]
    Remembered(ValuesError, String),
    #[error("not ready within {} s: {waiting}; look into it with `kubectl -n {namespace} describe pods`, or wait longer with --timeout", .limit.as_secs())]
    NotReady { limit: Duration, waiting: String, namespace: String },
}

/// What there is of ours, found by its labels; made by whomever.
pub async fn installation(cluster: &Cluster) -> Result<Option<Installation>, ClusterError> {
    let labels = format!("{NAME_LABEL}={},{COMPONENT_LABEL}=control-plane", names::APP_NAME);
    let found = cluster.list(&Kind::of("Deployment"), None, &labels).await?;
    let Some(deployment) = found.iter().find(|item| item["metadata"]["name"] == names::CONTROL_PLANE) else {
        return Ok(None);
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let labels = &deployment["metadata"]["labels"];
    let namespace = text(&deployment["metadata"]["namespace"]);
    // What injection goes by: a plugin that is gone is missed.
    let variables = deployment.pointer("/spec/template/spec/containers/0/env").and_then(Value::as_array);
    let by_plugin = variables.into_iter().flatten().any(|it| it["name"] == "WEFT_CAPTURE" && it["value"] == "cni");
    Ok(Some(Installation {
        namespace,
        version: text(&labels[VERSION_LABEL]),
        manager: text(&labels[MANAGED_BY_LABEL]),
        capture: if by_plugin { Capture::Cni } else { Capture::Init },
    }))
}

/// The settings of the last installation in a namespace; the defaults where none were kept.
pub async fn remembered(cluster: &Cluster, namespace: &str) -> Result<Values, ApplyError> {
    let base = Values { system_namespace: namespace.to_owned(), ..Values::default() };
    let object = Reference::new(Kind::of("ConfigMap"), namespace, names::VALUES_CONFIG_MAP);
    let Some(kept) = cluster.get(&object).await? else { return Ok(base) };
    let Some(text) = kept["data"][names::VALUES_KEY].as_str() else { return Ok(base) };
    base.with_file(&object.to_string(), text).map_err(|error| ApplyError::Remembered(error, namespace.to_owned()))
}

/// Does the steps of a plan, in order; each is told when it is done.
pub async fn apply(
    cluster: &Cluster,
    manifests: &[Value],
    steps: &[Step],
    mut done: impl FnMut(&Step),
) -> Result<(), ClusterError> {
    for step in steps {
        match step.action {
            Action::Unchanged => {}
            Action::Deleted => {
                take_away(cluster, &step.object).await?;
            }
            Action::Created | Action::Changed(_) => {
                let manifest = manifests.iter().find(|manifest| Reference::of(manifest) == step.object);
                let manifest = manifest.expect("a plan is made of the manifests it is done with");
                cluster.apply(&step.object, manifest, Mode::Real).await?;
            }
        }
        done(step);
    }
    Ok(())
}

/// Keeps what differs from the defaults for the next installation.
pub async fn remember(cluster: &Cluster, values: &Values) -> Result<(), ClusterError> {
    let mut differences = values.differences();
    if let Value::Object(fields) = &mut differences {
        // It lies where it says.
        fields.remove("systemNamespace");
    }
    let text = serde_yaml_ng::to_string(&differences).expect("settings are maps of text and numbers");
    let object = Reference::new(Kind::of("ConfigMap"), &values.system_namespace, names::VALUES_CONFIG_MAP);
    let manifest = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": names::VALUES_CONFIG_MAP,
            "namespace": values.system_namespace,
            "labels": {NAME_LABEL: names::APP_NAME, MANAGED_BY_LABEL: names::APP_NAME, COMPONENT_LABEL: "installation"},
        },
        "data": {names::VALUES_KEY: text},
    });
    cluster.apply(&object, &manifest, Mode::Real).await?;
    Ok(())
}

/// Waits until everything runs; `told` hears what is waited for whenever that changes.
pub async fn wait(
    cluster: &Cluster,
    values: &Values,
    limit: Duration,
    mut told: impl FnMut(&str),
) -> Result<(), ApplyError> {
    let mut waiting = String::new();
    let look = async {
        loop {
            let now = missing(cluster, values).await?.join("; ");
            if now.is_empty() {
                return Ok(());
            }
            if now != waiting {
                told(&now);
                waiting = now;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(limit, look).await {
        Ok(ended) => ended,
        Err(_) => Err(ApplyError::NotReady { limit, waiting, namespace: values.system_namespace.clone() }),
    }
}

/// What does not run yet.
async fn missing(cluster: &Cluster, values: &Values) -> Result<Vec<String>, ClusterError> {
    let namespace = &values.system_namespace;
    let mut missing = Vec::new();
    let mut parts = vec![("Deployment", names::CONTROL_PLANE, "control-plane")];
    if values.capture == Capture::Cni {
        parts.push(("DaemonSet", names::CNI, "cni"));
    }
    for (kind, name, component) in parts {
        let object = cluster.get(&Reference::new(Kind::of(kind), namespace, name)).await?;
        if let Some(what) =
            object.as_ref().map_or_else(|| Some(format!("{name} is gone")), |object| rollout(name, object))
        {
            let labels = format!("{NAME_LABEL}={},{COMPONENT_LABEL}={component}", names::APP_NAME);
            let pods = cluster.list(&Kind::of("Pod"), Some(namespace), &labels).await?;
            missing.push(
                pods.iter().find_map(trouble).map_or_else(|| what.clone(), |trouble| format!("{what} ({trouble})")),
            );
        }
    }
    for (kind, name) in
        [("MutatingWebhookConfiguration", names::INJECTOR), ("ValidatingWebhookConfiguration", names::VALIDATOR)]
    {
        let object = cluster.get(&Reference::new(Kind::of(kind), "", name)).await?;
        if object.is_none_or(|object| bundles(&object).iter().any(Option::is_none)) {
            missing.push(format!("{name} has no certificate to trust yet"));
        }
    }
    Ok(missing)
}

/// What a Deployment or DaemonSet waits for, in one part of a sentence; nothing when it runs as it is said.
pub(super) fn rollout(name: &str, object: &Value) -> Option<String> {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_u64);
    if number("/status/observedGeneration").unwrap_or(0) < number("/metadata/generation").unwrap_or(0) {
        return Some(format!("{name} is not looked at yet"));
    }
    let (wanted, updated, ready) = if object["kind"] == "DaemonSet" {
        ("/status/desiredNumberScheduled", "/status/updatedNumberScheduled", "/status/numberAvailable")
    } else {
        ("/spec/replicas", "/status/updatedReplicas", "/status/availableReplicas")
    };
    // A Deployment without a number has one replica; a DaemonSet without nodes has none.
    let wanted = number(wanted).unwrap_or(u64::from(object["kind"] != "DaemonSet"));
    let (updated, ready) = (number(updated).unwrap_or(0), number(ready).unwrap_or(0));
    let total = number("/status/replicas").unwrap_or(updated);
    if updated >= wanted && ready >= wanted && total <= updated {
        return None;
    }
    let mut text = format!("{name}: {} of {wanted} ready", ready.min(updated));
    if total > updated {
        let _ = write!(text, ", {} of an earlier version left", total - updated);
    }
    Some(text)
}

/// Why a pod does not run, if it says.
fn trouble(pod: &Value) -> Option<String> {
    let name = pod["metadata"]["name"].as_str()?;
    let list = |pointer: &str| pod.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let unscheduled = list("/status/conditions")
        .into_iter()
        .find(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False");
    if let Some(message) = unscheduled.as_ref().and_then(|condition| condition["message"].as_str()) {
        return Some(format!("{name}: {message}"));
    }
    let waits = list("/status/containerStatuses").into_iter().find_map(|container| {
        let waiting = &container["state"]["waiting"];
        let reason = waiting["reason"].as_str().filter(|reason| *reason != "ContainerCreating")?.to_owned();
        let last = container.pointer("/lastState/terminated/message").and_then(Value::as_str);
        Some(match waiting["message"].as_str().or(last) {
            Some(message) => format!("{reason}: {message}"),
            None => reason,
        })
    });
    waits.map(|waits| format!("{name}: {waits}"))
}

/// What each webhook of a configuration trusts, in base64.
pub(super) fn bundles(configuration: &Value) -> Vec<Option<String>> {
    let webhooks = configuration["webhooks"].as_array().map(Vec::as_slice).unwrap_or_default();
    let bundle = |webhook: &Value| {
        webhook
            .pointer("/clientConfig/caBundle")
            .and_then(Value::as_str)
            .filter(|bundle| !bundle.is_empty())
            .map(str::to_owned)
    };
    webhooks.iter().map(bundle).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::install::manifests;
    use crate::kubernetes::install::plan::plan;
    use crate::kubernetes::install::testing::FakeApi;

    const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/weft-system/deployments/weft-control-plane";
    const CONFIGURATIONS: [&str; 2] = [
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/weft-injector",
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/weft-validator",
    ];

    async fn install(api: &FakeApi, values: &Values) -> Vec<Step> {
        let (cluster, manifests) = (api.cluster(), manifests(values));
        let steps = plan(&cluster, &manifests).await.unwrap();
        apply(&cluster, &manifests, &steps, |_| {}).await.unwrap();
        remember(&cluster, values).await.unwrap();
        steps
    }

    fn edit(api: &FakeApi, path: &str, change: impl FnOnce(&mut Value)) {
        let mut object = api.object(path).unwrap();
        change(&mut object);
        api.put(path, object);
    }

    #[tokio::test]
    async fn what_is_installed_twice_is_written_once() {
        let api = FakeApi::default();
        install(&api, &Values::default()).await;
        let writes = api.writes().len();
        install(&api, &Values::default()).await;
        // The settings are kept each time.
        assert_eq!(api.writes().len(), writes + 1, "{:?}", api.writes());
    }

    #[tokio::test]
    async fn an_upgrade_starts_from_the_settings_of_the_last_installation() {
        let api = FakeApi::default();
        assert_eq!(installation(&api.cluster()).await.unwrap(), None);
        let values = Values::default().with_assignment("systemNamespace=mesh").unwrap();
        let values = values.with_assignment("replicas=3").unwrap().with_assignment("capture=cni").unwrap();
        install(&api, &values).await;
        let found = installation(&api.cluster()).await.unwrap().unwrap();
        assert_eq!((found.namespace.as_str(), found.manager.as_str(), found.capture), ("mesh", "weft", Capture::Cni));
        assert_eq!(found.version, env!("CARGO_PKG_VERSION"));
        assert_eq!(remembered(&api.cluster(), "mesh").await.unwrap(), values);
    }

    #[tokio::test]
    async fn settings_that_cannot_be_read_back_are_told_with_their_place() {
        let api = FakeApi::default();
        install(&api, &Values::default()).await;
        let path = "/api/v1/namespaces/weft-system/configmaps/weft-values";
        edit(&api, path, |map| map["data"]["values.yaml"] = json!("replica: 3"));
        let refusal = remembered(&api.cluster(), "weft-system").await.unwrap_err().to_string();
        assert!(refusal.contains("ConfigMap weft-system/weft-values") && refusal.contains("--reset"), "{refusal}");
    }

    #[tokio::test]
    async fn waiting_tells_what_is_missing_and_ends_when_all_of_it_is_there() {
        let api = FakeApi::default();
        install(&api, &Values::default()).await;
        edit(&api, DEPLOYMENT, |it| {
            it["status"] = json!({"updatedReplicas": 2, "availableReplicas": 1, "replicas": 2});
        });
        let pod = json!({
            "metadata": {"name": "p", "labels": {NAME_LABEL: "weft", COMPONENT_LABEL: "control-plane"}},
            "status": {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]},
        });
        api.put("/api/v1/namespaces/weft-system/pods/p", pod);
        let mut heard = Vec::new();
        let (cluster, values) = (api.cluster(), Values::default());
        let waited = wait(&cluster, &values, Duration::from_secs(1), |what| heard.push(what.to_owned())).await;
        let refusal = waited.unwrap_err().to_string();
        let first = "weft-control-plane: 1 of 2 ready (p: ImagePullBackOff: no such image); weft-injector has no certificate to trust yet";
        assert!(refusal.starts_with(&format!("not ready within 1 s: {first}")), "{refusal}");
        assert_eq!(heard.len(), 1, "the same is told once: {heard:?}");
        edit(&api, DEPLOYMENT, |it| it["status"]["availableReplicas"] = json!(2));
        for path in CONFIGURATIONS {
            edit(&api, path, |it| {
                for webhook in it["webhooks"].as_array_mut().unwrap() {
                    webhook["clientConfig"]["caBundle"] = json!("Y2E=");
                }
            });
        }
        wait(&cluster, &values, Duration::from_secs(10), |_| {}).await.unwrap();
    }

    #[test]
    fn a_rollout_is_over_when_all_replicas_are_new_and_ready() {
        let deployment = |generation: u64, status: Value| {
            rollout(
                "x",
                &json!({"kind": "Deployment", "metadata": {"generation": generation}, "spec": {"replicas": 2}, "status": status}),
            )
        };
        let status = |updated: u64, available: u64, replicas: u64| json!({"observedGeneration": 2, "updatedReplicas": updated, "availableReplicas": available, "replicas": replicas});
        assert_eq!(deployment(3, status(2, 2, 2)).as_deref(), Some("x is not looked at yet"));
        assert_eq!(deployment(2, status(1, 2, 3)).as_deref(), Some("x: 1 of 2 ready, 2 of an earlier version left"));
        assert_eq!(deployment(2, status(2, 2, 3)).as_deref(), Some("x: 2 of 2 ready, 1 of an earlier version left"));
        assert_eq!(deployment(2, status(2, 2, 2)), None);
        let nodes = |status: Value| rollout("c", &json!({"kind": "DaemonSet", "metadata": {}, "status": status}));
        assert_eq!(
            nodes(json!({"desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 2})).as_deref(),
            Some("c: 2 of 3 ready")
        );
        assert_eq!(nodes(json!({"desiredNumberScheduled": 0})), None);
    }
}
