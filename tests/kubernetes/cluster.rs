//! The cluster that other tests of Kubernetes stand on does what a cluster does.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use weft_tests::kubernetes::{Cluster, Version};

/// How long everything that lost the API server may take to have found it again: each waits longer from try to try.
const AGAIN: Duration = Duration::from_mins(2);

/// The shared cluster with two nodes; `None` where there can be none.
fn cluster() -> Option<&'static Cluster> {
    static NODES: std::sync::Once = std::sync::Once::new();
    let cluster = Cluster::shared()?;
    NODES.call_once(|| cluster.add_nodes(&["one", "two"]));
    Some(cluster)
}

/// A pod of one container that does nothing but be there.
fn idle(namespace: &str, name: &str, more: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{\
         terminationGracePeriodSeconds: 0, {more} containers: [{{name: it, image: example/shell:1, args: [-c, sleep infinity]\
         }}]}}}}"
    )
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[test]
fn pods_of_a_deployment_are_spread_over_nodes_and_reached_by_the_name_of_their_service() {
    let Some(cluster) = cluster() else { return };
    cluster.namespace("named", &[]);
    cluster.apply(
        r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: inventory, namespace: named}
spec:
  replicas: 2
  selector: {matchLabels: {app: inventory}}
  template:
    metadata: {labels: {app: inventory}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: inventory
          image: registry.example:5000/shop:1
          args: [inventory]
          env: [{name: WEFT_WORKLOAD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
          ports: [{name: web, containerPort: 8080}]
          readinessProbe: {httpGet: {path: /stock, port: web}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: inventory, namespace: named}
spec:
  selector: {app: inventory}
  ports: [{port: 80, targetPort: web}]
",
    );
    cluster.apply(&idle("named", "client", ""));
    cluster.until_object::<Deployment>("named", "inventory", "is available", |deployment| {
        deployment.status.as_ref().and_then(|status| status.available_replicas) == Some(2)
    });
    cluster.until_object::<Pod>("named", "client", "is ready", is_ready);

    let pods = Api::<Pod>::namespaced(cluster.client(), "named");
    let params = ListParams::default().labels("app=inventory");
    let pods = cluster.block_on(pods.list(&params)).expect("pods can be listed");
    let of = |field: fn(&Pod) -> Option<String>| {
        let mut all: Vec<String> = pods.iter().filter_map(field).collect();
        all.sort();
        all
    };
    assert_eq!(of(|pod| pod.spec.as_ref()?.node_name.clone()), ["one", "two"]);

    let names = of(|pod| pod.metadata.name.clone());
    let mut answered = std::collections::BTreeSet::new();
    cluster.until("both pods answer to the name", async || {
        let url = "http://inventory.named.svc.cluster.local/stock";
        let said = cluster.nodes().execute("named", "client", "it", &["curl", "-sS", "-m", "5", url]);
        answered.extend(names.iter().filter(|name| said.stdout.contains(*name)).cloned());
        if answered.len() == 2 { Ok(()) } else { Err(format!("{answered:?} {said:?}")) }
    });
    let short = cluster.nodes().execute("named", "client", "it", &["curl", "-sSf", "http://inventory/stock"]);
    assert!(short.stdout.contains("inventory"), "{short:?}");
    // Nobody listens: refused at once, as an address without endpoints is.
    let other = cluster.nodes().execute("named", "client", "it", &["curl", "-sS", "http://inventory:81/stock"]);
    assert!(other.stderr.contains("refused") || other.stderr.contains("connect"), "{other:?}");
}

/// Each container writes what it does into a file of all; the sidecar says it all at its end.
const ORDERED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: ordered, namespace: ordered}
spec:
  terminationGracePeriodSeconds: 20
  volumes: [{name: shared, emptyDir: {}}]
  initContainers:
    - name: first
      image: example/shell
      args: [-c, "echo first >>/shared/log"]
      volumeMounts: [{name: shared, mountPath: /shared}]
    - name: sidecar
      image: example/shell
      restartPolicy: Always
      args:
        - -c
        - |
          trap 'echo sidecar ends >>/shared/log; cat /shared/log; exit 0' TERM
          echo sidecar starts >>/shared/log
          sleep 1
          touch /tmp/up
          while :; do sleep 0.05; done
      startupProbe: {exec: {command: [test, -e, /tmp/up]}, periodSeconds: 1, failureThreshold: 30}
      volumeMounts: [{name: shared, mountPath: /shared}]
    - name: last
      image: example/shell
      args: [-c, "echo last >>/shared/log"]
      volumeMounts: [{name: shared, mountPath: /shared}]
  containers:
    - name: application
      image: example/shell
      args:
        - -c
        - |
          trap 'echo application told >>/shared/log; sleep 1; echo application ends >>/shared/log; exit 0' TERM
          echo application starts >>/shared/log
          while :; do sleep 0.05; done
      lifecycle: {preStop: {exec: {command: [sh, -c, "echo hook >>/shared/log"]}}}
      volumeMounts: [{name: shared, mountPath: /shared}]
"#;

#[test]
fn containers_start_in_order_and_stop_in_the_reverse_one() {
    let Some(cluster) = cluster() else { return };
    cluster.namespace("ordered", &[]);
    cluster.apply(ORDERED);
    cluster.until_object::<Pod>("ordered", "ordered", "is ready", is_ready);
    let api = Api::<Pod>::namespaced(cluster.client(), "ordered");
    cluster.block_on(api.delete("ordered", &DeleteParams::default())).expect("pods can be deleted");
    cluster.until("the pod is gone", async || match api.get_opt("ordered").await {
        Ok(None) => Ok(()),
        other => Err(format!("{other:#?}")),
    });
    let said = cluster.nodes().log("ordered", "ordered", "sidecar");
    let expected = [
        "first",
        "sidecar starts",
        "last",
        "application starts",
        "hook",
        "application told",
        "application ends",
        "sidecar ends",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_job_is_complete_when_its_application_is_although_a_sidecar_would_run_for_ever() {
    let Some(cluster) = cluster() else { return };
    cluster.namespace("jobs", &[]);
    cluster.apply(
        r#"
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: jobs}
spec:
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 5
      initContainers:
        - {name: sidecar, image: example/shell, restartPolicy: Always, args: [-c, "trap 'exit 0' TERM; while :; do sleep 0.1; done"]}
      containers:
        - {name: work, image: example/shell, args: [-c, echo done]}
"#,
    );
    cluster.until_object::<Job>("jobs", "once", "is complete", |job| {
        job.status.as_ref().and_then(|status| status.succeeded) == Some(1)
    });
}

#[test]
fn a_container_has_the_user_the_rights_and_the_files_that_its_pod_gives_it() {
    let Some(cluster) = cluster() else { return };
    cluster.namespace("rights", &[]);
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: it, namespace: rights, annotations: {note: hello}}
spec:
  terminationGracePeriodSeconds: 0
  volumes:
    - name: mine
      projected:
        sources: [{downwardAPI: {items: [{path: note, fieldRef: {fieldPath: "metadata.annotations['note']"}}]}}]
  containers:
    - name: restricted
      image: example/shell
      args: [-c, sleep infinity]
      resources: {limits: {cpu: 1500m}}
      env:
        - {name: CORES, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
        - {name: SAYS, value: "$(CORES) cores"}
      securityContext:
        runAsUser: 14001
        runAsGroup: 14001
        runAsNonRoot: true
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      volumeMounts: [{name: mine, mountPath: /var/run/mine, readOnly: true}]
    - name: network
      image: example/shell
      args: [-c, sleep infinity]
      securityContext: {runAsUser: 0, capabilities: {drop: [ALL], add: [NET_ADMIN]}}
"#,
    );
    cluster.until_object::<Pod>("rights", "it", "is ready", is_ready);
    let shell = |container: &str, line: &str| {
        let path = "/usr/sbin:/usr/bin:/sbin:/bin";
        let line = format!("PATH={path}; {line}");
        cluster.nodes().execute("rights", "it", container, &["sh", "-c", &line])
    };
    let status = shell("restricted", "cat /proc/1/status").succeeded();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":"));
        line.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap_or_default()
    };
    assert_eq!(field("Uid"), "14001 14001 14001 14001");
    assert_eq!(field("Gid"), "14001 14001 14001 14001");
    assert_eq!(field("CapBnd"), "0000000000000000");
    assert_eq!(field("CapEff"), "0000000000000000");
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(shell("restricted", "cat /var/run/mine/note").succeeded(), "hello");
    assert_eq!(
        shell("restricted", "cat /var/run/secrets/kubernetes.io/serviceaccount/namespace").succeeded(),
        "rights"
    );
    let words = shell("restricted", "tr '\\0' '\\n' </proc/1/environ").succeeded();
    assert!(words.contains("SAYS=2 cores\n"), "{words}");
    let write = shell("restricted", "touch /here");
    assert!(write.stderr.contains("Read-only"), "{write:?}");

    let status = shell("network", "grep CapEff /proc/1/status").succeeded();
    assert_eq!(status.split_whitespace().last(), Some("0000000000001000"), "CAP_NET_ADMIN and nothing else");
}

#[test]
fn the_token_in_a_pod_proves_its_account_and_pod_to_the_audience_it_is_for() {
    let Some(cluster) = cluster() else { return };
    cluster.namespace("tokens", &[]);
    let volumes = "volumes: [{name: token, projected: {sources: [{serviceAccountToken: {path: token, audience: mesh.example}}]}}],";
    let pod = idle("tokens", "it", volumes)
        .replace("name: it, image", "volumeMounts: [{name: token, mountPath: /token}], name: it, image");
    cluster.apply(&pod);
    cluster.until_object::<Pod>("tokens", "it", "is ready", is_ready);
    let token = cluster.nodes().execute("tokens", "it", "it", &["cat", "/token/token"]).succeeded();

    let review = |audience: &str| {
        let spec = TokenReviewSpec { audiences: Some(vec![audience.to_owned()]), token: Some(token.clone()) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let api = Api::<TokenReview>::all(cluster.client());
        let made = cluster.block_on(api.create(&PostParams::default(), &review)).expect("tokens can be reviewed");
        made.status.expect("a review has a result")
    };
    let good = review("mesh.example");
    assert_eq!(good.authenticated, Some(true), "{good:?}");
    let user = good.user.expect("who is authenticated has a name");
    assert_eq!(user.username.as_deref(), Some("system:serviceaccount:tokens:default"));
    let extra = user.extra.unwrap_or_default();
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], ["it"]);
    assert_ne!(review("other.example").authenticated, Some(true));
}

#[test]
fn pod_security_is_enforced_where_a_namespace_asks_for_it() {
    let Some(cluster) = cluster() else { return };
    cluster.namespace("secure", &[("pod-security.kubernetes.io/enforce", "restricted")]);
    let refused = cluster.kubectl_with(&["apply", "--server-side", "-f", "-"], &idle("secure", "it", ""));
    assert!(refused.stderr.contains("violates PodSecurity"), "{refused:?}");
}

#[test]
fn pods_run_on_while_the_api_server_is_away() {
    let Some(cluster) = Cluster::start(Version::Newest) else { return };
    cluster.add_nodes(&["one"]);
    cluster.namespace("away", &[]);
    cluster.apply(&idle("away", "it", ""));
    cluster.until_object::<Pod>("away", "it", "is ready", is_ready);
    cluster.kill_api();
    let alone = cluster.nodes().execute("away", "it", "it", &["cat", "/proc/1/cmdline"]).succeeded();
    assert!(alone.contains("sleep"), "{alone}");
    cluster.start_api();
    // One that has only just started may send those away who come too early; they come again.
    cluster.until("the second pod is made", async || {
        let arguments = ["apply", "--server-side", "--request-timeout=10s", "-f", "-"];
        let applied = cluster.kubectl_with(&arguments, &idle("away", "second", ""));
        if applied.code == Some(0) { Ok(()) } else { Err(applied.stderr) }
    });
    cluster.until_object_within::<Pod>(AGAIN, "away", "second", "is ready", is_ready);
    let restarts = cluster.until_object::<Pod>("away", "it", "is ready", is_ready).status.and_then(|status| {
        status.container_statuses.and_then(|containers| containers.first().map(|container| container.restart_count))
    });
    assert_eq!(restarts, Some(0));
}

#[test]
fn the_oldest_release_serves_what_is_applied_to_it() {
    let Some(cluster) = Cluster::oldest() else { return };
    cluster.namespace("old", &[]);
    let version = cluster.block_on(cluster.client().apiserver_version()).expect("it says what it is");
    assert_eq!(version.git_version, format!("v{}", Version::Oldest.number()));
    cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: it, namespace: old}, data: {key: value}}");
    let said = cluster.kubectl(&["get", "configmap", "-n", "old", "it", "-o", "jsonpath={.data.key}"]).succeeded();
    assert_eq!(said, "value");
}
