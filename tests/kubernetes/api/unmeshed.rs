//! Events on pods that are labelled for a proxy and started without one.

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::{apply, idle, is_ready, mesh, nothing_was_forbidden, replicas};

#[test]
fn a_pod_that_started_before_its_namespace_was_labelled_has_an_event_and_is_listed_by_check() {
    let Some(cluster) = mesh() else { return };
    cluster.namespace("early", &[]);
    apply(cluster, &idle("early", "it").to_string()).succeeded();
    cluster.until_object::<Pod>("early", "it", "is ready", is_ready);
    cluster.kubectl(&["label", "namespace", "early", "weft.dev/inject=enabled"]).succeeded();
    let words = ["get", "events.events.k8s.io", "-n", "early", "--field-selector", "reason=Unmeshed", "-o", "json"];
    let event = cluster.until("the pod has an Event", async || {
        let listed: Value = serde_json::from_str(&cluster.kubectl(&words).succeeded()).unwrap();
        listed["items"].get(0).cloned().ok_or_else(|| listed.to_string())
    });
    assert_eq!(event["regarding"]["name"], "it");
    assert_eq!(event["reportingController"], "weft.dev/control-plane");
    let note = event["note"].as_str().unwrap();
    assert!(
        note.contains("namespace early has label weft.dev/inject=enabled and the pod runs without the proxy"),
        "{note}"
    );
    let seen = cluster.kubectl(&["events", "-n", "early", "--for", "pod/it"]).succeeded();
    assert!(seen.contains("Unmeshed"), "{seen}");

    let checked = cluster.weft(&["check", "-o", "json"]);
    let findings: Vec<Value> = serde_json::from_str(&checked.stdout).unwrap();
    let finding = findings.iter().find(|finding| finding["check"] == "unmeshed pods").unwrap();
    assert!(finding["verdict"] == "warning" && finding["what"].as_str().unwrap().contains("early/it"), "{finding}");
    let finding = findings.iter().find(|finding| finding["check"] == "proxies").expect("the control plane was asked");
    assert!(finding["verdict"] == "ok", "{finding}");
    nothing_was_forbidden(cluster, &replicas(cluster));
}
