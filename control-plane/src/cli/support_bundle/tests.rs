use std::collections::BTreeMap;
use std::io::Read;

use super::*;
use crate::cli::target::Remote;
use crate::kubernetes::install::testing::{FakeApi, refusal};

/// A mesh with one replica of the control plane, a proxy and a Secret.
fn cluster() -> FakeApi {
    let api = FakeApi::default();
    let home = "/api/v1/namespaces/weft-system";
    let container = |name: &str| json!([{"name": name, "restartCount": 0}]);
    api.put(
        &format!("{home}/pods/plane"),
        json!({
            "metadata": {"name": "plane", "namespace": "weft-system",
                "labels": {"app.kubernetes.io/name": "weft", "app.kubernetes.io/component": "control-plane"}},
            "spec": {"containers": [{"name": "weft-control-plane"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": container("weft-control-plane")},
        }),
    );
    for (name, is_ready) in [("good", "True"), ("bad", "False")] {
        api.put(
            &format!("/api/v1/namespaces/shop/pods/{name}"),
            json!({
                "metadata": {"name": name, "namespace": "shop"},
                "spec": {"initContainers": [{"name": "weft-proxy"}], "containers": [{"name": "web",
                    "env": [{"name": "URL", "value": "s3cret"}]}]},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": is_ready}],
                    "initContainerStatuses": [{"name": "weft-proxy", "restartCount": 2}], "containerStatuses": container("web")},
            }),
        );
    }
    api.put(
        &format!("{home}/secrets/weft-root"),
        json!({"metadata": {"name": "weft-root", "labels":
        {"app.kubernetes.io/name": "weft"}}, "data": {"tls.key": "s3cret"}}),
    );
    api.put(&format!("{home}/pods/http:plane:15014/proxy/metrics"), json!("weft_x 1\n"));
    api.put("/version", json!({"gitVersion": "v1.36.3"}));
    api.rule(|asked| {
        let path = asked.path.as_str();
        if path.ends_with("/plane/log") {
            return Some((200, json!("started with Bearer s3cret-s3cret\n")));
        }
        if path.ends_with("/log") {
            return Some(refusal(403, "pods/log is forbidden"));
        }
        path.ends_with("/shop/events").then(|| {
            let event = |by: &str, about: &str, text: &str| {
                json!({"reportingComponent": by, "involvedObject": {"name": about}, "message": text})
            };
            let events = [event("weft.dev/control-plane", "x", "unmeshed"), event("kubelet", "bad", "killed"), event("k", "o", "other")];
            (200, json!({"items": events, "metadata": {}}))
        })
    });
    api
}

fn unpacked(path: &std::path::Path) -> BTreeMap<String, String> {
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()));
    let mut found = BTreeMap::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        let name = entry.path().unwrap().display().to_string();
        found.insert(name.split_once('/').unwrap().1.to_owned(), text);
    }
    found
}

fn args(file: PathBuf) -> Args {
    Args { file: Some(file), named: Vec::new(), proxies: 1, cluster: ClusterFlags::default() }
}

#[tokio::test]
async fn a_bundle_of_a_cluster_has_what_may_be_had_and_names_the_rest() {
    let api = cluster();
    let remote = Remote { cluster: api.cluster(), system_namespace: "weft-system".into() };
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("bundle.tar.gz");
    let parts = cluster::collect(&remote, &[], 1, 1_000).await;
    args(file.clone()).write(&Output::new(Format::Table), "a test", parts, 1_000).unwrap();
    let found = unpacked(&file);
    for name in [
        "index.json",
        "check.json",
        "cluster/version.json",
        "control-plane/pods.json",
        "control-plane/plane/metrics.txt",
        "control-plane/plane/weft-control-plane.log",
        "proxies/shop/bad/pod.json",
        "events/shop.json",
    ] {
        assert!(found.contains_key(name), "{name} is missing in {:?}", found.keys());
    }
    assert!(!found.keys().any(|name| name.contains("shop/good") || name.contains("secret")), "{:?}", found.keys());
    assert!(found.values().all(|text| !text.contains("s3cret")), "{found:#?}");
    assert!(!api.asked().iter().any(|asked| asked.path.contains("secrets")), "Secrets are not asked for");
    assert!(found["events/shop.json"].contains("unmeshed") && found["events/shop.json"].contains("killed"));
    assert!(!found["events/shop.json"].contains("other"), "what is about others stays with them");
    let index: Value = serde_json::from_str(&found["index.json"]).unwrap();
    let missing: BTreeMap<&str, &str> = index["missing"]
        .as_array()
        .unwrap()
        .iter()
        .map(|missing| (missing["part"].as_str().unwrap(), missing["reason"].as_str().unwrap()))
        .collect();
    for (part, reason) in [
        ("proxies/shop/bad/weft-proxy.log", "pods/log is forbidden"),
        ("proxies/shop/bad/weft-proxy.previous.log", "pods/log is forbidden"),
        ("proxies/shop/bad/metrics.txt", "not found"),
        ("proxies", "1 more proxies"),
    ] {
        assert!(missing.get(part).is_some_and(|told| told.contains(reason)), "{part}: {missing:#?}");
    }
}

#[tokio::test]
async fn a_cluster_that_says_nothing_makes_no_file() {
    let api = FakeApi::default();
    api.rule(|_| Some(refusal(401, "who are you")));
    let remote = Remote { cluster: api.cluster(), system_namespace: "weft-system".into() };
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("bundle.tar.gz");
    let parts = cluster::collect(&remote, &[], 1, 1_000).await;
    let failure =
        args(file.clone()).write(&Output::new(Format::Table), "a test", parts, 1_000).unwrap_err().to_string();
    assert!(failure.contains("nothing could be had of a test") && failure.contains("who are you"), "{failure}");
    assert!(!file.exists());
}

#[test]
fn proxies_are_named_with_their_namespace() {
    assert_eq!(workload("shop/web"), Ok("shop/web".to_owned()));
    for text in ["web", "/web", "shop/", "a/b/c"] {
        assert!(workload(text).is_err(), "{text}");
    }
}
