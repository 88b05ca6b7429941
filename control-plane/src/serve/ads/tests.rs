//! The service over loopback, with the generated client.

use std::collections::BTreeMap;
use std::future::Future;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Code;
use tonic::transport::{Channel, Server};
use weft_proto::discovery::Node;
use weft_proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use weft_proto::envoy::envoy::config::listener::v3::Listener;
use weft_proto::names;

use super::*;
use crate::serve::session::tests::{Summary, cluster, destination, endpoints, listener, node, route};
use crate::world::{Kind, Own, Resource, WorkloadKey};

const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it takes too long")
}

/// Waits for a condition.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !condition() {
        assert!(clock::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct Bench {
    world: Arc<World>,
    server: AdsServer,
    client: AggregatedDiscoveryServiceClient<Channel>,
    _tasks: JoinSet<()>,
}

impl Bench {
    /// Serves a world; who calls says in a header which service account's namespace they have.
    async fn start(opening: Duration) -> Self {
        Self::start_until(opening, None).await
    }

    async fn start_until(opening: Duration, stop: Option<watch::Receiver<bool>>) -> Self {
        let world = World::new();
        let mut server = AdsServer::new(world.clone(), |request| {
            let namespace = request.metadata().get("namespace").and_then(|value| value.to_str().ok());
            let namespace = namespace.ok_or_else(|| Status::unauthenticated("no certificate"))?;
            Ok(SpiffeId::workload("shop.local", namespace, "orders"))
        });
        server.opening = opening;
        server.stop = stop;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let service = server.clone().into_service();
        tasks.spawn(async move {
            let router = Server::builder().add_service(service);
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        let client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(64 << 20);
        Self { world, server, client, _tasks: tasks }
    }

    async fn synced(resources: &[Resource]) -> Self {
        let bench = Self::start(OPENING).await;
        bench.publish(1, resources);
        bench
    }

    fn publish(&self, revision: u64, resources: &[Resource]) {
        self.world.put(revision, resources.to_vec(), BTreeMap::new());
    }

    async fn open(&self, namespace: Option<&str>) -> Result<Stream, Status> {
        let (requests, outgoing) = mpsc::channel(16);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        if let Some(namespace) = namespace {
            request.metadata_mut().insert("namespace", namespace.parse().unwrap());
        }
        let responses = soon(self.client.clone().delta_aggregated_resources(request)).await?.into_inner();
        Ok(Stream { requests, responses })
    }

    /// A stream of a workload that asks for these endpoints and has acknowledged them.
    async fn stream(&self, workload: &str, names: &[String]) -> Stream {
        let mut stream = self.open(Some("default")).await.unwrap();
        stream.ask(Kind::Endpoints, names, Some(node("default", workload))).await;
        let response = stream.receive().await;
        assert_eq!(response.resources.len(), names.len());
        stream.acknowledge(&response).await;
        stream
    }

    fn applied(&self) -> Vec<u64> {
        self.server.proxies().iter().map(|proxy| proxy.applied_revision).collect()
    }
}

struct Stream {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Stream {
    async fn ask(&self, kind: Kind, names: &[String], node: Option<Node>) {
        let request = DeltaDiscoveryRequest {
            node,
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: names.to_vec(),
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(request).await.unwrap();
    }

    async fn next(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        soon(self.responses.message()).await
    }

    async fn receive(&mut self) -> DeltaDiscoveryResponse {
        self.next().await.unwrap().expect("the stream goes on")
    }

    async fn acknowledge(&self, response: &DeltaDiscoveryResponse) {
        let (type_url, response_nonce) = (response.type_url.clone(), response.nonce.clone());
        let request = DeltaDiscoveryRequest { type_url, response_nonce, ..DeltaDiscoveryRequest::default() };
        self.requests.send(request).await.unwrap();
    }

    async fn refused(&mut self) -> Status {
        self.next().await.expect_err("the stream is refused")
    }
}

#[tokio::test]
async fn one_changed_endpoint_reaches_exactly_the_streams_that_asked_for_it_exactly_once() {
    let world = |changed, everybody| {
        let services = (0..10).map(|i| endpoints(&format!("service-{i}"), if i == 3 { changed } else { 1 }));
        services.chain([endpoints("everybody", everybody)]).collect::<Vec<_>>()
    };
    let bench = Bench::synced(&world(1, 1)).await;
    let mut streams = Vec::new();
    for i in 0..50 {
        let names = [format!("service-{}", i % 10), "everybody".to_owned()];
        streams.push(bench.stream(&format!("workload-{i:02}"), &names).await);
    }
    until("all have applied the first revision", || bench.applied() == [1; 50]).await;

    let changed = world(2, 1);
    bench.publish(2, &changed);
    for stream in streams.iter_mut().skip(3).step_by(10) {
        let response = stream.receive().await;
        assert_eq!(response.summary(), "EDS +service-3");
        assert_eq!(response.resources[0].resource.as_ref().unwrap().value, changed[3].body);
        stream.acknowledge(&response).await;
    }
    until("all have applied the second revision", || bench.applied() == [2; 50]).await;

    // What comes next on every stream is the next change, so nothing else was sent in between.
    bench.publish(3, &world(2, 2));
    for stream in &mut streams {
        assert_eq!(stream.receive().await.summary(), "EDS +everybody");
    }
}

/// The node of a proxy that asks for what it uses.
fn asking(workload: &str) -> Node {
    Node { client_features: vec![names::ASKS_FOR_DESTINATIONS.to_owned()], ..node("default", workload) }
}

/// A service with this content at an address of its own.
fn service(index: usize, content: u32) -> [Resource; 3] {
    let listener = listener(&format!("outbound/service-{index}"), content);
    [destination(&format!("10.96.0.{index}:80"), 1), listener, endpoints(&format!("service-{index}"), content)]
}

/// What is for one workload alone, of each of these.
fn inbound(workloads: impl Iterator<Item = String>) -> BTreeMap<WorkloadKey, Own> {
    let own = |content| Own { account: "orders".into(), resources: vec![listener("inbound/80", content)] };
    workloads.zip(1..).map(|(workload, content)| (WorkloadKey::new("default", &workload), own(content))).collect()
}

impl Stream {
    /// Asks, and acknowledges the answer.
    async fn use_names(&mut self, kind: Kind, names: &[&str], node: Option<Node>) -> String {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        self.ask(kind, &names, node).await;
        let response = self.receive().await;
        self.acknowledge(&response).await;
        response.summary()
    }
}

#[tokio::test]
async fn a_proxy_that_asks_is_told_its_own_and_of_the_mesh_what_it_asks_for() {
    const PROXIES: usize = 30;
    let workload = |index| format!("workload-{index:02}");
    let own = || inbound((0..PROXIES).map(workload));
    let mesh = |changed, everybody| {
        let services = (0..10).flat_map(|index| service(index, if index == 3 { changed } else { 1 }));
        services.chain([route("everybody", everybody)]).collect::<Vec<_>>()
    };
    let bench = Bench::start(OPENING).await;
    bench.world.put(1, mesh(1, 1), own());
    let mut streams = Vec::new();
    for index in 0..PROXIES {
        let used = index % 10;
        let mut stream = bench.open(Some("default")).await.unwrap();
        let first = stream.use_names(Kind::Listener, &["*"], Some(asking(&workload(index)))).await;
        assert_eq!(first, "LDS +inbound/80");
        assert_eq!(stream.use_names(Kind::Cluster, &["*"], None).await, "CDS");
        let (address, listener) = (format!("10.96.0.{used}:80"), format!("outbound/service-{used}"));
        let (pod, endpoints) = (format!("10.96.0.{used}"), format!("service-{used}"));
        let told = stream.use_names(Kind::Destination, &[&address, &pod], None).await;
        assert_eq!(told, format!("Destination +{address} -{pod}"));
        assert_eq!(stream.use_names(Kind::Listener, &[&listener], None).await, format!("LDS +{listener}"));
        assert_eq!(stream.use_names(Kind::Endpoints, &[&endpoints], None).await, format!("EDS +{endpoints}"));
        assert_eq!(stream.use_names(Kind::Route, &["everybody"], None).await, "RDS +everybody");
        streams.push(stream);
    }
    until("all have applied the first revision", || bench.applied() == [1; PROXIES]).await;
    let (_, asked) = bench.server.proxy("default/workload-07").unwrap();
    let mut asked = asked.expect("it asks");
    asked.sort();
    let named = |kind, name: &str| (kind, Arc::from(name));
    let expected = [
        named(Kind::Endpoints, "service-7"),
        named(Kind::Listener, "outbound/service-7"),
        named(Kind::Route, "everybody"),
        named(Kind::Destination, "10.96.0.7"),
        named(Kind::Destination, "10.96.0.7:80"),
    ];
    assert_eq!(asked, expected);

    bench.world.put(2, mesh(2, 1), own());
    for stream in streams.iter_mut().skip(3).step_by(10) {
        for expected in ["EDS +service-3", "LDS +outbound/service-3"] {
            let response = stream.receive().await;
            assert_eq!(response.summary(), expected);
            stream.acknowledge(&response).await;
        }
    }
    // Those that do not use the service count as up to date all the same.
    until("all have applied the second revision", || bench.applied() == [2; PROXIES]).await;

    // What comes next on every stream is the next change: nothing was sent in between to who did not ask.
    bench.world.put(3, mesh(2, 2), own());
    for stream in &mut streams {
        assert_eq!(stream.receive().await.summary(), "RDS +everybody");
    }
}

#[tokio::test]
async fn an_address_of_nobody_is_answered_at_once_and_told_when_a_service_gets_it() {
    let bench = Bench::synced(&[]).await;
    let mut stream = bench.open(Some("default")).await.unwrap();
    let told = stream.use_names(Kind::Destination, &["10.96.0.1:80", "10.96.0.1"], Some(asking("orders-1"))).await;
    assert_eq!(told, "Destination -10.96.0.1 -10.96.0.1:80");
    bench.publish(2, &service(1, 1));
    assert_eq!(stream.receive().await.summary(), "Destination +10.96.0.1:80");
    bench.publish(3, &[]);
    assert_eq!(stream.receive().await.summary(), "Destination -10.96.0.1:80");
}

#[tokio::test]
async fn the_ports_of_another_workload_are_closed_to_a_proxy_that_names_them() {
    let bench = Bench::start(OPENING).await;
    let mut own = inbound(["orders-1".to_owned()].into_iter());
    let others =
        Own { account: "orders".into(), resources: vec![listener("inbound/5432", 1), cluster("inbound/5432", 1)] };
    own.insert(WorkloadKey::new("default", "db-0"), others);
    bench.world.put(1, Vec::new(), own);
    let mut stream = bench.open(Some("default")).await.unwrap();
    let told = stream.use_names(Kind::Listener, &["*", "inbound/5432"], Some(asking("orders-1"))).await;
    assert_eq!(told, "LDS +inbound/80 -inbound/5432");
    assert_eq!(stream.use_names(Kind::Cluster, &["inbound/5432"], None).await, "CDS -inbound/5432");
}

#[tokio::test]
async fn a_stream_without_an_identity_is_unauthenticated() {
    let bench = Bench::synced(&[]).await;
    let Err(status) = bench.open(None).await else { panic!("the stream is open") };
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_node_of_another_namespace_or_none_is_denied() {
    let bench = Bench::synced(&[cluster("a", 1)]).await;
    for node in [None, Some(node("default", "orders-1"))] {
        let mut stream = bench.open(Some("other")).await.unwrap();
        stream.ask(Kind::Cluster, &[], node).await;
        assert_eq!(stream.refused().await.code(), Code::PermissionDenied);
    }
    assert_eq!(bench.server.proxies(), []);
}

/// `orders-1` in the namespace `default`, with one listener of its own, as a workload of `account`.
fn orders_of(account: &str) -> BTreeMap<WorkloadKey, Own> {
    let own = Own { account: account.into(), resources: vec![listener("inbound/80", 1)] };
    BTreeMap::from([(WorkloadKey::new("default", "orders-1"), own)])
}

#[tokio::test]
async fn what_is_for_one_workload_is_told_to_its_own_service_account_alone() {
    // Who calls has the service account `orders`.
    for (account, is_told) in [("orders", true), ("frontend", false)] {
        let bench = Bench::start(OPENING).await;
        bench.world.put(1, vec![listener("l", 1)], orders_of(account));
        let mut stream = bench.open(Some("default")).await.unwrap();
        stream.ask(Kind::Listener, &[], Some(node("default", "orders-1"))).await;
        if is_told {
            assert_eq!(stream.receive().await.summary(), "LDS +inbound/80 +l");
            continue;
        }
        let status = stream.refused().await;
        assert_eq!(status.code(), Code::PermissionDenied);
        for part in ["default/orders-1", "`frontend`", "`orders`", "join token"] {
            assert!(status.message().contains(part), "{} lacks {part}", status.message());
        }
        assert_eq!(bench.server.proxies(), []);
    }
}

#[tokio::test]
async fn a_workload_that_comes_later_or_changes_hands_ends_the_streams_of_other_accounts() {
    for before in [BTreeMap::new(), orders_of("orders")] {
        let bench = Bench::start(OPENING).await;
        bench.world.put(1, vec![listener("l", 1)], before);
        let mut stream = bench.open(Some("default")).await.unwrap();
        stream.ask(Kind::Listener, &[], Some(node("default", "orders-1"))).await;
        let response = stream.receive().await;
        stream.acknowledge(&response).await;
        bench.world.put(2, vec![listener("l", 1)], orders_of("frontend"));
        assert_eq!(stream.refused().await.code(), Code::PermissionDenied);
    }
}

#[tokio::test]
async fn streams_wait_for_the_first_publication() {
    let bench = Bench::start(OPENING).await;
    let mut stream = bench.open(Some("default")).await.unwrap();
    stream.ask(Kind::Cluster, &[], Some(node("default", "orders-1"))).await;
    let early = timeout(Duration::from_millis(50), stream.responses.message()).await;
    assert!(early.is_err(), "answered before there was anything to say: {early:?}");
    bench.publish(1, &[cluster("a", 1)]);
    assert_eq!(stream.receive().await.summary(), "CDS +a");
}

#[tokio::test]
async fn streams_do_not_wait_for_ever() {
    let bench = Bench::start(Duration::from_millis(50)).await;
    let mut unsynced = bench.open(Some("default")).await.unwrap();
    unsynced.ask(Kind::Cluster, &[], Some(node("default", "orders-1"))).await;
    assert_eq!(unsynced.refused().await.code(), Code::Unavailable);
    let mut silent = bench.open(Some("default")).await.unwrap();
    assert_eq!(silent.refused().await.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn the_registry_tells_who_is_connected_and_how_far_they_are() {
    let bench = Bench::synced(&[cluster("a", 1)]).await;
    let mut stream = bench.open(Some("default")).await.unwrap();
    stream.ask(Kind::Cluster, &[], Some(node("default", "orders-1"))).await;
    let response = stream.receive().await;
    let proxies = bench.server.proxies();
    let [proxy] = &proxies[..] else { panic!("{proxies:?}") };
    assert_eq!((proxy.workload.as_str(), proxy.namespace.as_str()), ("default/orders-1", "default"));
    assert_eq!(proxy.spiffe_id, SpiffeId::workload("shop.local", "default", "orders"));
    assert_eq!((proxy.version.as_str(), proxy.admin.as_str()), ("0.2.0", "127.0.0.1:15000"));
    assert!(proxy.address.is_some_and(|address| address.ip().is_loopback()));
    assert_eq!((proxy.applied_revision, proxy.pending, &proxy.nack), (0, 1, &None));

    let mut news = bench.world.news();
    let (type_url, response_nonce) = (response.type_url, response.nonce);
    let error_detail = Some(weft_proto::discovery::Status { code: 13, message: "a: no".to_owned() });
    let refusal = DeltaDiscoveryRequest { type_url, response_nonce, error_detail, ..Default::default() };
    stream.requests.send(refusal).await.unwrap();
    until("the refusal shows", || bench.server.proxies()[0].nack.is_some()).await;
    let nack = bench.server.proxies().remove(0).nack.unwrap();
    assert!(nack.to_string().starts_with("Cluster: a: no (at "), "{nack}");
    assert_eq!(bench.applied(), [0]);
    until("the refusal is an answer", || bench.server.proxies()[0].answered_revision == 1).await;
    assert!(news.has_changed().unwrap(), "and news");
    news.mark_unchanged();
    let refused = bench.server.proxies().remove(0).refused;
    assert_eq!(refused[0].names.iter().map(|name| &**name).collect::<Vec<_>>(), ["a"]);

    bench.publish(2, &[cluster("a", 2)]);
    let response = stream.receive().await;
    stream.acknowledge(&response).await;
    until("the remedy is applied", || bench.applied() == [2]).await;
    assert_eq!(bench.server.proxies()[0].nack, None);
    assert_eq!(bench.server.proxies()[0].refused, []);

    drop(stream);
    until("the proxy has left", || bench.server.proxies().is_empty()).await;
    assert_eq!(bench.world.acknowledged("default/orders-1"), None);
}

#[tokio::test]
async fn a_client_that_does_not_read_finds_the_newest_state_and_not_the_history() {
    const REVISIONS: u64 = 40;
    let large = |revision: u64| {
        let stat_prefix = format!("{revision}-{}", "x".repeat(1 << 20));
        Resource::new(Kind::Listener.type_url(), "l", &Listener { stat_prefix, ..Listener::default() })
    };
    let bench = Bench::synced(&[large(1)]).await;
    let mut stream = bench.open(Some("default")).await.unwrap();
    stream.ask(Kind::Listener, &[], Some(node("default", "orders-1"))).await;
    until("the proxy is connected", || !bench.server.proxies().is_empty()).await;
    for revision in 2..=REVISIONS {
        bench.publish(revision, &[large(revision)]);
        // Repeated subscriptions would be answered each time, if the answers could leave.
        stream.ask(Kind::Listener, &["l".to_owned()], None).await;
    }
    let newest = large(REVISIONS).version;
    let mut received = 0;
    loop {
        let response = stream.receive().await;
        received += 1;
        if response.resources[0].version == *newest {
            break;
        }
    }
    assert!(received < REVISIONS / 2, "{received} responses of {REVISIONS} revisions");
}

#[tokio::test]
async fn a_client_of_the_whole_state_is_served_too() {
    let bench = Bench::synced(&[cluster("a", 1), listener("l", 1)]).await;
    let first = DiscoveryRequest {
        node: Some(node("default", "orders-1")),
        type_url: Kind::Listener.type_url().to_owned(),
        resource_names: vec!["l".to_owned()],
        ..DiscoveryRequest::default()
    };
    let (requests, outgoing) = mpsc::channel(16);
    requests.send(first).await.unwrap();
    let mut request = Request::new(ReceiverStream::new(outgoing));
    request.metadata_mut().insert("namespace", "default".parse().unwrap());
    let responses = soon(bench.client.clone().stream_aggregated_resources(request)).await.unwrap();
    let response = soon(responses.into_inner().message()).await.unwrap().unwrap();
    assert_eq!(response.summary(), "LDS +l");
}

#[tokio::test]
async fn streams_end_with_a_word_and_not_all_at_once_when_the_server_stops() {
    let (stop, stopping) = watch::channel(false);
    let bench = Bench::start_until(OPENING, Some(stopping)).await;
    bench.publish(1, &[endpoints("a", 1)]);
    let mut streams = Vec::new();
    for index in 0..FAREWELLS {
        streams.push(bench.stream(&format!("orders-{index}"), &["a".to_owned()]).await);
    }
    stop.send_replace(true);
    let ends = streams.iter_mut().map(async |stream| {
        let end = soon(stream.responses.message()).await.unwrap_err();
        assert_eq!(end.code(), Code::Unavailable, "{end:?}");
        clock::now()
    });
    let ends = futures_util::future::join_all(ends).await;
    let spread = *ends.iter().max().unwrap() - *ends.iter().min().unwrap();
    assert!(spread > FAREWELL / 2, "{spread:?}");
}
