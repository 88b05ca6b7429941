//! Weft in a cluster, installed as its users install it.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use nix::sys::signal::Signal;
use serde::Deserialize;

use super::Cluster;
use crate::mesh::command::{PATIENCE, Running, within};
use crate::mesh::recording::Recording;
use crate::process::metrics::Metrics;

/// Images are there, and two cores start everything at once.
const START: &str = "100s";
/// Pods one after the other, by controllers that wait up to a minute before they ask an API server again that was away.
const ROLLOUT: Duration = Duration::from_mins(3);
/// The namespace of the mesh itself.
pub const SYSTEM: &str = "weft-system";

/// The sample shop.
pub const SHOP: &str = include_str!("../../../examples/shop.yaml");

impl Cluster {
    /// Runs `weft install` with these arguments, and waits with it until the mesh runs.
    #[track_caller]
    pub fn install_mesh(&self, arguments: &[&str]) {
        let installed = self.weft(&[&["install", "--timeout", START], arguments].concat());
        assert_eq!(installed.code, Some(0), "{installed:?}\n{}", self.nodes().story());
    }

    /// Waits until a Deployment has all of its replicas, of its newest template and of no other, available.
    #[track_caller]
    pub fn until_rolled_out(&self, namespace: &str, name: &str) {
        self.until_object_within(ROLLOUT, namespace, name, "is rolled out", |deployment: &Deployment| {
            let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            let Some(status) = &deployment.status else { return false };
            status.observed_generation == deployment.metadata.generation
                && status.updated_replicas.unwrap_or_default() == wanted
                && status.available_replicas.unwrap_or_default() == wanted
                && status.replicas.unwrap_or_default() == wanted
        });
    }

    /// Pods with this label.
    pub async fn every_pod(&self, namespace: &str, selector: &str) -> Vec<Pod> {
        let api = Api::<Pod>::namespaced(self.client(), namespace);
        api.list(&ListParams::default().labels(selector)).await.expect("pods can be listed").items
    }

    /// Pods with this label that are not about to end.
    #[track_caller]
    pub fn pods(&self, namespace: &str, selector: &str) -> Vec<Pod> {
        let mut pods = self.block_on(self.every_pod(namespace, selector));
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        pods
    }

    /// How many pods with a proxy run.
    #[track_caller]
    pub fn meshed_pods(&self) -> usize {
        let api = Api::<Pod>::all(self.client());
        let pods = self.block_on(api.list(&ListParams::default())).expect("pods can be listed");
        let runs = |pod: &&Pod| {
            pod.metadata.deletion_timestamp.is_none()
                && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
        };
        let is_meshed = |pod: &Pod| {
            let containers = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
            containers.into_iter().any(|container| container.name == "weft-proxy")
        };
        pods.iter().filter(runs).filter(|pod| is_meshed(pod)).count()
    }

    /// Their names.
    #[track_caller]
    pub fn pod_names(&self, namespace: &str, selector: &str) -> Vec<String> {
        self.pods(namespace, selector).iter().map(ResourceExt::name_any).collect()
    }

    /// Begins to record what leaves and reaches a pod.
    #[track_caller]
    pub fn record(&self, namespace: &str, pod: &str, interface: &str) -> Recording {
        let file = self.place().join(format!("{namespace}-{pod}-{interface}.pcap"));
        Recording::begin(file, interface, |arguments| self.in_pod(namespace, pod, arguments))
    }

    /// Runs the sample shop in a namespace of its own, all of it injected and ready.
    #[track_caller]
    pub fn open_shop(&self, namespace: &str) {
        let shop = SHOP.replace("namespace: shop", &format!("namespace: {namespace}"));
        self.apply(&shop.replace("name: shop", &format!("name: {namespace}")));
        for name in ["inventory", "orders", "frontend", "load"] {
            self.until_rolled_out(namespace, name);
        }
    }

    /// The figures of a pod's proxy, as Prometheus would read them.
    #[track_caller]
    pub fn metrics(&self, namespace: &str, pod: &str) -> Metrics {
        let url = format!("http://{}:15020/metrics", self.nodes().address(namespace, pod));
        let arguments = ["-sSf", "--max-time", "10", &url];
        self.network.enter();
        Metrics::parse(&crate::process::run(crate::process::command("curl").args(arguments)).succeeded())
    }

    /// A command of this machine in a pod's network.
    #[track_caller]
    pub fn in_pod(&self, namespace: &str, pod: &str, arguments: &[&str]) -> std::process::Command {
        let (program, rest) = arguments.split_first().expect("a command has a program");
        let mut command = self.nodes().command(namespace, pod, program);
        command.args(rest);
        command
    }
}

/// Requests from beside a pod's application, as it would make them, for as long as a test wants.
#[derive(Debug)]
pub struct Load {
    running: Running,
    rate: u32,
}

/// What became of them, in a second or in all.
#[derive(Debug, Deserialize)]
struct Figures {
    /// Seconds since it began.
    #[expect(dead_code, reason = "for whoever reads why a test failed")]
    at: f64,
    requests: u64,
    /// Answers of 400 and above, and requests without an answer.
    failures: u64,
    #[expect(dead_code, reason = "for whoever reads why a test failed")]
    last_failure: Option<String>,
}

impl Load {
    /// Begins to GET a URL so many times a second, from a container `load` of the sample shop.
    #[track_caller]
    pub fn begin(cluster: &Cluster, namespace: &str, url: &str, rate: u32) -> Self {
        Self::begin_from(cluster, namespace, &cluster.pod_names(namespace, "app=load")[0], url, rate)
    }

    /// [`Load::begin`] from one of several pods.
    #[track_caller]
    pub fn begin_from(cluster: &Cluster, namespace: &str, pod: &str, url: &str, rate: u32) -> Self {
        let words = ["/weft", "load", url, "--rate", &rate.to_string(), "--connections", "8"];
        let load = Self { running: Running::start(cluster.nodes().beside(namespace, pod, "load", &words)), rate };
        load.until_more(1);
        load
    }

    /// Waits until so many more requests have ended.
    #[track_caller]
    pub fn until_more(&self, requests: u64) {
        let ended = || figures(&self.running.stdout()).iter().map(|second| second.requests).sum::<u64>();
        let wanted = ended() + requests;
        let limit = PATIENCE + Duration::from_secs(requests / u64::from(self.rate));
        within(limit, &format!("{wanted} requests have ended"), || (ended() >= wanted).then_some(()));
    }

    /// Ends it; none of its requests has failed.
    #[track_caller]
    pub fn ends_clean(self, cluster: &Cluster) {
        self.running.signal(Signal::SIGTERM);
        let said = self.running.finish(PATIENCE).ok();
        let all = figures(&said);
        let summary = all.last().unwrap_or_else(|| panic!("no figures: {said}"));
        let bad: Vec<_> = all.iter().filter(|second| second.failures > 0).collect();
        assert!(bad.is_empty() && summary.requests > 0, "{bad:#?}\n{}", cluster.nodes().story());
    }
}

fn figures(lines: &str) -> Vec<Figures> {
    lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
