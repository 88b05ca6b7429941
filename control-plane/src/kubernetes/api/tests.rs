use std::net::SocketAddr;

use http_body_util::BodyExt;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;
use tracing::level_filters::LevelFilter;
use weft_proto::weft::ProxyStatus;

use super::*;
use crate::kubernetes::install::testing::{FakeApi, refusal};
use crate::kubernetes::names::OPERATOR;
use crate::manage::Token;
use crate::manage::asking::Asking;
use crate::serve::operations::{Answer, AskError, Question};
use crate::store::testing::snapshot;

struct Known;

impl Facts for Known {
    fn trust_domain(&self) -> String {
        "example.org".into()
    }

    fn root_expires_at(&self) -> i64 {
        9_000
    }

    fn proxies(&self) -> Vec<ProxyStatus> {
        let proxy = |workload: &str, applied_revision| ProxyStatus {
            workload: workload.into(),
            applied_revision,
            ..ProxyStatus::default()
        };
        vec![proxy("shop/b", 7), proxy("shop/a", 6)]
    }

    fn programs(&self) -> Vec<weft_proto::weft::ProxyProgram> {
        Vec::new()
    }
    fn detected(&self) -> Vec<(String, String)> {
        vec![("shop/db:3306".into(), "server_first".into())]
    }

    fn configuration(&self, workload: &str) -> Option<view::Configuration> {
        (workload == "shop/a").then(|| view::Configuration {
            workload: workload.to_owned(),
            revision: 7,
            proxy: None,
            refused: Vec::new(),
            resources: BTreeMap::from([("Cluster".to_owned(), 2)]),
            asked: None,
            unreadable: Vec::new(),
            config: json!({"clusters": [], "listeners": []}),
        })
    }

    fn ask<'a>(&'a self, workload: &'a str, question: Question) -> Asking<'a> {
        Box::pin(std::future::ready(match (workload, question) {
            ("shop/a", Question::ReadLogLevel(_)) => Ok(Answer::LogLevel(LevelFilter::WARN)),
            ("shop/a", Question::SetLogLevel(set)) => Ok(Answer::LogLevel(set.level.parse().unwrap())),
            ("shop/a", Question::ReadConfiguration(_)) => Ok(Answer::Configuration(b"{\"version\":\"1\"}".to_vec())),
            ("shop/late", _) => Err(AskError::Late(Duration::from_secs(15))),
            ("shop/busy", _) => Err(AskError::Busy),
            ("shop/gone", _) => Err(AskError::Gone),
            ("shop/unwilling", _) => Err(AskError::Refused("no log was started here".into())),
            _ => Err(AskError::NotConnected),
        }))
    }

    fn create_token(&self, _: &str, _: &str, _: Duration) -> Result<Token, String> {
        Err("not here".into())
    }
}

/// An API server that knows one good token.
fn server() -> FakeApi {
    let api = FakeApi::default();
    api.rule(|asked| {
        if asked.path != "/apis/authentication.k8s.io/v1/tokenreviews" {
            return None;
        }
        let user = |account: &str| json!({"username": format!("system:serviceaccount:weft-system:{account}")});
        let status = match asked.body["spec"]["token"].as_str()? {
            "good" => {
                json!({"authenticated": true, "user": user(READER), "audiences": asked.body["spec"]["audiences"]})
            }
            "operator" => {
                json!({"authenticated": true, "user": user(OPERATOR), "audiences": asked.body["spec"]["audiences"]})
            }
            "other" => json!({"authenticated": true, "user": user("x"), "audiences": asked.body["spec"]["audiences"]}),
            "elsewhere" => {
                json!({"authenticated": true, "user": user(READER), "audiences": ["https://kubernetes.default.svc"]})
            }
            "broken" => return Some(refusal(500, "etcd is away")),
            _ => json!({"authenticated": false}),
        };
        Some((201, json!({"spec": {}, "status": status, "metadata": {}})))
    });
    api
}

const DOCUMENTS: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: {name: orders, namespace: shop}
spec: {addresses: [10.96.0.2], ports: [{port: 80}], selector: {app: orders}}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: orders-1, namespace: shop}
spec: {addresses: [10.97.0.5]}
";

fn routes(exhibits: Exhibits) -> Router {
    router(exhibits, Arc::new(Report::default))
}

fn exhibits(api: &FakeApi, missing: &'static [&'static str]) -> Exhibits {
    Exhibits {
        missing: Arc::new(move || missing.iter().map(|what| (*what).to_owned()).collect()),
        registry: Registry::default(),
        stale: Arc::new(|| vec!["the watch of pods has been lost".to_owned()]),
        gauges: Arc::new(|gauges| gauges.add("gauge", "weft_watch_age_seconds", &[], 3.0)),
        facts: Arc::new(Known),
        documents: watch::Sender::new(Arc::new(snapshot(DOCUMENTS, 7))).subscribe(),
        started_at: 1_000,
        replicas: Reviewer::of_replicas(api.client(), "weft-system"),
        operators: Reviewer::of_operators(api.client(), "weft-system"),
        reviewer: Reviewer::new(api.client(), "weft-system"),
    }
}

async fn ask(router: &Router, path: &str, token: Option<&str>) -> (StatusCode, String) {
    send(router, http::Request::get(path), token).await
}

async fn change(router: &Router, path: &str, token: Option<&str>) -> (StatusCode, String) {
    send(router, http::Request::put(path), token).await
}

async fn send(router: &Router, mut request: http::request::Builder, token: Option<&str>) -> (StatusCode, String) {
    if let Some(token) = token {
        request = request.header(CLI_TOKEN_HEADER, token);
    }
    let request = request.body(axum::body::Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn what_may_be_old_is_told_with_the_status() {
    let (_, body) = ask(&routes(exhibits(&server(), &[])), "/api/status", Some("good")).await;
    let status: view::Status = serde_json::from_str(&body).unwrap();
    assert_eq!(status.problems, ["the watch of pods has been lost"]);
}

#[tokio::test]
async fn only_the_readers_token_for_our_audience_reads() {
    let api = server();
    let router = routes(exhibits(&api, &[]));
    for (token, expected, word) in [
        (None, 401, "weft-authorization"),
        (Some(""), 401, "no token"),
        (Some("Bearer "), 401, "no token"),
        (Some("wrong"), 401, "not valid"),
        (Some("elsewhere"), 401, "not valid"),
        (Some("other"), 403, "system:serviceaccount:weft-system:x"),
        (Some("broken"), 503, "etcd is away"),
        (Some("good"), 200, "example.org"),
        (Some("Bearer good"), 200, "example.org"),
    ] {
        let (status, body) = ask(&router, "/api/status", token).await;
        assert_eq!(status.as_u16(), expected, "{token:?}: {body}");
        assert!(body.contains(word), "{token:?}: {body}");
        for path in [
            "/api/documents",
            "/api/proxies/shop/a",
            "/api/proxies/shop/a/configuration",
            "/api/proxies/shop/a/log-level",
        ] {
            assert_eq!(ask(&router, path, token).await.0, status, "{path} {token:?}");
        }
    }
    let asked = api.asked();
    assert!(asked.iter().all(|asked| asked.body["spec"]["audiences"] == json!(["cli.weft.dev"])), "{asked:?}");
}

#[tokio::test]
async fn only_an_operators_token_changes_something_and_it_reads_nothing() {
    let router = routes(exhibits(&server(), &[]));
    let path = "/api/proxies/shop/a/log-level";
    for (token, expected, word) in [
        (None, 401, "weft-operator"),
        (Some("wrong"), 401, "not valid"),
        (Some("other"), 403, "system:serviceaccount:weft-system:weft-operator"),
        (Some("good"), 403, "system:serviceaccount:weft-system:weft-reader"),
        (Some("operator"), 200, "debug"),
    ] {
        let (status, body) = change(&router, &format!("{path}?level=debug&author=eve"), token).await;
        assert_eq!(status.as_u16(), expected, "{token:?}: {body}");
        assert!(body.contains(word), "{token:?}: {body}");
    }
    assert_eq!(ask(&router, path, Some("operator")).await.0, StatusCode::FORBIDDEN);
    for level in ["", "?level=loud", "?level=4", "?level="] {
        let (status, body) = change(&router, &format!("{path}{level}"), Some("operator")).await;
        assert!(status == StatusCode::BAD_REQUEST && body.contains("off, error, warn"), "{level}: {body}");
    }
}

#[tokio::test]
async fn what_a_proxy_does_not_answer_is_told_with_the_reason() {
    let router = routes(exhibits(&server(), &[]));
    let (_, body) = ask(&router, "/api/proxies/shop/a/configuration", Some("good")).await;
    assert_eq!(body, "{\"version\":\"1\"}");
    let (_, body) = ask(&router, "/api/proxies/shop/a/log-level", Some("good")).await;
    assert_eq!(body, "{\"workload\":\"shop/a\",\"level\":\"warn\"}");
    for (workload, expected, word) in [
        ("shop/away", 404, "not connected here"),
        ("shop/busy", 429, "asked too much"),
        ("shop/late", 504, "did not answer within 15s"),
        ("shop/gone", 502, "disconnected"),
        ("shop/unwilling", 409, "no log was started here"),
    ] {
        for path in ["configuration", "log-level"] {
            let (status, body) = ask(&router, &format!("/api/proxies/{workload}/{path}"), Some("good")).await;
            assert_eq!(status.as_u16(), expected, "{workload} {path}: {body}");
            assert!(body.contains(word) && body.contains(workload), "{workload} {path}: {body}");
        }
    }
}

#[tokio::test]
async fn a_token_no_account_can_have_is_refused_without_asking() {
    let api = server();
    let long = "x".repeat(MAX_TOKEN_BYTES + 1);
    let (status, _) = ask(&routes(exhibits(&api, &[])), "/api/status", Some(&long)).await;
    assert_eq!((status, api.asked().len()), (StatusCode::UNAUTHORIZED, 0));
}

#[tokio::test]
async fn more_readers_than_there_are_places_are_sent_away_and_probes_are_not() {
    let api = server();
    let exhibits = exhibits(&api, &[]);
    let taken = Arc::clone(&exhibits.reviewer.places).acquire_many_owned(MOST_REQUESTS as u32).await.unwrap();
    let router = routes(exhibits);
    assert_eq!(ask(&router, "/api/status", Some("good")).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ask(&router, "/live", None).await.0, StatusCode::OK);
    drop(taken);
    assert_eq!(ask(&router, "/api/status", Some("good")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let api = server();
    let (status, body) = ask(&routes(exhibits(&api, &["the root", "services"])), "/ready", None).await;
    assert_eq!((status, body.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "waiting for: the root, services\n"));
    let (status, body) = ask(&routes(exhibits(&api, &[])), "/ready", None).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "ready\n"));
}

#[tokio::test]
async fn what_is_told_comes_back_as_it_was() {
    let api = server();
    let exhibits = exhibits(&api, &[]);
    let snapshot = Arc::clone(&exhibits.documents.borrow());
    let router = routes(exhibits);
    let (_, body) = ask(&router, "/api/status", Some("good")).await;
    let told: view::Status = serde_json::from_str(&body).unwrap();
    assert_eq!(weft_proto::weft::StatusResponse::from(told), view::status(&snapshot, &Known, 1_000));

    let (_, body) = ask(&router, "/api/documents?kind=service&namespace=shop", Some("good")).await;
    let told: view::Documents = serde_json::from_str(&body).unwrap();
    let names: Vec<&str> = told.documents.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["orders"]);
    let request = GetRequest { kind: "service".into(), ..GetRequest::default() };
    assert_eq!(weft_proto::weft::GetResponse::from(told), view::documents(&snapshot, &request).unwrap());
    let (_, body) = ask(&router, "/api/proxies/shop/a", Some("good")).await;
    let told: view::Configuration = serde_json::from_str(&body).unwrap();
    assert_eq!(Some(told), Known.configuration("shop/a"));
    let (status, body) = ask(&router, "/api/proxies/shop/nobody", Some("good")).await;
    assert!(status == StatusCode::NOT_FOUND && body.contains("no proxy of shop/nobody is connected"), "{body}");
    let (status, body) = ask(&router, "/api/documents?kind=servce", Some("good")).await;
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(told["message"].as_str().unwrap().contains("Service"), "{told}");
}

#[tokio::test]
async fn a_scrape_counts_documents_and_proxies() {
    let api = server();
    let exhibits = exhibits(&api, &[]);
    let (_, text) = ask(&routes(exhibits), "/metrics", None).await;
    for line in [
        "weft_metrics_overflow_total 0",
        "weft_watch_age_seconds{} 3",
        "weft_control_plane_revision{} 7",
        "weft_control_plane_documents{kind=\"Service\"} 1",
        "weft_control_plane_proxies{} 2",
        "weft_control_plane_proxies_behind{} 1",
        "weft_control_plane_root_expiry_seconds{} 9000",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
    }
}

async fn read_all(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn it_serves_on_a_socket_until_it_is_told_to_stop() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stopping, stop) = watch::channel(false);
    let serving = tokio::spawn(serve(listener, routes(exhibits(&server(), &[])), stop));
    let answer = read_all(address, "GET /live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("live\n"), "{answer}");
    let answer = read_all(address, "GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    stopping.send_replace(true);
    serving.await.unwrap().unwrap();
}
