//! What a definition refuses by itself, whether a control plane runs or not.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use weft_tests::kubernetes::Cluster;

use super::{apply, mesh, nothing_was_forbidden, oldest, rehearse, replicas, yaml};

/// Kind, `spec`, the field that is refused, and why. Nothing of the words depends on the release.
const REFUSED: &[(&str, &str, &str, &str)] = &[
    ("Service", "{ports: [{port: 80}]}", "spec", "neither `selector` nor `endpoints`; give `selector: {app: NAME}`"),
    (
        "Service",
        "{ports: [{port: 80}], selector: {a: b}, endpoints: [{address: 192.0.2.1}]}",
        "spec.endpoints",
        "given beside `selector`; a service has exactly one of the two: remove one",
    ),
    (
        "Service",
        "{ports: [{port: 80, name: tcp-x}], selector: {a: b}, timeouts: {request: 1s}}",
        "spec.timeouts",
        "every port speaks tcp, which has no requests; remove it, or say the protocol of a port",
    ),
    (
        "Service",
        "{ports: [{port: 80, appProtocol: tcp}], selector: {a: b}, retries: {attempts: 2}}",
        "spec.retries",
        "every port speaks tcp, which has no requests; remove it, or say the protocol of a port",
    ),
    (
        "Service",
        "{ports: [{port: 80, name: a}, {port: 81, name: a}], selector: {a: b}}",
        "spec.ports",
        "two ports have one name; rename or remove one",
    ),
    (
        "Service",
        "{ports: [{port: 80}], selector: {a: b}, timeouts: {request: 1s, perTry: 2s}}",
        "spec.timeouts.perTry",
        "not less than `request`: no try could ever be too late by itself",
    ),
    (
        "Service",
        "{ports: [{port: 80}], selector: {a: b}, timeouts: {request: soon}}",
        "spec.timeouts.request",
        "`soon` is not a duration such as 300ms, 2s or 1m, longer than 0 and up to 24h",
    ),
    (
        "Service",
        "{ports: [{port: 80, name: My_Port}], selector: {a: b}}",
        "spec.ports[0].name",
        "`My_Port` is not a valid name; use at most 63 of a-z, 0-9 and `-`",
    ),
    (
        "Service",
        "{ports: [{port: 80}], selector: {a: b c}}",
        "spec.selector[a]",
        "not a label's value; use at most 63 of A-Z, a-z, 0-9, `-`, `_` and `.`",
    ),
    (
        "Service",
        "{ports: [{port: 80}], selector: {a: b}, addresses: [0.0.0.0]}",
        "spec.addresses[0]",
        "it means any address of a host; give the address of one host",
    ),
    (
        "Service",
        "{ports: [{port: 80}], selector: {a: b}, addresses: [224.0.0.1]}",
        "spec.addresses[0]",
        "it means many hosts at once; give the address of one host",
    ),
    ("Service", "{ports: [{port: 0}], selector: {a: b}}", "spec.ports[0].port", "greater than or equal to 1"),
    ("Service", "{ports: [], selector: {a: b}}", "spec.ports", "should have at least 1 items"),
    (
        "Workload",
        "{addresses: [10.97.0.5], advertise: [{port: 80, at: localhost}]}",
        "spec.advertise[0].at",
        "`localhost` is not ADDRESS:PORT; expected one such as 127.0.0.1:34567 or [::1]:34567",
    ),
    (
        "TLSRoute",
        "{parentRefs: [{name: a}, {name: a}], hostnames: [a.b], rules: [{backendRefs: [{name: b, port: 1}]}]}",
        "spec.parentRefs",
        "a parent is given twice; remove one",
    ),
    (
        "TLSRoute",
        "{parentRefs: [{name: a}], hostnames: [10.0.0.1], rules: [{backendRefs: [{name: b, port: 1}]}]}",
        "spec.hostnames[0]",
        "`10.0.0.1` is not a host's name; write a whole name in lower case such as `orders.example`",
    ),
    (
        "TLSRoute",
        "{parentRefs: [{name: a}], hostnames: [a.b], rules: [{backendRefs: [{name: b, port: 1, weight: 0}]}]}",
        "spec.rules[0].backendRefs",
        "every weight is 0, so that nothing would take a connection; give one of them a weight",
    ),
    (
        "HTTPRoute",
        "{parentRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: a}], rules: [{}]}",
        "spec.parentRefs",
        "no parent is a service: a mesh routes what is sent to services; write `kind: Service`",
    ),
    (
        "HTTPRoute",
        "{parentRefs: [{name: a}, {name: a}], rules: [{}]}",
        "spec.parentRefs",
        "a parent is given twice; remove one",
    ),
    (
        "HTTPRoute",
        "{parentRefs: [{name: a}], rules: [{name: x}, {name: x}]}",
        "spec.rules",
        "two rules have one name; rename or remove one",
    ),
    (
        "HTTPRoute",
        "{parentRefs: [{name: a}], rules: [{matches: [{path: {value: orders}}]}]}",
        "spec.rules[0].matches[0].path.value",
        "it does not begin with `/`, or has a character that must be escaped with `%`",
    ),
    (
        "HTTPRoute",
        "{parentRefs: [{name: a}], rules: [{matches: [{path: {value: /a//b}}]}]}",
        "spec.rules[0].matches[0].path.value",
        "it has an empty segment, a segment `.` or `..`, an escaped `/`, a query or a fragment",
    ),
    (
        "HTTPRoute",
        "{parentRefs: [{name: a}], rules: [{timeouts: {request: 1s, backendRequest: 2s}}]}",
        "spec.rules[0].timeouts.backendRequest",
        "more than `request`: no try could ever take so long",
    ),
];

/// What no rule has anything against.
const TAKEN: &[(&str, &str)] = &[
    ("Service", "{ports: [{port: 80, name: web}, {port: 81}], selector: {a: b}, timeouts: {request: 2s, perTry: 1s}}"),
    (
        "Service",
        "{ports: [{port: 5432, protocol: tcp}], endpoints: [{address: 192.0.2.1}, {address: 'fd57::2', port: 6}]}",
    ),
    ("Workload", "{addresses: [10.97.0.5], serviceAccount: a, advertise: [{port: 80, at: '127.0.0.1:34567'}]}"),
    (
        "TLSRoute",
        "{parentRefs: [{name: a}, {name: b}], hostnames: ['*.a.b'], rules: [{backendRefs: [{name: b, port: 1}]}]}",
    ),
    (
        "HTTPRoute",
        "{parentRefs: [{name: a, port: 80}, {name: a, port: 81}], rules: [{name: x, matches: [{path: {value: /a}, \
         headers: [{name: v, value: '2'}]}], timeouts: {request: 1m30s, backendRequest: 500ms}}, {}]}",
    ),
];

fn object(kind: &str, name: &str, spec: &str) -> Value {
    let mut object = json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": "default"},
        "spec": yaml(spec),
    });
    if kind == "Mesh" {
        object["metadata"].as_object_mut().unwrap().remove("namespace");
    }
    object
}

fn they_refuse_and_take(cluster: &Cluster) {
    let api = Api::<CustomResourceDefinition>::all(cluster.client());
    let definitions = cluster.block_on(api.list(&ListParams::default().labels("app.kubernetes.io/name=weft"))).unwrap();
    assert_eq!(definitions.items.len(), 5);
    for definition in definitions {
        let conditions = json!(definition.status.unwrap().conditions);
        let is = |kind: &str| {
            conditions
                .as_array()
                .unwrap()
                .iter()
                .find(|found| found["type"] == kind)
                .map(|found| found["status"].clone())
        };
        assert_eq!(is("Established"), Some(json!("True")), "{conditions}");
        assert_eq!(is("NonStructuralSchema"), None, "{conditions}");
    }
    for (kind, spec, field, words) in REFUSED {
        let refused = rehearse(cluster, &object(kind, "it", spec)).expect_err(spec);
        assert_eq!(refused.reason, "Invalid", "{spec}: {refused:?}");
        let text = &refused.message;
        assert!(text.contains(&format!("{field}: ")) && text.contains(words), "{spec}: {text}");
        assert!(!text.contains("webhook"), "the definition says it, not the control plane: {text}");
    }
    for (kind, name, words) in [
        ("Mesh", "other", "unknown name of a Mesh; allowed: default"),
        ("Service", "a.b", "not a valid name; use at most 63 of a-z, 0-9 and `-`"),
    ] {
        let spec = if kind == "Mesh" { "{}" } else { "{ports: [{port: 80}], selector: {a: b}}" };
        let refused = rehearse(cluster, &object(kind, name, spec)).expect_err(name);
        assert!(refused.message.contains(words) && !refused.message.contains("webhook"), "{refused:?}");
    }
    for (kind, spec) in TAKEN {
        let taken = rehearse(cluster, &object(kind, "it", spec));
        assert!(taken.is_ok(), "{spec}: {taken:?}");
    }
    // Server-side apply has other words for it, as it must tell the entries apart.
    let twice = object("Service", "it", "{ports: [{port: 80}, {port: 80}], selector: {a: b}}");
    let refused = cluster.kubectl_with(&["create", "--dry-run=server", "-f", "-"], &twice.to_string());
    assert!(refused.stderr.contains("spec.ports[1]: Duplicate value"), "{refused:#?}");
    let unknown = rehearse(cluster, &object("Service", "it", "{ports: [{port: 80}], selector: {a: b}, prots: []}"));
    assert!(unknown.unwrap_err().message.contains("spec.prots"), "unknown fields are not dropped in silence");
    nothing_was_forbidden(cluster, &replicas(cluster));
}

#[test]
fn what_one_object_gets_wrong_its_definition_says_in_the_newest_kubernetes() {
    let Some(cluster) = mesh() else { return };
    they_refuse_and_take(cluster);
}

#[test]
fn what_one_object_gets_wrong_its_definition_says_in_the_oldest_kubernetes() {
    let Some(cluster) = oldest() else { return };
    they_refuse_and_take(cluster);
    // The rest of a mesh works there too: its webhook answers, its proxy joins.
    cluster.namespace("old", &[("weft.dev/inject", "enabled")]);
    apply(cluster, &super::idle("old", "it").to_string()).succeeded();
    cluster.until_object::<k8s_openapi::api::core::v1::Pod>("old", "it", "is ready", super::is_ready);
}

#[test]
fn a_document_comes_back_as_it_was_written_and_is_found_as_people_ask_for_it() {
    let Some(cluster) = mesh() else { return };
    cluster.namespace("stored", &[]);
    let text = "
apiVersion: weft.dev/v1alpha1
kind: HTTPRoute
metadata: {name: canary, namespace: stored}
spec:
  parentRefs: [{group: '', kind: Service, name: orders, port: 80, sectionName: http}]
  hostnames: [orders.example]
  rules:
  - name: first
    matches:
    - path: {type: Exact, value: /orders}
      method: POST
      headers: [{name: X-Version, value: v2}, {type: RegularExpression, name: agent, value: 'curl/.*'}]
      queryParams: [{type: Exact, name: page, value: '2'}]
    backendRefs: [{kind: Service, name: orders, port: 80, weight: 0}, {name: next, port: 80}]
    timeouts: {request: 1m30s, backendRequest: 500ms}
    retry: {codes: [503], attempts: 2, backoff: 0s}
";
    // What is not said is stored as what it means.
    let mut written = yaml(text);
    let rule = &mut written["spec"]["rules"][0];
    rule["matches"][0]["headers"][0]["type"] = json!("Exact");
    rule["backendRefs"][1]["weight"] = json!(1);
    let read = |path: &str| {
        let words = ["get", "httproutes.weft.dev", "canary", "-n", "stored", "-o", path];
        cluster.kubectl(&words).succeeded()
    };
    apply(cluster, text).succeeded();
    let stored: Value = serde_json::from_str(&read("json")).unwrap();
    assert_eq!(stored["spec"], written["spec"]);
    // Its status is written by now: that is another version, and another field manager's.
    super::until_custom(cluster, "weft.dev/httproutes", "stored", "canary", |it| it.get("status").is_some());
    // Proxies that come and go may turn the status in between.
    cluster.until("applying the same again changes nothing", async || {
        let version = read("jsonpath={.metadata.resourceVersion} {.metadata.generation}");
        apply(cluster, text).succeeded();
        let after = read("jsonpath={.metadata.resourceVersion} {.metadata.generation}");
        if after == version { Ok(()) } else { Err(format!("{version} became {after}")) }
    });

    // kubectl remembers what a server has; this asks it anew.
    let known = cluster.kubectl(&["api-resources", "--api-group", "weft.dev", "-o", "name"]).succeeded();
    assert_eq!(known.lines().count(), 5, "{known}");
    let listed = cluster.kubectl(&["get", "weft", "-A"]).succeeded();
    assert!(listed.contains("httproute.weft.dev/canary"), "{listed}");
    assert!(cluster.kubectl(&["get", "whttp", "-n", "stored"]).succeeded().contains("orders.example"));
    let services = cluster.kubectl(&["get", "services", "-n", "default"]).succeeded();
    assert!(services.contains("CLUSTER-IP"), "`services` still means the cluster's own: {services}");
    let explained = cluster.kubectl(&["explain", "whttp.spec.rules.timeouts"]).succeeded();
    assert!(explained.contains("backendRequest") && explained.contains("weft.dev"), "{explained}");
}
