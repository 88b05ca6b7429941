//! End to end: the client against a small ADS server over loopback, killed and restarted like a process.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use weft_proto::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use weft_proto::discovery::{DiscoveryRequest, DiscoveryResponse};

use super::*;
use crate::xds::ResourceType::{Cluster, Endpoints, Listener, Routes};
use crate::xds::fixtures::control_plane::{Applied, ControlPlane};
use crate::xds::fixtures::{cluster, http_listener, one_endpoint, routes};

const SHOP: &str = "default/shop:80";
const OUT: &str = "outbound/default/shop:80";
const DEADLINE: Duration = Duration::from_secs(20);

/// What the server serves and what it was told; outlives the server.
#[derive(Clone)]
struct World {
    plane: Arc<Mutex<ControlPlane>>,
    requests: Arc<Mutex<Vec<DeltaDiscoveryRequest>>>,
    responses: Arc<Mutex<Vec<DeltaDiscoveryResponse>>>,
    revision: watch::Sender<u64>,
}

impl World {
    fn with_shop() -> Self {
        let mut plane = ControlPlane::default();
        plane.put(Cluster, SHOP, &cluster(SHOP));
        plane.put(Endpoints, SHOP, &one_endpoint(SHOP, 8080));
        plane.put(Listener, OUT, &http_listener(OUT, SHOP));
        plane.put(Routes, SHOP, &routes(SHOP, SHOP));
        Self {
            plane: Arc::new(Mutex::new(plane)),
            requests: Arc::default(),
            responses: Arc::default(),
            revision: watch::Sender::new(0),
        }
    }

    /// Another port for the shop's endpoint.
    fn move_endpoint(&self, port: u32) {
        self.plane.lock().unwrap().put(Endpoints, SHOP, &one_endpoint(SHOP, port));
        self.revision.send_modify(|revision| *revision += 1);
    }

    fn news(&self) -> Vec<DeltaDiscoveryResponse> {
        let mut plane = self.plane.lock().unwrap();
        let news: Vec<_> = ResourceType::ALL.into_iter().filter_map(|kind| plane.respond(kind)).collect();
        self.responses.lock().unwrap().extend(news.iter().cloned());
        news
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for World {
    type StreamAggregatedResourcesStream = Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;
    type DeltaAggregatedResourcesStream = Responses;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let (world, mut incoming) = (self.clone(), request.into_inner());
        let mut revision = self.revision.subscribe();
        let (sender, receiver) = mpsc::channel(16);
        world.plane.lock().unwrap().open();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    message = incoming.message() => {
                        let Ok(Some(request)) = message else { return };
                        world.requests.lock().unwrap().push(request.clone());
                        world.plane.lock().unwrap().request(&request);
                    }
                    changed = revision.changed() => if changed.is_err() { return },
                }
                for response in world.news() {
                    if sender.send(Ok(response)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Sends without end and reads nothing; counts its streams.
struct Deaf {
    streams: watch::Sender<usize>,
    /// Nobody reads them, but they stay open.
    unread: Mutex<Vec<Streaming<DeltaDiscoveryRequest>>>,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Deaf {
    type StreamAggregatedResourcesStream = Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;
    type DeltaAggregatedResourcesStream = Responses;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Responses>, Status> {
        self.unread.lock().unwrap().push(request.into_inner());
        self.streams.send_modify(|streams| *streams += 1);
        // A long nonce makes acknowledgements large, so that the peer's windows are soon full.
        let nonce = "n".repeat(16 << 10);
        let response = crate::xds::fixtures::response(Cluster, &nonce, vec![], &[]);
        Ok(Response::new(Box::pin(tokio_stream::iter(std::iter::repeat(Ok(response))))))
    }
}

/// A server with its own runtime, so that dropping it cuts every connection, as the death of a process does.
struct Server {
    runtime: Option<Runtime>,
    address: SocketAddr,
}

impl Server {
    fn start(world: &World) -> Self {
        Self::serve(world.clone())
    }

    fn serve(service: impl AggregatedDiscoveryService) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            let service = AggregatedDiscoveryServiceServer::new(service);
            let incoming = TcpListenerStream::new(listener);
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        let address = receiver.recv_timeout(DEADLINE).unwrap();
        Self { runtime: Some(runtime), address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// A running client and what it did.
struct Running {
    applied: Arc<Mutex<Applied>>,
    completed: watch::Receiver<bool>,
    /// Where the control plane is; `None`: nowhere.
    server: Arc<Mutex<Option<SocketAddr>>>,
    shutdown: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(state_file: Option<PathBuf>, server: Option<&Server>) -> Self {
        let applied = Arc::new(Mutex::new(Applied::default()));
        let server = Arc::new(Mutex::new(server.map(|server| server.address)));
        let (complete, completed) = watch::channel(false);
        let (shutdown, over) = watch::channel(false);
        let options = XdsOptions {
            node: Node { id: "default/shop-1".to_owned(), ..Default::default() },
            state_file,
            writes_state: watch::channel(true).1,
            asks: None,
            chance: fastrand::Rng::with_seed(1),
        };
        let (to_apply, to_connect) = (Arc::clone(&applied), Arc::clone(&server));
        let connect = move || {
            let address = *to_connect.lock().unwrap();
            async move {
                let address = address.ok_or("no control plane")?;
                Ok(Channel::from_shared(format!("http://{address}"))?.connect().await?)
            }
        };
        let task = tokio::spawn(run(
            options,
            connect,
            move |change| to_apply.lock().unwrap().apply(change),
            move || complete.send(true).unwrap(),
            over,
        ));
        Self { applied, completed, server, shutdown, task }
    }

    async fn is_complete(&mut self) {
        tokio::time::timeout(DEADLINE, self.completed.wait_for(|complete| *complete)).await.unwrap().unwrap();
    }

    fn endpoint_port(&self) -> Option<u16> {
        let applied = self.applied.lock().unwrap();
        match applied.resources.get(&(Endpoints, SHOP.to_owned())) {
            Some(crate::xds::decode::Decoded::Endpoints(set)) => Some(set.endpoints[0].address.port()),
            _ => None,
        }
    }

    async fn endpoint_is_at(&self, port: u16) {
        until(|| self.endpoint_port() == Some(port)).await;
    }

    async fn stop(self) {
        self.shutdown.send(true).unwrap();
        tokio::time::timeout(DEADLINE, self.task).await.unwrap().unwrap();
    }
}

async fn until(condition: impl Fn() -> bool) {
    let deadline = clock::now() + DEADLINE;
    while !condition() {
        assert!(clock::now() < deadline, "the condition did not come true within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_first_configuration_arrives_whole_and_news_after_it() {
    let world = World::with_shop();
    let server = Server::start(&world);
    let mut client = Running::start(None, Some(&server));
    client.is_complete().await;
    assert_eq!(client.applied.lock().unwrap().resources.len(), 4);
    world.move_endpoint(8081);
    client.endpoint_is_at(8081).await;
    client.stop().await;
}

#[tokio::test]
async fn a_new_control_plane_is_told_what_is_held_and_sends_only_what_is_new() {
    let world = World::with_shop();
    let server = Server::start(&world);
    let mut client = Running::start(None, Some(&server));
    client.is_complete().await;
    drop(server);
    world.requests.lock().unwrap().clear();
    world.responses.lock().unwrap().clear();
    world.plane.lock().unwrap().put(Endpoints, SHOP, &one_endpoint(SHOP, 9090));
    let server = Server::start(&world);
    *client.server.lock().unwrap() = Some(server.address);
    client.endpoint_is_at(9090).await;

    {
        let requests = world.requests.lock().unwrap();
        let told = requests.iter().filter(|request| !request.initial_resource_versions.is_empty()).count();
        assert_eq!(told, 4, "each type tells what is held: {requests:?}");
        let responses = world.responses.lock().unwrap();
        let sent: Vec<_> =
            responses.iter().flat_map(|response| &response.resources).map(|sent| sent.name.as_str()).collect();
        assert_eq!(sent, [SHOP], "only the endpoints changed");
    }
    client.stop().await;
}

#[tokio::test]
async fn a_proxy_starts_from_its_last_good_configuration_and_takes_news_later() {
    let directory = tempfile::tempdir().unwrap();
    let state_file = directory.path().join("last-good");
    let world = World::with_shop();
    let server = Server::start(&world);
    let mut first = Running::start(Some(state_file.clone()), Some(&server));
    first.is_complete().await;
    first.stop().await;
    drop(server);

    let mut second = Running::start(Some(state_file.clone()), None);
    second.is_complete().await;
    assert_eq!(second.endpoint_port(), Some(8080));
    assert_eq!(second.applied.lock().unwrap().resources.len(), 4);
    world.responses.lock().unwrap().clear();
    world.plane.lock().unwrap().put(Endpoints, SHOP, &one_endpoint(SHOP, 7070));
    let server = Server::start(&world);
    *second.server.lock().unwrap() = Some(server.address);
    second.endpoint_is_at(7070).await;
    let sent: usize = world.responses.lock().unwrap().iter().map(|response| response.resources.len()).sum();
    assert_eq!(sent, 1, "what was on disk is not sent again");
    second.stop().await;
}

#[tokio::test]
async fn the_file_follows_while_the_proxy_runs() {
    let directory = tempfile::tempdir().unwrap();
    let state_file = directory.path().join("last-good");
    let world = World::with_shop();
    let server = Server::start(&world);
    let mut client = Running::start(Some(state_file.clone()), Some(&server));
    client.is_complete().await;
    let bytes_of = |port| {
        let path = state_file.clone();
        let expected = one_endpoint(SHOP, port).endpoints[0].lb_endpoints[0].host_identifier.clone();
        move || {
            let Ok(Some(LastGood { resources, .. })) = last_good::read(&path, "default/shop-1", false) else {
                return false;
            };
            let Some(held) = resources.iter().find(|resource| resource.kind == Endpoints) else { return false };
            let set = crate::xds::decode::endpoints(&held.body).unwrap();
            expected.is_some() && u32::from(set.endpoints[0].address.port()) == port
        }
    };
    until(bytes_of(8080)).await;
    world.move_endpoint(8081);
    until(bytes_of(8081)).await;
    client.stop().await;
}

#[tokio::test]
async fn a_damaged_last_good_configuration_is_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let state_file = directory.path().join("last-good");
    std::fs::write(&state_file, "not a configuration").unwrap();
    let world = World::with_shop();
    let server = Server::start(&world);
    let mut client = Running::start(Some(state_file), Some(&server));
    client.is_complete().await;
    assert_eq!(client.endpoint_port(), Some(8080));
    client.stop().await;
}

#[tokio::test]
async fn many_deaths_of_the_control_plane_in_a_row_are_survived() {
    let world = World::with_shop();
    let server = Server::start(&world);
    let mut client = Running::start(None, Some(&server));
    client.is_complete().await;
    drop(server);
    for port in 9001..9006 {
        world.plane.lock().unwrap().put(Endpoints, SHOP, &one_endpoint(SHOP, u32::from(port)));
        let server = Server::start(&world);
        *client.server.lock().unwrap() = Some(server.address);
        client.endpoint_is_at(port).await;
    }
    client.stop().await;
}

#[tokio::test]
async fn a_response_far_above_the_usual_limit_is_read() {
    let world = World::with_shop();
    let mut large = http_listener(OUT, SHOP);
    large.stat_prefix = "x".repeat(6 << 20);
    world.plane.lock().unwrap().put(Listener, OUT, &large);
    let server = Server::start(&world);
    let mut client = Running::start(None, Some(&server));
    client.is_complete().await;
    client.stop().await;
}

#[tokio::test]
async fn a_control_plane_that_sends_but_never_reads_is_given_up_not_waited_for() {
    let (streams, mut seen) = watch::channel(0);
    let server = Server::serve(Deaf { streams, unread: Mutex::default() });
    let client = Running::start(None, Some(&server));
    tokio::time::timeout(DEADLINE, seen.wait_for(|streams| *streams >= 2)).await.unwrap().unwrap();
    client.stop().await;
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_control_plane_that_never_answers() {
    let (shutdown, over) = watch::channel(false);
    let options = XdsOptions {
        node: Node::default(),
        state_file: None,
        writes_state: watch::channel(true).1,
        asks: None,
        chance: fastrand::Rng::with_seed(1),
    };
    let task = tokio::spawn(run(options, std::future::pending, |_| {}, || {}, over));
    drop(shutdown);
    tokio::time::timeout(CONNECT_TIMEOUT / 2, task).await.unwrap().unwrap();
}
