use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};
use tonic::Code;

use super::*;
use crate::kubernetes::fake_api::{FakeApi, Fault, refusal};
use crate::kubernetes::time::simulated::settle;

const SECRET: &str = "eyJhbGciOiJSUzI1NiJ9.the-token-itself";

fn status(value: Value) -> TokenReviewStatus {
    serde_json::from_value(value).unwrap()
}

/// What the API server says of a good token of pod `orders-1`.
fn good() -> Value {
    json!({
        "authenticated": true,
        "audiences": ["weft.dev"],
        "user": {
            "username": "system:serviceaccount:shop:orders",
            "uid": "a",
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "extra": { POD_NAME: ["orders-1"], POD_UID: ["u-1"] },
        },
    })
}

fn changed(pointer: &str, value: Value) -> Value {
    let mut review = good();
    *review.pointer_mut(pointer).unwrap() = value;
    review
}

#[test]
fn a_token_proves_exactly_its_service_account_and_its_pod() {
    let pod = judge(status(good()), "shop", "orders").unwrap().unwrap();
    assert_eq!(pod, BoundPod { name: "orders-1".to_owned(), uid: "u-1".to_owned() });
    let unbound = judge(status(changed("/user/extra", Value::Null)), "shop", "orders").unwrap();
    assert_eq!(unbound, None, "a token that somebody made by hand is bound to no pod");
}

#[test]
fn whatever_else_the_api_server_says_proves_nothing() {
    let user = |name: &str| changed("/user/username", json!(name));
    let cases = [
        ("not authenticated", changed("/authenticated", json!(false)), Code::Unauthenticated),
        ("nothing said", json!({}), Code::Unauthenticated),
        ("an error", json!({"authenticated": false, "error": "token has expired"}), Code::Unauthenticated),
        ("another audience", changed("/audiences", json!(["https://kubernetes.default.svc"])), Code::Unauthenticated),
        ("no audience", changed("/audiences", Value::Null), Code::Unauthenticated),
        ("a person", user("admin"), Code::PermissionDenied),
        ("a node", user("system:node:n1"), Code::PermissionDenied),
        ("nobody", changed("/user", Value::Null), Code::PermissionDenied),
        ("another account", user("system:serviceaccount:shop:payments"), Code::PermissionDenied),
        ("another namespace", user("system:serviceaccount:shop2:orders"), Code::PermissionDenied),
        ("a longer name", user("system:serviceaccount:shop:orders:x"), Code::PermissionDenied),
        ("a name without uid", changed("/user/extra", json!({ POD_NAME: ["orders-1"] })), Code::Unauthenticated),
        ("a uid without name", changed("/user/extra", json!({ POD_UID: ["u-1"] })), Code::Unauthenticated),
        ("two names", changed("/user/extra", json!({ POD_NAME: ["a", "b"], POD_UID: ["u-1"] })), Code::Unauthenticated),
        ("an empty name", changed("/user/extra", json!({ POD_NAME: [""], POD_UID: ["u-1"] })), Code::Unauthenticated),
    ];
    for (what, review, code) in cases {
        let error = judge(status(review), "shop", "orders").expect_err(what);
        assert_eq!(Status::from(error).code(), code, "{what}");
    }
}

async fn prove(reviewer: &TokenReviewer) -> Result<Option<BoundPod>, ReviewError> {
    reviewer.prove(SECRET, "shop", "orders", SystemTime::UNIX_EPOCH).await
}

#[tokio::test]
async fn the_api_server_is_asked_with_our_audience() {
    let api = FakeApi::new();
    api.on(|asked| {
        let mut answer = asked.body.clone();
        answer["status"] = good();
        Fault::Answer(StatusCode::CREATED, answer)
    });
    let pod = prove(&TokenReviewer::new(api.client())).await.unwrap();
    assert_eq!(pod.unwrap().name, "orders-1");
    let asked = api.asked().remove(0);
    assert_eq!((asked.method, asked.path.as_str()), (Method::POST, REVIEWS));
    assert_eq!(asked.body["spec"], json!({ "token": SECRET, "audiences": ["weft.dev"] }));
}

#[tokio::test]
async fn an_api_server_that_is_away_is_unavailable_and_one_that_forbids_is_our_fault() {
    let cases = [
        (StatusCode::TOO_MANY_REQUESTS, Code::Unavailable),
        (StatusCode::INTERNAL_SERVER_ERROR, Code::Unavailable),
        (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
        (StatusCode::FORBIDDEN, Code::Internal),
        (StatusCode::UNAUTHORIZED, Code::Internal),
        (StatusCode::NOT_FOUND, Code::Internal),
    ];
    for (code, expected) in cases {
        let api = FakeApi::new();
        api.on(move |_| Fault::Answer(code, refusal(code, "Whatever")));
        let error = prove(&TokenReviewer::new(api.client())).await.unwrap_err();
        assert_eq!(Status::from(error).code(), expected, "{code}");
    }
    let gone = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        Err::<http::Response<axum::body::Body>, _>(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))
    });
    let error = prove(&TokenReviewer::new(Client::new(gone, "default"))).await.unwrap_err();
    assert_eq!(Status::from(error).code(), Code::Unavailable);
}

#[tokio::test]
async fn reviews_are_bounded_in_number_and_time_together() {
    let api = FakeApi::new();
    api.on(|_| Fault::Silence { done: false });
    let mut reviewer = TokenReviewer::new(api.client());
    reviewer.limit = Duration::from_secs(1);
    let reviewer = Arc::new(reviewer);
    let asking: Vec<_> = (0..3 * MOST_REVIEWS)
        .map(|_| {
            let reviewer = Arc::clone(&reviewer);
            tokio::spawn(async move { prove(&reviewer).await })
        })
        .collect();
    settle().await;
    assert_eq!(api.asked().len(), MOST_REVIEWS);
    // The wait for a place counts as well: all end at once, not one batch after the other.
    for asked in asking {
        let asked = tokio::time::timeout(Duration::from_millis(1900), asked).await.expect("it goes on");
        assert_eq!(Status::from(asked.unwrap().unwrap_err()).code(), Code::Unavailable);
    }
}

#[tokio::test]
async fn no_answer_brings_the_token_into_a_message() {
    let echo = json!({ "kind": "TokenReview", "spec": { "token": SECRET } });
    let mut refused = refusal(StatusCode::UNPROCESSABLE_ENTITY, "Invalid");
    refused["message"] = json!(format!("spec.token: Invalid value: {SECRET}"));
    for (code, body) in [(StatusCode::CREATED, echo), (StatusCode::UNPROCESSABLE_ENTITY, refused)] {
        let api = FakeApi::new();
        api.on(move |_| Fault::Answer(code, body.clone()));
        let reviewer = TokenReviewer::new(api.client());
        let error = prove(&reviewer).await.unwrap_err();
        let said = format!("{error} {error:?} {reviewer:?}") + &format!("{:?}", Status::from(error));
        assert!(!said.contains(SECRET), "{said}");
    }
}
