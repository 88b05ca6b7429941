use axum::body::Body;
use http::{Request, header};
use http_body_util::BodyExt;
use kube_cel::{VapEvaluator, VapExpression};
use tower::ServiceExt;

use super::*;
use crate::store::testing::snapshot;

const IN_FORCE: &str = r"
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: {name: orders, namespace: shop}
spec: {addresses: [10.96.0.7], ports: [{port: 80, protocol: http}], selector: {app: orders}}
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: {name: front, namespace: shop}
spec: {addresses: [10.96.0.8], ports: [{port: 443, protocol: tls}], selector: {app: front}}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: orders-1, namespace: shop, labels: {app: orders}}
spec: {addresses: [10.97.0.5]}
";

/// A validator in a cluster that has a Service `core` and a Pod `pod` in the namespace `shop`, and answers nothing else.
fn validator() -> Router {
    let cluster = tower::service_fn(|request: Request<kube::client::Body>| async move {
        let path = request.uri().path().to_owned();
        let (status, body) = match path.as_str() {
            "/api/v1/namespaces/shop/services/core" => (200, json!({"metadata": {"name": "core"}})),
            "/api/v1/namespaces/shop/pods/pod" => (200, json!({"metadata": {"name": "pod"}})),
            "/api/v1/namespaces/broken/services/a" => (500, json!({"status": "Failure", "code": 500, "message": "no"})),
            _ => (404, json!({"status": "Failure", "reason": "NotFound", "code": 404})),
        };
        let response = http::Response::builder().status(status).body(Body::from(body.to_string()));
        Ok::<_, std::convert::Infallible>(response.unwrap())
    });
    let (_, snapshot) = watch::channel(Arc::new(snapshot(IN_FORCE, 1)));
    validate_router(ValidateState { snapshot, client: Client::new(cluster, "default") })
}

async fn ask(request: Value) -> Value {
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
    let request = Request::post("/validate").header(header::CONTENT_TYPE, "application/json");
    let response = validator().oneshot(request.body(Body::from(review.to_string())).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(review["response"]["uid"], "42");
    review["response"].clone()
}

fn request(operation: &str, object: &Value, old: &Value) -> Value {
    json!({
        "uid": "42",
        "kind": {"group": "weft.dev", "version": "v1alpha1", "kind": object["kind"]},
        "resource": {"group": "weft.dev", "version": "v1alpha1", "resource": "services"},
        "name": object["metadata"]["name"],
        "namespace": object["metadata"]["namespace"],
        "operation": operation,
        "userInfo": {"username": "somebody"},
        "object": object,
        "oldObject": old,
        "dryRun": false,
    })
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": "shop", "uid": "1", "generation": 1},
        "spec": spec,
    })
}

fn service(name: &str, spec: &str) -> Value {
    let spec: Value = serde_yaml_ng::from_str(&format!("{{ports: [{{port: 80}}], {spec}}}")).unwrap();
    object("Service", name, &spec)
}

async fn create(object: &Value) -> Value {
    ask(request("CREATE", object, &Value::Null)).await
}

#[tokio::test]
async fn a_bad_object_is_refused_with_every_problem_its_field_and_what_to_do() {
    let mut bad = service("a", "selector: {}, endpoints: [{address: x}]");
    bad["spec"]["ports"] = json!([{"port": 0}, {"port": 80, "protocol": "htttp"}]);
    let answer = create(&bad).await;
    assert_eq!(answer["allowed"], false);
    assert_eq!(answer["status"]["code"], 422);
    let message = answer["status"]["message"].as_str().unwrap();
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(
        lines,
        [
            "spec.ports[0].port: found the number 0; expected a port from 1 to 65535",
            "spec.ports[1].protocol: unknown protocol `htttp`; did you mean `http`? (allowed: http, http1, http2, grpc, tcp, tls, auto)",
            "spec.endpoints: given beside `selector`; a service has exactly one of the two: remove one",
        ]
    );
    let details = &answer["status"]["details"];
    assert_eq!(details["causes"][0]["field"], "spec.ports[0].port");
    assert_eq!(
        (&details["kind"], &details["group"], &details["name"]),
        (&json!("Service"), &json!("weft.dev"), &json!("a"))
    );
}

#[tokio::test]
async fn an_address_has_one_owner() {
    let answer = create(&service("a", "addresses: [10.96.0.9, 10.96.0.7], selector: {a: b}")).await;
    assert_eq!(
        answer["status"]["message"],
        "spec.addresses[1]: 10.96.0.7 already belongs to Service shop/orders; choose another, or leave it out to be given one"
    );
    // Its own it may keep, and one of a workload of its namespace.
    for (name, address) in [("orders", "10.96.0.7"), ("a", "10.97.0.5")] {
        let own = service(name, &format!("addresses: [{address}], selector: {{app: orders}}"));
        assert_eq!(create(&own).await["allowed"], true, "{address}");
    }
    let mut foreign = service("a", "addresses: [10.97.0.5], selector: {a: b}");
    foreign["metadata"]["namespace"] = json!("other");
    let message = create(&foreign).await["status"]["message"].clone();
    assert!(message.as_str().unwrap().contains("belongs to Workload shop/orders-1"), "{message}");
}

#[tokio::test]
async fn a_name_that_the_cluster_itself_has_is_refused_to_new_objects() {
    let answer = create(&service("core", "selector: {app: orders}")).await;
    assert!(answer["status"]["message"].as_str().unwrap().starts_with("metadata.name: the cluster has a Service"));
    let answer = create(&object("Workload", "pod", &json!({"addresses": ["10.97.0.9"]}))).await;
    assert!(answer["status"]["message"].as_str().unwrap().starts_with("metadata.name: the cluster has a Pod"));
    // It was there before: that it is overruled, its status says.
    let old = service("core", "selector: {a: b}");
    let answer = ask(request("UPDATE", &service("core", "selector: {app: orders}"), &old)).await;
    assert_eq!(answer["allowed"], true);
}

#[tokio::test]
async fn a_cluster_that_cannot_be_asked_is_a_warning() {
    let mut unknown = service("a", "endpoints: [{address: 192.0.2.1}]");
    unknown["metadata"]["namespace"] = json!("broken");
    let answer = create(&unknown).await;
    assert_eq!(answer["allowed"], true);
    assert!(answer["warnings"][0].as_str().unwrap().contains("could not be asked"), "{answer}");
}

#[tokio::test]
async fn what_refers_to_nothing_is_let_through_with_a_warning() {
    let route = |parent: &str, backend: &str| {
        let spec =
            json!({"parentRefs": [{"name": parent}], "rules": [{"backendRefs": [{"name": backend, "port": 443}]}]});
        object("TLSRoute", "a", &spec)
    };
    assert_eq!(create(&route("front", "front")).await["warnings"], Value::Null);
    let answer = create(&route("nobody", "front")).await;
    assert_eq!(answer["allowed"], true);
    assert_eq!(answer["warnings"], json!(["TLSRoute shop/a: its parent, the service nobody, does not exist yet"]));
    let answer = create(&service("a", "selector: {app: nobody}")).await;
    assert_eq!(answer["warnings"], json!(["Service shop/a: its selector app=nobody selects no workload yet"]));
}

#[tokio::test]
async fn an_object_that_is_wrong_already_can_be_labelled_and_deleted() {
    let bad = service("a", "selector: {}");
    let mut labelled = bad.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(ask(request("UPDATE", &labelled, &bad)).await["allowed"], true);
    let mut leaving = service("a", "selector: {}, addresses: [x]");
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(ask(request("UPDATE", &leaving, &bad)).await["allowed"], true);
    let mut worse = bad.clone();
    worse["spec"]["ports"] = json!([]);
    assert_eq!(ask(request("UPDATE", &worse, &bad)).await["allowed"], false);
}

#[tokio::test]
async fn routes_of_gateways_are_let_through_unread() {
    let mut route = object(
        "TLSRoute",
        "a",
        &json!({"parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}], "nonsense": 1}),
    );
    route["apiVersion"] = json!("gateway.networking.k8s.io/v1");
    assert_eq!(create(&route).await["allowed"], true);
    route["spec"]["parentRefs"] = json!([{"group": "", "kind": "Service", "name": "front"}]);
    let answer = create(&route).await;
    assert!(answer["status"]["message"].as_str().unwrap().contains("spec.nonsense: unknown field"), "{answer}");
}

#[tokio::test]
async fn what_is_no_review_is_a_bad_request() {
    for body in ["", "{}", "[1", r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#] {
        let response = validator().oneshot(Request::post("/validate").body(Body::from(body)).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{body}");
    }
}

#[test]
fn warnings_and_problems_are_bounded() {
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request("CREATE", &service("a", "selector: {a: b}"), &Value::Null)});
    let review: AdmissionReview<DynamicObject> = serde_json::from_value(review).unwrap();
    let request: AdmissionRequest<DynamicObject> = review.try_into().unwrap();
    let answer = with_warnings(AdmissionResponse::from(&request), vec!["x".repeat(1000); 20]);
    let warnings = answer.warnings.unwrap();
    assert_eq!((warnings.len(), warnings[0].len(), warnings[8].as_str()), (9, 250, "... and 12 more"));
    let place = document::Place { source: "x".into(), position: None };
    let problem = Problem::of(&Key::new(Kind::Mesh, "", "default"), place, "spec", "wrong".to_owned());
    let answer = denied(AdmissionResponse::from(&request), &vec![problem; 100], details(&request));
    assert_eq!(answer.result.message.lines().last(), Some("... and 68 more"));
}

#[test]
fn routes_of_gateways_are_not_asked_about() {
    let webhooks = webhooks("weft-system");
    let policies: Vec<_> = webhooks.iter().map(|webhook| webhook.failure_policy.as_deref().unwrap()).collect();
    assert_eq!(policies, ["Fail", "Ignore"]);
    let condition = &webhooks[1].match_conditions.as_ref().unwrap()[0];
    let asked = |spec: Value| {
        let expression =
            VapExpression { expression: condition.expression.clone(), message: None, message_expression: None };
        let results = VapEvaluator::builder().object(json!({"spec": spec})).build().evaluate(&[expression]);
        results[0].passed
    };
    let gateway = json!({"group": GATEWAY_API_GROUP, "kind": "Gateway", "name": "edge"});
    let service = json!({"group": "", "kind": "Service", "name": "front"});
    assert!(asked(json!({"parentRefs": [gateway, service]})));
    assert!(!asked(json!({"parentRefs": [gateway]})));
    assert!(!asked(json!({"parentRefs": [{"name": "edge"}]})));
    assert!(!asked(json!({"rules": []})));
}
