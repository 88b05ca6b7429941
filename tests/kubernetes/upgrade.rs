//! Running proxies get another program from a newer control plane, and whoever talks through them does not notice.

#![allow(clippy::unwrap_used, reason = "a test that cannot have what it needs has failed")]

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::Value;
use weft_tests::kubernetes::mesh::Load;
use weft_tests::kubernetes::{Cluster, Version};
use weft_tests::process::{program, run, system};

const NAMESPACE: &str = "steady";

const STEADY: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: steady, labels: {weft.dev/inject: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: steady}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: steady}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: app, image: example/shop, args: [inventory]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: load, namespace: steady}
spec:
  selector: {matchLabels: {app: load}}
  template:
    metadata: {labels: {app: load}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: load, image: example/load, args: [http://web/stock, --rate, "1"]}]
"#;

const LIVE: &str = "
apiVersion: weft.dev/v1alpha1
kind: Mesh
metadata: {name: default}
spec: {proxyUpgrade: live}
";

/// The proxy's program of another build: without what debuggers want of it, and with these bytes behind it.
fn build(place: &Path, name: &str) -> PathBuf {
    let path = place.join(name);
    let mut strip = system("strip");
    strip.args(["--strip-debug", "-o"]).arg(&path).arg(program("weft-proxy"));
    run(&mut strip).succeeded();
    writeln!(OpenOptions::new().append(true).open(&path).unwrap(), "{name}").unwrap();
    path
}

fn digest(path: &Path) -> String {
    let mut sum = system("sha256sum");
    run(sum.arg(path)).succeeded().split(' ').next().unwrap().to_owned()
}

/// What must not change: of each pod its identity, the process of its application, that of its sidecar, and restarts.
fn pods(cluster: &Cluster) -> BTreeMap<String, (String, u32, u32, i32)> {
    let of = |pod: Pod| {
        let name = pod.name_any();
        let application = if name.starts_with("load") { "load" } else { "app" };
        let process = |container: &str| cluster.nodes().process(NAMESPACE, &name, container);
        let status = pod.status.clone().unwrap();
        let all = status.init_container_statuses.into_iter().chain(status.container_statuses).flatten();
        let restarts = all.map(|container| container.restart_count).sum();
        let facts = (pod.uid().unwrap(), process(application), process("weft-proxy"), restarts);
        (name, facts)
    };
    cluster.pods(NAMESPACE, "app in (web, load)").into_iter().map(of).collect()
}

/// What the control plane says of its proxies; an error while it cannot be asked.
fn status(cluster: &Cluster) -> Result<Value, String> {
    let asked = cluster.weft(&["status", "--kubernetes", "-o", "json"]);
    if asked.code != Some(0) {
        return Err(format!("{asked:?}"));
    }
    serde_json::from_str(&asked.stdout).map_err(|error| error.to_string())
}

/// The digests of the programs that proxies run.
fn digests(status: &Value) -> Vec<&str> {
    status["proxies"].as_array().unwrap().iter().filter_map(|proxy| proxy["digest"].as_str()).collect()
}

#[test]
fn a_broken_program_goes_no_further_than_one_proxy_and_a_good_one_reaches_all_while_they_serve() {
    let Some(cluster) = &Cluster::start(Version::Newest) else { return };
    let place = tempfile::tempdir().unwrap();
    let (good, broken) = (build(place.path(), "good"), build(place.path(), "broken"));
    let half = std::fs::metadata(&broken).unwrap().len() / 2;
    File::options().write(true).open(&broken).unwrap().set_len(half).unwrap();
    cluster.nodes().make_control_plane("weft-broken", &broken);
    cluster.nodes().make_control_plane("weft-good", &good);
    cluster.add_nodes(&["one"]);
    cluster.install_mesh(&["--set", "replicas=1", "--set", "images.controlPlane=example/weft-broken"]);
    cluster.apply(STEADY);
    for name in ["web", "load"] {
        cluster.until_rolled_out(NAMESPACE, name);
    }
    let before = pods(cluster);
    let load = Load::begin(cluster, NAMESPACE, "http://web/stock", 50);

    cluster.apply(LIVE);
    let stopped = cluster.until("the canary refuses the broken program", async || {
        let status = status(cluster)?;
        let is_stopped = status["programs"][0]["stopped"].as_str().is_some_and(|why| !why.is_empty());
        if is_stopped { Ok(status) } else { Err(status.to_string()) }
    });
    let why = stopped["programs"][0]["stopped"].as_str().unwrap();
    assert!(why.starts_with("steady/") && why.contains("it refused: "), "{why}");
    load.until_more(100);
    let shown = cluster.weft(&["status", "--kubernetes"]);
    assert!(shown.stderr.contains(why) && shown.stdout.contains("refused"), "{shown:?}");
    let stopped = status(cluster).unwrap();
    let [one, rest @ ..] = &digests(&stopped)[..] else { panic!("{stopped}") };
    assert!(rest.len() == 2 && rest.iter().all(|other| other == one) && *one != digest(&broken), "{stopped}");
    let checked = cluster.weft(&["check"]).stdout;
    assert!(checked.contains("running proxies") && checked.contains(why), "{checked}");

    let plan = cluster.weft(&["upgrade", "--plan", "--set", "images.controlPlane=example/weft-good"]);
    assert!(plan.stderr.contains("3 of 3 proxies get the new control plane's program while they run"), "{plan:?}");
    let upgraded = cluster.weft(&["upgrade", "--set", "images.controlPlane=example/weft-good", "--timeout", "100s"]);
    assert_eq!(upgraded.code, Some(0), "{upgraded:?}\n{}", cluster.nodes().story());
    let wanted = digest(&good);
    cluster.until("every proxy runs the new program", async || {
        let status = status(cluster)?;
        let digests = digests(&status);
        let all = digests.len() == 3 && digests.iter().all(|digest| *digest == wanted);
        if all { Ok(()) } else { Err(status.to_string()) }
    });
    load.until_more(100);
    assert_eq!(pods(cluster), before, "pods and their processes are the same");
    load.ends_clean(cluster);
    let shown = cluster.weft(&["status", "--kubernetes"]).succeeded();
    assert!(shown.contains("0 of 3 proxies outdated; replaced live"), "{shown}");
}
