//! Pods on their way into the cluster.

use serde_json::{Value, json};

use super::{apply, idle, mesh, metrics, nothing_was_forbidden, rehearse, replicas};

fn has_proxy(pod: &Value) -> bool {
    pod["spec"]["initContainers"].as_array().into_iter().flatten().any(|container| container["name"] == "weft-proxy")
}

/// What is told apart by chance alone is made the same: the volume that the API server itself names, and when it came.
fn by_itself(pod: &Value) -> Value {
    let mut pod = pod.clone();
    pod["spec"]["volumes"].as_array_mut().unwrap().sort_by_key(|volume| volume["name"].to_string());
    let text = json!({"spec": pod["spec"], "annotations": pod["metadata"]["annotations"]}).to_string();
    let mut parts = text.split("kube-api-access-");
    let first = parts.next().unwrap().to_owned();
    serde_json::from_str(&parts.fold(first, |text, part| format!("{text}kube-api-access{}", &part[5..]))).unwrap()
}

/// Equal, or where they are not.
#[track_caller]
fn same(left: &Value, right: &Value, path: &str) {
    match (left, right) {
        (Value::Object(one), Value::Object(other)) => {
            assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>(), "{path}");
            one.iter().for_each(|(key, value)| same(value, &other[key], &format!("{path}/{key}")));
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            let pairs = one.iter().zip(other).enumerate();
            pairs.for_each(|(index, (one, other))| same(one, other, &format!("{path}/{index}")));
        }
        _ => assert_eq!(left, right, "{path}"),
    }
}

#[test]
fn the_webhook_makes_of_a_pod_what_the_command_line_makes_and_nothing_more_of_that() {
    let Some(cluster) = mesh() else { return };
    cluster.namespace("asked", &[("weft.dev/inject", "enabled")]);
    cluster.namespace("unasked", &[]);
    let mut pod = idle("asked", "it");
    let probe = json!({"httpGet": {"path": "/up", "port": "web"}, "timeoutSeconds": 2});
    let container = &mut pod["spec"]["containers"][0];
    container["ports"] = json!([{"name": "web", "containerPort": 8080}]);
    container["readinessProbe"] = probe;
    pod["metadata"]["annotations"] =
        json!({"weft.dev/exclude-outbound-ports": "5432", "weft.dev/proxy-cpu-limit": "2"});
    let by_webhook = rehearse(cluster, &pod).unwrap();
    assert!(has_proxy(&by_webhook), "{by_webhook:#}");

    // Where nobody asks for it.
    let elsewhere = |mut pod: Value| {
        pod["metadata"]["namespace"] = json!("unasked");
        pod
    };
    let file = cluster.place().join("by-hand.json");
    std::fs::write(&file, elsewhere(pod).to_string()).unwrap();
    // As the mesh's own setting has it.
    let settings = ["--proxy-pull-policy", "IfNotPresent"];
    let words = [&["inject", "-f", file.to_str().unwrap(), "-o", "json"][..], &settings].concat();
    let injected = cluster.weft(&words).succeeded();
    let mut injected: Value = serde_json::from_str(&injected).unwrap();
    let by_hand = rehearse(cluster, &injected).unwrap();
    same(&by_itself(&by_hand), &by_itself(&by_webhook), "");

    injected["metadata"]["namespace"] = json!("asked");
    let again = rehearse(cluster, &injected).unwrap();
    // What has a proxy is let through.
    same(&by_itself(&again), &by_itself(&by_webhook), "");

    let replica = &replicas(cluster)[0];
    let counted = metrics(cluster, replica).unwrap();
    assert!(counted.sum("weft_injections_total", &[("result", "injected")]) >= 1);
    assert!(counted.sum("weft_injections_total", &[("result", "unchanged")]) >= 1);
    let absent = cluster.kubectl(&["get", "pods", "-n", "asked", "-o", "name"]).succeeded();
    assert_eq!(absent, "", "a dry run leaves nothing");
    nothing_was_forbidden(cluster, &replicas(cluster));
}

#[test]
fn labels_of_pod_and_namespace_decide_and_the_clusters_own_namespaces_never_ask() {
    let Some(cluster) = mesh() else { return };
    cluster.namespace("yes", &[("weft.dev/inject", "enabled")]);
    cluster.namespace("no", &[("weft.dev/inject", "disabled")]);
    cluster.namespace("silent", &[]);
    for (namespace, label, expected) in [
        ("yes", None, true),
        ("yes", Some("enabled"), true),
        ("yes", Some("disabled"), false),
        ("no", None, false),
        ("no", Some("enabled"), true),
        ("silent", None, false),
        ("silent", Some("enabled"), true),
        ("silent", Some("disabled"), false),
        ("kube-system", Some("enabled"), false),
        ("kube-public", Some("enabled"), false),
    ] {
        let mut pod = idle(namespace, "it");
        // Its account is made by controllers, which have nothing to do with it.
        pod["spec"]["automountServiceAccountToken"] = json!(false);
        if let Some(label) = label {
            pod["metadata"]["labels"]["weft.dev/inject"] = json!(label);
        }
        let taken = rehearse(cluster, &pod).unwrap_or_else(|refused| panic!("{namespace} {label:?}: {refused:?}"));
        assert_eq!(has_proxy(&taken), expected, "{namespace} {label:?}");
    }
}

#[test]
fn who_makes_a_pod_reads_why_it_is_refused_and_what_has_no_effect() {
    let Some(cluster) = mesh() else { return };
    cluster.namespace("told", &[("weft.dev/inject", "enabled")]);
    let mut misspelt = idle("told", "misspelt");
    misspelt["metadata"]["labels"]["weft.dev/inject"] = json!("true");
    let mut taken = idle("told", "taken");
    taken["spec"]["containers"][0]["ports"] = json!([{"containerPort": 15006}]);
    let mut wrong = idle("told", "wrong");
    wrong["metadata"]["annotations"] = json!({"weft.dev/exclude-inbound-ports": "http"});
    for (pod, words) in [
        (misspelt, "denied the request: label weft.dev/inject is `true`; allowed: enabled, disabled"),
        (taken, "denied the request: container it uses port 15006, which is the proxy's for inbound connections"),
        (wrong, "denied the request: annotation weft.dev/exclude-inbound-ports"),
    ] {
        let refused = apply(cluster, &pod.to_string());
        assert_eq!(refused.code, Some(1), "{refused:#?}");
        assert!(refused.stderr.contains(words), "{words}\n{}", refused.stderr);
    }
    let mut unknown = idle("told", "unknown");
    unknown["metadata"]["annotations"] = json!({"weft.dev/exclude-inbound-port": "9"});
    let mut host = idle("told", "host");
    host["spec"]["hostNetwork"] = json!(true);
    for (pod, words) in [
        (unknown, "Warning: annotation weft.dev/exclude-inbound-port is unknown and has no effect; did you mean"),
        (host, "Warning: the pod stays outside the mesh: it uses its node's network"),
    ] {
        let rehearsal = ["apply", "--server-side", "--dry-run=server", "-f", "-"];
        let warned = cluster.kubectl_with(&rehearsal, &pod.to_string());
        assert!(warned.code == Some(0) && warned.stderr.contains(words), "{warned:#?}");
    }
}

/// Adds a container to pods that have been injected.
const LATER: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: later-container}
spec:
  failurePolicy: Fail
  reinvocationPolicy: IfNeeded
  matchConstraints:
    objectSelector: {matchLabels: {later: container}}
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  mutations:
  - patchType: JSONPatch
    jsonPatch:
      expression: >-
        has(object.spec.initContainers) && !object.spec.containers.exists(c, c.name == 'later')
        ? [JSONPatch{op: "add", path: "/spec/containers/-", value: Object.spec.containers{
             name: "later", image: "example/shell:1", readinessProbe: Object.spec.containers.readinessProbe{
               httpGet: Object.spec.containers.readinessProbe.httpGet{path: "/up", port: 8080}}}}]
        : [JSONPatch{op: "add", path: "/metadata/labels/seen", value: "once"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: later-container}
spec: {policyName: later-container}
"#;

#[test]
fn a_container_that_others_add_after_us_has_its_probes_redirected_too() {
    let Some(cluster) = mesh() else { return };
    cluster.namespace("later", &[("weft.dev/inject", "enabled")]);
    cluster.apply(LATER);
    let mut pod = idle("later", "it");
    pod["metadata"]["labels"]["later"] = json!("container");
    let words = ["apply", "--server-side", "--dry-run=server", "-o", "json", "-f", "-"];
    // A policy counts some moment after it was made.
    let (later, pod) = cluster.until("the policy counts", async || {
        let taken: Value = serde_json::from_str(&cluster.kubectl_with(&words, &pod.to_string()).succeeded()).unwrap();
        let containers = taken["spec"]["containers"].as_array().cloned().unwrap_or_default();
        let later = containers.iter().find(|container| container["name"] == "later").cloned();
        later.map(|later| (later, taken.clone())).ok_or_else(|| taken.to_string())
    });
    assert_eq!(later["readinessProbe"]["httpGet"]["path"], "/app-probe/later/readiness");
    assert_eq!(later["readinessProbe"]["httpGet"]["port"], 15020);
    let proxies = pod["spec"]["initContainers"].as_array().unwrap().iter().filter(|it| it["name"] == "weft-proxy");
    let environment = proxies.map(|proxy| proxy["env"].to_string()).collect::<Vec<_>>();
    assert!(environment.len() == 1 && environment[0].contains("later/readiness"), "{environment:?}");
}
