//! A worker in a thread of its own, with listeners on loopback and a configuration the test writes.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::task::LocalSet;
use weft_core::model::{
    ClusterSpec, Direction, EndpointHealth, EndpointSetSpec, EndpointSource, EndpointSpec, InboundTls, ListenerSpec,
    OutlierPolicy, PathMatch, Protocol, RouteSource, RouteSpec, RouteTableSpec, UpstreamTls, VirtualHostSpec,
};
use weft_core::names::{ServiceRef, SpiffeId};

use crate::accept::{self, Accepting};
use crate::state::{Change, Store};
use crate::tls::CredentialStore;
use crate::worker::Worker;

/// How long a test waits for anything before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running worker; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct RunningWorker {
    pub(crate) address: SocketAddr,
    pub(crate) store: Arc<Store>,
    pub(crate) credentials: Arc<CredentialStore>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
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
        let store = Arc::new(Store::new("default/tester".to_owned()));
        store.apply(change);
        let socket = accept::bind(([127, 0, 0, 1], 0).into(), 1).expect("loopback").remove(0);
        let address = socket.local_addr().expect("bound");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (thread_store, thread_credentials) = (Arc::clone(&store), Arc::clone(&credentials));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            LocalSet::new().block_on(&runtime, async {
                let chance = fastrand::Rng::with_seed(1);
                let worker = Rc::new(Worker::new(thread_store, thread_credentials, vec![], None, chance));
                let listener = tokio::net::TcpListener::from_std(socket).expect("a listener");
                let accepting = Accepting { listener, direction, fixed: Some(destination) };
                tokio::task::spawn_local(accept::serve(worker, accepting, 1000));
                let _ = stopped.await;
            });
        });
        Self { address, store, credentials, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the worker listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }
}

impl Drop for RunningWorker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
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
        }],
        routes: vec![routes(cluster)],
        clusters: vec![ClusterSpec {
            name: cluster.into(),
            service: ServiceRef { namespace: "default".into(), name: "orders".into(), port: 80 },
            endpoints: EndpointSource::Discovered(cluster.into()),
            connect_timeout: Duration::from_secs(1),
            tls: identity.map(|identity| UpstreamTls { identities: vec![identity] }),
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
        }],
        clusters: vec![ClusterSpec {
            name: cluster.into(),
            service: ServiceRef { namespace: "default".into(), name: "orders".into(), port: 80 },
            endpoints: EndpointSource::Static(endpoints),
            connect_timeout: Duration::from_secs(1),
            tls: None,
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
    });
    EndpointSetSpec { name: cluster.into(), endpoints: endpoints.collect() }
}

fn routes(cluster: &str) -> RouteTableSpec {
    RouteTableSpec {
        name: cluster.into(),
        virtual_hosts: vec![VirtualHostSpec {
            domains: vec!["*".to_owned()],
            routes: vec![RouteSpec { path: PathMatch::Prefix("/".to_owned()), cluster: cluster.into(), timeout: None }],
        }],
    }
}

/// A listener on loopback for a stand-in application.
pub(crate) fn application() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}
