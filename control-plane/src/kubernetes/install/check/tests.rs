use serde_json::json;

use super::*;
use crate::kubernetes::install::cluster::{Mode, Reference};
use crate::kubernetes::install::manifests;
use crate::kubernetes::install::testing::{FakeApi, refusal};

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
const NOW: i64 = 784_111_777;
const ROOT: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
/// The same in base64.
const ROOT_BUNDLE: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCkFBQUEKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=";
const HOME: &str = "/api/v1/namespaces/weft-system";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/weft-system/deployments/weft-control-plane";
const INJECTOR: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/weft-injector";
const VALIDATOR: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/weft-validator";

/// An API server that allows everything, and injects.
fn cluster_of(minor: &str) -> FakeApi {
    let api = FakeApi::default();
    api.set_date("Sun, 06 Nov 1994 08:49:37 GMT");
    api.put("/version", json!({"major": "1", "minor": minor, "gitVersion": format!("v1.{minor}.0")}));
    api.put("/apis", json!({"groups": [{"name": "apps"}]}));
    api.rule(|asked| asked.path.ends_with("accessreviews").then(|| (201, json!({"status": {"allowed": true}}))));
    api.rule(|asked| {
        let is_sample = asked.path.ends_with("/pods") && asked.query == "dryRun=All";
        is_sample.then(|| (201, json!({"spec": {"initContainers": [{"name": "weft-proxy"}]}})))
    });
    api
}

/// One that has everything of ours, and where all of it runs.
async fn mesh(assignments: &[&str]) -> FakeApi {
    let api = cluster_of("33");
    let values = assignments.iter().fold(Values::default(), |values, text| values.with_assignment(text).unwrap());
    for manifest in manifests(&values) {
        api.cluster().apply(&Reference::of(&manifest), &manifest, Mode::Real).await.unwrap();
    }
    edit(&api, DEPLOYMENT, |it| it["status"] = json!({"updatedReplicas": 2, "availableReplicas": 2, "replicas": 2}));
    api.put(
        &format!("{HOME}/configmaps/weft-bundle"),
        json!({"metadata": {"name": "weft-bundle"}, "data": {"bundle.pem": ROOT}}),
    );
    for path in [INJECTOR, VALIDATOR] {
        trust(&api, path, ROOT_BUNDLE);
    }
    api
}

fn edit(api: &FakeApi, path: &str, change: impl FnOnce(&mut Value)) {
    let mut object = api.object(path).unwrap();
    change(&mut object);
    api.put(path, object);
}

fn trust(api: &FakeApi, path: &str, bundle: &str) {
    edit(api, path, |it| {
        for webhook in it["webhooks"].as_array_mut().unwrap() {
            webhook["clientConfig"]["caBundle"] = json!(bundle);
        }
    });
}

fn namespace(api: &FakeApi, name: &str, labels: &Value) {
    api.put(&format!("/api/v1/namespaces/{name}"), json!({"metadata": {"name": name, "labels": labels}}));
}

fn injected(level: &str) -> Value {
    json!({"weft.dev/inject": "enabled", "pod-security.kubernetes.io/enforce": level})
}

async fn findings(api: &FakeApi, stage: Stage) -> Vec<Finding> {
    check(&api.cluster(), stage, |values| values, NOW).await.unwrap()
}

/// The findings of one check.
async fn of(api: &FakeApi, stage: Stage, check: &str) -> Vec<Finding> {
    findings(api, stage).await.into_iter().filter(|finding| finding.check == check).collect()
}

/// The one finding of one check, which says these words.
#[track_caller]
fn says(found: &[Finding], verdict: Verdict, words: &[&str]) {
    let [finding] = found else { panic!("not one finding: {found:?}") };
    let text = format!("{} {}", finding.what, finding.remedy);
    assert_eq!(finding.verdict, verdict, "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    assert_eq!(finding.remedy.is_empty(), verdict == Verdict::Ok, "what is wrong has a remedy: {text}");
}

#[tokio::test]
async fn where_all_is_well_nothing_else_is_said() {
    let api = cluster_of("29");
    let before = findings(&api, Stage::Before).await;
    assert!(before.iter().all(|finding| finding.verdict == Verdict::Ok), "{before:#?}");
    let api = mesh(&[]).await;
    namespace(&api, "shop", &json!({"weft.dev/inject": "enabled"}));
    let after = findings(&api, Stage::After).await;
    assert!(after.iter().all(|finding| finding.verdict == Verdict::Ok), "{after:#?}");
    assert!(api.writes().iter().all(|write| !write.starts_with("DELETE")), "a check changes nothing");
}

#[tokio::test]
async fn an_api_server_without_sidecars_is_too_old() {
    for (minor, verdict) in [
        ("28", Verdict::Failed),
        ("28+", Verdict::Failed),
        ("29+", Verdict::Ok),
        ("36", Verdict::Ok),
        ("", Verdict::Warning),
    ] {
        let found = of(&cluster_of(minor), Stage::Before, "version").await;
        says(&found, verdict, &[]);
    }
}

#[tokio::test]
async fn clocks_that_differ_are_told() {
    let api = cluster_of("33");
    api.set_date("Sun, 06 Nov 1994 08:50:37 GMT");
    says(&of(&api, Stage::Before, "clock").await, Verdict::Warning, &["60 s apart"]);
}

#[tokio::test]
async fn what_the_caller_may_not_do_is_named() {
    let api = cluster_of("33");
    api.rule(|asked| {
        let attributes = &asked.body["spec"]["resourceAttributes"];
        let is_it = attributes["resource"] == "clusterroles" && attributes["verb"] == "create";
        is_it.then(|| (201, json!({"status": {"allowed": false}})))
    });
    says(
        &of(&api, Stage::Before, "permissions").await,
        Verdict::Failed,
        &["create clusterroles.rbac.authorization.k8s.io", "administrator"],
    );
}

#[tokio::test]
async fn what_the_control_plane_may_not_do_is_named() {
    let api = mesh(&[]).await;
    api.rule(|asked| {
        let spec = &asked.body["spec"];
        let attributes = &spec["resourceAttributes"];
        let is_it = spec["user"] == "system:serviceaccount:weft-system:weft-control-plane"
            && attributes["resource"] == "secrets"
            && attributes["verb"] == "update";
        is_it.then(|| (201, json!({"status": {"allowed": false}})))
    });
    let found = of(&api, Stage::After, "control plane's permissions").await;
    says(&found, Verdict::Failed, &["update secrets weft-root in weft-system", "weft install"]);
    let asked = api.asked();
    let asks = |resource: &str, subresource: &str| {
        asked.iter().any(|asked| {
            let attributes = &asked.body["spec"]["resourceAttributes"];
            attributes["resource"] == resource && attributes["subresource"] == subresource
        })
    };
    assert!(asks("endpointslices", "") && asks("services", "status"), "every rule is asked about");
}

#[tokio::test]
async fn a_question_one_may_not_ask_is_a_warning() {
    let api = mesh(&[]).await;
    api.rule(|asked| asked.path.ends_with("/subjectaccessreviews").then(|| refusal(403, "you may not ask")));
    says(&of(&api, Stage::After, "control plane's permissions").await, Verdict::Warning, &["you may not ask"]);
}

#[tokio::test]
async fn other_meshes_are_named_and_fail_where_both_take_the_same_pods() {
    let api = cluster_of("33");
    api.put("/apis", json!({"groups": [{"name": "networking.istio.io"}]}));
    says(&of(&api, Stage::Before, "other meshes").await, Verdict::Warning, &["Istio", "injects nothing"]);
    let webhooks = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    api.put(&format!("{webhooks}/istio-sidecar-injector"), json!({"metadata": {"name": "istio-sidecar-injector"}}));
    says(&of(&api, Stage::Before, "other meshes").await, Verdict::Warning, &["Istio is installed"]);
    namespace(&api, "shop", &json!({"weft.dev/inject": "enabled", "istio-injection": "enabled"}));
    says(&of(&api, Stage::Before, "other meshes").await, Verdict::Failed, &["Istio", "shop"]);

    let api = cluster_of("33");
    api.put(&format!("{webhooks}/linkerd-proxy-injector"), json!({"metadata": {"name": "linkerd-proxy-injector"}}));
    let annotated = json!({"metadata": {"name": "shop", "labels": {"weft.dev/inject": "enabled"}, "annotations": {"linkerd.io/inject": "enabled"}}});
    api.put("/api/v1/namespaces/shop", annotated);
    says(&of(&api, Stage::Before, "other meshes").await, Verdict::Failed, &["Linkerd", "shop"]);
}

#[tokio::test]
async fn remains_of_an_installation_are_found_and_a_lone_injector_is_a_failure() {
    let api = mesh(&[]).await;
    api.cluster()
        .delete(&Reference::of(
            &json!({"kind": "Deployment", "metadata": {"name": "weft-control-plane", "namespace": "weft-system"}}),
        ))
        .await
        .unwrap();
    says(
        &of(&api, Stage::Before, "leftovers").await,
        Verdict::Failed,
        &["pods of labelled namespaces are refused", "weft uninstall"],
    );
    let injector = json!({"kind": "MutatingWebhookConfiguration", "metadata": {"name": "weft-injector"}});
    api.cluster().delete(&Reference::of(&injector)).await.unwrap();
    says(&of(&api, Stage::Before, "leftovers").await, Verdict::Warning, &["ClusterRole weft-control-plane"]);
}

#[tokio::test]
async fn a_namespace_whose_level_forbids_capture_fails_unless_the_plugin_captures() {
    for (level, capture, verdict) in [
        ("privileged", "init", Verdict::Ok),
        ("baseline", "init", Verdict::Failed),
        ("restricted", "init", Verdict::Failed),
        ("restricted", "cni", Verdict::Ok),
    ] {
        let api = cluster_of("33");
        namespace(&api, "shop", &injected(level));
        let given = |values: Values| values.with_assignment(&format!("capture={capture}")).unwrap();
        let found = check(&api.cluster(), Stage::Before, given, NOW).await.unwrap();
        let found: Vec<Finding> = found.into_iter().filter(|finding| finding.check == "pod security").collect();
        let words: &[&str] = if verdict == Verdict::Failed { &["shop", level, "capture=cni"] } else { &[] };
        says(&found, verdict, words);
    }
}

#[tokio::test]
async fn without_a_control_plane_there_is_nothing_more_to_check() {
    let found = findings(&cluster_of("33"), Stage::After).await;
    says(&found[found.len() - 1..], Verdict::Failed, &["weft install", "--pre"]);
}

#[tokio::test]
async fn a_control_plane_that_does_not_run_or_is_of_another_version_is_told() {
    let api = mesh(&[]).await;
    edit(&api, DEPLOYMENT, |it| it["status"]["availableReplicas"] = json!(1));
    says(&of(&api, Stage::After, "control plane").await, Verdict::Failed, &["1 of 2 ready", "describe pods"]);
    edit(&api, DEPLOYMENT, |it| {
        it["status"]["availableReplicas"] = json!(2);
        it["metadata"]["labels"]["app.kubernetes.io/version"] = json!("0.0.9");
    });
    let found = of(&api, Stage::After, "control plane").await;
    assert_eq!(found[0].verdict, Verdict::Ok);
    says(&found[1..], Verdict::Warning, &["0.0.9", "weft upgrade"]);
    edit(&api, DEPLOYMENT, |it| {
        it["spec"]["replicas"] = json!(0);
        it["status"] = json!({});
    });
    let found = of(&api, Stage::After, "control plane").await;
    says(&found[..1], Verdict::Failed, &["scaled to 0 replicas"]);
}

#[tokio::test]
async fn a_webhook_that_trusts_another_root_fails() {
    let api = mesh(&[]).await;
    trust(&api, VALIDATOR, "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCkJCQkIKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=");
    let found = of(&api, Stage::After, "webhooks").await;
    assert_eq!(found[0].verdict, Verdict::Ok);
    says(&found[1..], Verdict::Failed, &["weft-validator", "does not trust"]);
    trust(&api, INJECTOR, "");
    assert_eq!(of(&api, Stage::After, "webhooks").await[0].verdict, Verdict::Failed);
}

#[tokio::test]
async fn injection_is_tried_in_every_labelled_namespace() {
    for (answer, verdict, words) in [
        ((201, json!({"spec": {"containers": [{"name": "check"}]}})), Verdict::Failed, &["gets no proxy"][..]),
        (
            refusal(500, "failed calling webhook \"x\": connection refused"),
            Verdict::Failed,
            &["cannot ask the injector", "15017"],
        ),
        (refusal(403, "violates PodSecurity \"restricted:latest\""), Verdict::Failed, &["capture=cni"]),
        (refusal(403, "pods is forbidden"), Verdict::Warning, &["could not be tried"]),
    ] {
        let api = mesh(&[]).await;
        namespace(&api, "shop", &json!({"weft.dev/inject": "enabled"}));
        namespace(&api, "other", &json!({}));
        api.rule(move |asked| {
            (asked.path == "/api/v1/namespaces/shop/pods" && asked.query == "dryRun=All").then(|| answer.clone())
        });
        says(&of(&api, Stage::After, "injection").await, verdict, words);
    }
}

#[tokio::test]
async fn pods_that_are_labelled_and_have_no_proxy_are_named() {
    let api = mesh(&[]).await;
    namespace(&api, "shop", &json!({"weft.dev/inject": "enabled"}));
    namespace(&api, "plain", &json!({}));
    let pod = |namespace: &str, name: &str, label: Option<&str>, change: Value| {
        let mut pod = json!({
            "metadata": {"name": name, "namespace": namespace, "labels": {}},
            "spec": {"containers": [{"name": "app"}]}, "status": {"phase": "Running"},
        });
        if let Some(label) = label {
            pod["metadata"]["labels"]["weft.dev/inject"] = json!(label);
        }
        for (key, value) in change.as_object().unwrap() {
            pod[key] = value.clone();
        }
        api.put(&format!("/api/v1/namespaces/{namespace}/pods/{name}"), pod);
    };
    pod("shop", "bare", None, json!({}));
    pod("shop", "not-wanted", Some("disabled"), json!({}));
    pod("shop", "meshed", None, json!({"spec": {"initContainers": [{"name": "weft-proxy"}]}}));
    pod("shop", "over", None, json!({"status": {"phase": "Succeeded"}}));
    pod("shop", "of-the-node", None, json!({"spec": {"hostNetwork": true}}));
    pod("plain", "by-itself", Some("enabled"), json!({}));
    pod("plain", "nobody", None, json!({}));
    let found = of(&api, Stage::After, "unmeshed pods").await;
    says(&found, Verdict::Warning, &["plain/by-itself, shop/bare started without", "rollout restart"]);
}

#[tokio::test]
async fn nodes_that_wait_for_the_plugin_are_named() {
    let api = mesh(&["capture=cni"]).await;
    let path = "/apis/apps/v1/namespaces/weft-system/daemonsets/weft-cni";
    edit(&api, path, |it| {
        it["status"] = json!({"desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 2});
    });
    says(&of(&api, Stage::After, "cni").await, Verdict::Ok, &["every node"]);
    api.put(
        "/api/v1/nodes/n",
        json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "weft.dev/cni-not-ready"}]}}),
    );
    let found = of(&api, Stage::After, "cni").await;
    says(&found[1..], Verdict::Warning, &["nodes n wait"]);
}

#[tokio::test]
async fn a_plugin_that_is_not_on_every_node_fails_and_one_that_is_gone_too() {
    let api = mesh(&["capture=cni"]).await;
    let path = "/apis/apps/v1/namespaces/weft-system/daemonsets/weft-cni";
    edit(&api, path, |it| {
        it["status"] = json!({"desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 1});
    });
    for (node, ready) in [("a", "True"), ("b", "False")] {
        let labels = json!({"app.kubernetes.io/name": "weft", "app.kubernetes.io/component": "cni"});
        let conditions = json!([{"type": "Ready", "status": ready}]);
        api.put(
            &format!("{HOME}/pods/{node}"),
            json!({
                "metadata": {"name": node, "labels": labels},
                "spec": {"nodeName": node},
                "status": {"conditions": conditions},
            }),
        );
    }
    says(&of(&api, Stage::After, "cni").await, Verdict::Failed, &["1 of 2 ready; not on nodes b", "logs daemonset"]);
    api.forget(path);
    says(&of(&api, Stage::After, "cni").await, Verdict::Failed, &["weft-cni is gone", "weft upgrade"]);
}

#[test]
fn many_names_are_counted() {
    let names: Vec<String> = (0..7).map(|number| number.to_string()).collect();
    assert_eq!(some_of(&names), "0, 1, 2, 3, 4 and 2 more");
    assert_eq!(some_of(&names[..2]), "0, 1");
}
