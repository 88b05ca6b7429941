//! The endpoint over real sockets, beside applications of the tests' own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Parser;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};

use super::*;
use crate::admin::Readiness;
use crate::config::Tuning;
use crate::state::Store;
use crate::telemetry::Registry;
use crate::tls::CredentialStore;

/// The pod's address in these tests: an application that listens here does not listen on 127.0.0.1.
const POD: &str = "127.0.0.2";
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    tuning: Tuning,
}

/// The endpoint with these probes; gives its address.
async fn endpoint(probes: &str) -> SocketAddr {
    let admin = Admin {
        readiness: Readiness::default(),
        registry: Registry::default(),
        store: Arc::new(Store::new("default/web".to_owned())),
        credentials: Arc::new(CredentialStore::new()),
        tuning: Line::parse_from(["weft-proxy"]).tuning,
    };
    let listener = TcpListener::bind((POD, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let health = Health::new(admin, probes.parse().unwrap(), None);
    tokio::spawn(health.serve(listener));
    address
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind((POD, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Status and body of an answer.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let asked = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: pod\r\nuser-agent: kube-probe/1.33\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    let text = tokio::time::timeout(PATIENCE, asked).await.expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect(&text);
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The head of one request.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Answers each connection's request by its path, and tells the requests.
async fn application(answer: impl Fn(&str) -> String + Send + 'static) -> (u16, mpsc::Receiver<String>) {
    let (listener, port) = listen().await;
    let (tell, told) = mpsc::channel(32);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = head(&mut stream).await;
            let path = request.split(' ').nth(1).unwrap().to_owned();
            tell.send(request).await.unwrap();
            stream.write_all(answer(&path).as_bytes()).await.unwrap();
        }
    });
    (port, told)
}

fn status(status: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")
}

fn to(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
}

#[tokio::test]
async fn only_what_is_harmless_is_shown() {
    let address = endpoint("").await;
    let table = [
        ("/ready", 200),
        ("/live", 200),
        ("/metrics", 200),
        ("/config_dump", 404),
        ("/", 404),
        ("/app-probe/web/readiness", 404),
    ];
    for (path, expected) in table {
        assert_eq!(get(address, path).await.0, expected, "{path}");
    }
}

#[tokio::test]
async fn a_probe_by_http_is_the_kubelets_at_the_pods_address() {
    let (port, mut requests) = application(|path| match path {
        "/teapot" => status("418 I'm a teapot"),
        "/broken" => status("500 Internal Server Error"),
        "/moved" => to("http://elsewhere.test/"),
        "/strange" => status("999 Strange"),
        _ => status("204 No Content"),
    })
    .await;
    let probe = |name: &str, path: &str, more: &str| {
        format!(r#""web-{name}/readiness": {{"httpGet": {{"port": {port}, "path": "{path}"{more}}}}}"#)
    };
    let headers = r#", "httpHeaders": [{"name": "Host", "value": "shop"}, {"name": "X-Probe", "value": "a"},
        {"name": "X-Probe", "value": "b"}, {"name": "accept", "value": "text/plain"}]"#;
    let probes = [
        probe("good", "/ready?full=1", headers),
        probe("plain", "ready", ""),
        probe("moved", "/moved", ""),
        probe("teapot", "/teapot", ""),
        probe("broken", "/broken", ""),
        probe("strange", "/strange", ""),
    ];
    let address = endpoint(&format!("{{{}}}", probes.join(","))).await;
    for (name, expected) in
        [("good", 200), ("plain", 200), ("moved", 200), ("teapot", 418), ("broken", 500), ("strange", 503)]
    {
        let (status, body) = get(address, &format!("/app-probe/web-{name}/readiness")).await;
        assert_eq!(status, expected, "{name}: {body}");
        let request = requests.recv().await.unwrap().to_ascii_lowercase();
        assert!(request.contains("user-agent: kube-probe/1.33\r\n"), "{request}");
        assert!(request.contains("connection: close\r\n"), "{request}");
        match name {
            "good" => {
                assert!(request.starts_with("get /ready?full=1 http/1.1\r\n"), "{request}");
                assert!(request.contains("host: shop\r\n") && !request.contains("*/*"), "{request}");
                assert!(request.contains("x-probe: a\r\n") && request.contains("x-probe: b\r\n"), "{request}");
            }
            "plain" => {
                assert!(request.starts_with("get /ready http/1.1\r\n"), "{request}");
                assert!(request.contains(&format!("host: {POD}:{port}\r\n")), "{request}");
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn redirects_lead_to_the_same_place_or_nowhere() {
    let (elsewhere, mut reached) = application(|_| status("500 Internal Server Error")).await;
    let (port, mut requests) = application(move |path| match path {
        "/absolute/start" => to("/absolute/end"),
        "/relative/start" => to("end#there"),
        "/query" => to("?more=1"),
        "/query?more=1" => status("200 OK"),
        "/loop" => to("/loop"),
        "/port" => to(&format!("http://{POD}:{elsewhere}/")),
        "/scheme" => to("https:///x"),
        "/bad" => to("/absolute/bad"),
        _ if path.ends_with("/end") => status("200 OK"),
        _ => status("404 Not Found"),
    })
    .await;
    let table = [
        ("absolute", "/absolute/start", 200, vec!["/absolute/start", "/absolute/end"]),
        ("relative", "/relative/start", 200, vec!["/relative/start", "/relative/end"]),
        ("query", "/query", 200, vec!["/query", "/query?more=1"]),
        ("loop", "/loop", 503, vec!["/loop"; 11]),
        ("port", "/port", 200, vec!["/port"]),
        ("scheme", "/scheme", 200, vec!["/scheme"]),
        ("bad", "/bad", 404, vec!["/bad", "/absolute/bad"]),
    ];
    for (name, path, expected, way) in table {
        let probes = format!(r#"{{"web/startup": {{"httpGet": {{"port": {port}, "path": "{path}"}}}}}}"#);
        let address = endpoint(&probes).await;
        assert_eq!(get(address, "/app-probe/web/startup").await.0, expected, "{name}");
        for step in way {
            let request = requests.try_recv().expect(name);
            assert_eq!(request.split(' ').nth(1), Some(step), "{name}");
        }
        assert!(requests.try_recv().is_err(), "{name} went further");
    }
    assert!(reached.try_recv().is_err(), "another port was reached");
}

/// A server's configuration with a certificate nobody trusts.
fn untrusted(versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<rustls::ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["shop.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    Arc::new(builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap())
}

#[tokio::test]
async fn a_probe_by_https_takes_every_certificate_and_either_version() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (listener, port) = listen().await;
        let acceptor = tokio_rustls::TlsAcceptor::from(untrusted(&[version]));
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            head(&mut stream).await;
            stream.write_all(status("200 OK").as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let probes = format!(r#"{{"web/liveness": {{"httpGet": {{"port": {port}, "scheme": "HTTPS"}}}}}}"#);
        let address = endpoint(&probes).await;
        let (status, body) = get(address, "/app-probe/web/liveness").await;
        assert_eq!(status, 200, "{version:?}: {body}");
    }
}

#[tokio::test]
async fn a_probe_by_tcp_connects() {
    let (listener, port) = listen().await;
    let address = endpoint(&format!(r#"{{"web/liveness": {{"tcpSocket": {{"port": {port}}}}}}}"#)).await;
    assert_eq!(get(address, "/app-probe/web/liveness").await.0, 200);
    drop(listener);
    let (status, body) = get(address, "/app-probe/web/liveness").await;
    assert_eq!(status, 503);
    assert!(body.contains(&format!("cannot connect to {POD}:{port}")), "{body}");
}

/// Answers one gRPC call with these bytes of a message, or with a status alone.
async fn serve_grpc(stream: TcpStream, message: &[u8], code: &str) -> (String, Vec<u8>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (request, mut respond) = connection.accept().await.unwrap().unwrap();
    let driving = tokio::spawn(async move { while connection.accept().await.is_some() {} });
    let path = request.uri().path().to_owned();
    let mut body = request.into_body();
    let asked = body.data().await.unwrap().unwrap().to_vec();
    let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = respond.send_response(response, false).unwrap();
    if !message.is_empty() || code == "0" {
        let frame = [&[0, 0, 0, 0, message.len() as u8], message].concat();
        stream.send_data(frame.into(), false).unwrap();
    }
    let mut trailers = ::http::HeaderMap::new();
    trailers.insert("grpc-status", code.parse().unwrap());
    stream.send_trailers(trailers).unwrap();
    let _ = driving.await;
    (path, asked)
}

#[tokio::test]
async fn a_probe_by_grpc_asks_for_its_service_and_wants_serving() {
    // A field 1 of the value 1 is SERVING, 2 is NOT_SERVING; no field is UNKNOWN.
    let table: [(&[u8], &str, u16, &str); 4] = [
        (&[8, 1], "0", 200, "ok"),
        (&[8, 2], "0", 503, "not serving (2)"),
        (&[], "0", 503, "not serving (0)"),
        (&[], "12", 503, "no service grpc.health.v1.Health"),
    ];
    for (message, code, expected, words) in table {
        let (listener, port) = listen().await;
        let application = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            serve_grpc(stream, message, code).await
        });
        let probes = format!(r#"{{"web/readiness": {{"grpc": {{"port": {port}, "service": "shop"}}}}}}"#);
        let address = endpoint(&probes).await;
        let (status, body) = get(address, "/app-probe/web/readiness").await;
        assert_eq!(status, expected, "{body}");
        assert!(body.contains(words), "{body}");
        let (path, asked) = application.await.unwrap();
        assert_eq!(path, "/grpc.health.v1.Health/Check");
        assert_eq!(asked, [&[0, 0, 0, 0, 6, 10, 4][..], b"shop"].concat());
    }
}

#[tokio::test]
async fn a_probe_ends_at_its_timeout() {
    let (listener, port) = listen().await;
    let probes = format!(r#"{{"web/liveness": {{"httpGet": {{"port": {port}}}, "timeoutSeconds": 1}}}}"#);
    let address = endpoint(&probes).await;
    let (status, body) = get(address, "/app-probe/web/liveness").await;
    assert_eq!((status, body.as_str()), (503, "the application did not answer within 1s\n"));
    drop(listener);
}

#[tokio::test]
async fn the_application_sees_a_probe_once_however_many_ask() {
    let (listener, port) = listen().await;
    let (seen, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (counted, release) = (Arc::clone(&seen), Arc::clone(&go));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            head(&mut stream).await;
            release.notified().await;
            stream.write_all(status("200 OK").as_bytes()).await.unwrap();
        }
    });
    let probes = format!(r#"{{"web/liveness": {{"httpGet": {{"port": {port}}}, "timeoutSeconds": 10}}}}"#);
    let application = Application::new(probes.parse().unwrap(), None);
    let pod = POD.parse().unwrap();
    let asked = application.clone();
    let asking = tokio::spawn(async move {
        let ask = || asked.probe("web/liveness", pod, None);
        tokio::join!(ask(), ask(), ask())
    });
    while seen.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    go.notify_one();
    let passed = Some(Outcome::Passed);
    assert_eq!(asking.await.unwrap(), (passed.clone(), passed.clone(), passed.clone()));
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    // One that is over is not told again.
    go.notify_one();
    assert_eq!(application.probe("web/liveness", pod, None).await, passed);
    assert_eq!(seen.load(Ordering::SeqCst), 2);
}
