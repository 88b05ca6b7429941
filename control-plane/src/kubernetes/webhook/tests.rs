//! A client of the API server's kind over loopback, and the keeper of the roots on a server of tests.

use std::net::SocketAddr;

use axum::Json;
use axum::routing::post;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::bundle::keep_bundle_by;
use super::*;
use crate::ca::{Pem, create_root};
use crate::kubernetes::fake_api::FakeApi;
use crate::kubernetes::time::simulated::{SimulatedTime, settle};

const LIMIT: Duration = Duration::from_secs(20);

fn authority() -> Arc<Authority> {
    let root = create_root("cluster.local", clock::wall()).unwrap();
    let (key, certificate) = (Pem { place: "key", text: &root.key }, Pem { place: "root", text: &root.certificate });
    Arc::new(Authority::from_pem(key, certificate, Duration::from_hours(24), "make another").unwrap())
}

/// A server with one webhook that answers with what it was sent.
struct Webhooks {
    authority: Arc<Authority>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    serving: JoinHandle<Result<(), String>>,
}

impl Webhooks {
    async fn start() -> Self {
        Self::start_within(LIMITS).await
    }

    async fn start_within(limits: Limits) -> Self {
        let authority = authority();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let router = Router::new()
            .route("/echo", post(|Json(body): Json<Value>| async { Json(body) }))
            .route("/stuck", post(|| async { std::future::pending::<()>().await }));
        let serving = serve_within(limits, listener, &authority, "weft-system", router, stopped).unwrap();
        Self { authority, address, stop, serving: tokio::spawn(serving) }
    }

    async fn connect(&self) -> SendRequest<Full<Bytes>> {
        client(self.tls(&provider(&[])).await.unwrap()).await
    }

    async fn tls(&self, provider: &Arc<rustls::crypto::CryptoProvider>) -> io::Result<TlsStream<TcpStream>> {
        self.tls_as(provider, "weft-control-plane.weft-system.svc", &[b"http/1.1"]).await
    }

    async fn tls_as(
        &self,
        provider: &Arc<rustls::crypto::CryptoProvider>,
        name: &'static str,
        protocols: &[&[u8]],
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.bundle().remove(0)).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let socket = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name).unwrap(), socket).await
    }
}

/// Our provider, with only these groups if any are named.
fn provider(groups: &[rustls::NamedGroup]) -> Arc<rustls::crypto::CryptoProvider> {
    let mut provider = rustls::crypto::CryptoProvider::clone(&weft_proxy::tls::provider());
    if !groups.is_empty() {
        provider.kx_groups = rustls::crypto::aws_lc_rs::ALL_KX_GROUPS.to_vec();
        provider.kx_groups.retain(|group| groups.contains(&group.name()));
        assert_eq!(provider.kx_groups.len(), groups.len());
    }
    Arc::new(provider)
}

async fn client(stream: TlsStream<TcpStream>) -> SendRequest<Full<Bytes>> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    sender
}

async fn ask(sender: &mut SendRequest<Full<Bytes>>, method: &str, path: &str, body: Vec<u8>) -> Response<Bytes> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "weft-control-plane.weft-system.svc")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let response = timeout(LIMIT, sender.send_request(request)).await.expect("no answer").unwrap();
    let (parts, body) = response.into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn whoever_trusts_the_root_reaches_the_webhooks_by_the_services_name_alone() {
    let webhooks = Webhooks::start().await;
    let mut sender = webhooks.connect().await;
    assert_eq!(ask(&mut sender, "GET", "/ready", Vec::new()).await.body().as_ref(), b"ready\n");
    let review = json!({"kind": "AdmissionReview"}).to_string().into_bytes();
    assert_eq!(ask(&mut sender, "POST", "/echo", review.clone()).await.body().as_ref(), review);
    for name in ["control-plane.weft", "weft-control-plane.other.svc", "weft-control-plane"] {
        let refused = webhooks.tls_as(&provider(&[]), name, &[b"http/1.1"]).await;
        assert!(refused.is_err(), "the certificate is good for {name} too");
    }
}

#[tokio::test]
async fn clients_with_and_without_post_quantum_groups_are_served() {
    use rustls::NamedGroup::{X25519, X25519MLKEM768, secp256r1};
    let webhooks = Webhooks::start().await;
    for (groups, expected) in
        [(vec![X25519MLKEM768, X25519], X25519MLKEM768), (vec![X25519], X25519), (vec![secp256r1], secp256r1)]
    {
        let stream = webhooks.tls(&provider(&groups)).await.unwrap();
        let chosen = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(chosen, expected, "{groups:?}");
        let mut sender = client(stream).await;
        assert_eq!(ask(&mut sender, "GET", "/ready", Vec::new()).await.status(), StatusCode::OK, "{groups:?}");
    }
}

#[tokio::test]
async fn the_protocol_is_http_1_1_said_or_unsaid() {
    let webhooks = Webhooks::start().await;
    for (offered, expected) in [
        (&[b"http/1.1".as_slice()][..], Some(b"http/1.1".as_slice())),
        (&[b"h2".as_slice(), b"http/1.1"][..], Some(b"http/1.1".as_slice())),
        (&[][..], None),
    ] {
        let stream = webhooks.tls_as(&provider(&[]), "weft-control-plane.weft-system.svc", offered).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), expected);
        let mut sender = client(stream).await;
        assert_eq!(ask(&mut sender, "GET", "/ready", Vec::new()).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_review_may_be_large_and_not_larger() {
    let webhooks = Webhooks::start().await;
    let quoted = |length: usize| format!("\"{}\"", "x".repeat(length - 2)).into_bytes();
    for (length, expected) in [
        (6 * 1024 * 1024, StatusCode::OK),
        (LARGEST_REVIEW, StatusCode::OK),
        (LARGEST_REVIEW + 1, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let mut sender = webhooks.connect().await;
        assert_eq!(ask(&mut sender, "POST", "/echo", quoted(length)).await.status(), expected, "{length} bytes");
    }
}

#[tokio::test]
async fn a_request_that_is_stuck_is_answered_in_the_end() {
    let webhooks = Webhooks::start_within(Limits { request: Duration::from_millis(100), ..LIMITS }).await;
    let mut sender = webhooks.connect().await;
    let answer = ask(&mut sender, "POST", "/stuck", Vec::new()).await;
    assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn who_asks_nothing_is_let_go() {
    let webhooks = Webhooks::start_within(Limits { first_head: Duration::from_millis(100), ..LIMITS }).await;
    let silent = webhooks.connect().await;
    let gone = async {
        while !silent.is_closed() {
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(LIMIT, gone).await.is_ok(), "a silent client was kept");
    let _ = ask(&mut webhooks.connect().await, "GET", "/ready", Vec::new()).await;
}

#[tokio::test]
async fn a_stopped_replica_answers_for_a_while_and_sends_its_clients_elsewhere() {
    let webhooks = Webhooks::start_within(Limits { last_call: Duration::from_secs(2), ..LIMITS }).await;
    let mut known = webhooks.connect().await;
    let before = ask(&mut known, "GET", "/ready", Vec::new()).await;
    assert!(!before.headers().contains_key("connection"));
    webhooks.stop.send_replace(true);
    // The one it knew, and one that has not heard of it yet.
    for sender in [&mut known, &mut webhooks.connect().await] {
        let answer = ask(sender, "GET", "/ready", Vec::new()).await;
        assert_eq!((answer.status(), answer.headers()["connection"].as_bytes()), (StatusCode::OK, b"close".as_slice()));
    }
    let mut idle = webhooks.connect().await;
    timeout(LIMIT, webhooks.serving).await.expect("it does not end").unwrap().unwrap();
    assert!(TcpStream::connect(webhooks.address).await.is_err(), "it still listens");
    assert!(timeout(LIMIT, idle.ready()).await.expect("an idle connection was kept").is_err());
}

/// The keeper at work on a server of tests.
struct Keeper {
    api: FakeApi,
    time: SimulatedTime,
    leader: watch::Sender<bool>,
    keeping: JoinHandle<()>,
}

const INJECTOR: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/weft-injector";
const VALIDATOR: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/weft-validator";
const CONFIG_MAP: &str = "/api/v1/namespaces/weft-system/configmaps/weft-bundle";

impl Keeper {
    fn start(leads: bool) -> Self {
        let api = FakeApi::new();
        for (path, name) in [(INJECTOR, "weft-injector"), (VALIDATOR, "weft-validator")] {
            api.put(path, configuration(name, &["first", "second"]));
        }
        let ((leader, leading), time) = (watch::channel(leads), SimulatedTime::new());
        let (client, clock) = (api.client(), time.clone());
        let keeping = tokio::spawn(async move {
            keep_bundle_by(&clock, &client, "weft-system", "the roots", leading).await;
        });
        Self { api, time, leader, keeping }
    }

    /// Lets time pass until it is so.
    async fn until(&self, what: &str, mut condition: impl FnMut(&FakeApi) -> bool) {
        for _ in 0..100 {
            if condition(&self.api) {
                return;
            }
            self.time.pass(Duration::from_millis(100)).await;
        }
        panic!("waited in vain until {what}");
    }

    fn patches(&self) -> usize {
        self.api.asked().iter().filter(|asked| asked.method == http::Method::PATCH).count()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

fn configuration(name: &str, webhooks: &[&str]) -> Value {
    let webhook =
        |name: &&str| json!({ "name": name, "clientConfig": { "service": { "name": "weft-control-plane" } } });
    json!({
        "metadata": { "name": name, "uid": format!("uid of {name}") },
        "webhooks": webhooks.iter().map(webhook).collect::<Vec<_>>(),
    })
}

/// Whether every webhook has the roots and is otherwise as it was installed.
fn is_whole(object: Option<Value>) -> bool {
    let bytes = serde_json::to_value(k8s_openapi::ByteString(b"the roots".to_vec())).unwrap();
    let Some(object) = object else { return false };
    object["webhooks"].as_array().unwrap().iter().all(|webhook| {
        let config = &webhook["clientConfig"];
        config["caBundle"] == bytes && config["service"]["name"] == "weft-control-plane"
    })
}

fn is_everywhere(api: &FakeApi) -> bool {
    let bundle = api.get(CONFIG_MAP).is_some_and(|object| object["data"]["bundle.pem"] == "the roots");
    bundle && is_whole(api.get(INJECTOR)) && is_whole(api.get(VALIDATOR))
}

#[tokio::test]
async fn the_leader_puts_the_roots_into_every_webhook_and_the_config_map_once() {
    let keeper = Keeper::start(true);
    keeper.until("the roots are everywhere", is_everywhere).await;
    assert_eq!(keeper.patches(), 3);
    for asked in keeper.api.asked() {
        // Of the very object that was seen: what is deleted meanwhile is not made again.
        let is_safe = asked.path == CONFIG_MAP || asked.body["metadata"]["uid"].is_string();
        assert!(is_safe, "{asked:?}");
        assert!(asked.body["webhooks"][0]["clientConfig"]["service"].is_null(), "{asked:?}");
    }
}

#[tokio::test]
async fn whoever_changes_them_finds_them_mended() {
    let keeper = Keeper::start(true);
    keeper.until("the roots are everywhere", is_everywhere).await;
    let mut map = keeper.api.get(CONFIG_MAP).unwrap();
    map["data"]["bundle.pem"] = json!("others");
    keeper.api.put(CONFIG_MAP, map);
    // As an upgrade does that adds a webhook.
    keeper.api.put(INJECTOR, configuration("weft-injector", &["first", "second", "third"]));
    keeper.until("they are mended", is_everywhere).await;
    keeper.api.delete(CONFIG_MAP);
    keeper.api.delete(VALIDATOR);
    keeper.until("the ConfigMap is back", |api| api.get(CONFIG_MAP).is_some()).await;
    assert!(keeper.api.get(VALIDATOR).is_none(), "a webhook configuration was made");
    keeper.api.put(VALIDATOR, configuration("weft-validator", &["first"]));
    keeper.until("the installed one has them", is_everywhere).await;
}

#[tokio::test]
async fn only_the_leader_writes() {
    let keeper = Keeper::start(false);
    keeper.time.pass(Duration::from_mins(1)).await;
    assert_eq!(keeper.patches(), 0);
    keeper.leader.send_replace(true);
    keeper.until("the roots are everywhere", is_everywhere).await;
    keeper.leader.send_replace(false);
    settle().await;
    keeper.api.delete(CONFIG_MAP);
    keeper.time.pass(Duration::from_mins(1)).await;
    assert!(keeper.api.get(CONFIG_MAP).is_none());
    keeper.leader.send_replace(true);
    keeper.until("it is back", is_everywhere).await;
}

#[tokio::test]
async fn a_write_that_fails_is_tried_again_and_nobody_is_fought_without_pause() {
    use crate::kubernetes::fake_api::{Fault, refusal};
    let keeper = Keeper::start(true);
    keeper.api.on(|asked| match asked.method {
        http::Method::PATCH => Fault::Answer(
            StatusCode::INTERNAL_SERVER_ERROR,
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        ),
        _ => Fault::None,
    });
    keeper.time.pass(Duration::from_secs(31)).await;
    let tries = keeper.patches();
    assert!((3 * 5..=3 * 8).contains(&tries), "{tries} tries in 31 s");
    // Somebody clears the ConfigMap whenever it was written.
    keeper.api.on(|_| Fault::None);
    keeper.until("the roots are everywhere", is_everywhere).await;
    let before = keeper.patches();
    for _ in 0..300 {
        keeper.api.delete(CONFIG_MAP);
        keeper.time.pass(Duration::from_millis(100)).await;
    }
    let tries = keeper.patches() - before;
    assert!((20..=31).contains(&tries), "{tries} writes in 30 s");
}
