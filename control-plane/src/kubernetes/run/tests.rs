use tower::ServiceExt;

use super::*;
use crate::kubernetes::discovery::health::Health;

/// Status and text of a path.
async fn get(router: &axum::Router, path: &str) -> (u16, String) {
    let request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.into()).unwrap())
}

#[tokio::test]
async fn readiness_names_what_is_missing_and_ends_with_the_replica() {
    let (health, (leaving, has_left)) = (Arc::new(Health::default()), watch::channel(false));
    let registry = Registry::default();
    let router = probes(Arc::clone(&health), registry.clone(), has_left);
    health.begins("pods");
    assert_eq!(get(&router, "/ready").await, (503, "waiting for: pods\n".into()));
    assert_eq!(get(&router, "/live").await.0, 200);
    health.synced("pods", clock::now());
    health.published();
    assert_eq!(get(&router, "/ready").await, (200, "ready\n".into()));
    let (_, metrics) = get(&router, "/metrics").await;
    assert!(metrics.contains("weft_kubernetes_watch_synced{resource=\"pods\"} 1\n"), "{metrics}");
    let counter = metrics::Key::from_static_name("weft_things_total");
    let of = metrics::Metadata::new(module_path!(), metrics::Level::INFO, None);
    metrics::Recorder::register_counter(&registry, &counter, &of).increment(2);
    assert!(get(&router, "/metrics").await.1.contains("weft_things_total 2\n"), "what parts count is there");
    leaving.send_replace(true);
    assert_eq!(get(&router, "/ready").await, (503, "waiting for: its own end\n".into()));
    assert_eq!(get(&router, "/live").await.0, 200, "it is not to be killed while it leaves");
}

#[tokio::test]
async fn the_end_of_a_part_is_told_with_its_reason() {
    let mut parts = Parts::default();
    parts.serve("the server", std::future::pending());
    parts.watch("the root", async { "it is another one".to_owned() });
    assert_eq!(parts.ended().await, ("the root", "it is another one".to_owned()));
    let mut parts = Parts::default();
    parts.serve("the server", async { Err("no descriptor".to_owned()) });
    assert_eq!(parts.ended().await, ("the server", "no descriptor".to_owned()));
}

#[tokio::test]
async fn what_keeps_it_from_running_is_told_with_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let settings = Settings {
        listen: any,
        webhooks: any,
        http: any,
        kubeconfig: Some(directory.path().join("absent")),
        context: None,
        system_namespace: "weft-system".into(),
        trust_domain: None,
        cluster_domain: "cluster.local".into(),
        injection: crate::kubernetes::inject::tests::settings(&[]).options,
        pod_name: "replica".into(),
        pod_ip: None,
    };
    let error = run(settings.clone(), std::future::pending()).await.unwrap_err().to_string();
    assert!(error.contains("absent") && error.ends_with("name another with --kubeconfig or --context"), "{error}");
    let taken = tokio::net::TcpListener::bind(any).await.unwrap();
    let error = settings::listen(taken.local_addr().unwrap(), "proxies", "--listen").await.unwrap_err().to_string();
    assert!(error.starts_with("cannot listen for proxies on 127.0.0.1:") && error.contains("--listen"), "{error}");
}
