use std::collections::BTreeSet;

use super::*;
use crate::kubernetes::install::cluster::{Kind, Reference};

fn with(assignments: &[&str]) -> Values {
    assignments.iter().fold(Values::default(), |values, text| values.with_assignment(text).unwrap())
}

#[track_caller]
fn find<'m>(manifests: &'m [Value], kind: &str, name: &str) -> &'m Value {
    let found = manifests.iter().find(|manifest| manifest["kind"] == kind && manifest["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

fn order(manifests: &[Value]) -> Vec<String> {
    manifests.iter().map(|manifest| Reference::of(manifest).to_string()).collect()
}

#[test]
fn what_others_need_comes_before_them_and_webhooks_come_last() {
    let expected = [
        "Namespace weft-system",
        "ServiceAccount weft-system/weft-control-plane",
        "ServiceAccount weft-system/weft-reader",
        "ServiceAccount weft-system/weft-operator",
        "ClusterRole weft-control-plane",
        "ClusterRoleBinding weft-control-plane",
        "Role weft-system/weft-control-plane",
        "RoleBinding weft-system/weft-control-plane",
        "Role weft-system/weft-reader",
        "Role weft-system/weft-operator",
        "Service weft-system/weft-control-plane",
        "PodDisruptionBudget weft-system/weft-control-plane",
        "Deployment weft-system/weft-control-plane",
        "MutatingWebhookConfiguration weft-injector",
        "ValidatingWebhookConfiguration weft-validator",
    ];
    assert_eq!(order(&manifests(&Values::default())), expected);
    let more = order(&manifests(&with(&["capture=cni", "autoscaling.enabled=true"])));
    let added: Vec<&String> = more.iter().filter(|object| !expected.contains(&object.as_str())).collect();
    assert_eq!(
        added,
        [
            "ServiceAccount weft-system/weft-cni",
            "ClusterRole weft-cni",
            "ClusterRoleBinding weft-cni",
            "Role weft-system/weft-cni",
            "RoleBinding weft-system/weft-cni",
            "HorizontalPodAutoscaler weft-system/weft-control-plane",
            "DaemonSet weft-system/weft-cni",
        ]
    );
    let without = order(&manifests(&with(&["createNamespace=false"])));
    assert_eq!(without, expected[1..]);
}

#[test]
fn no_setting_leaves_a_hole() {
    for values in [Values::default(), with(&["capture=cni", "autoscaling.enabled=true", "systemNamespace=mesh"])] {
        for manifest in manifests(&values) {
            let text = manifest.to_string();
            assert!(!text.contains(['\u{e000}', '\u{e001}']), "{text}");
        }
    }
}

#[test]
fn settings_reach_what_they_are_for() {
    let values = with(&[
        "systemNamespace=mesh",
        "replicas=3",
        "images.controlPlane=example.org/w:2",
        "images.proxy=example.org/p:2",
        "trustDomain=example.org",
        "logLevel=debug",
        "resources.limits.memory=1Gi",
    ]);
    let manifests = manifests(&values);
    let deployment = find(&manifests, "Deployment", "weft-control-plane");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(deployment["metadata"]["namespace"], "mesh");
    assert_eq!(deployment["spec"]["replicas"], 3);
    assert_eq!(container["image"], "example.org/w:2");
    assert_eq!(container["resources"]["limits"], json!({"memory": "1Gi"}));
    let arguments = container["args"].as_array().unwrap();
    for pair in
        [["--system-namespace", "mesh"], ["--trust-domain", "example.org"], ["--proxy-image", "example.org/p:2"]]
    {
        assert!(arguments.windows(2).any(|found| found == pair), "{pair:?} is not in {arguments:?}");
    }
    assert!(container["env"].as_array().unwrap().contains(&json!({"name": "WEFT_LOG", "value": "debug"})));
    assert!(
        !serde_json::to_string(&manifests).unwrap().contains("weft-system"),
        "no name of another namespace is left"
    );
}

#[test]
fn whoever_scales_counts_the_replicas_alone() {
    let fixed = manifests(&Values::default());
    assert_eq!(find(&fixed, "Deployment", "weft-control-plane")["spec"]["replicas"], 2);
    let scaled = manifests(&with(&["autoscaling.enabled=true"]));
    assert!(find(&scaled, "Deployment", "weft-control-plane")["spec"].get("replicas").is_none());
    let autoscaler = find(&scaled, "HorizontalPodAutoscaler", "weft-control-plane");
    assert_eq!((&autoscaler["spec"]["minReplicas"], &autoscaler["spec"]["maxReplicas"]), (&json!(2), &json!(5)));
}

#[test]
fn our_own_pods_fit_the_level_their_namespace_asks_for() {
    let level = |manifests: &[Value]| {
        find(manifests, "Namespace", "weft-system")["metadata"]["labels"][POD_SECURITY_LABEL].clone()
    };
    let plain = manifests(&Values::default());
    assert_eq!(level(&plain), "restricted");
    assert_eq!(level(&manifests(&with(&["capture=cni"]))), "privileged");
    // What `restricted` wants of a pod and its containers.
    let pod = &find(&plain, "Deployment", "weft-control-plane")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0]["securityContext"];
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(container["readOnlyRootFilesystem"], true);
    for forbidden in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(pod.get(forbidden).is_none(), "{forbidden}");
    }
    assert!(
        pod["volumes"].as_array().unwrap().iter().all(|volume| volume["projected"].is_object()),
        "{}",
        pod["volumes"]
    );
}

#[test]
fn selectors_find_the_pods_and_pods_carry_what_selectors_want() {
    let manifests = manifests(&with(&["capture=cni"]));
    for (kind, name) in [("Deployment", "weft-control-plane"), ("DaemonSet", "weft-cni")] {
        let object = find(&manifests, kind, name);
        let wanted = object["spec"]["selector"]["matchLabels"].as_object().unwrap();
        let labels = &object["spec"]["template"]["metadata"]["labels"];
        assert!(wanted.iter().all(|(key, value)| &labels[key] == value), "{kind} {name}");
        // A selector cannot be changed, so nothing in it may change with a version.
        assert!(!wanted.contains_key(VERSION_LABEL));
        assert_eq!(labels[names::INJECT_LABEL], "disabled");
    }
    let service = find(&manifests, "Service", "weft-control-plane");
    let labels = &find(&manifests, "Deployment", "weft-control-plane")["spec"]["template"]["metadata"]["labels"];
    assert!(service["spec"]["selector"].as_object().unwrap().iter().all(|(key, value)| &labels[key] == value));
}

#[test]
fn every_object_carries_the_labels_it_is_found_by() {
    for manifest in manifests(&with(&["capture=cni", "autoscaling.enabled=true"])) {
        let labels = &manifest["metadata"]["labels"];
        for (key, value) in
            [(NAME_LABEL, "weft"), (MANAGED_BY_LABEL, "weft"), (VERSION_LABEL, env!("CARGO_PKG_VERSION"))]
        {
            assert_eq!(labels[key], value, "{}", Reference::of(&manifest));
        }
    }
}

#[test]
fn no_role_has_a_wildcard_and_secrets_are_named() {
    for manifest in manifests(&with(&["capture=cni"])) {
        let Some(rules) = manifest["rules"].as_array() else { continue };
        for rule in rules {
            let all: Vec<&str> = ["apiGroups", "resources", "verbs"]
                .iter()
                .flat_map(|key| rule[key].as_array().unwrap())
                .filter_map(Value::as_str)
                .collect();
            assert!(!all.contains(&"*"), "{rule}");
            let is_secret = all.contains(&"secrets");
            let is_creation = rule["verbs"] == json!(["create"]);
            if is_secret && !is_creation {
                assert_eq!(rule["resourceNames"], json!(["weft-root"]));
            }
            // Whoever may change roles or act as others may do anything.
            for forbidden in
                ["escalate", "bind", "impersonate", "roles", "clusterroles", "pods/exec", "deletecollection"]
            {
                assert!(!all.contains(&forbidden), "{rule}");
            }
        }
        assert!(
            manifest["kind"] != "ClusterRole" || !manifest.to_string().contains("secrets"),
            "no secret of others is read"
        );
    }
}

#[test]
fn the_injector_never_sees_the_clusters_own_namespaces_nor_ours() {
    let manifests = manifests(&with(&["systemNamespace=mesh"]));
    let webhooks = find(&manifests, "MutatingWebhookConfiguration", "weft-injector")["webhooks"].as_array().unwrap();
    assert!(!webhooks.is_empty());
    for webhook in webhooks {
        assert_eq!(webhook["failurePolicy"], "Fail");
        assert_eq!(webhook["timeoutSeconds"], 5);
        let expressions = webhook["namespaceSelector"]["matchExpressions"].as_array().unwrap();
        let excluded = expressions.iter().find(|it| it["key"] == "kubernetes.io/metadata.name").unwrap();
        assert_eq!(excluded["operator"], "NotIn");
        let names: BTreeSet<&str> = excluded["values"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(names, BTreeSet::from(["kube-system", "kube-public", "kube-node-lease", "mesh"]));
    }
}

#[test]
fn every_kind_is_one_the_installer_knows() {
    for manifest in manifests(&with(&["capture=cni", "autoscaling.enabled=true"])) {
        let kind = Kind::of(manifest["kind"].as_str().unwrap());
        assert_eq!(manifest["apiVersion"], json!(kind.api_version));
        assert_eq!(manifest["metadata"].get("namespace").is_some(), kind.is_namespaced, "{}", kind.name);
    }
}
