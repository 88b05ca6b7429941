//! What happens in a cluster while a part of it is away: the mesh's control plane, or the API server.

#![allow(clippy::unwrap_used, reason = "a test that cannot have what it needs has failed")]

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use weft_tests::kubernetes::mesh::{Load, SYSTEM};
use weft_tests::kubernetes::{Cluster, Version};

/// How long the API server is away: longer than any watch or token request waits, and two heartbeats of the Lease.
const AWAY: Duration = Duration::from_secs(130);
/// Requests a second meanwhile.
const RATE: u32 = 20;

fn pod(namespace: &str, name: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{\
         terminationGracePeriodSeconds: 1, containers: [{{name: it, image: example/shell, args: [-c, sleep infinity]}}]}}}}"
    )
}

fn runs(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

/// One after the other in one cluster: each is over when what was away is back.
#[test]
fn traffic_goes_on_while_the_control_plane_and_then_the_api_server_are_away() {
    let Some(cluster) = &Cluster::start(Version::Newest) else { return };
    cluster.add_nodes(&["one", "two"]);
    cluster.install_mesh(&[]);
    cluster.open_shop("shop");
    cluster.namespace("elsewhere", &[]);
    let load = Load::begin(cluster, "shop", "http://frontend/", RATE);
    without_the_control_plane(cluster, &load);
    without_the_api_server(cluster, &load);
    load.ends_clean(cluster);
}

/// Pods that would have a proxy wait; all others start.
fn without_the_control_plane(cluster: &Cluster, load: &Load) {
    let scale = |replicas: &str| {
        let deployment = "deployment/weft-control-plane";
        cluster.kubectl(&["-n", SYSTEM, "scale", deployment, "--replicas", replicas]).succeeded();
    };
    scale("0");
    cluster.until("no control plane is left", async || {
        let pods = cluster.every_pod(SYSTEM, "app.kubernetes.io/component=control-plane").await;
        if pods.is_empty() { Ok(()) } else { Err(format!("{} pods", pods.len())) }
    });
    let refused = cluster.kubectl_with(&["apply", "-f", "-"], &pod("shop", "late"));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("weft-injector") || refused.stderr.contains("inject"), "{refused:?}");
    cluster.apply(&pod("elsewhere", "free"));
    cluster.until_object::<Pod>("elsewhere", "free", "runs", runs);
    // What a Deployment wants comes by itself, later.
    cluster.kubectl(&["-n", "shop", "scale", "deployment/inventory", "--replicas=3"]).succeeded();
    load.until_more(u64::from(RATE) * 5);

    scale("2");
    cluster.until_rolled_out(SYSTEM, "weft-control-plane");
    cluster.apply(&pod("shop", "late"));
    cluster.until_object::<Pod>("shop", "late", "runs", runs);
    cluster.until_rolled_out("shop", "inventory");
    cluster.kubectl(&["-n", "shop", "delete", "pod", "late"]).succeeded();
}

/// Nothing changes while nobody says what is; afterwards what changed is in force.
fn without_the_api_server(cluster: &Cluster, load: &Load) {
    cluster.kill_api();
    load.until_more(AWAY.as_secs() * u64::from(RATE));
    cluster.start_api();
    let before = cluster.pod_names("shop", "app=orders");
    cluster.kubectl(&["-n", "shop", "rollout", "restart", "deployment/orders"]).succeeded();
    cluster.until_rolled_out("shop", "orders");
    let after = cluster.pod_names("shop", "app=orders");
    assert!(after.iter().all(|pod| !before.contains(pod)), "{before:?} {after:?}");
    load.until_more(u64::from(RATE) * 3);
    // The new ones are called, not only known.
    for pod in after {
        let edge = [("direction", "inbound"), ("destination", "shop/orders:80")];
        assert!(cluster.metrics("shop", &pod).sum("weft_requests_total", &edge) > 0, "{pod}");
    }
}
