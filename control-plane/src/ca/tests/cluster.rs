//! Joining in a cluster: a signing service that asks an API server of tests, ADS beside it, and the proxy's own client.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::{Code, Status};
use weft_core::names::SpiffeId;
use weft_proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use weft_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use weft_proto::weft::SignRequest;
use weft_proto::weft::identity_client::IdentityClient;
use weft_proxy::clock;
use weft_proxy::identity::{self, Bundle, IdentityError, Options};
use weft_proxy::tls::{CredentialStore, Credentials};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::ca::{self, AuthorityOptions, IdentityService, incoming, server_tls};
use crate::kubernetes::authority;
use crate::kubernetes::fake_api::{FakeApi, Fault, refusal};
use crate::kubernetes::token_review::TokenReviewer;
use crate::serve::AdsServer;
use crate::serve::session::tests::node;
use crate::world::World;

const LIMIT: Duration = Duration::from_secs(20);

/// A control plane of a cluster, and what a pod of it is given.
struct Cluster {
    api: FakeApi,
    address: SocketAddr,
    bundle: String,
    directory: tempfile::TempDir,
    serving: JoinHandle<()>,
}

impl Cluster {
    async fn start() -> Self {
        let api = FakeApi::new();
        let options = AuthorityOptions { trust_domain: Some("weft.local".to_owned()), ..AuthorityOptions::default() };
        let authority = authority::open(&api.client(), "weft-system", &options, clock::wall()).await.unwrap();
        let (authority, world) = (Arc::new(authority), World::new());
        world.put(1, Vec::new(), std::collections::BTreeMap::default());
        let ads = AdsServer::new(world, |request| {
            ca::peer_identity(request).ok_or_else(|| Status::unauthenticated("no certificate"))
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = incoming(listener, server_tls(&authority, clock::wall).unwrap());
        let bundle = authority.bundle_pem();
        let proofs = Arc::new(TokenReviewer::new(api.client()));
        let server = Server::builder()
            .add_service(IdentityService::new(authority, proofs).server())
            .add_service(ads.into_service());
        let serving = tokio::spawn(async move { server.serve_with_incoming(connections).await.unwrap() });
        let cluster = Self { api, address, bundle, directory: tempfile::tempdir().unwrap(), serving };
        cluster.review(&["first"]);
        cluster
    }

    /// Whose tokens the API server takes from now on: all are of pod `orders-1` of default/orders.
    fn review(&self, good: &'static [&'static str]) {
        self.api.on(move |asked| {
            if !asked.path.ends_with("/tokenreviews") {
                return Fault::None;
            }
            let is_good = good.iter().any(|token| asked.body["spec"]["token"] == *token);
            let status = if is_good { user() } else { json!({ "authenticated": false, "error": "token expired" }) };
            Fault::Answer(StatusCode::CREATED, json!({ "status": status }))
        });
    }

    fn token_file(&self) -> PathBuf {
        self.directory.path().join("token")
    }

    fn give_token(&self, text: &str) {
        std::fs::write(self.token_file(), text).unwrap();
    }

    fn options(&self, account: &str) -> Options {
        Options {
            control_plane: self.address.to_string(),
            bundle: Bundle::Literal(self.bundle.parse().unwrap()),
            token_file: Some(self.token_file()),
            namespace: "default".to_owned(),
            service_account: account.to_owned(),
            socket_mark: None,
        }
    }

    async fn join(&self) -> Credentials {
        self.give_token("first");
        identity::obtain(&self.options("orders"), None).await.unwrap()
    }

    fn reviews(&self) -> usize {
        self.api.asked().iter().filter(|asked| asked.path.ends_with("/tokenreviews")).count()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn user() -> Value {
    json!({
        "authenticated": true,
        "audiences": ["weft.dev"],
        "user": {
            "username": "system:serviceaccount:default:orders",
            "extra": {
                "authentication.kubernetes.io/pod-name": ["orders-1"],
                "authentication.kubernetes.io/pod-uid": ["u-1"],
            },
        },
    })
}

fn code(error: &IdentityError) -> Option<Code> {
    match error {
        IdentityError::Refused { code, .. } => Some(*code),
        _ => None,
    }
}

#[tokio::test]
async fn a_pod_joins_by_its_service_accounts_token_and_as_nobody_else() {
    let cluster = Cluster::start().await;
    let credentials = cluster.join().await;
    assert_eq!(credentials.identity, SpiffeId::workload("weft.local", "default", "orders"));
    let error = identity::obtain(&cluster.options("payments"), None).await.unwrap_err();
    assert_eq!(code(&error), Some(Code::PermissionDenied), "{error}");
    cluster.give_token("forged");
    let error = identity::obtain(&cluster.options("orders"), None).await.unwrap_err();
    assert_eq!(code(&error), Some(Code::Unauthenticated), "{error}");
    assert!(!error.to_string().contains("forged"), "{error}");
}

#[tokio::test]
async fn a_certificate_is_renewed_with_the_token_as_it_is_then_and_never_without() {
    let cluster = Cluster::start().await;
    let first = cluster.join().await;
    let options = cluster.options("orders");
    // The kubelet has replaced it, and the old one is over.
    cluster.give_token("second");
    cluster.review(&["second"]);
    let before = cluster.reviews();
    identity::obtain(&options, Some(&first)).await.unwrap();
    assert_eq!(cluster.reviews() - before, 1, "the certificate and the token go together, in one request");
    // The pod is deleted.
    cluster.review(&[]);
    let error = identity::obtain(&options, Some(&first)).await.unwrap_err();
    assert_eq!(code(&error), Some(Code::Unauthenticated), "{error}");
    std::fs::remove_file(cluster.token_file()).unwrap();
    let error = identity::obtain(&options, Some(&first)).await.unwrap_err();
    assert_eq!(code(&error), Some(Code::Unauthenticated), "{error}");
    assert!(error.to_string().contains("service-account token"), "{error}");
}

#[tokio::test]
async fn while_the_api_server_is_away_a_proxy_is_told_to_try_again() {
    let cluster = Cluster::start().await;
    cluster.give_token("first");
    let away = StatusCode::SERVICE_UNAVAILABLE;
    cluster.api.on(move |_| Fault::Answer(away, refusal(away, "ServiceUnavailable")));
    let error = identity::obtain(&cluster.options("orders"), None).await.unwrap_err();
    assert_eq!(code(&error), Some(Code::Unavailable), "{error}");
    cluster.review(&["first"]);
    identity::obtain(&cluster.options("orders"), None).await.unwrap();
}

#[tokio::test]
async fn a_certificate_names_its_pod_and_opens_that_pods_stream_alone() {
    let cluster = Cluster::start().await;
    let store = Arc::new(CredentialStore::new());
    store.publish(cluster.join().await);
    let leaf = sign(&cluster, &store).await;
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    assert_eq!(leaf.subject().to_string(), "uid=orders-1");
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 1, "nothing but the SPIFFE identity may be a name: {names:?}");
    for (workload, expected) in [("orders-1", None), ("orders-2", Some(Code::PermissionDenied))] {
        let answer = stream(&cluster, &store, workload).await;
        assert_eq!(answer.as_ref().err().map(Status::code), expected, "{workload}: {answer:?}");
    }
}

/// A leaf as it comes over the wire.
async fn sign(cluster: &Cluster, store: &Arc<CredentialStore>) -> Vec<u8> {
    let channel = identity::channel(&cluster.options("orders"), store).await.unwrap();
    let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let request = SignRequest {
        token: "first".to_owned(),
        csr: csr.der().to_vec(),
        namespace: "default".to_owned(),
        service_account: "orders".to_owned(),
    };
    IdentityClient::new(channel).sign(request).await.unwrap().into_inner().chain.remove(0)
}

/// The first answer to a stream of `workload`.
async fn stream(
    cluster: &Cluster,
    store: &Arc<CredentialStore>,
    workload: &str,
) -> Result<Option<DeltaDiscoveryResponse>, Status> {
    let channel = identity::channel(&cluster.options("orders"), store).await.unwrap();
    let ask = DeltaDiscoveryRequest {
        node: Some(node("default", workload)),
        type_url: crate::world::Kind::Cluster.type_url().to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    let requests = tokio_stream::StreamExt::chain(tokio_stream::once(ask), tokio_stream::pending());
    let mut answers =
        AggregatedDiscoveryServiceClient::new(channel).delta_aggregated_resources(requests).await?.into_inner();
    tokio::time::timeout(LIMIT, answers.message()).await.expect("no answer")
}
