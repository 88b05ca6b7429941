//! The pods of a cluster that have a proxy, and what their proxies show a scraper: through the API server, which reaches pods
//! where we do not.

use std::time::Duration;

use serde_json::Value;

use super::Failure;
use super::remote::is_ready;
use crate::kubernetes::install::cluster::{Cluster, ClusterError, Kind};
use crate::kubernetes::names;

/// A page of metrics: a proxy's series are capped far below this.
const LARGEST_PAGE: usize = 16 << 20;
/// For one proxy's answer, the API server's way included.
const PATIENCE: Duration = Duration::from_secs(5);

/// A pod with a proxy beside it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct MeshedPod {
    pub namespace: String,
    pub name: String,
    pub is_ready: bool,
}

impl MeshedPod {
    /// `NAMESPACE/NAME`, as the mesh calls its workload.
    pub(super) fn workload(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// What the proxy counted, in Prometheus' text format.
    pub(super) async fn metrics(&self, cluster: &Cluster) -> Result<String, ClusterError> {
        let Self { namespace, name, .. } = self;
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{}/proxy/metrics", names::HEALTH_PORT);
        cluster.text(&path, &format!("read metrics of {namespace}/{name}"), LARGEST_PAGE, PATIENCE).await
    }
}

/// The running pods with a proxy, by name; of all namespaces without one.
pub(super) async fn meshed(cluster: &Cluster, namespace: Option<&str>) -> Result<Vec<MeshedPod>, Failure> {
    let pods = cluster.list(&Kind::of("Pod"), namespace, "").await.map_err(|error| match error.code() {
        Some(403) if namespace.is_none() => {
            Failure::new(format!("{error}; name a namespace whose pods you may list with --namespace"))
        }
        _ => error.into(),
    })?;
    let mut found: Vec<MeshedPod> = pods.iter().filter_map(meshed_pod).collect();
    found.sort_by_key(MeshedPod::workload);
    Ok(found)
}

fn meshed_pod(pod: &Value) -> Option<MeshedPod> {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str);
    let containers = ["/spec/initContainers", "/spec/containers"];
    let mut containers = containers.iter().filter_map(|list| pod.pointer(list)?.as_array()).flatten();
    let has_proxy = containers.any(|container| container["name"] == names::PROXY_CONTAINER);
    let is_running = text("/status/phase") == Some("Running");
    (has_proxy && is_running).then_some(())?;
    Some(MeshedPod {
        namespace: text("/metadata/namespace")?.to_owned(),
        name: text("/metadata/name")?.to_owned(),
        is_ready: is_ready(pod),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kubernetes::install::testing::{FakeApi, refusal};

    #[tokio::test]
    async fn running_pods_with_a_proxy_are_found_and_asked_through_the_api_server() {
        let api = FakeApi::default();
        let pod = |namespace: &str, name: &str, container: &str, phase: &str| {
            let object = json!({
                "metadata": {"namespace": namespace, "name": name},
                "spec": {"initContainers": [{"name": container}], "containers": [{"name": "web"}]},
                "status": {"phase": phase, "conditions": [{"type": "Ready", "status": "True"}]},
            });
            api.put(&format!("/api/v1/namespaces/{namespace}/pods/{name}"), object);
        };
        pod("shop", "b", "weft-proxy", "Running");
        pod("shop", "a", "weft-proxy", "Running");
        pod("shop", "done", "weft-proxy", "Succeeded");
        pod("shop", "bare", "other", "Running");
        pod("bank", "c", "weft-proxy", "Running");
        let cluster = api.cluster();
        let names = |pods: Vec<MeshedPod>| pods.iter().map(MeshedPod::workload).collect::<Vec<_>>();
        assert_eq!(names(meshed(&cluster, None).await.unwrap()), ["bank/c", "shop/a", "shop/b"]);
        let pods = meshed(&cluster, Some("shop")).await.unwrap();
        assert!(pods[0].is_ready);
        api.put("/api/v1/namespaces/shop/pods/a:15020/proxy/metrics", json!("weft_x 1\n"));
        assert_eq!(pods[0].metrics(&cluster).await.unwrap(), "weft_x 1\n");
        api.rule(|asked| (asked.path == "/api/v1/pods").then(|| refusal(403, "you may not")));
        let failure = meshed(&cluster, None).await.unwrap_err().to_string();
        assert!(failure.contains("you may not; name a namespace"), "{failure}");
    }
}
