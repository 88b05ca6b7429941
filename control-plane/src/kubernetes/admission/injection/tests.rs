use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use json_patch::Patch;
use kube::client::Body as ApiBody;
use serde_json::json;
use tower::ServiceExt;
use weft_proxy::telemetry::{Gauges, Registry};

use super::*;
use crate::kubernetes::inject::tests::{golden_pods, settings};
use crate::kubernetes::names;

/// An injector whose API server has one namespace, `shop`, with this label, or answers with an error.
fn injector(label: Option<&'static str>) -> Router {
    let api = tower::service_fn(move |request: http::Request<ApiBody>| async move {
        let labels: BTreeMap<&str, &str> = label.map(|value| (names::INJECT_LABEL, value)).into_iter().collect();
        let (status, body) = if request.uri().path() == "/api/v1/namespaces/shop" {
            (200, json!({"metadata": {"name": "shop", "labels": labels}}))
        } else {
            (500, json!({"message": "down", "reason": "Internal", "code": 500}))
        };
        let response = http::Response::builder().status(status).body(ApiBody::from(body.to_string().into_bytes()));
        Ok::<_, Infallible>(response.expect("a response"))
    });
    inject_router(InjectState { settings: Arc::new(settings(&[])), client: Client::new(api, "default") })
}

fn review(namespace: &str, pod: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "0c9a8d74",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": namespace,
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "object": pod,
            "oldObject": null,
            "dryRun": true,
            "options": null,
        },
    })
}

async fn post_to(router: Router, body: String) -> (StatusCode, String) {
    let request = Request::post("/inject").header("content-type", "application/json").body(Body::from(body));
    let response = router.oneshot(request.expect("a request")).await.expect("infallible");
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

async fn asked(router: Router, review: &Value) -> Value {
    let (status, body) = post_to(router, review.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((&answer["apiVersion"], &answer["kind"]), (&json!("admission.k8s.io/v1"), &json!("AdmissionReview")));
    assert_eq!(answer["response"]["uid"], "0c9a8d74");
    answer["response"].clone()
}

fn as_pod(template: &Value) -> Value {
    let mut pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "web-", "creationTimestamp": null}});
    for (key, value) in template["metadata"].as_object().into_iter().flatten() {
        pod["metadata"][key] = value.clone();
    }
    pod["spec"] = template["spec"].clone();
    pod
}

fn web() -> Value {
    as_pod(&json!({"spec": {"containers": [{"name": "web"}]}}))
}

fn patched(pod: &Value, response: &Value) -> Value {
    let mut pod = pod.clone();
    if let Some(bytes) = response.get("patch") {
        assert_eq!(response["patchType"], "JSONPatch");
        let bytes: Vec<u8> = serde_json::from_value(bytes.clone()).expect("bytes");
        let patch: Patch = serde_json::from_slice(&bytes).expect("a patch");
        json_patch::patch(&mut pod, &patch).expect("it applies");
    }
    pod
}

#[tokio::test]
async fn the_webhook_makes_of_a_pod_what_the_command_line_makes() {
    for (before, after) in golden_pods() {
        let pod = as_pod(&before);
        let response = asked(injector(Some("enabled")), &review("shop", &pod)).await;
        assert_eq!(response["allowed"], true);
        assert_eq!(patched(&pod, &response), as_pod(&after));
    }
}

#[tokio::test]
async fn an_injected_pod_is_let_through_without_a_patch() {
    for (_, after) in golden_pods() {
        let response = asked(injector(Some("enabled")), &review("shop", &as_pod(&after))).await;
        assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None));
    }
}

#[tokio::test]
async fn labels_are_looked_at_again() {
    let labelled = |value: &str| {
        let mut pod = web();
        pod["metadata"]["labels"][names::INJECT_LABEL] = json!(value);
        pod
    };
    for (of_namespace, pod, namespace, expected) in [
        (Some("enabled"), web(), "shop", true),
        (None, web(), "shop", false),
        (Some("disabled"), web(), "shop", false),
        (Some("disabled"), labelled("enabled"), "shop", true),
        (Some("enabled"), labelled("disabled"), "shop", false),
        // The API server cannot tell: it asked us, so it was meant.
        (None, web(), "elsewhere", true),
        (None, labelled("disabled"), "elsewhere", false),
        (None, web(), "kube-system", false),
        (None, labelled("enabled"), "weft-system", false),
    ] {
        let response = asked(injector(of_namespace), &review(namespace, &pod)).await;
        assert_eq!(response["allowed"], true);
        assert_eq!(response.get("patch").is_some(), expected, "{of_namespace:?} {namespace} {pod}");
    }
}

#[tokio::test]
async fn a_refused_pod_gets_the_sentence() {
    let mut pod = web();
    pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 15006}]);
    let response = asked(injector(Some("enabled")), &review("shop", &pod)).await;
    assert_eq!((&response["allowed"], response.get("patch")), (&json!(false), None));
    let status = &response["status"];
    assert_eq!(
        (&status["code"], &status["reason"], &status["status"]),
        (&json!(422), &json!("Invalid"), &json!("Failure"))
    );
    assert!(status["message"].as_str().is_some_and(|text| text.contains("port 15006")), "{status}");
}

#[tokio::test]
async fn what_has_no_effect_is_told_as_a_warning() {
    let mut pod = web();
    pod["metadata"]["annotations"]["weft.dev/proxy-log-levl"] = json!("debug");
    pod["spec"]["hostNetwork"] = json!(true);
    let response = asked(injector(Some("enabled")), &review("shop", &pod)).await;
    let warnings: Vec<&str> = response["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert_eq!(warnings.len(), 2, "{response}");
    assert!(warnings[0].ends_with("did you mean weft.dev/proxy-log-level?"), "{warnings:?}");
    assert!(warnings[1].contains("stays outside the mesh") && warnings[1].contains("hostNetwork"), "{warnings:?}");
    for index in 0..20 {
        pod["metadata"]["annotations"][format!("weft.dev/{index}{}", "x".repeat(300))] = json!("");
    }
    let response = asked(injector(Some("enabled")), &review("shop", &pod)).await;
    let warnings = response["warnings"].as_array().expect("warnings");
    assert_eq!(warnings.len(), MOST_WARNINGS);
    assert!(warnings.iter().all(|text| text.as_str().is_some_and(|text| text.len() <= 2 * WARNING_LENGTH)));
}

#[tokio::test]
async fn what_is_not_a_new_pod_is_let_through() {
    let pod = web();
    for (pointer, value) in [
        ("/request/operation", json!("UPDATE")),
        ("/request/kind", json!({"group": "apps", "version": "v1", "kind": "Deployment"})),
        ("/request/subResource", json!("ephemeralcontainers")),
    ] {
        let mut review = review("shop", &pod);
        review["request"]["subResource"] = Value::Null;
        *review.pointer_mut(pointer).expect("it is there") = value;
        let response = asked(injector(Some("enabled")), &review).await;
        assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None), "{pointer}");
    }
}

#[test]
fn each_answer_is_counted_by_its_outcome() {
    let registry = Registry::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut bad = web();
    bad["metadata"]["annotations"][names::CAPTURE] = json!("nobody");
    metrics::with_local_recorder(&registry, || {
        runtime.block_on(async {
            for pod in [web(), web(), bad] {
                asked(injector(Some("enabled")), &review("shop", &pod)).await;
            }
            asked(injector(None), &review("shop", &web())).await;
            post_to(injector(None), String::new()).await;
        });
    });
    let text = registry.render(&Gauges::default());
    for line in [
        "weft_injections_total{result=\"injected\"} 2\n",
        "weft_injections_total{result=\"denied\"} 1\n",
        "weft_injections_total{result=\"unchanged\"} 1\n",
        "weft_injections_total{result=\"malformed\"} 1\n",
        "weft_injection_duration_seconds_count 5\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
}

#[tokio::test]
async fn what_is_no_review_is_refused() {
    let mut old = review("shop", &web());
    old["apiVersion"] = json!("admission.k8s.io/v1beta1");
    for body in [String::new(), "{".into(), "[]".into(), json!({"request": null}).to_string(), old.to_string()] {
        let (status, text) = post_to(injector(None), body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
        assert!(text.starts_with("not an AdmissionReview of v1"), "{text}");
    }
}
