//! The whole way: a real signing service on loopback and the proxy's own client.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::{Code, Status};
use weft_core::names::SpiffeId;
use weft_proto::weft::identity_client::IdentityClient;
use weft_proto::weft::{SignRequest, SignResponse};
use weft_proxy::clock;
use weft_proxy::identity::{self, Bundle, IdentityError, Options};
use weft_proxy::tls::{CredentialStore, Credentials};

use crate::ca::{Authority, AuthorityOptions, IdentityService, JoinTokens, incoming, server_tls};

const LIMIT: Duration = Duration::from_secs(20);

/// A control plane that only signs.
struct ControlPlane {
    address: SocketAddr,
    tokens: Arc<JoinTokens>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl ControlPlane {
    async fn start(data: &Path, leaf_life: Duration, at: &str) -> Self {
        let options = AuthorityOptions { leaf_life, ..AuthorityOptions::default() };
        let authority = Arc::new(Authority::open(data, &options, clock::wall()).unwrap());
        let tokens = Arc::new(JoinTokens::open(data, clock::wall()).unwrap());
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = incoming(listener, server_tls(&authority, clock::wall).unwrap());
        let service = IdentityService::new(authority, Arc::clone(&tokens)).server();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(async move {
            let shutdown = async { drop(stopped.await) };
            Server::builder().add_service(service).serve_with_incoming_shutdown(connections, shutdown).await.unwrap();
        });
        Self { address, tokens, stop: Some(stop), serving }
    }

    async fn stop(mut self) -> SocketAddr {
        drop(self.stop.take());
        tokio::time::timeout(LIMIT, self.serving).await.unwrap().unwrap();
        self.address
    }
}

/// A data directory with what a proxy is given of it.
struct Files {
    data: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { data: tempfile::tempdir().unwrap() }
    }

    fn token_file(&self) -> PathBuf {
        self.data.path().join("token")
    }

    fn options(&self, address: SocketAddr) -> Options {
        Options {
            control_plane: address.to_string(),
            bundle: Bundle::File(self.data.path().join("bundle.pem")),
            token_file: Some(self.token_file()),
            namespace: "default".to_owned(),
            service_account: "orders".to_owned(),
            socket_mark: None,
        }
    }

    fn give_token(&self, control_plane: &ControlPlane, account: &str, life: Duration) {
        let token = control_plane.tokens.create("default", account, life, clock::wall()).unwrap();
        std::fs::write(self.token_file(), token.reveal()).unwrap();
    }
}

/// The proxy's client, running until dropped.
struct Proxy {
    store: Arc<CredentialStore>,
    running: JoinHandle<()>,
}

impl Proxy {
    fn start(options: Options) -> Self {
        let store = Arc::new(CredentialStore::new());
        let chance = fastrand::Rng::with_seed(1);
        let running = tokio::spawn(identity::run(options, Arc::clone(&store), chance, std::future::pending()));
        Self { store, running }
    }

    async fn generation(&self, at_least: u64) -> Arc<Credentials> {
        let mut generation = self.store.subscribe();
        let waited = tokio::time::timeout(LIMIT, generation.wait_for(|now| *now >= at_least)).await;
        waited.expect("no new certificate within the limit").unwrap();
        self.store.current().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn orders() -> SpiffeId {
    SpiffeId::workload("weft.local", "default", "orders")
}

/// A request by hand, over a channel of the proxy's own making.
async fn sign(
    options: &Options,
    store: &Arc<CredentialStore>,
    account: &str,
    token: &str,
) -> Result<SignResponse, Status> {
    let channel = identity::channel(options, store).await.unwrap();
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
    let request = SignRequest {
        token: token.to_owned(),
        csr,
        namespace: "default".to_owned(),
        service_account: account.to_owned(),
    };
    IdentityClient::new(channel).sign(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_proxy_with_a_token_gets_its_certificate() {
    let files = Files::new();
    let control_plane = ControlPlane::start(files.data.path(), Duration::from_hours(24), "127.0.0.1:0").await;
    files.give_token(&control_plane, "orders", Duration::from_mins(1));
    let proxy = Proxy::start(files.options(control_plane.address));
    let credentials = proxy.generation(1).await;
    assert_eq!(credentials.identity, orders());
    let left = credentials.expires_at.duration_since(clock::wall()).unwrap();
    assert!(left > Duration::from_hours(23) && left <= Duration::from_hours(24), "{left:?}");
}

#[tokio::test]
async fn two_proxies_of_one_control_plane_trust_each_other() {
    let files = Files::new();
    let control_plane = ControlPlane::start(files.data.path(), Duration::from_hours(24), "127.0.0.1:0").await;
    files.give_token(&control_plane, "orders", Duration::from_mins(1));
    let (server, client) =
        (Proxy::start(files.options(control_plane.address)), Proxy::start(files.options(control_plane.address)));
    let (server, client) = (server.generation(1).await, client.generation(1).await);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        weft_proxy::tls::accept(&server, socket, LIMIT).await.unwrap().peer
    });
    let config = client.client_config(&[orders()], weft_proto::names::ALPN_TCP);
    let socket = TcpStream::connect(address).await.unwrap();
    let _open = weft_proxy::tls::connect(&config, address, socket, LIMIT).await.unwrap();
    assert_eq!(serving.await.unwrap(), orders());
}

#[tokio::test]
async fn the_control_plane_tells_who_asks_and_refuses_the_rest() {
    let files = Files::new();
    let control_plane = ControlPlane::start(files.data.path(), Duration::from_hours(24), "127.0.0.1:0").await;
    files.give_token(&control_plane, "orders", Duration::from_mins(1));
    let options = files.options(control_plane.address);
    let proxy = Proxy::start(options.clone());
    proxy.generation(1).await;
    let token_for =
        |account| control_plane.tokens.create("default", account, Duration::from_mins(1), clock::wall()).unwrap();
    let (own, other) = (token_for("orders"), token_for("payments"));
    let cases = [
        ("its certificate is proof", "orders", "", None),
        ("its certificate counts before a wrong token", "orders", "weft-join-wrong", None),
        ("a token of another account joins that account", "payments", other.reveal(), None),
        ("a certificate is no proof for another account", "payments", "", Some(Code::PermissionDenied)),
        ("a token is no proof for another account", "payments", own.reveal(), Some(Code::PermissionDenied)),
        ("a wrong token is no proof", "payments", "weft-join-wrong", Some(Code::Unauthenticated)),
        ("a name that is none is refused", "pay/ments", other.reveal(), Some(Code::InvalidArgument)),
    ];
    for (promise, account, token, expected) in cases {
        let answer = sign(&options, &proxy.store, account, token).await;
        assert_eq!(answer.as_ref().err().map(Status::code), expected, "{promise}: {answer:?}");
        if let Ok(answer) = answer {
            assert_eq!(answer.spiffe_id, format!("spiffe://weft.local/ns/default/sa/{account}"));
        }
    }
}

#[tokio::test]
async fn a_proxy_with_a_wrong_token_gets_nothing_until_the_token_is_right() {
    let files = Files::new();
    let control_plane = ControlPlane::start(files.data.path(), Duration::from_hours(24), "127.0.0.1:0").await;
    let options = files.options(control_plane.address);
    std::fs::write(files.token_file(), "weft-join-wrong").unwrap();
    let proxy = Proxy::start(options.clone());
    let refused = identity::obtain(&options, None).await.unwrap_err();
    assert!(matches!(&refused, IdentityError::Refused { code: Code::Unauthenticated, .. }), "{refused}");
    assert!(!refused.to_string().contains("weft-join-wrong"));
    files.give_token(&control_plane, "payments", Duration::from_mins(1));
    let refused = identity::obtain(&options, None).await.unwrap_err();
    assert!(matches!(&refused, IdentityError::Refused { code: Code::PermissionDenied, .. }), "{refused}");
    assert!(proxy.store.current().is_none());
    files.give_token(&control_plane, "orders", Duration::from_mins(1));
    proxy.generation(1).await;
}

#[tokio::test]
async fn renewal_goes_on_by_certificate_after_the_token_is_gone() {
    let files = Files::new();
    let control_plane = ControlPlane::start(files.data.path(), Duration::from_secs(6), "127.0.0.1:0").await;
    files.give_token(&control_plane, "orders", Duration::from_secs(1));
    let text = std::fs::read_to_string(files.token_file()).unwrap();
    let proxy = Proxy::start(files.options(control_plane.address));
    let first = proxy.generation(1).await;
    let second = proxy.generation(2).await;
    let verified = control_plane.tokens.verify(&text, "default", "orders", clock::wall());
    assert!(verified.is_err(), "the token must have expired for this test to tell anything");
    std::fs::remove_file(files.token_file()).unwrap();
    let third = proxy.generation(3).await;
    assert!(first.expires_at < second.expires_at && second.expires_at < third.expires_at);
}

#[tokio::test]
async fn a_control_plane_that_restarts_is_found_again() {
    let files = Files::new();
    let control_plane = ControlPlane::start(files.data.path(), Duration::from_secs(4), "127.0.0.1:0").await;
    files.give_token(&control_plane, "orders", Duration::from_mins(1));
    let proxy = Proxy::start(files.options(control_plane.address));
    let before = proxy.generation(1).await;
    let address = control_plane.stop().await;
    let refused = identity::obtain(&files.options(address), Some(&before)).await.unwrap_err();
    assert!(matches!(refused, IdentityError::Connect { .. }), "{refused}");
    let kept = proxy.store.current().expect("the old certificate must stay in force").generation;
    let _back = ControlPlane::start(files.data.path(), Duration::from_secs(4), &address.to_string()).await;
    proxy.generation(kept + 1).await;
}

#[tokio::test]
async fn a_control_plane_of_another_root_is_not_asked() {
    let (files, stranger) = (Files::new(), Files::new());
    let ours = ControlPlane::start(files.data.path(), Duration::from_hours(24), "127.0.0.1:0").await;
    files.give_token(&ours, "orders", Duration::from_mins(1));
    let theirs = ControlPlane::start(stranger.data.path(), Duration::from_hours(24), "127.0.0.1:0").await;
    let error = identity::obtain(&files.options(theirs.address), None).await.unwrap_err();
    assert!(matches!(error, IdentityError::Tls { .. }), "{error}");
}

#[tokio::test]
async fn a_certificate_of_a_former_root_is_replaced_by_token() {
    let (former, files) = (Files::new(), Files::new());
    let old = ControlPlane::start(former.data.path(), Duration::from_hours(24), "127.0.0.1:0").await;
    former.give_token(&old, "orders", Duration::from_mins(1));
    let outdated = identity::obtain(&former.options(old.address), None).await.unwrap();

    let new = ControlPlane::start(files.data.path(), Duration::from_hours(24), "127.0.0.1:0").await;
    let mut options = files.options(new.address);
    options.token_file = None;
    let error = identity::obtain(&options, Some(&outdated)).await.unwrap_err();
    let explained = error.to_string();
    assert!(
        ["UnknownCA", "DecryptError", "BadCertificate", "reset"].iter().any(|cause| explained.contains(cause)),
        "{explained}"
    );

    files.give_token(&new, "orders", Duration::from_mins(1));
    let options = files.options(new.address);
    let renewed = identity::obtain(&options, Some(&outdated)).await.unwrap();
    assert_ne!(renewed.bundle(), outdated.bundle());
}

#[tokio::test]
async fn an_ads_channel_needs_a_valid_certificate() {
    let files = Files::new();
    let control_plane = ControlPlane::start(files.data.path(), Duration::from_hours(24), "127.0.0.1:0").await;
    let store = Arc::new(CredentialStore::new());
    let error = identity::channel(&files.options(control_plane.address), &store).await.unwrap_err();
    assert!(error.to_string().contains("no certificate yet"), "{error}");
}

#[tokio::test]
async fn a_silent_client_does_not_keep_others_out() {
    let files = Files::new();
    let control_plane = ControlPlane::start(files.data.path(), Duration::from_hours(24), "127.0.0.1:0").await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(control_plane.address).await.unwrap());
    }
    files.give_token(&control_plane, "orders", Duration::from_mins(1));
    identity::obtain(&files.options(control_plane.address), None).await.unwrap();
    // And is given up in the end.
    let read = tokio::time::timeout(LIMIT, silent[0].read_u8()).await.expect("the silent client was kept");
    assert!(read.is_err());
}

#[tokio::test]
async fn a_bundle_that_is_missing_or_empty_is_named() {
    let files = Files::new();
    let control_plane = ControlPlane::start(files.data.path(), Duration::from_hours(24), "127.0.0.1:0").await;
    files.give_token(&control_plane, "orders", Duration::from_mins(1));
    let mut options = files.options(control_plane.address);
    let missing = files.data.path().join("nothing.pem");
    options.bundle = Bundle::File(missing.clone());
    let error = identity::obtain(&options, None).await.unwrap_err().to_string();
    assert!(error.contains("nothing.pem"), "{error}");
    std::fs::write(&missing, "").unwrap();
    let error = identity::obtain(&options, None).await.unwrap_err().to_string();
    assert!(error.contains("nothing.pem") && error.contains("bundle.pem"), "{error}");
}

/// Seconds since the Unix epoch, as the serving certificate sees them in the test below.
static TIME: AtomicU64 = AtomicU64::new(0);

fn test_clock() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(TIME.load(Ordering::SeqCst))
}

#[tokio::test]
async fn the_serving_certificate_renews_itself_at_half_life() {
    let files = Files::new();
    // In the past, as the client judges by the real clock: all of these are valid then.
    let start = clock::unix_seconds().cast_unsigned() - 23 * 3600;
    TIME.store(start, Ordering::SeqCst);
    let authority = Authority::open(files.data.path(), &AuthorityOptions::default(), clock::wall()).unwrap();
    let tls = server_tls(&Arc::new(authority), test_clock).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let _connections = incoming(listener, tls);
    let trusted = std::fs::read(files.data.path().join("bundle.pem")).unwrap();
    let mut leaves = Vec::new();
    for hours in [0, 11, 12, 23] {
        TIME.store(start + hours * 3600, Ordering::SeqCst);
        leaves.push(serving_certificate(address, &trusted).await);
    }
    assert_eq!(leaves[0], leaves[1], "renewed before half of its life");
    assert_ne!(leaves[1], leaves[2], "not renewed at half of its life");
    assert_eq!(leaves[2], leaves[3]);
}

async fn serving_certificate(address: SocketAddr, bundle: &[u8]) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(bundle).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(weft_proxy::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("control-plane.weft").unwrap();
    let socket = TcpStream::connect(address).await.unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}
