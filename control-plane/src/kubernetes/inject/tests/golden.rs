//! Manifests of `golden/`, and what becomes of them. `WEFT_UPDATE_GOLDEN=1` writes the latter anew.

use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::*;
use crate::kubernetes::inject::manifest::{Finding, documents, template_path, to_json, to_yaml};

macro_rules! golden {
    ($($name:literal),+) => {
        [$(($name, include_str!(concat!("../golden/", $name, ".yaml")), include_str!(concat!("../golden/", $name, ".injected.yaml")))),+]
    };
}

/// Name, input, expected output.
pub(super) const FILES: [(&str, &str, &str); 8] =
    golden!["annotations", "grpc", "init", "job", "list", "restricted", "statefulset", "web"];

/// The pods that a file's documents make, before and after.
pub(super) fn pods(name: &str, input: &str) -> Vec<(Value, Value)> {
    fn collect(before: &mut Value, after: &mut Value, pods: &mut Vec<(Value, Value)>) {
        if before["kind"] == "List" {
            let (Value::Array(before), Value::Array(after)) = (before["items"].take(), after["items"].take()) else {
                panic!("a List of items")
            };
            for (mut before, mut after) in before.into_iter().zip(after) {
                collect(&mut before, &mut after, pods);
            }
        } else if let Some(path) = template_path(before) {
            let of = |document: &Value| path.iter().fold(document.clone(), |value, step| value[step].clone());
            pods.push((of(before), of(after)));
        }
    }
    let mut pods = Vec::new();
    for manifest in documents(name, input, &settings(&[])).expect("golden files are good") {
        collect(&mut manifest.before.clone(), &mut manifest.after.clone(), &mut pods);
    }
    pods
}

#[test]
fn manifests_become_what_the_golden_files_say() {
    for (name, input, expected) in FILES {
        let got = to_yaml(&documents(name, input, &settings(&[])).expect(name));
        if std::env::var_os("WEFT_UPDATE_GOLDEN").is_some() {
            let file = format!("{}/src/kubernetes/inject/golden/{name}.injected.yaml", env!("CARGO_MANIFEST_DIR"));
            std::fs::write(file, &got).expect("the file can be written");
            continue;
        }
        assert_eq!(got, expected, "{name}; if it is right, run this test with WEFT_UPDATE_GOLDEN=1");
    }
}

#[test]
fn injecting_a_golden_output_changes_nothing() {
    for (name, _, output) in FILES {
        let again = documents(name, output, &settings(&[])).expect(name);
        assert!(again.iter().all(|manifest| manifest.after == manifest.before), "{name}");
        assert_eq!(to_yaml(&again), output, "{name}");
    }
}

#[test]
fn kubernetes_knows_every_field_of_ours() {
    for (before, after) in golden_pods() {
        // Only what is typed comes back: a field of ours that is misspelt or misplaced would be gone.
        let typed: PodTemplateSpec = serde_json::from_value(after.clone()).expect("a pod");
        let back = serde_json::to_value(typed).expect("a pod");
        for (list, index) in [("initContainers", 0), ("initContainers", 1)] {
            if after["spec"][list][index]["name"].as_str().is_some_and(|name| name.starts_with("weft-")) {
                assert_eq!(back["spec"][list][index], after["spec"][list][index], "{before:#}");
            }
        }
        let of_ours = |pod: &Value| pod["spec"]["volumes"].as_array().and_then(|volumes| volumes.last().cloned());
        assert_eq!(of_ours(&back), of_ours(&after));
    }
}

/// The rules of Pod Security `restricted`, as its documentation has them.
fn broken_rules(spec: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    let of_pod = &spec["securityContext"];
    let containers = ["initContainers", "containers"].iter().filter_map(|list| spec[list].as_array()).flatten();
    for container in containers {
        let own = &container["securityContext"];
        let effective = |field: &str| if own[field].is_null() { of_pod[field].clone() } else { own[field].clone() };
        let added = own["capabilities"]["add"].as_array().map_or(0, Vec::len);
        for (rule, holds) in [
            ("allowPrivilegeEscalation", own["allowPrivilegeEscalation"] == false),
            ("privileged", own["privileged"] != true),
            ("drop", own["capabilities"]["drop"] == json!(["ALL"])),
            ("add", added == 0),
            ("runAsNonRoot", effective("runAsNonRoot") == true),
            ("runAsUser", effective("runAsUser") != 0),
            ("seccompProfile", effective("seccompProfile")["type"] == "RuntimeDefault"),
            ("hostPort", !container["ports"].to_string().contains("hostPort")),
            ("host", !container["livenessProbe"].to_string().contains("\"host\"")),
        ] {
            if !holds {
                broken.push(format!("{rule} of {}", container["name"]));
            }
        }
    }
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    let allowed =
        ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];
    for volume in volumes {
        if !allowed.iter().any(|kind| volume.get(kind).is_some()) {
            broken.push(format!("volume {}", volume["name"]));
        }
    }
    broken
}

#[test]
fn a_restricted_pod_stays_restricted_where_a_plugin_captures() {
    let (_, input, _) = FILES.into_iter().find(|(name, ..)| *name == "restricted").expect("it is listed");
    let (before, after) = pods("restricted", input).remove(0);
    assert_eq!(broken_rules(&before["spec"]), Vec::<String>::new());
    assert_eq!(broken_rules(&after["spec"]), Vec::<String>::new());
    // And the rules here can tell: the init container that captures breaks some.
    let with_init = injected(&pod(&json!({})), &settings(&[]));
    assert!(broken_rules(&with_init["spec"]).contains(&"add of \"weft-init\"".to_owned()));
}

#[test]
fn no_volume_keeps_an_autoscaler_from_moving_the_pod() {
    let after = injected(&pod(&json!({})), &settings(&[]));
    let volumes = after["spec"]["volumes"].as_array().expect("volumes");
    assert!(volumes.iter().all(|volume| volume.get("projected").is_some() && volume.get("emptyDir").is_none()));
}

#[test]
fn what_is_not_injected_by_hand_is_told_with_its_place() {
    let (_, input, _) = FILES.into_iter().find(|(name, ..)| *name == "list").expect("it is listed");
    let manifests = documents("list.yaml", input, &settings(&[])).expect("it is good");
    let told: Vec<String> = manifests.iter().flat_map(|manifest| &manifest.findings).map(Finding::to_string).collect();
    let starts = [
        "list.yaml:9: DaemonSet node-agent: items[2].spec.template: not injected: it uses its node's network",
        "list.yaml:37: Deployment outside: spec.template: not injected: its label says weft.dev/inject=disabled",
    ];
    assert_eq!(told.len(), starts.len(), "{told:?}");
    for (told, start) in told.iter().zip(starts) {
        assert!(told.starts_with(start), "{told}");
    }
}

#[test]
fn json_is_one_object_and_a_list_of_several() {
    let of = |text: &str| to_json(&documents("x", text, &settings(&[])).expect("it is good"));
    let pod = "{kind: Secret, apiVersion: v1}\n";
    assert_eq!(of(pod)["kind"], "Secret");
    let list = of(&format!("{pod}---\n{pod}"));
    assert_eq!((list["kind"].as_str(), list["items"].as_array().map(Vec::len)), (Some("List"), Some(2)));
    assert_eq!(of("\t{\"kind\": \"Secret\",\n\t\"apiVersion\": \"v1\"}")["kind"], "Secret");
}

#[test]
fn errors_of_manifests_name_file_line_object_and_path() {
    let text = "# a\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec: {}\n---\n\
        kind: Pod\napiVersion: v1\nmetadata: {generateName: x-}\nspec: {containers: [{name: a, ports: [{containerPort: b}]}]}\n---\n\
        a: [\n---\napiVersion: batch/v1\nkind: CronJob\nmetadata: {name: c}\nspec: {jobTemplate: {spec: {template: {metadata: \
        {annotations: {weft.dev/capture: no-one}}, spec: {containers: []}}}}}\n";
    let errors = documents("in.yaml", text, &settings(&[])).expect_err("it is bad");
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let starts = [
        "in.yaml:3: Deployment shop/web: spec.template: there is no pod template",
        "in.yaml:8: Pod x-: `spec.containers[0].ports[0].containerPort` is not what Kubernetes takes there",
        "in.yaml:14: not YAML",
        "in.yaml:15: CronJob c: spec.jobTemplate.spec.template: annotation weft.dev/capture is `no-one`; allowed: init, cni",
    ];
    assert_eq!(told.len(), starts.len(), "{told:#?}");
    for (told, start) in told.iter().zip(starts) {
        assert!(told.starts_with(start), "{told}");
    }
}
