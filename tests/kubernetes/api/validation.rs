//! Documents and routes on their way in, and what became of them.

use k8s_openapi::api::core::v1::Pod;
use kube::api::PatchParams;
use serde_json::{Value, json};
use weft_tests::kubernetes::{Cluster, programs};

use super::{
    applied, apply, condition, documents, idle, is_ready, mesh, metrics, nothing_was_forbidden, replicas, until_custom,
};

/// The conditions of one of our own kinds.
fn ours(object: &Value, kind: &str) -> String {
    condition(&object["status"]["conditions"], kind)
}

#[test]
fn what_crosses_objects_the_control_plane_refuses_or_warns_of() {
    let Some(cluster) = mesh() else { return };
    cluster.namespace("crossing", &[]);
    cluster.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: crossing}, spec: {ports: [{port: 80}]}}",
    );
    apply(cluster, &idle("crossing", "web-1").to_string()).succeeded();
    let document = |kind: &str, name: &str, spec: &str| {
        format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: {kind}, metadata: {{name: {name}, namespace: crossing}}, spec: {{{spec}}}}}"
        )
    };
    apply(
        cluster,
        &document("Service", "first", "ports: [{port: 80}], endpoints: [{address: 192.0.2.1}], addresses: [10.99.0.7]"),
    )
    .succeeded();
    let route = |parents: &str, rest: &str| format!("parentRefs: [{parents}], rules: [{{{rest}}}]");
    for (document, words) in [
        (
            document(
                "Service",
                "second",
                "ports: [{port: 80}], endpoints: [{address: 192.0.2.1}], addresses: [10.99.0.7]",
            ),
            "spec.addresses[0]: 10.99.0.7 already belongs to Service crossing/first",
        ),
        (
            document(
                "Service",
                "second",
                "ports: [{port: 80}], endpoints: [{address: 192.0.2.1}], addresses: [10.96.0.1]",
            ),
            "spec.addresses[0]: 10.96.0.1 already belongs to Service default/kubernetes",
        ),
        (
            document("Service", "web", "ports: [{port: 80}], endpoints: [{address: 192.0.2.1}]"),
            "metadata.name: the cluster has a Service of this name, which counts",
        ),
        (
            document("Workload", "web-1", "addresses: [10.97.0.5]"),
            "metadata.name: the cluster has a Pod of this name, which counts",
        ),
        (
            document(
                "HTTPRoute",
                "r",
                &route("{name: web}", "matches: [{path: {type: RegularExpression, value: '/('}}]"),
            ),
            "spec.rules[0].matches[0].path.value: `/(` is not a regular expression",
        ),
        (
            document("HTTPRoute", "r", &route("{name: web, namespace: elsewhere}", "")),
            "`elsewhere` is another namespace than the route's",
        ),
    ] {
        let refused = apply(cluster, &document);
        assert_eq!(refused.code, Some(1), "{document}: {refused:#?}");
        assert!(refused.stderr.contains(words), "{document}: {}", refused.stderr);
    }
    // Several problems of one object are all told, after its name.
    let pattern = "{path: {type: RegularExpression, value: '/('}}";
    let refused =
        apply(cluster, &document("HTTPRoute", "r", &route("{name: web}", &format!("matches: [{pattern}, {pattern}]"))));
    let told = ["The HTTPRoute \"r\" is invalid", "matches[0].path.value: ", "matches[1].path.value: "];
    assert!(told.iter().all(|words| refused.stderr.contains(words)), "{}", refused.stderr);
    let early = apply(cluster, &document("HTTPRoute", "early", &route("{name: nobody}", "")));
    assert!(early.code == Some(0) && early.stderr.contains("Warning: HTTPRoute crossing/early"), "{early:#?}");
    // What is wrong already can be labelled all the same.
    cluster.kubectl(&["label", "whttp", "early", "-n", "crossing", "a=b"]).succeeded();
    nothing_was_forbidden(cluster, &replicas(cluster));
}

#[test]
fn a_status_turns_within_seconds_and_says_which_generation_it_is_about() {
    let Some(cluster) = mesh() else { return };
    cluster.namespace("statuses", &[("weft.dev/inject", "enabled")]);
    apply(cluster, &idle("statuses", "it").to_string()).succeeded();
    cluster.until_object::<Pod>("statuses", "it", "is ready", is_ready);
    let document = |port: u16| {
        format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: Service, metadata: {{name: warehouse, namespace: statuses}}, \
             spec: {{ports: [{{port: {port}}}], endpoints: [{{address: 192.0.2.1}}]}}}}"
        )
    };
    for (port, generation) in [(5432, 1), (5433, 2)] {
        apply(cluster, &document(port)).succeeded();
        let condition =
            format!("--for=jsonpath={{.status.conditions[?(@.type==\"Programmed\")].observedGeneration}}={generation}");
        // As a user waits; two proxies of other tests come and go, which makes no condition untrue for long.
        cluster.kubectl(&["wait", &condition, "wsvc/warehouse", "-n", "statuses", "--timeout=10s"]).succeeded();
        let words = ["wait", "--for=condition=Programmed", "wsvc/warehouse", "-n", "statuses", "--timeout=10s"];
        cluster.kubectl(&words).succeeded();
        let object = until_custom(cluster, "weft.dev/services", "statuses", "warehouse", |it| {
            ours(it, "Programmed").starts_with("True")
        });
        assert_eq!(object["status"]["observedGeneration"], generation);
        assert_eq!(ours(&object, "Accepted"), format!("True Accepted {generation} valid and in force"));
        let programmed = ours(&object, "Programmed");
        assert!(programmed.starts_with(&format!("True Programmed {generation} applied by ")), "{programmed}");
    }
    // Who else writes a status keeps it.
    let other = json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "Service", "metadata": {"name": "warehouse", "namespace": "statuses"},
        "status": {"conditions": [{
            "type": "example.com/Seen", "status": "True", "reason": "Seen", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]},
    });
    let words = ["apply", "--server-side", "--field-manager=other", "--subresource=status", "-f", "-"];
    cluster.kubectl_with(&words, &other.to_string()).succeeded();
    apply(cluster, &document(5434)).succeeded();
    let object = until_custom(cluster, "weft.dev/services", "statuses", "warehouse", |it| {
        ours(it, "Programmed").starts_with("True Programmed 3")
    });
    assert!(ours(&object, "example.com/Seen").starts_with("True Seen"), "{}", object["status"]);
    nothing_was_forbidden(cluster, &replicas(cluster));
}

/// Routes of the Gateway API: to a Service, to a gateway, and one that is wrong.
const ROUTES: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: ours, namespace: gateway}
spec:
  parentRefs: [{group: "", kind: Service, name: web, port: 80}]
  rules: [{backendRefs: [{name: web, port: 80}, {name: missing, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: theirs, namespace: gateway}
spec:
  parentRefs: [{name: public}]
  rules: [{filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TLSRoute
metadata: {name: tls, namespace: gateway}
spec:
  parentRefs: [{group: "", kind: Service, name: web, port: 443}]
  hostnames: [web.example]
  rules: [{backendRefs: [{name: web, port: 443}]}]
"#;

#[test]
fn routes_of_the_gateway_api_that_come_later_are_checked_read_and_told_about() {
    let Some(cluster) = mesh() else { return };
    cluster.namespace("gateway", &[("weft.dev/inject", "enabled")]);
    cluster.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: gateway}, \
         spec: {selector: {app: it}, ports: [{name: http, port: 80}, {name: tls, port: 443}]}}",
    );
    apply(cluster, &idle("gateway", "it").to_string()).succeeded();
    define_gateway_api(cluster);
    let [ours, theirs, tls] = &documents(ROUTES)[..] else { panic!("three routes") };
    for route in [ours, theirs, tls] {
        let taken = cluster.until("the kind is served", async || {
            let taken = cluster.kubectl_with(&["apply", "--server-side", "-f", "-"], &route.to_string());
            if taken.code == Some(0) { Ok(taken) } else { Err(taken.stderr) }
        });
        // The API server warns of what it will not serve for ever; we do of what is not there yet.
        let warned = taken.stderr.contains("port 80 of the service missing, does not exist yet");
        assert_eq!(warned, route["metadata"]["name"] == "ours", "{taken:#?}");
    }
    let mut wrong = ours.clone();
    wrong["metadata"]["name"] = json!("wrong");
    wrong["spec"]["rules"][0]["filters"] = theirs["spec"]["rules"][0]["filters"].clone();
    wrong["spec"]["rules"][0].as_object_mut().unwrap().remove("backendRefs");
    let refused = apply(cluster, &wrong.to_string());
    assert!(refused.stderr.contains("a filter (RequestRedirect) cannot be followed"), "{refused:#?}");

    let parent = |object: &Value| object["status"]["parents"][0].clone();
    let of = |object: &Value, kind: &str| condition(&parent(object)["conditions"], kind);
    let ours = until_custom(cluster, "gateway.networking.k8s.io v1/httproutes", "gateway", "ours", |it| {
        of(it, "weft.dev/Programmed").starts_with("True")
    });
    assert_eq!(parent(&ours)["controllerName"], "weft.dev/controller");
    assert_eq!(parent(&ours)["parentRef"], json!({"group": "", "kind": "Service", "name": "web", "port": 80}));
    assert!(of(&ours, "Accepted").starts_with("True Accepted 1"), "{ours:#}");
    let unresolved = of(&ours, "ResolvedRefs");
    assert!(
        unresolved
            .starts_with("False BackendNotFound 1 its backend, port 80 of the service missing, does not exist yet"),
        "{unresolved}"
    );
    let tls = until_custom(cluster, "gateway.networking.k8s.io v1alpha2/tlsroutes", "gateway", "tls", |it| {
        of(it, "weft.dev/Programmed").starts_with("True")
    });
    assert!(of(&tls, "ResolvedRefs").starts_with("True"), "{tls:#}");
    let theirs = until_custom(cluster, "gateway.networking.k8s.io v1/httproutes", "gateway", "theirs", |_| true);
    assert_eq!(theirs.get("status"), None, "a gateway's route is nobody's business here");

    // Entries of others stay, and ours goes when the route is ours no more.
    let other = json!({
        "controllerName": "example.com/other", "parentRef": {"name": "public"},
        "conditions": [{
            "type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    });
    let both = json!([parent(&ours), other]);
    let patch = json!({"status": {"parents": both}}).to_string();
    let words = ["patch", "httproutes.gateway.networking.k8s.io", "ours", "-n", "gateway", "--subresource=status"];
    cluster.kubectl(&[&words[..], &["--type=merge", "-p", &patch]].concat()).succeeded();
    let mut moved = documents(ROUTES)[0].clone();
    moved["spec"]["parentRefs"] = json!([{"name": "public"}]);
    let owner = PatchParams::apply("kubectl").force();
    applied(cluster, &moved, &owner).unwrap();
    let moved = until_custom(cluster, "gateway.networking.k8s.io v1/httproutes", "gateway", "ours", |it| {
        parent(it)["controllerName"] == "example.com/other"
    });
    assert_eq!(moved["status"]["parents"].as_array().unwrap().len(), 1, "{moved:#}");

    // The kind goes, and the documents that were made of it.
    let replica = &replicas(cluster)[0];
    let routes = || metrics(cluster, replica).map(|it| it.sum("weft_control_plane_documents", &[("kind", "TLSRoute")]));
    assert!(routes().unwrap() >= 1);
    cluster.kubectl(&["delete", "crd", "tlsroutes.gateway.networking.k8s.io"]).succeeded();
    cluster.until("nothing of it is in force", async || match routes()? {
        0 => Ok(()),
        left => Err(left.to_string()),
    });
    nothing_was_forbidden(cluster, &replicas(cluster));
}

fn define_gateway_api(cluster: &Cluster) {
    for definition in programs::gateway_api() {
        cluster.kubectl(&["apply", "--server-side", "-f", definition.to_str().unwrap()]).succeeded();
    }
}
