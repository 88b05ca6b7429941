//! A worker in a thread of its own, with listeners on loopback and a configuration the test writes.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::runtime::LocalOptions;
use tokio::sync::mpsc;
use weft_core::model::{
    ClusterSpec, Direction, EndpointHealth, EndpointSetSpec, EndpointSource, EndpointSpec, InboundTls, ListenerSpec,
    OutlierPolicy, PathMatch, Protocol, RouteSource, RouteSpec, RouteTableSpec, UpstreamProtocol, UpstreamTls,
    VirtualHostSpec,
};
use weft_core::names::{ServiceRef, SpiffeId};

use crate::accept::{self, Accepting};
use crate::state::{Change, Store};
use crate::tls::testing::TestRoot;
use crate::tls::{CredentialStore, Credentials};
use crate::worker::Worker;

/// How long a test waits for anything before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

type Job = Box<dyn FnOnce(&Rc<Worker>) + Send>;

/// A running worker; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct RunningWorker {
    pub(crate) address: SocketAddr,
    pub(crate) store: Arc<Store>,
    jobs: Option<mpsc::UnboundedSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl RunningWorker {
    /// A worker with one listener whose connections were all going to `destination`.
    pub(crate) fn start(direction: Direction, destination: SocketAddr, change: Change) -> Self {
        Self::start_with(direction, destination, change, Arc::new(CredentialStore::new()))
    }

    pub(crate) fn start_with(
        direction: Direction,
        destination: SocketAddr,
        change: Change,
        credentials: Arc<CredentialStore>,
    ) -> Self {
        Self::start_tuned(direction, destination, change, credentials, |_| {})
    }

    /// A worker that `tune` has changed before its first connection.
    pub(crate) fn start_tuned(
        direction: Direction,
        destination: SocketAddr,
        change: Change,
        credentials: Arc<CredentialStore>,
        tune: impl FnOnce(&mut Worker) + Send + 'static,
    ) -> Self {
        let store = Arc::new(Store::new("default/tester".to_owned()));
        store.apply(change);
        Self::start_knowing(store, direction, destination, credentials, tune)
    }

    /// A worker that knows what is in this store.
    pub(crate) fn start_knowing(
        store: Arc<Store>,
        direction: Direction,
        destination: SocketAddr,
        credentials: Arc<CredentialStore>,
        tune: impl FnOnce(&mut Worker) + Send + 'static,
    ) -> Self {
        let socket = accept::bind(([127, 0, 0, 1], 0).into(), 1).expect("loopback").remove(0);
        let address = socket.local_addr().expect("bound");
        let (jobs, mut to_do) = mpsc::unbounded_channel::<Job>();
        let thread_store = Arc::clone(&store);
        let thread = std::thread::spawn(move || {
            let local = LocalOptions::default();
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build_local(local).expect("a runtime");
            runtime.block_on(async {
                let chance = fastrand::Rng::with_seed(1);
                let mut worker = Worker::new(thread_store, credentials, vec![], None, chance);
                tune(&mut worker);
                let worker = Rc::new(worker);
                let listener = tokio::net::TcpListener::from_std(socket).expect("a listener");
                let accepting = Accepting { listener, direction, fixed: Some(destination) };
                tokio::task::spawn_local(accept::serve(Rc::clone(&worker), accepting, 1000));
                while let Some(job) = to_do.recv().await {
                    job(&worker);
                }
            });
        });
        Self { address, store, jobs: Some(jobs), thread: Some(thread) }
    }

    /// Runs `job` in the worker's thread and gives what it gave.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce(&Rc<Worker>) -> T + Send + 'static) -> T {
        let (send, receive) = std::sync::mpsc::channel();
        let job: Job = Box::new(move |worker| drop(send.send(job(worker))));
        assert!(self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok()), "the worker has ended");
        receive.recv_timeout(PATIENCE).expect("the worker answers")
    }

    /// Waits until `condition` holds in the worker.
    pub(crate) fn wait_until(&self, what: &str, condition: impl Fn(&Worker) -> bool + Send + Sync + 'static) {
        let condition = Arc::new(condition);
        let deadline = crate::clock::now() + PATIENCE;
        loop {
            let condition = Arc::clone(&condition);
            if self.run(move |worker| condition(worker)) {
                return;
            }
            assert!(crate::clock::now() < deadline, "waited in vain: {what}");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the worker listens");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }
}

impl Drop for RunningWorker {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Two proxies that trust each other: `shop` calls `orders` through both.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) outer: RunningWorker,
    pub(crate) inner: RunningWorker,
    pub(crate) mesh: Mesh,
}

impl Pair {
    /// `inbound` is what the inner one is told of its workload.
    pub(crate) fn start(inbound: Change) -> Self {
        let protocol = inbound.listeners[0].protocol;
        let mesh = Mesh::new();
        let inner = mesh.inner(inbound);
        let outer = mesh.outer(outbound(protocol, &[inner.address], Some(mesh.orders.clone())));
        Self { outer, inner, mesh }
    }
}

/// A root of trust and two identities.
pub(crate) struct Mesh {
    root: TestRoot,
    pub(crate) shop: SpiffeId,
    pub(crate) orders: SpiffeId,
}

impl Mesh {
    pub(crate) fn new() -> Self {
        let identity = |account| SpiffeId::workload("test.local", "default", account);
        Self { root: TestRoot::new(), shop: identity("shop"), orders: identity("orders") }
    }

    /// A proxy beside `shop`.
    pub(crate) fn outer(&self, change: Change) -> RunningWorker {
        RunningWorker::start_with(Direction::Outbound, destination(), change, self.credentials(&self.shop))
    }

    /// A proxy beside `shop`, whose connections were all going to `destination`.
    pub(crate) fn outer_at(&self, destination: SocketAddr, change: Change) -> RunningWorker {
        RunningWorker::start_with(Direction::Outbound, destination, change, self.credentials(&self.shop))
    }

    /// A proxy beside `orders`.
    pub(crate) fn inner(&self, change: Change) -> RunningWorker {
        RunningWorker::start_with(Direction::Inbound, destination(), change, self.credentials(&self.orders))
    }

    /// A proxy beside `orders`, whose connections were all going to `destination`.
    pub(crate) fn inner_at(&self, destination: SocketAddr, change: Change) -> RunningWorker {
        RunningWorker::start_with(Direction::Inbound, destination, change, self.credentials(&self.orders))
    }

    /// A further certificate of one of them.
    pub(crate) fn renewed(&self, identity: &SpiffeId) -> Credentials {
        self.root.credentials(identity)
    }

    fn credentials(&self, identity: &SpiffeId) -> Arc<CredentialStore> {
        let store = CredentialStore::new();
        store.publish(self.root.credentials(identity));
        Arc::new(store)
    }
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mesh")
    }
}

/// Where the test's service seems to be.
pub(crate) fn destination() -> SocketAddr {
    ([10, 96, 0, 1], 80).into()
}

/// A service of one port with these endpoints.
pub(crate) fn outbound(protocol: Protocol, endpoints: &[SocketAddr], identity: Option<SpiffeId>) -> Change {
    let cluster = "default/orders:80";
    Change {
        listeners: vec![ListenerSpec {
            name: "outbound/default/orders:80".into(),
            direction: Direction::Outbound,
            addresses: vec![destination()],
            protocol,
            tls: InboundTls::Strict,
            routes: (protocol != Protocol::Tcp).then(|| RouteSource::Named(cluster.into())),
            cluster: (protocol != Protocol::Http).then(|| cluster.into()),
            http: None,
            server_names: Vec::new(),
            detected: None,
        }],
        routes: vec![routes(cluster)],
        clusters: vec![ClusterSpec {
            name: cluster.into(),
            service: ServiceRef { namespace: "default".into(), name: "orders".into(), port: 80 },
            endpoints: EndpointSource::Discovered(cluster.into()),
            connect_timeout: Duration::from_secs(1),
            tls: identity.map(|identity| UpstreamTls { identities: vec![identity], exceptions: Box::default() }),
            protocol: UpstreamProtocol::default(),
            outlier: OutlierPolicy::default(),
        }],
        endpoints: vec![endpoint_set(cluster, endpoints)],
        ..Change::default()
    }
}

/// A workload's own port, with the application at `application`.
pub(crate) fn inbound(protocol: Protocol, tls: InboundTls, application: SocketAddr) -> Change {
    let cluster = "inbound/80";
    let EndpointSetSpec { endpoints, .. } = endpoint_set(cluster, &[application]);
    Change {
        listeners: vec![ListenerSpec {
            name: "inbound/80".into(),
            direction: Direction::Inbound,
            addresses: vec![destination()],
            protocol,
            tls,
            routes: (protocol != Protocol::Tcp).then(|| RouteSource::Inline(routes(cluster))),
            cluster: (protocol != Protocol::Http).then(|| cluster.into()),
            http: None,
            server_names: Vec::new(),
            detected: None,
        }],
        clusters: vec![ClusterSpec {
            name: cluster.into(),
            service: ServiceRef { namespace: "default".into(), name: "orders".into(), port: 80 },
            endpoints: EndpointSource::Static(endpoints),
            connect_timeout: Duration::from_secs(1),
            tls: None,
            protocol: UpstreamProtocol::default(),
            outlier: OutlierPolicy::default(),
        }],
        ..Change::default()
    }
}

pub(crate) fn endpoint_set(cluster: &str, endpoints: &[SocketAddr]) -> EndpointSetSpec {
    let endpoints = endpoints.iter().enumerate().map(|(index, &address)| EndpointSpec {
        address,
        workload: format!("default/orders-{index}").into(),
        health: EndpointHealth::Ready,
        transport: None,
    });
    EndpointSetSpec { name: cluster.into(), endpoints: endpoints.collect() }
}

fn routes(cluster: &str) -> RouteTableSpec {
    RouteTableSpec {
        name: cluster.into(),
        virtual_hosts: vec![VirtualHostSpec {
            domains: vec!["*".to_owned()],
            routes: vec![RouteSpec::new(PathMatch::Prefix("/".to_owned()), cluster)],
        }],
    }
}

/// A stand-in application.
#[derive(Debug)]
pub(crate) struct Application {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Application {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        listener.set_nonblocking(true).expect("a socket");
        Self { listener, address }
    }

    /// The next connection.
    pub(crate) fn accept(&self) -> TcpStream {
        self.accept_within(PATIENCE).expect("a connection")
    }

    /// The next connection, unless none comes for so long; 0 looks once.
    pub(crate) fn accept_within(&self, limit: Duration) -> Option<TcpStream> {
        let limit = PollTimeout::try_from(limit).expect("a short time");
        let mut waiting = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waiting, limit).expect("a socket to wait for") == 0 {
            return None;
        }
        let (stream, _) = self.listener.accept().expect("a connection");
        stream.set_nonblocking(false).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        Some(stream)
    }
}

/// An address on loopback where nobody listens, nor ever will: a port given back would soon be another test's.
pub(crate) fn nobody() -> SocketAddr {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("loopback");
    let address = socket.local_addr().expect("bound").as_socket().expect("an address");
    // Bound and not listening for as long as the tests run.
    std::mem::forget(socket);
    address
}
