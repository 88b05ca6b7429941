//! Capture by the node's CNI plugin: namespaces that forbid every privilege have their pods in the mesh all the same.
//!
//! The nodes run the plugin as a container runtime does, from their own directories; its installer is the `DaemonSet`
//! that `weft install` makes.

#![allow(clippy::unwrap_used, reason = "a test that cannot have what it needs has failed")]

use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::Value;
use weft_tests::kubernetes::Cluster;
use weft_tests::kubernetes::mesh::{Load, SHOP};
use weft_tests::kubernetes::node::chain::CONFIGURATION;
use weft_tests::mesh::command::until;
use weft_tests::mesh::recording::TLS_RECORDS;

const TAINT: &str = "weft.dev/cni-not-ready";
const RESTRICTED: &str = "pod-security.kubernetes.io/enforce: restricted";

/// The shared cluster with two nodes and the mesh, for one test at a time; `None` where there can be none.
fn cluster() -> Option<(&'static Cluster, MutexGuard<'static, ()>)> {
    static INSTALLED: Once = Once::new();
    static TURN: Mutex<()> = Mutex::new(());
    let cluster = Cluster::shared()?;
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    INSTALLED.call_once(|| {
        cluster.add_nodes(&["one", "two"]);
        cluster.install_mesh(&["--set", "capture=cni"]);
    });
    Some((cluster, turn))
}

/// The sample shop as a namespace with this Pod Security label takes it.
fn restricted_shop(namespace: &str) -> String {
    SHOP.replace("namespace: shop", &format!("namespace: {namespace}"))
        .replace("name: shop", &format!("name: {namespace}"))
        .replace("{weft.dev/inject: enabled}", &format!("{{weft.dev/inject: enabled, {RESTRICTED}}}"))
        .replace(
            "      containers:\n",
            "      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}\n      containers:\n",
        )
        .replace(
            "          image:",
            "          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}\n          image:",
        )
}

/// A pod that Pod Security `restricted` takes, on a node of its choice.
fn restricted_pod(namespace: &str, name: &str, annotations: &str, node: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, annotations: {{{annotations}}}}}
spec:
  nodeSelector: {{kubernetes.io/hostname: {node}}}
  terminationGracePeriodSeconds: 1
  securityContext: {{runAsNonRoot: true, runAsUser: 1000, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
    - name: it
      image: example/shell
      args: [-c, sleep infinity]
      securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
"
    )
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The kernel's rules in a pod's network.
fn rules(cluster: &Cluster, namespace: &str, pod: &str) -> String {
    let mut listed = cluster.in_pod(namespace, pod, &["nft", "list", "ruleset"]);
    String::from_utf8(listed.output().unwrap().stdout).unwrap()
}

/// What `weft check` finds about the plugin: verdicts and sentences.
fn check(cluster: &Cluster) -> Vec<(String, String)> {
    let checked = cluster.weft(&["check", "-o", "json"]);
    let findings: Vec<Value> = serde_json::from_str(&checked.stdout).unwrap_or_else(|_| panic!("{checked:?}"));
    let of_plugin = findings.iter().filter(|finding| finding["check"] == "cni");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    of_plugin.map(|finding| (text(&finding["verdict"]), finding.to_string())).collect()
}

/// The network configuration of a node.
fn configuration(cluster: &Cluster, node: &str) -> String {
    std::fs::read_to_string(cluster.nodes().network_of(node)).unwrap()
}

fn has_entry(cluster: &Cluster, node: &str) -> bool {
    configuration(cluster, node).contains("weft-cni")
}

/// The warnings about a pod that a node has given.
fn warnings(cluster: &Cluster, namespace: &str, pod: &str) -> String {
    let api = Api::<Event>::namespaced(cluster.client(), namespace);
    let fields = format!("involvedObject.name={pod},reason=FailedCreatePodSandBox");
    let events = cluster.block_on(api.list(&ListParams::default().fields(&fields))).unwrap();
    events.items.into_iter().filter_map(|event| event.message).collect()
}

#[test]
fn a_restricted_namespace_takes_the_sample_shop_and_only_tls_is_between_its_pods() {
    let Some((cluster, _turn)) = cluster() else { return };
    cluster.apply(&restricted_shop("strict"));
    for name in ["inventory", "orders", "frontend", "load"] {
        cluster.until_rolled_out("strict", name);
    }
    let orders = cluster.pod_names("strict", "app=orders");
    let record =
        |pod: &String| (pod.clone(), cluster.record("strict", pod, "eth0"), cluster.record("strict", pod, "lo"));
    let recordings: Vec<_> = orders.iter().map(record).collect();
    let load = Load::begin(cluster, "strict", "http://frontend/", 50);
    load.until_more(200);
    load.ends_clean(cluster);
    for (pod, wire, loopback) in recordings {
        let inside = |arguments: &[&str]| cluster.in_pod("strict", &pod, arguments);
        let (wire, loopback) = (wire.end("10.244.0.1", inside), loopback.end("127.0.0.1", inside));
        assert!(wire.count(TLS_RECORDS) > 10, "{pod}");
        assert!(!wire.holds("GET /orders"), "it can be read on the way to {pod}");
        assert!(loopback.holds("GET /orders"), "the search is not blind: {pod}");
        let edge = [("direction", "inbound"), ("source", "strict/frontend"), ("destination", "strict/orders:80")];
        let metrics = cluster.metrics("strict", &pod);
        assert!(metrics.sum("weft_requests_total", &edge) > 10, "{pod}: {metrics:?}");
    }
}

#[test]
fn a_meshed_pod_differs_from_a_plain_one_in_what_is_documented_and_nothing_else() {
    let Some((cluster, _turn)) = cluster() else { return };
    let labels = [("pod-security.kubernetes.io/enforce", "restricted")];
    cluster.namespace("bare", &labels);
    cluster.namespace("meshed", &[&labels[..], &[("weft.dev/inject", "enabled")]].concat());
    let specification = |namespace: &str| {
        cluster.apply(&restricted_pod(namespace, "it", "", "one"));
        let pod = cluster.until_object::<Pod>(namespace, "it", "is ready", is_ready);
        let (annotations, mut pod) = (pod.annotations().clone(), serde_json::to_value(pod.spec).unwrap());
        // Every pod's own: the name of the volume with its account's token.
        let text = pod.to_string();
        let volumes = pod["volumes"].as_array().unwrap().clone();
        let names = volumes.iter().filter_map(|volume| volume["name"].as_str());
        let own = names.filter(|name| name.starts_with("kube-api-access-"));
        let text = own.fold(text, |text, name| text.replace(name, "kube-api-access"));
        pod = serde_json::from_str(&text).unwrap();
        (annotations, pod)
    };
    let ((plain_annotations, plain), (annotations, mut meshed)) = (specification("bare"), specification("meshed"));
    let added: Vec<&str> =
        annotations.keys().map(String::as_str).filter(|key| !plain_annotations.contains_key(*key)).collect();
    assert_eq!(added, ["kubectl.kubernetes.io/default-container", "weft.dev/capture", "weft.dev/injected"]);
    let before = meshed["initContainers"].take();
    let names: Vec<&str> = before.as_array().unwrap().iter().filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(names, ["weft-proxy"], "nobody in the pod captures");
    meshed.as_object_mut().unwrap().remove("initContainers");
    let volumes = meshed["volumes"].as_array_mut().unwrap();
    let count = volumes.len();
    volumes.retain(|volume| volume["name"] != "weft-token");
    assert_eq!(volumes.len(), count - 1);
    // The wait before an application is told to end (`weft.dev/departure-seconds`).
    for container in meshed["containers"].as_array_mut().unwrap() {
        container.as_object_mut().unwrap().remove("lifecycle");
    }
    assert_eq!(meshed, plain);
}

#[test]
fn the_plugin_captures_pods_of_the_mesh_and_touches_no_others() {
    let Some((cluster, _turn)) = cluster() else { return };
    cluster.namespace("outside", &[]);
    cluster.namespace("inside", &[("weft.dev/inject", "enabled")]);
    for namespace in ["outside", "inside"] {
        cluster.apply(&restricted_pod(namespace, "it", "weft.dev/exclude-outbound-ports: '9999'", "two"));
        cluster.until_object::<Pod>(namespace, "it", "is ready", is_ready);
    }
    let inside = rules(cluster, "inside", "it");
    assert!(inside.contains("table inet weft") && inside.contains("9999"), "{inside}");
    assert_eq!(rules(cluster, "outside", "it"), "");
}

#[test]
fn the_plugin_has_the_newest_token_of_its_installer() {
    let Some((cluster, _turn)) = cluster() else { return };
    let on_one = |pod: &&Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some("one");
    let installers = cluster.pods("weft-system", "app.kubernetes.io/component=cni");
    let installer = installers.iter().find(on_one).unwrap().name_any();
    let written =
        || std::fs::read_to_string(cluster.nodes().host("one").join("opt/cni/bin/weft-cni.kubeconfig")).unwrap();
    let before = written();
    cluster.renew_tokens("weft-system", &installer);
    until("the kubeconfig beside the plugin has another token", || (written() != before).then_some(()));
}

#[test]
fn a_node_takes_pods_of_the_mesh_when_it_has_the_plugin_and_they_start_by_themselves() {
    let Some((cluster, _turn)) = cluster() else { return };
    let found = check(cluster);
    assert!(matches!(&found[..], [(verdict, _)] if verdict == "ok"), "{found:?}");
    cluster.add_unready_node("three", TAINT);
    cluster.namespace("early", &[("weft.dev/inject", "enabled")]);
    cluster.apply(&restricted_pod("early", "it", "", "three"));

    // Its installer runs, and there is no network yet that it could add itself to.
    until("the check names the node", || {
        let found = check(cluster);
        let [(first, without), (second, tainted)] = &found[..] else { return None };
        let says = first == "failed" && without.contains("not on nodes three");
        (says && second == "warning" && tainted.contains("nodes three wait")).then_some(())
    });
    let waiting = cluster.until_object::<Pod>("early", "it", "is there", |_| true);
    assert_eq!(waiting.spec.unwrap().node_name, None, "it has been given a node");

    cluster.nodes().give_network("three");
    cluster.until_object::<Pod>("early", "it", "is ready", is_ready);
    assert!(rules(cluster, "early", "it").contains("table inet weft"));
    until("the check is content", || matches!(&check(cluster)[..], [(verdict, _)] if verdict == "ok").then_some(()));
}

#[test]
fn a_pod_that_the_plugin_refuses_waits_and_starts_when_it_is_corrected() {
    let Some((cluster, _turn)) = cluster() else { return };
    cluster.namespace("refused", &[]);
    // As if injected by hand, and then spoilt.
    let annotations = "weft.dev/injected: by-hand, weft.dev/capture: cni, weft.dev/exclude-uids: root";
    cluster.apply(&restricted_pod("refused", "it", annotations, "one"));
    until("its events say why", || {
        let said = warnings(cluster, "refused", "it");
        let is_all = said.contains("type=weft-cni failed (add): code 101") && said.contains("weft.dev/exclude-uids");
        is_all.then_some(())
    });
    let creating = |pod: &Pod| serde_json::to_string(&pod.status).unwrap().contains("ContainerCreating");
    cluster.until_object::<Pod>("refused", "it", "has no containers yet", creating);
    cluster.kubectl(&["-n", "refused", "annotate", "--overwrite", "pod/it", "weft.dev/exclude-uids=0"]).succeeded();
    cluster.until_object::<Pod>("refused", "it", "is ready", is_ready);
    assert!(rules(cluster, "refused", "it").contains("table inet weft"));
}

#[test]
fn a_restricted_namespace_refuses_a_pod_that_captures_itself_and_says_what_to_do() {
    let Some((cluster, _turn)) = cluster() else { return };
    let labels = [("pod-security.kubernetes.io/enforce", "restricted"), ("weft.dev/inject", "enabled")];
    cluster.namespace("self", &labels);
    let pod = restricted_pod("self", "it", "weft.dev/capture: init", "one");
    let refused = cluster.kubectl_with(&["apply", "--server-side", "-f", "-"], &pod);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    for words in ["Pod Security level `restricted`", "CNI plugin", "weft.dev/capture"] {
        assert!(refused.stderr.contains(words), "{refused:?}");
    }
}

#[test]
fn a_configuration_that_is_written_anew_gets_its_entry_back_and_uninstalling_leaves_it_as_it_was() {
    let Some((cluster, _turn)) = cluster() else { return };
    cluster.nodes().give_network("one");
    until("the entry is back", || has_entry(cluster, "one").then_some(()));

    // A new installer of the same DaemonSet leaves everything to its successor.
    cluster.kubectl(&["-n", "weft-system", "rollout", "restart", "daemonset/weft-cni"]).succeeded();
    cluster.kubectl(&["-n", "weft-system", "rollout", "status", "daemonset/weft-cni", "--timeout=100s"]).succeeded();
    for node in ["one", "two"] {
        assert!(has_entry(cluster, node), "{node}");
    }

    cluster.kubectl(&["-n", "weft-system", "delete", "daemonset/weft-cni", "--wait=false"]).succeeded();
    until("the check misses it", || {
        let found = check(cluster);
        let (verdict, text) = found.first()?;
        (verdict == "failed" && text.contains("weft-cni is gone")).then_some(())
    });
    // What begins on a node without the plugin is not in the mesh, and its application does not start.
    until("the entry is out", || (!has_entry(cluster, "one")).then_some(()));
    cluster.namespace("uncaptured", &[("weft.dev/inject", "enabled")]);
    cluster.apply(&restricted_pod("uncaptured", "it", "", "one"));
    until("its proxy says why", || {
        cluster.nodes().story().contains("this pod is not captured, so it does not become ready").then_some(())
    });
    let pod = cluster.until_object::<Pod>("uncaptured", "it", "is there", |_| true);
    let statuses = pod.status.unwrap().container_statuses.unwrap();
    assert!(statuses.iter().all(|status| status.started != Some(true)), "{statuses:?}");

    cluster.install_mesh(&[]);
    cluster.kubectl(&["-n", "uncaptured", "delete", "pod/it", "--wait=true"]).succeeded();
    cluster.apply(&restricted_pod("uncaptured", "it", "", "one"));
    cluster.until_object::<Pod>("uncaptured", "it", "is ready", is_ready);
    for node in ["one", "two"] {
        assert!(has_entry(cluster, node), "{node}");
    }

    cluster.weft(&["uninstall", "--force"]).succeeded();
    for node in ["one", "two"] {
        assert_eq!(configuration(cluster, node), CONFIGURATION, "{node}, byte for byte");
        let files = |directory: &str| {
            let files = std::fs::read_dir(cluster.nodes().host(node).join(directory)).unwrap();
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(files("etc/cni/net.d"), ["10-miniature.conflist"]);
        assert_eq!(files("opt/cni/bin"), ["weft-cni"], "the program stays: a runtime may still call it for old pods");
    }
    // The shared cluster's next test finds the mesh again.
    cluster.install_mesh(&["--set", "capture=cni"]);
}
