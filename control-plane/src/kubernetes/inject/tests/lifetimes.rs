//! What happens to a pod after its first injection: the API server's defaults, other webhooks, new settings.

use super::*;

/// What the API server and its limit ranges fill in between two webhooks.
fn filled_in(pod: &Value) -> Value {
    let mut pod = pod.clone();
    pod["spec"]["terminationGracePeriodSeconds"] = json!(30);
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            container["terminationMessagePath"] = json!("/dev/termination-log");
            container["imagePullPolicy"] = json!("IfNotPresent");
            container["resources"]["limits"]["cpu"] = json!("1");
            for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                if let Some(Value::Object(probe)) = container.get_mut(probe) {
                    probe.insert("successThreshold".into(), json!(1));
                    if let Some(get) = probe.get_mut("httpGet") {
                        get["scheme"] = json!("HTTP");
                    }
                }
            }
        }
    }
    pod["spec"]["volumes"].as_array_mut().into_iter().flatten().for_each(|volume| {
        if let Some(projected) = volume.get_mut("projected") {
            projected["defaultMode"] = json!(0o644);
        }
    });
    pod
}

fn probed() -> Value {
    pod(
        &json!({"spec": {"containers": [{"name": "web", "readinessProbe": {"httpGet": {"port": 80, "path": "/$(X)"}}}]}}),
    )
}

#[test]
fn what_is_filled_in_later_does_not_make_it_new() {
    let settings = settings(&[]);
    let first = filled_in(&injected(&probed(), &settings));
    assert_eq!(inject(&first, &shop(), &settings), Ok(Injected::Unchanged(Reason::AlreadyInjected)));
}

#[test]
fn a_container_added_later_has_its_probes_redirected_and_nothing_else_changes() {
    let settings = settings(&[]);
    let first = filled_in(&injected(&probed(), &settings));
    let mut added = first.clone();
    let agent = json!({"name": "agent", "livenessProbe": {"tcpSocket": {"port": 7000}, "periodSeconds": 9}});
    added["spec"]["containers"].as_array_mut().expect("containers").push(agent);
    let second = injected(&added, &settings);

    let redirected = json!({"httpGet": {"path": "/app-probe/agent/liveness", "port": 15020}, "periodSeconds": 9});
    assert_eq!(second["spec"]["containers"][1]["livenessProbe"], redirected);
    let probes: Value = serde_json::from_str(variable(&second, "WEFT_APP_PROBES").expect("set")).expect("JSON");
    assert_eq!(probes["agent/liveness"]["tcpSocket"]["port"], 7000);
    assert_eq!(probes["web/readiness"]["httpGet"]["path"], "/$$(X)");
    let paths: Vec<String> = between(&added, &second).0.iter().map(|operation| operation.path().to_string()).collect();
    assert!(
        paths.iter().all(|path| path.starts_with("/spec/containers/1/livenessProbe/")
            || path == "/spec/containers/1/lifecycle"
            || path.starts_with("/spec/initContainers/1/env/")),
        "{paths:?}"
    );
    assert_eq!(proxy_of(&second)["resources"]["limits"]["cpu"], "1", "what a limit range filled in stays");
}

#[test]
fn an_init_container_added_in_front_later_comes_after_ours_again() {
    let settings = settings(&[]);
    let mut added = filled_in(&injected(&probed(), &settings));
    let list = added["spec"]["initContainers"].as_array_mut().expect("init containers");
    list.insert(0, json!({"name": "vault"}));
    let second = injected(&added, &settings);
    assert_eq!(names_of(&second["spec"]["initContainers"]), ["weft-init", "weft-proxy", "vault"]);
    assert_eq!(proxy_of(&second), proxy_of(&added));
}

#[test]
fn other_settings_replace_our_containers_and_keep_the_probes() {
    let first = filled_in(&injected(&probed(), &settings(&[])));
    let newer = settings(&["--proxy-image", "registry.example/weft-proxy:2", "--capture", "cni"]);
    let second = injected(&first, &newer);
    assert_eq!(names_of(&second["spec"]["initContainers"]), ["weft-proxy"], "nothing captures in the pod any more");
    assert_eq!(proxy_of(&second)["image"], "registry.example/weft-proxy:2");
    assert_eq!(variable(&second, "WEFT_APP_PROBES"), variable(&first, "WEFT_APP_PROBES"));
    assert_eq!(second["spec"]["containers"], first["spec"]["containers"]);
    assert_eq!(names_of(&second["spec"]["volumes"]), ["weft-token"]);
    assert_eq!(inject(&second, &shop(), &newer), Ok(Injected::Unchanged(Reason::AlreadyInjected)));
}

#[test]
fn new_roots_reach_a_pod_that_was_injected_by_hand() {
    let first = injected(&probed(), &settings(&[]));
    let rotated = InjectSettings { bundle: "-----BEGIN CERTIFICATE-----\nnew".to_owned(), ..settings(&[]) };
    assert_eq!(variable(&injected(&first, &rotated), "WEFT_BUNDLE_PEM"), Some(rotated.bundle.as_str()));
}

#[test]
fn fields_of_a_newer_kubernetes_are_kept() {
    let unknown = json!({"metadata": {"new": 1}, "spec": {"new": {"a": [null]}, "containers":
        [{"name": "web", "new": true, "livenessProbe": {"httpGet": {"port": 80}, "new": 1}}], "initContainers": [{"name": "x", "new": 1}]}});
    let after = injected(&pod(&unknown), &settings(&[]));
    assert_eq!((&after["metadata"]["new"], &after["spec"]["new"]), (&json!(1), &unknown["spec"]["new"]));
    let container = &after["spec"]["containers"][0];
    assert_eq!((&container["new"], &container["livenessProbe"]["new"]), (&json!(true), &json!(1)));
    assert_eq!(after["spec"]["initContainers"][2]["new"], 1);
}

#[test]
fn resources_follow_annotations_then_the_mesh_and_requests_stay_within_limits() {
    let of = |flags: &[&str], annotations: Value| {
        let after = injected(&pod(&json!({"metadata": {"annotations": annotations}})), &settings(flags));
        (proxy_of(&after)["resources"].clone(), variable(&after, "WEFT_WORKERS").expect("set").to_owned())
    };
    let usual = json!({"requests": {"cpu": "10m", "memory": "16Mi"}});
    assert_eq!(of(&[], json!({})), (usual, "2".to_owned()));
    let mesh = ["--proxy-cpu-limit", "3", "--proxy-memory-request", "20Mi"];
    let of_mesh = json!({"requests": {"cpu": "10m", "memory": "20Mi"}, "limits": {"cpu": "3"}});
    assert_eq!(of(&mesh, json!({})), (of_mesh, "3".to_owned()));
    let tight = json!({"weft.dev/proxy-cpu-limit": "5m", "weft.dev/proxy-memory-limit": "8Mi"});
    let within = json!({"requests": {"cpu": "5m", "memory": "8Mi"}, "limits": {"cpu": "5m", "memory": "8Mi"}});
    assert_eq!(of(&mesh, tight), (within, "1".to_owned()));
}

#[test]
fn a_pods_variables_count_before_the_meshs() {
    let annotations = json!({"weft.dev/proxy-env": "B=pod WEFT_WORKERS=7"});
    let pod = pod(&json!({"metadata": {"annotations": annotations}}));
    let after = injected(&pod, &settings(&["--proxy-env", "A=mesh B=mesh"]));
    let of = |name| variable(&after, name);
    assert_eq!((of("A"), of("B"), of("WEFT_WORKERS")), (Some("mesh"), Some("pod"), Some("7")));
    let variables = names_of(&proxy_of(&after)["env"]);
    assert_eq!(variables.iter().filter(|name| **name == "B" || **name == "WEFT_WORKERS").count(), 2);
}
