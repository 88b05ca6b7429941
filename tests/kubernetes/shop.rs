//! The sample shop in a cluster with Weft: installed by its command, injected by its webhook, called by names of Services.

#![allow(clippy::unwrap_used, reason = "a test that cannot have what it needs has failed")]

use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use weft_tests::kubernetes::Cluster;
use weft_tests::kubernetes::mesh::Load;
use weft_tests::mesh::recording::TLS_RECORDS;

/// The shared cluster with two nodes and the mesh; `None` where there can be none.
fn cluster() -> Option<&'static Cluster> {
    static INSTALLED: Once = Once::new();
    let cluster = Cluster::shared()?;
    INSTALLED.call_once(|| {
        cluster.add_nodes(&["one", "two"]);
        cluster.install_mesh(&[]);
    });
    Some(cluster)
}

/// Tests take turns: each has the machine, the nodes and the mesh for itself.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until a pod runs.
#[track_caller]
fn runs(cluster: &Cluster, namespace: &str, name: &str) {
    cluster.until_object::<Pod>(namespace, name, "runs", |pod| {
        pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
    });
}

#[test]
fn the_sample_shop_answers_by_names_of_services_and_only_tls_is_between_its_pods() {
    let Some(cluster) = cluster() else { return };
    let _turn = turn();
    cluster.open_shop("shop");
    let orders = cluster.pod_names("shop", "app=orders");
    let record = |pod: &String| (pod.clone(), cluster.record("shop", pod, "eth0"), cluster.record("shop", pod, "lo"));
    let recordings: Vec<_> = orders.iter().map(record).collect();

    let load = Load::begin(cluster, "shop", "http://frontend/", 50);
    // The callee knows who called, by proof.
    let edge = [("direction", "inbound"), ("source", "shop/frontend"), ("destination", "shop/orders:80")];
    let requests = |pod: &String| cluster.metrics("shop", pod).sum("weft_requests_total", &edge);
    let before: Vec<u64> = orders.iter().map(requests).collect();
    cluster.until("each replica is called while it is recorded", async || {
        let now: Vec<u64> = orders.iter().map(requests).collect();
        let is_called = now.iter().zip(&before).all(|(now, before)| *now > before + 20);
        if is_called { Ok(()) } else { Err(format!("{before:?} {now:?}")) }
    });
    load.ends_clean(cluster);
    for (pod, wire, loopback) in recordings {
        let inside = |arguments: &[&str]| cluster.in_pod("shop", &pod, arguments);
        let (wire, loopback) = (wire.end("10.244.0.1", inside), loopback.end("127.0.0.1", inside));
        assert!(wire.count(TLS_RECORDS) > 10, "{pod}");
        for secret in ["GET /orders", "replica"] {
            assert!(!wire.holds(secret), "`{secret}` can be read on the way to {pod}");
        }
        // The same search finds it where the application takes its requests: it is not blind.
        assert!(loopback.holds("GET /orders"), "{pod}");
    }
}

#[test]
fn scaling_and_rolling_updates_fail_no_request() {
    let Some(cluster) = cluster() else { return };
    let _turn = turn();
    cluster.open_shop("busy");
    let load = Load::begin(cluster, "busy", "http://frontend/", 50);
    for replicas in ["5", "1", "3"] {
        let scale = ["-n", "busy", "scale", "deployment/orders", "--replicas", replicas];
        cluster.kubectl(&scale).succeeded();
        cluster.until_rolled_out("busy", "orders");
        load.until_more(50);
    }
    for name in ["inventory", "orders", "frontend"] {
        let before = cluster.pod_names("busy", &format!("app={name}"));
        cluster.kubectl(&["-n", "busy", "rollout", "restart", &format!("deployment/{name}")]).succeeded();
        cluster.until_rolled_out("busy", name);
        load.until_more(50);
        let after = cluster.pod_names("busy", &format!("app={name}"));
        assert!(after.iter().all(|pod| !before.contains(pod)), "{before:?} {after:?}");
    }
    load.ends_clean(cluster);
}

#[test]
fn draining_a_node_fails_no_request() {
    let Some(cluster) = cluster() else { return };
    let _turn = turn();
    cluster.open_shop("drained");
    for name in ["frontend", "load"] {
        cluster.kubectl(&["-n", "drained", "scale", &format!("deployment/{name}"), "--replicas=2"]).succeeded();
        cluster.until_rolled_out("drained", name);
    }
    // Calls from the node that stays, to pods on both.
    cluster.kubectl(&["cordon", "one"]).succeeded();
    let staying = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some("two");
    let caller = cluster.pods("drained", "app=load").into_iter().find(staying).unwrap().name_any();
    let load = Load::begin_from(cluster, "drained", &caller, "http://frontend/", 50);
    let drained = cluster.kubectl(&[
        "drain",
        "one",
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--force",
        "--timeout=100s",
    ]);
    assert_eq!(drained.code, Some(0), "{drained:?}\n{}", cluster.nodes().story());
    load.until_more(100);
    for name in ["inventory", "orders", "frontend"] {
        cluster.until_rolled_out("drained", name);
        let pods = cluster.pods("drained", &format!("app={name}"));
        assert!(pods.iter().all(staying), "{name}");
    }
    load.ends_clean(cluster);
    cluster.kubectl(&["uncordon", "one"]).succeeded();
}

#[test]
fn a_job_completes_although_its_proxy_never_ends_by_itself() {
    let Some(cluster) = cluster() else { return };
    let _turn = turn();
    cluster.open_shop("work");
    cluster.apply(
        r"
apiVersion: batch/v1
kind: Job
metadata: {name: count, namespace: work}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
        - {name: count, image: example/curl, args: [-sSf, --max-time, '20', 'http://orders/orders']}
",
    );
    cluster.until_object::<Job>("work", "count", "is complete", |job| {
        job.status.as_ref().and_then(|status| status.succeeded) == Some(1)
    });
    let pod = &cluster.pods("work", "job-name=count")[0];
    let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    assert!(init.into_iter().any(|container| container.name == "weft-proxy"), "it was injected");
    assert!(cluster.nodes().log("work", &pod.name_any(), "count").contains("orders"));
}

/// Ends 30 seconds after it is told to, and calls out in each of them.
const LEAVING: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: leaving, namespace: late}
spec:
  terminationGracePeriodSeconds: 60
  restartPolicy: Never
  containers:
    - name: leaving
      image: example/shell
      args:
        - -c
        - |
          leave() {
            for second in $(seq 30); do
              curl -sSf --max-time 5 -o /dev/null http://orders/orders && echo answered || echo failed
              sleep 1
            done
            echo left
            exit 0
          }
          trap leave TERM
          echo here
          while :; do sleep 0.1; done
";

#[test]
fn an_application_calls_out_for_half_a_minute_after_it_was_told_to_end() {
    let Some(cluster) = cluster() else { return };
    let _turn = turn();
    cluster.open_shop("late");
    cluster.apply(LEAVING);
    let log = || cluster.nodes().log("late", "leaving", "leaving");
    let says =
        |word: &str| {
            cluster.until(&format!("the application says {word}"), async || {
                if log().contains(word) { Ok(()) } else { Err(log()) }
            });
        };
    runs(cluster, "late", "leaving");
    says("here");
    cluster.kubectl(&["-n", "late", "delete", "pod", "leaving", "--wait=false"]).succeeded();
    says("left");
    let log = log();
    assert_eq!(log.lines().filter(|line| *line == "answered").count(), 30, "{log}");
    let gone = async || {
        let pods = Api::<Pod>::namespaced(cluster.client(), "late");
        match pods.get_opt("leaving").await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    cluster.until("the pod is gone", gone);
}

/// A caller in the mesh, one outside of it, and a service of its own to send some requests to.
const RULED: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: outside}
---
apiVersion: v1
kind: Pod
metadata: {name: caller, namespace: ruled}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: it, image: example/shell, args: [-c, sleep infinity]}]}
---
apiVersion: v1
kind: Service
metadata: {name: broken, namespace: ruled}
spec: {selector: {app: broken}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: broken, namespace: ruled}
spec:
  selector: {matchLabels: {app: broken}}
  template:
    metadata: {labels: {app: broken}}
    spec: {containers: [{name: it, image: example/shop, args: [inventory], env: [{name: FAIL, value: 100%}]}]}
";
const STRANGER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: outside}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: it, image: example/shell, args: [-c, sleep infinity]}]}
";
const ROUTE: &str = "
apiVersion: weft.dev/v1alpha1
kind: HTTPRoute
metadata: {name: canary, namespace: ruled}
spec:
  parentRefs: [{kind: Service, name: inventory, port: 80}]
  rules:
    - matches: [{headers: [{name: x-version, value: next}]}]
      backendRefs: [{name: broken, port: 80}]
    - backendRefs: [{name: inventory, port: 80}]
";
const PERMISSIVE: &str = "
apiVersion: weft.dev/v1alpha1
kind: Mesh
metadata: {name: default}
spec: {mtls: permissive}
";

#[test]
fn policy_by_kubectl_is_in_force_when_its_status_says_so() {
    let Some(cluster) = cluster() else { return };
    let _turn = turn();
    cluster.open_shop("ruled");
    cluster.apply(RULED);
    cluster.namespace_is_usable("outside");
    cluster.apply(STRANGER);
    cluster.until_rolled_out("ruled", "broken");
    for (namespace, name) in [("ruled", "caller"), ("outside", "stranger")] {
        runs(cluster, namespace, name);
    }
    let curl = |namespace: &str, pod: &str, header: &str| {
        let url = "http://inventory.ruled/stock";
        let words = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10", "-H", header, url];
        cluster.nodes().execute(namespace, pod, "it", &words).stdout
    };
    let (plain, next) = ("x-version: one", "x-version: next");
    assert_eq!((curl("ruled", "caller", plain).as_str(), curl("ruled", "caller", next).as_str()), ("200", "200"));
    assert_eq!(curl("outside", "stranger", plain), "000", "nothing in plaintext, unless it is said");

    let programmed = |what: &[&str]| {
        let wait = ["wait", "--for=condition=Programmed", "--timeout=30s"];
        cluster.kubectl(&[&wait[..], what].concat()).succeeded();
    };
    cluster.kubectl_with(&["apply", "-f", "-"], ROUTE).succeeded();
    programmed(&["httproutes.weft.dev/canary", "-n", "ruled"]);
    assert_eq!((curl("ruled", "caller", plain).as_str(), curl("ruled", "caller", next).as_str()), ("200", "500"));
    // Of both replicas of the control plane, whichever a proxy is connected to.
    let path = "jsonpath={.status.conditions[?(@.type=='Programmed')].message}";
    let message = cluster.kubectl(&["-n", "ruled", "get", "httproutes.weft.dev/canary", "-o", path]).succeeded();
    let connected: usize = message.split(' ').nth(4).and_then(|count| count.parse().ok()).expect(&message);
    let meshed = cluster.meshed_pods();
    assert!(connected >= meshed && meshed > 5, "{message}; {meshed} pods");
    let typo = ROUTE.replace("value: next", "valeu: next");
    let refused = cluster.kubectl_with(&["apply", "-f", "-"], &typo);
    assert!(refused.code == Some(1) && refused.stderr.contains("valeu"), "{refused:?}");

    cluster.kubectl_with(&["apply", "-f", "-"], PERMISSIVE).succeeded();
    programmed(&["meshes.weft.dev/default"]);
    assert_eq!((curl("ruled", "caller", plain).as_str(), curl("outside", "stranger", plain).as_str()), ("200", "200"));

    cluster.kubectl(&["delete", "meshes.weft.dev/default"]).succeeded();
    cluster.kubectl(&["-n", "ruled", "delete", "httproutes.weft.dev/canary"]).succeeded();
    cluster.until("both are forgotten", async || {
        let codes = (curl("outside", "stranger", plain), curl("ruled", "caller", next));
        if codes == ("000".to_owned(), "200".to_owned()) { Ok(()) } else { Err(format!("{codes:?}")) }
    });
}

/// A pod without any Service, whose application listens on the pod's address alone.
const LONE: &str = "
apiVersion: v1
kind: Pod
metadata: {name: lone, namespace: peers}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: it
      image: example/python
      env: [{name: ADDRESS, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
      args: [-m, http.server, '9090', --bind, $(ADDRESS), --directory, /usr/share]
---
apiVersion: v1
kind: Pod
metadata: {name: caller, namespace: peers}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: it, image: example/shell, args: [-c, sleep infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: peers, labels: {weft.dev/inject: disabled}}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: it, image: example/shell, args: [-c, sleep infinity]}]}
";

#[test]
fn a_pod_without_any_service_is_called_by_its_address_by_mutual_tls() {
    let Some(cluster) = cluster() else { return };
    let _turn = turn();
    cluster.namespace("peers", &[("weft.dev/inject", "enabled")]);
    cluster.namespace_is_usable("peers");
    cluster.apply(LONE);
    for name in ["lone", "caller", "stranger"] {
        runs(cluster, "peers", name);
    }
    let url = format!("http://{}:9090/", cluster.nodes().address("peers", "lone"));
    let curl = |pod: &str| {
        let words = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10", &url];
        cluster.nodes().execute("peers", pod, "it", &words).stdout
    };
    cluster.until("the application answers its peer", async || match curl("caller") {
        code if code == "200" => Ok(()),
        code => Err(code),
    });
    assert_eq!(curl("stranger"), "000", "nothing in plaintext, unless it is said");
    // By proof, on both sides.
    for (pod, direction) in [("caller", "outbound"), ("lone", "inbound")] {
        let edge = [
            ("direction", direction),
            ("source", "peers/default"),
            ("destination", "peers/undeclared:9090"),
            ("tls", "mutual"),
        ];
        let metrics = cluster.metrics("peers", pod);
        assert!(metrics.sum("weft_connections_total", &edge) >= 1, "{pod}: {metrics:?}");
    }
    cluster.kubectl_with(&["apply", "-f", "-"], PERMISSIVE).succeeded();
    cluster.until("plaintext is taken at a port that nobody declared", async || match curl("stranger") {
        code if code == "200" => Ok(()),
        code => Err(code),
    });
    assert_eq!(curl("caller"), "200");
    cluster.kubectl(&["delete", "meshes.weft.dev/default"]).succeeded();
}
