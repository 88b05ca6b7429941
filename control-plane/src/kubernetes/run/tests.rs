use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client, Config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::kubernetes::access::Access;

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
        access: Access { kubeconfig: Some(directory.path().join("absent")), context: None },
        system_namespace: "weft-system".into(),
        trust_domain: None,
        injection: crate::kubernetes::inject::tests::settings(&[]).options,
        proxy_programs: Vec::new(),
        pod_name: "replica".into(),
        replica_token: directory.path().join("absent"),
    };
    let error = run(settings.clone(), std::future::pending()).await.unwrap_err().to_string();
    assert!(
        error.contains("absent")
            && error.ends_with("name another with --kubeconfig, or a context of it with --context"),
        "{error}"
    );
    let taken = tokio::net::TcpListener::bind(any).await.unwrap();
    let error = settings::listen(taken.local_addr().unwrap(), "proxies", "--listen").await.unwrap_err().to_string();
    assert!(error.starts_with("cannot listen for proxies on 127.0.0.1:") && error.contains("--listen"), "{error}");
}

/// Within a client it would be asked again and again, and nobody would know that what they see is old.
#[tokio::test]
async fn a_watch_learns_at_once_that_the_api_server_is_overloaded() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let serving = tokio::spawn(async move {
        let busy = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1000\r\nContent-Length: 0\r\n\r\n";
        let mut held = Vec::new();
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 1024]).await;
            socket.write_all(busy).await.unwrap();
            held.push(socket);
        }
    });
    let client = Client::try_from(settings::for_watches(Config::new(url))).unwrap();
    let nodes = Api::<Node>::all(client);
    let all = ListParams::default();
    let answer =
        tokio::time::timeout(Duration::from_secs(20), nodes.list(&all)).await.expect("it does not wait by itself");
    assert!(matches!(answer.unwrap_err(), kube::Error::Api(status) if status.code == 429));
    serving.abort();
}
