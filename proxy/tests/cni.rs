//! The plugin as a container runtime calls it, and its installer as a node runs it: the real program, real network
//! namespaces, and an API server over real TLS that says what a test wants.

#![allow(clippy::unwrap_used, reason = "a test that cannot have what it needs has failed")]

#[path = "cni/support.rs"]
mod support;

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use support::{ApiServer, Namespace, Node, PROGRAM, call, until, with_rights};

const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// A network configuration as a runtime gives it, after a plugin that made an interface.
fn configuration(kubeconfig: &str, annotations: Option<Value>) -> Value {
    let mut configuration = json!({
        "cniVersion": "1.0.0",
        "name": "cluster",
        "type": "weft-cni",
        "kubeconfig": kubeconfig,
        "prevResult": {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0"}], "ips": [], "dns": {}},
    });
    if let Some(annotations) = annotations {
        configuration["runtimeConfig"] = json!({ANNOTATIONS: annotations});
    }
    configuration
}

fn pod(annotations: &Value, init_containers: &[&str]) -> Value {
    let containers: Vec<Value> = init_containers.iter().map(|name| json!({"name": name})).collect();
    json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "annotations": annotations},
        "spec": {"initContainers": containers},
    })
}

const WEB: &str =
    "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u1";

#[test]
fn an_injected_pod_gets_the_rules_its_init_container_would_have_made() {
    with_rights("an_injected_pod_gets_the_rules_its_init_container_would_have_made", || {
        let expected = Namespace::new();
        let line = ["capture", "install", "--exclude-inbound-ports", "15020,9000", "--exclude-cidrs", "192.0.2.0/24"];
        expected.run(PROGRAM, &line);
        let annotations = json!({
            "weft.dev/injected": "abc",
            "weft.dev/exclude-inbound-ports": "9000",
            "weft.dev/exclude-outbound-cidrs": "192.0.2.0/24",
        });
        let server = ApiServer::start();
        server.says("/api/v1/namespaces/shop/pods/web", 200, &pod(&annotations, &["weft-proxy"]));
        let mut by_runtime = annotations.clone();
        by_runtime["weft.dev/capture"] = json!("cni");
        // Told by the runtime alone, by the API server alone, and by the runtime as far as it knows.
        for (told, questions) in [(Some(by_runtime), 0), (None, 1), (Some(annotations), 1)] {
            let namespace = Namespace::new();
            let given = configuration(&server.kubeconfig(), told);
            let before = server.questions();
            for _ in 0..2 {
                let answer = call("ADD", &namespace.path(), WEB, &given.to_string());
                assert!(answer.is_good, "{answer:?}");
                assert_eq!(answer.json(), given["prevResult"]);
                assert_eq!(namespace.rules(), expected.rules());
            }
            assert_eq!(server.questions() - before, questions * 2);
            assert!(call("CHECK", &namespace.path(), WEB, &given.to_string()).is_good);
            namespace.run(PROGRAM, &["capture", "remove"]);
            let answer = call("CHECK", &namespace.path(), WEB, &given.to_string());
            assert_eq!(answer.code(), 102, "{answer:?}");
        }
    });
}

#[test]
fn pods_that_are_not_ours_pass() {
    with_rights("pods_that_are_not_ours_pass", || {
        let server = ApiServer::start();
        let injected = json!({"weft.dev/injected": "abc"});
        server.says("/api/v1/namespaces/shop/pods/web", 200, &pod(&injected, &["weft-init", "weft-proxy"]));
        server.says("/api/v1/namespaces/shop/pods/plain", 200, &pod(&json!({}), &[]));
        let kubeconfig = server.kubeconfig();
        let plain = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=plain;K8S_POD_UID=u1";
        let table = [
            ("captures itself", WEB, None),
            (
                "captures itself, as the runtime says",
                WEB,
                Some(json!({"weft.dev/injected": "a", "weft.dev/capture": "init"})),
            ),
            ("has no proxy", plain, None),
            ("has no proxy, as the runtime says", WEB, Some(json!({"unrelated": "x"}))),
            ("is gone", "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=gone", None),
            ("is of the cluster itself", "K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=web", None),
            ("is no pod", "", None),
        ];
        let namespace = Namespace::new();
        for (what, arguments, annotations) in table {
            let given = configuration(&kubeconfig, annotations);
            let answer = call("ADD", &namespace.path(), arguments, &given.to_string());
            assert!(answer.is_good, "{what}: {answer:?}");
            assert_eq!(answer.json(), given["prevResult"], "{what}");
            assert_eq!(namespace.rules(), "", "{what}");
        }
        // Nobody to ask, and nothing to ask for: the cluster's own pods, and those the runtime tells of.
        let given = configuration("/nowhere", Some(json!({})));
        assert!(call("ADD", &namespace.path(), WEB, &given.to_string()).is_good);
        let given = configuration("/nowhere", None);
        assert!(
            call("ADD", &namespace.path(), "K8S_POD_NAMESPACE=weft-system;K8S_POD_NAME=w", &given.to_string()).is_good
        );
    });
}

#[test]
fn a_pod_of_ours_without_its_rules_does_not_start() {
    with_rights("a_pod_of_ours_without_its_rules_does_not_start", || {
        let server = ApiServer::start();
        let ours = |more: (&str, &str)| json!({"weft.dev/injected": "a", "weft.dev/capture": "cni", more.0: more.1});
        let namespace = Namespace::new();
        let given = |annotations| configuration(&server.kubeconfig(), Some(annotations)).to_string();
        let table = [
            ("a namespace that is not there", "/proc/1/ns/nothing", given(ours(("x", "y"))), 5),
            (
                "an annotation nobody understands",
                &*namespace.path(),
                given(ours(("weft.dev/exclude-uids", "root"))),
                101,
            ),
            (
                "not chained",
                &*namespace.path(),
                json!({"cniVersion": "1.0.0", "name": "a", "type": "weft-cni"}).to_string(),
                7,
            ),
            ("no configuration", &*namespace.path(), "{".to_owned(), 6),
        ];
        for (what, path, input, code) in table {
            let answer = call("ADD", path, WEB, &input);
            assert_eq!(answer.code(), code, "{what}: {answer:?}");
            assert_eq!(namespace.rules(), "", "{what}");
        }
        server.says("/api/v1/namespaces/shop/pods/web", 200, &pod(&json!({"weft.dev/injected": "a"}), &[]));
        let other = WEB.replace("u1", "u2");
        let answer = call("ADD", &namespace.path(), &other, &configuration(&server.kubeconfig(), None).to_string());
        assert_eq!(answer.code(), 11, "replaced by another: {answer:?}");
    });
}

#[test]
fn the_api_server_is_asked_again_and_with_the_newest_token() {
    with_rights("the_api_server_is_asked_again_and_with_the_newest_token", || {
        let server = ApiServer::start();
        let namespace = Namespace::new();
        let path = "/api/v1/namespaces/shop/pods/web";
        let refusal = json!({"kind": "Status", "message": "try again"});
        server.says(path, 503, &refusal);
        let given = configuration(&server.kubeconfig(), None).to_string();
        let asking = std::thread::spawn({
            let (path, given) = (namespace.path(), given.clone());
            move || call("ADD", &path, WEB, &given)
        });
        until("two questions", || server.questions() >= 2);
        server.expects("second");
        until("another one, with the old token", || server.refused() >= 1);
        server.write_token("second");
        server.says(path, 200, &pod(&json!({"weft.dev/injected": "a"}), &[]));
        let answer = asking.join().unwrap();
        assert!(answer.is_good, "{answer:?}");
        assert_ne!(namespace.rules(), "");
    });
}

#[test]
fn the_other_commands_answer_whatever_is_missing() {
    for command in ["DEL", "GC", "STATUS"] {
        let answer = call(command, "", WEB, "nonsense");
        assert!(answer.is_good && answer.text.is_empty(), "{command}: {answer:?}");
    }
    let answer = call("VERSION", "", "", r#"{"cniVersion": "1.0.0"}"#).json();
    assert!(answer["supportedVersions"].as_array().unwrap().contains(&json!("1.1.0")), "{answer}");
    assert_eq!(call("EAT", "", "", "{}").code(), 4);
}

#[test]
fn the_installer_puts_the_plugin_on_the_node_and_keeps_it_there() {
    let server = ApiServer::start();
    let taints = json!([
        {"key": "weft.dev/cni-not-ready", "effect": "NoSchedule"},
        {"key": "dedicated", "value": "shop", "effect": "NoSchedule"},
    ]);
    server.says("/api/v1/nodes/node-1", 200, &json!({"metadata": {"name": "node-1"}, "spec": {"taints": taints}}));
    let node = Node::new(&server);
    assert!(node.lacking(&server).unwrap().contains("does not have the plugin"));
    let mut installer = node.install(&server);

    until("the program is there", || node.bin("weft-cni").exists() && node.bin("weft-cni.kubeconfig").exists());
    assert_eq!(server.patches(), Vec::<Value>::new(), "no network configuration yet: the taint stays");
    assert!(node.lacking(&server).unwrap().contains("no network configuration"));
    let list = node.conf("10-cluster.conflist");
    let text = json!({"cniVersion": "1.0.0", "name": "cluster", "plugins": [{"type": "bridge"}]}).to_string();
    fs::write(&list, &text).unwrap();
    let has_entry = || fs::read_to_string(&list).unwrap().contains("weft-cni");
    until("the entry is there", has_entry);
    until("the taint is off", || !server.patches().is_empty());
    assert_eq!(node.lacking(&server), None);
    assert_eq!(server.patches()[0][1]["value"], json!([taints[1]]));

    // Somebody writes the configuration anew, the token is renewed, the program is deleted.
    fs::write(&list, &text).unwrap();
    until("the entry is back", has_entry);
    fs::remove_file(node.bin("weft-cni")).unwrap();
    until("the program is back", || node.bin("weft-cni").exists());
    let version = Command::new(node.bin("weft-cni")).env("CNI_COMMAND", "VERSION").output().unwrap();
    assert!(String::from_utf8(version.stdout).unwrap().contains("supportedVersions"));

    // Replaced by another installer: everything stays.
    server.says(
        "/apis/apps/v1/namespaces/weft-system/daemonsets/weft-cni",
        200,
        &json!({"metadata": {"name": "weft-cni"}}),
    );
    installer.terminate();
    assert!(has_entry() && node.bin("weft-cni.kubeconfig").exists());

    // Uninstalled: nothing stays that a runtime would look at.
    let mut installer = node.install(&server);
    server.says("/apis/apps/v1/namespaces/weft-system/daemonsets/weft-cni", 404, &json!({"kind": "Status"}));
    until("it watches again", || {
        fs::remove_file(node.bin("weft-cni.ca.pem")).ok();
        until("written again", || node.bin("weft-cni.ca.pem").exists());
        true
    });
    installer.terminate();
    assert_eq!(fs::read_to_string(&list).unwrap(), text, "byte for byte");
    assert!(!node.conf("10-cluster.conflist.before-weft").exists() && !node.bin("weft-cni.kubeconfig").exists());
    assert!(node.lacking(&server).is_some());
}
