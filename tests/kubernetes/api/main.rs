//! What Weft does with a real API server, by the roles that `weft install` gives it and nothing more.
//!
//! | module | promises about |
//! |---|---|
//! | [`definitions`] | custom resource definitions: what they refuse, and in which words |
//! | [`injection`] | pods on their way into the cluster |
//! | [`validation`] | documents and routes on their way in, and their statuses |
//! | [`identity`] | whose tokens are good for a certificate |
//! | [`unmeshed`] | Events on pods without a proxy |
//! | [`failures`] | what happens while replicas or the API server are away, and after the end |
//!
//! The mesh of the shared cluster has one replica, whose proxies are all that its statuses count. What breaks a
//! mesh breaks one of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot have what it needs has failed")]

mod definitions;
mod failures;
mod identity;
mod injection;
mod unmeshed;
mod validation;

use std::net::{IpAddr, SocketAddr};
use std::sync::Once;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::core::Status;
use kube::{Api, ResourceExt};
use serde::Deserialize;
use serde_json::{Value, json};
use weft_tests::kubernetes::Cluster;
use weft_tests::process::metrics::Metrics;
use weft_tests::process::{Finished, http};

const SYSTEM: &str = "weft-system";

/// The shared cluster with a mesh in it.
fn mesh() -> Option<&'static Cluster> {
    static INSTALLED: Once = Once::new();
    let cluster = Cluster::shared()?;
    INSTALLED.call_once(|| install(cluster, 1));
    Some(cluster)
}

/// The same of the oldest Kubernetes.
fn oldest() -> Option<&'static Cluster> {
    static INSTALLED: Once = Once::new();
    let cluster = Cluster::oldest()?;
    INSTALLED.call_once(|| install(cluster, 1));
    Some(cluster)
}

/// Makes nodes and a mesh, and waits until that runs.
fn install(cluster: &Cluster, replicas: usize) {
    cluster.add_nodes(&["one", "two"]);
    cluster.weft(&["install", "--set", &format!("replicas={replicas}")]).succeeded();
}

/// Replicas of the control plane, by the names of their pods.
fn replicas(cluster: &Cluster) -> Vec<String> {
    let pods = Api::<Pod>::namespaced(cluster.client(), SYSTEM);
    let ours = ListParams::default().labels("app.kubernetes.io/component=control-plane");
    let pods = cluster.block_on(pods.list(&ours)).unwrap();
    pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).map(ResourceExt::name_any).collect()
}

fn log_of(cluster: &Cluster, replica: &str) -> String {
    cluster.nodes().log(SYSTEM, replica, "control-plane")
}

/// What replicas were not allowed to do, or could not, and said so.
#[track_caller]
fn nothing_was_forbidden(cluster: &Cluster, replicas: &[String]) {
    for replica in replicas {
        let log = log_of(cluster, replica);
        let is_complaint = |line: &&str| {
            // A definition that is deleted takes its watch with it, which is worth a line.
            let is_lost = line.contains("a watch is lost");
            line.contains("orbidden") || line.contains("code: 403") || (line.contains("code: 404") && !is_lost)
        };
        let complaints: Vec<&str> = log.lines().filter(is_complaint).collect();
        assert!(complaints.is_empty(), "{replica}: {complaints:#?}");
    }
}

/// What a replica answers on its port for probes and metrics.
fn ask(cluster: &Cluster, replica: &str, path: &str) -> Result<http::Answer, String> {
    let address = SocketAddr::new(IpAddr::V4(cluster.nodes().address(SYSTEM, replica)), 15014);
    http::get(address, path).map_err(|error| error.to_string())
}

fn metrics(cluster: &Cluster, replica: &str) -> Result<Metrics, String> {
    ask(cluster, replica, "/metrics").map(|answer| Metrics::parse(&answer.body))
}

/// YAML as JSON.
#[track_caller]
fn yaml(text: &str) -> Value {
    serde_yaml_ng::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// All documents of a text.
fn documents(text: &str) -> Vec<Value> {
    serde_yaml_ng::Deserializer::from_str(text).map(|document| Value::deserialize(document).unwrap()).collect()
}

/// What the API server says to an object by server-side apply, of which nothing stays.
fn rehearse(cluster: &Cluster, object: &Value) -> Result<Value, Box<Status>> {
    applied(cluster, object, &PatchParams { dry_run: true, ..PatchParams::apply("rehearsal").validation_strict() })
}

fn applied(cluster: &Cluster, object: &Value, parameters: &PatchParams) -> Result<Value, Box<Status>> {
    let (version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let plural = format!("{}{}", kind.to_lowercase(), if kind == "Mesh" { "es" } else { "s" });
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), &plural);
    let metadata = &object["metadata"];
    let api: Api<DynamicObject> = match metadata["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(cluster.client(), namespace, &resource),
        None => Api::all_with(cluster.client(), &resource),
    };
    let name = metadata["name"].as_str().unwrap();
    match cluster.block_on(api.patch(name, parameters, &Patch::Apply(object))) {
        Ok(object) => Ok(json!(object)),
        Err(kube::Error::Api(status)) => Err(status),
        Err(error) => panic!("{object}: {error}"),
    }
}

/// Applies a document as a user would, who then has what `kubectl` says.
fn apply(cluster: &Cluster, document: &str) -> Finished {
    cluster.kubectl_with(&["apply", "--server-side", "-f", "-"], document)
}

/// A pod of one container that does nothing but be there.
fn idle(namespace: &str, name: &str) -> Value {
    yaml(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}, \
         spec: {{terminationGracePeriodSeconds: 0, \
         containers: [{{name: it, image: 'example/shell:1', args: [-c, sleep infinity]}}]}}}}"
    ))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Waits until a namespaced custom object is as it should be.
#[track_caller]
fn until_custom(cluster: &Cluster, kind: &str, namespace: &str, name: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let look = async || {
        let (group, plural) = kind.split_once('/').unwrap();
        let (group, version) = group.split_once(' ').unwrap_or((group, "v1alpha1"));
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, ""), plural);
        let api: Api<DynamicObject> = Api::namespaced_with(cluster.client(), namespace, &resource);
        let object = api.get(name).await.map(|object| json!(object)).map_err(|error| error.to_string())?;
        if holds(&object) { Ok(object) } else { Err(object["status"].to_string()) }
    };
    cluster.until(&format!("{kind} {namespace}/{name} is as it should be"), look)
}

/// A condition of a list, as `STATUS REASON GENERATION MESSAGE`.
fn condition(conditions: &Value, kind: &str) -> String {
    let found = conditions.as_array().into_iter().flatten().find(|condition| condition["type"] == kind);
    let text = |field: &str| found.and_then(|found| found[field].as_str()).unwrap_or_default();
    let generation = found.map(|found| found["observedGeneration"].to_string()).unwrap_or_default();
    format!("{} {} {generation} {}", text("status"), text("reason"), text("message"))
}
