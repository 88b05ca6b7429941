//! What a cluster has to say about its mesh.
//!
//! Nothing here stops at a refusal: what could not be had is a part with a reason. Secrets are not asked for.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use weft_proto::weft::GetRequest;

use super::archive::{Content, Part};
use crate::cli::pods::{MeshedPod, meshed};
use crate::cli::remote::Told;
use crate::cli::target::Remote;
use crate::kubernetes::install::Values;
use crate::kubernetes::install::check::{Stage, check};
use crate::kubernetes::install::cluster::{Kind, Reference};
use crate::kubernetes::install::manifests::{COMPONENT_LABEL, NAME_LABEL};
use crate::kubernetes::names;

/// Proxies that are asked at once.
const AT_ONCE: usize = 8;
/// For one log or one page.
const PATIENCE: Duration = Duration::from_secs(15);
/// Of one log: its last lines.
const LOG_LINES: usize = 5_000;
const LOG_BYTES: usize = 8 << 20;
/// A little more than the server was asked for.
const MOST_BYTES: usize = LOG_BYTES + (64 << 10);

/// Everything; of proxies those that are named, or else `most`, the troubled ones first.
pub(super) async fn collect(remote: &Remote, named: &[String], most: usize, now: i64) -> Vec<Part> {
    let mut parts = vec![
        object(
            "cluster/version.json",
            remote.cluster.read("/version", "read the version").await.map(|answer| answer.body),
        ),
        ("check.json".into(), findings(remote, now).await),
        ("status.json".into(), statuses(remote).await),
        ("documents.json".into(), documents(remote).await),
        ("cluster/nodes.json".into(), nodes(remote).await),
    ];
    for kind in Kind::ours().chain([Kind::of("Pod")]) {
        // Names of Secrets say nothing that helps.
        if kind.name != "Secret" {
            parts.extend(objects(remote, &kind).await);
        }
    }
    let chosen = match chosen(remote, named, most).await {
        Ok((chosen, left_out)) => {
            if left_out > 0 {
                let reason =
                    format!("{left_out} more proxies are there; name some with --proxy, or more with --proxies");
                parts.push(("proxies".into(), Err(reason)));
            }
            chosen
        }
        Err(reason) => {
            parts.push(("proxies".into(), Err(reason)));
            Vec::new()
        }
    };
    parts.extend(events(remote, &chosen).await);
    let proxies: Vec<Vec<Part>> = stream::iter(&chosen).map(|pod| proxy(remote, pod)).buffered(AT_ONCE).collect().await;
    parts.extend(proxies.into_iter().flatten());
    parts
}

fn object(name: impl Into<String>, got: Result<Value, impl ToString>) -> Part {
    (name.into(), got.map(Content::Object).map_err(|error| error.to_string()))
}

async fn findings(remote: &Remote, now: i64) -> Result<Content, String> {
    let given = |base: Values| Values { system_namespace: remote.system_namespace.clone(), ..base };
    let found = check(&remote.cluster, Stage::After, given, now).await.map_err(|error| error.to_string())?;
    Ok(Content::Object(json!(found)))
}

async fn statuses(remote: &Remote) -> Result<Content, String> {
    let replicas = remote.status().await.map_err(|failure| failure.to_string())?;
    let shown = replicas.iter().map(|replica| json!({ "pod": replica.pod, "status": replica.status }));
    Ok(Content::Object(shown.collect()))
}

async fn documents(remote: &Remote) -> Result<Content, String> {
    let all = remote.documents(&GetRequest::default()).await.map_err(|failure| failure.to_string())?;
    Ok(Content::Object(json!(all)))
}

/// What nodes run, and nothing else of them.
async fn nodes(remote: &Remote) -> Result<Content, String> {
    let nodes = remote.cluster.list(&Kind::of("Node"), None, "").await.map_err(|error| error.to_string())?;
    let shown = nodes.iter().map(|node| {
        let info = &node["status"]["nodeInfo"];
        json!({
            "name": node["metadata"]["name"], "taints": node["spec"]["taints"], "kubelet": info["kubeletVersion"],
            "kernel": info["kernelVersion"], "system": info["osImage"], "runtime": info["containerRuntimeVersion"],
            "architecture": info["architecture"],
        })
    });
    Ok(Content::Object(shown.collect()))
}

/// Our own objects of a kind; of Pods with their logs and metrics.
async fn objects(remote: &Remote, kind: &Kind) -> Vec<Part> {
    let (namespace, place) = match kind.name.as_str() {
        "Pod" => (Some(remote.system_namespace.as_str()), "control-plane/pods.json".to_owned()),
        _ => (None, format!("objects/{}.json", kind.plural)),
    };
    let labels = format!("{NAME_LABEL}={}", names::APP_NAME);
    let found = match remote.cluster.list(kind, namespace, &labels).await {
        Ok(found) if found.is_empty() => return Vec::new(),
        Ok(found) => found,
        Err(error) => return vec![(place, Err(error.to_string()))],
    };
    let mut parts = Vec::new();
    if kind.name == "Pod" {
        for pod in &found {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            parts.extend(logs(remote, pod, &format!("control-plane/{name}"), |_| true).await);
            let is_control_plane = pod["metadata"]["labels"][COMPONENT_LABEL] == "control-plane";
            if is_control_plane {
                let path = format!(
                    "/api/v1/namespaces/{}/pods/http:{name}:{}/proxy/metrics",
                    remote.system_namespace,
                    names::API_PORT
                );
                parts.push(text(remote, format!("control-plane/{name}/metrics.txt"), &path).await);
            }
        }
    }
    // Each by itself is looked through for what may be secret.
    let found: Vec<Value> = found.into_iter().map(super::redact::object).collect();
    parts.push((place, Ok(Content::Object(Value::Array(found)))));
    parts
}

async fn text(remote: &Remote, name: String, path: &str) -> Part {
    let got = remote.cluster.text(path, &format!("read {name}"), MOST_BYTES, PATIENCE).await;
    (name, got.map(Content::Text).map_err(|error| error.to_string()))
}

/// Logs of a pod's containers, and of their last lives where they had others.
async fn logs(remote: &Remote, pod: &Value, place: &str, wanted: impl Fn(&str) -> bool) -> Vec<Part> {
    let of = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (namespace, name) = (of("/metadata/namespace"), of("/metadata/name"));
    let lists = ["initContainerStatuses", "containerStatuses"];
    let statuses = lists.iter().filter_map(|list| pod["status"][list].as_array()).flatten();
    let mut parts = Vec::new();
    for status in statuses {
        let container = status["name"].as_str().unwrap_or_default();
        if !wanted(container) {
            continue;
        }
        let path = format!(
            "/api/v1/namespaces/{namespace}/pods/{name}/log?container={container}&timestamps=true&tailLines={LOG_LINES}&limitBytes={LOG_BYTES}"
        );
        parts.push(text(remote, format!("{place}/{container}.log"), &path).await);
        if status["restartCount"].as_u64().unwrap_or_default() > 0 {
            let previous = format!("{path}&previous=true");
            parts.push(text(remote, format!("{place}/{container}.previous.log"), &previous).await);
        }
    }
    parts
}

/// The proxies to look at, and how many are left out.
async fn chosen(remote: &Remote, named: &[String], most: usize) -> Result<(Vec<MeshedPod>, usize), String> {
    if !named.is_empty() {
        let pod = |name: &String| {
            let (namespace, name) = name.split_once('/')?;
            Some(MeshedPod { namespace: namespace.to_owned(), name: name.to_owned(), is_ready: true })
        };
        return Ok((named.iter().filter_map(pod).collect(), 0));
    }
    let mut pods = meshed(&remote.cluster, None).await.map_err(|failure| failure.to_string())?;
    pods.sort_by_key(|pod| pod.is_ready);
    let left_out = pods.len().saturating_sub(most);
    pods.truncate(most);
    Ok((pods, left_out))
}

/// Events of ours, and those about what is looked at.
async fn events(remote: &Remote, chosen: &[MeshedPod]) -> Vec<Part> {
    let mut namespaces = BTreeSet::from([remote.system_namespace.as_str()]);
    namespaces.extend(chosen.iter().map(|pod| pod.namespace.as_str()));
    let mut parts = Vec::new();
    for namespace in namespaces {
        let got = remote.cluster.list(&Kind::of("Event"), Some(namespace), "").await;
        let got = got.map(|events| {
            let is_ours = |event: &Value| {
                let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
                let by_us = ["/reportingComponent", "/source/component"].iter().any(|at| text(at).starts_with("weft"));
                let name = text("/involvedObject/name");
                by_us
                    || namespace == remote.system_namespace
                    || chosen.iter().any(|pod| pod.namespace == namespace && pod.name == name)
            };
            events.into_iter().filter(is_ours).collect::<Value>()
        });
        parts.push(object(format!("events/{namespace}.json"), got));
    }
    parts
}

/// One proxy, from all sides.
async fn proxy(remote: &Remote, pod: &MeshedPod) -> Vec<Part> {
    let workload = pod.workload();
    let place = format!("proxies/{workload}");
    let reference = Reference::new(Kind::of("Pod"), &pod.namespace, &pod.name);
    let found = match remote.cluster.get(&reference).await {
        Ok(Some(found)) => found,
        Ok(None) => return vec![(place, Err("there is no such pod".to_owned()))],
        Err(error) => return vec![(place, Err(error.to_string()))],
    };
    let ours = |container: &str| container == names::PROXY_CONTAINER || container == names::INIT_CONTAINER;
    let mut parts = logs(remote, &found, &place, ours).await;
    parts.push((format!("{place}/pod.json"), Ok(Content::Object(found))));
    let metrics = pod.metrics(&remote.cluster).await;
    parts.push((format!("{place}/metrics.txt"), metrics.map(Content::Text).map_err(|error| error.to_string())));
    let (sent, own) = match remote.configuration(&workload).await {
        Ok(Told { replica, sent, own }) => (Ok(json!({"replica": replica, "configuration": sent})), own),
        Err(failure) => (Err(failure.to_string()), Err(failure.to_string())),
    };
    parts.push(object(format!("{place}/configuration.json"), sent));
    parts.push(object(format!("{place}/config_dump.json"), own));
    parts
}
