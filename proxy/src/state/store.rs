//! Takes changes, keeps what was told, and publishes snapshots.

mod compile;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use weft_core::balance::EndpointSet;
use weft_core::model::{
    ClusterSpec, Direction, EndpointSetSpec, EndpointSource, InboundTls, ListenerSpec, Protocol, Who,
};
use weft_core::names::{ClusterName, ListenerName, RouteName};
use weft_core::route::RouteTable;

use super::destination::{Destinations, NamedPorts, at, at_port, undescribed};
use super::peers::{PeerClusters, PeerTable, PeersSummary};
use super::snapshot::unmapped;
use super::{Change, Cluster, Demand, Listener, Snapshot, Usage};
use crate::clock;

/// Listeners that are remembered of ports nobody described: callers of the mesh choose them.
const UNDECLARED: usize = 64;
/// Of ports that were described, at each address of our own.
const DESCRIBED: usize = 256;
/// Of other workloads' ports that no service has.
const PEERS: usize = 1024;

/// The current snapshot and the tables it is made from.
#[derive(Debug)]
pub struct Store {
    current: ArcSwap<Snapshot>,
    version: AtomicU64,
    tables: Mutex<Tables>,
    /// `NAMESPACE/SERVICE-ACCOUNT` of our own workload, for the signals of outbound edges.
    source: Arc<str>,
    /// Our own workload's ports where nobody described those that no service names: strict, and permissive.
    undescribed: [Arc<Listener>; 2],
    undeclared: Destinations,
    described: Destinations,
    peers: Destinations,
    peer_table: PeerTable,
    ports: NamedPorts,
    /// Where destinations are asked for.
    demand: Option<Demand>,
    /// Something else was seen on a port of our own workload.
    pub seen: Notify,
}

/// What was told, in the form in which it is used: a proxy knows every service of the mesh, and what it knows of one it
/// keeps once.
#[derive(Debug, Default)]
struct Tables {
    listeners: HashMap<ListenerName, Arc<Listener>>,
    routes: HashMap<RouteName, Arc<RouteTable<Arc<Cluster>>>>,
    /// Shared with the snapshot.
    clusters: Arc<HashMap<ClusterName, Arc<Cluster>>>,
    /// Endpoints that no cluster takes, or not yet. The others are in their clusters.
    endpoints: HashMap<ClusterName, EndpointSetSpec>,
    /// Clusters by the name of the endpoints they take, where that is not their own.
    takers: HashMap<ClusterName, Vec<ClusterName>>,
    /// Clusters of any port, which are not among the others.
    peers: PeerClusters,
    /// What is not used is given up.
    is_on_demand: bool,
}

impl Store {
    pub fn new(source: String) -> Self {
        let source: Arc<str> = source.into();
        let undescribed = |tls| Arc::new(undescribed(tls, &source));
        Self {
            current: ArcSwap::default(),
            version: AtomicU64::new(0),
            tables: Mutex::default(),
            undescribed: [undescribed(InboundTls::Strict), undescribed(InboundTls::Permissive)],
            undeclared: Destinations::new(UNDECLARED),
            described: Destinations::new(DESCRIBED),
            peers: Destinations::new(PEERS),
            peer_table: PeerTable::default(),
            ports: NamedPorts::default(),
            demand: None,
            source,
            seen: Notify::new(),
        }
    }

    /// The same of a proxy that asks for its destinations.
    pub fn on_demand(source: String, demand: Demand) -> Self {
        let store = Self::new(source);
        Self { demand: Some(demand), tables: Mutex::new(Tables { is_on_demand: true, ..Tables::default() }), ..store }
    }

    /// What was asked for; `None` where everything is known without.
    pub fn demand(&self) -> Option<&Demand> {
        self.demand.as_ref()
    }

    /// Whether a connection asks who is meant. It does where nobody is known, and where a workload is known by its address alone
    /// and nobody said yet whether a service has this port of it, as one without an address of its own has.
    pub fn must_ask(&self, destination: SocketAddr, is_known: bool) -> bool {
        let Some(demand) = &self.demand else { return false };
        let is_described = || self.load().listener(Direction::Outbound, unmapped(destination)).is_some();
        !is_known || !(is_described() || demand.is_answered(destination))
    }

    /// How the listener or the workload is used that an address leads to.
    pub fn usage(&self, destination: SocketAddr) -> Option<Arc<Usage>> {
        match self.load().listener(Direction::Outbound, destination) {
            Some(listener) => listener.usage.clone(),
            None => self.peer_table.usage(destination.ip()),
        }
    }

    /// The snapshot in force.
    pub fn load(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Changes when [`load`](Self::load) would give another snapshot.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// `NAMESPACE/SERVICE-ACCOUNT` of our own workload.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Where a connection of our own workload goes; `None` where nobody is known to be who could be meant.
    pub fn outbound(&self, destination: SocketAddr) -> Option<Arc<Listener>> {
        let (snapshot, destination) = (self.load(), unmapped(destination));
        if let Some(listener) = snapshot.listener(Direction::Outbound, destination) {
            return Some(self.described(listener, destination, &snapshot));
        }
        let base = self.peer_table.base(destination)?;
        let make = || at_port(&base, destination, &self.ports, &snapshot.clusters);
        Some(self.peers.listener(&base, destination, make))
    }

    /// Where a connection for our own workload goes. A port that nobody described has the listener of all such ports; where
    /// there is none, it treats plaintext as those that were described do, and takes none where none was.
    pub fn inbound(&self, destination: SocketAddr) -> Arc<Listener> {
        let (snapshot, destination) = (self.load(), unmapped(destination));
        if let Some(listener) = snapshot.listener(Direction::Inbound, destination) {
            return self.described(listener, destination, &snapshot);
        }
        let base = match &snapshot.any_inbound {
            Some(any) if !any.by_destination => return Arc::clone(any),
            Some(any) => any,
            None => {
                let is_permissive = snapshot.inbound().any(|listener| listener.spec.tls == InboundTls::Permissive);
                &self.undescribed[usize::from(is_permissive)]
            }
        };
        let make = || at_port(base, destination, &self.ports, &snapshot.clusters);
        self.undeclared.listener(base, destination, make)
    }

    /// The listener that is described for a destination, as connections that stand follow it; `None` where there is none any
    /// more, or where there never was one but that of all other ports.
    pub fn described_at(&self, direction: Direction, destination: SocketAddr) -> Option<Arc<Listener>> {
        let (snapshot, destination) = (self.load(), unmapped(destination));
        Some(self.described(snapshot.listener(direction, destination)?, destination, &snapshot))
    }

    fn described(&self, listener: &Arc<Listener>, destination: SocketAddr, snapshot: &Snapshot) -> Arc<Listener> {
        if !listener.by_destination {
            return Arc::clone(listener);
        }
        let make = || at(listener, destination, destination.port(), &snapshot.clusters);
        self.described.listener(listener, destination, make)
    }

    /// The clusters of any port, for people.
    pub fn peers(&self) -> Vec<PeersSummary> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).peers.summaries()
    }

    /// Puts a change in force. A change of endpoints alone makes no new snapshot.
    pub fn apply(&self, change: Change) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let only_endpoints = change.listeners.is_empty()
            && change.routes.is_empty()
            && change.clusters.is_empty()
            && change.removed_listeners.is_empty()
            && change.removed_routes.is_empty()
            && change.removed_clusters.is_empty();
        tables.take(change, &self.source, &self.peer_table);
        if !only_endpoints {
            let version = self.version() + 1;
            self.current.store(Arc::new(tables.compile(version)));
            self.version.store(version, Ordering::Release);
        }
    }
}

impl Tables {
    fn take(&mut self, change: Change, source: &Arc<str>, peer_table: &PeerTable) {
        for spec in change.destinations {
            if let Who::Peer(peer) = &spec.who {
                peer_table.insert(peer, source);
            }
        }
        for address in change.removed_destinations.iter().filter_map(|name| name.as_str().parse().ok()) {
            peer_table.remove(address);
        }
        for spec in change.endpoints {
            self.replace_endpoints(spec, peer_table);
        }
        for name in change.removed_endpoints {
            self.replace_endpoints(EndpointSetSpec { name, endpoints: Vec::new() }, peer_table);
        }
        for spec in change.clusters {
            self.replace_cluster(spec, source, peer_table);
        }
        for spec in change.routes {
            let resolve = |name: &ClusterName| self.clusters.get(name).cloned();
            let table = Arc::new(RouteTable::compile(&spec, resolve));
            self.routes.insert(spec.name, table);
        }
        for spec in change.listeners {
            self.replace_listener(spec);
        }
        for name in change.removed_listeners {
            self.listeners.remove(&name);
        }
        for name in change.removed_routes {
            self.routes.remove(&name);
        }
        for name in change.removed_clusters {
            self.remove_cluster(&name);
            self.peers.remove(&name, peer_table);
        }
    }

    /// The clusters that take the endpoints of this name.
    fn takers(&self, name: &ClusterName) -> impl Iterator<Item = &Arc<Cluster>> {
        let others = self.takers.get(name).into_iter().flatten().filter_map(|name| self.clusters.get(name));
        self.clusters.get(name).filter(|cluster| discovered(&cluster.spec) == Some(name)).into_iter().chain(others)
    }

    /// What was seen on the port stays known as long as nobody declares its protocol.
    fn replace_listener(&mut self, spec: ListenerSpec) {
        let known = self.listeners.remove(&spec.name);
        let usage = known.as_ref().and_then(|listener| listener.usage.clone());
        let is_used = self.is_on_demand && spec.direction == Direction::Outbound;
        let usage = is_used.then(|| usage.unwrap_or_else(|| Arc::new(Usage::new(clock::now()))));
        let known = known.and_then(|listener| listener.detection.clone());
        let detection = (spec.protocol == Protocol::Detect).then(|| known.unwrap_or_default());
        if let Some(detection) = &detection {
            detection.told(spec.detected);
        }
        let (name, authority) = (spec.name.clone(), authority(&spec));
        let listener = Listener {
            spec,
            routes: None,
            cluster: None,
            server_names: None,
            detection,
            authority,
            by_destination: false,
            usage,
        };
        self.listeners.insert(name, Arc::new(listener));
    }

    fn replace_endpoints(&mut self, spec: EndpointSetSpec, peer_table: &PeerTable) {
        let mut is_taken = self.peers.replace_endpoints(&spec, peer_table);
        for cluster in self.takers(&spec.name) {
            cluster.replace_endpoints(&spec, clock::now());
            is_taken = true;
        }
        if is_taken || spec.endpoints.is_empty() {
            self.endpoints.remove(&spec.name);
        } else {
            self.endpoints.insert(spec.name.clone(), spec);
        }
    }

    fn replace_cluster(&mut self, spec: ClusterSpec, source: &Arc<str>, peer_table: &PeerTable) {
        if self.peers.has(&spec) || self.clusters.get(&spec.name).is_some_and(|previous| previous.spec == spec) {
            return;
        }
        if let EndpointSource::AnyPort { endpoints, .. } = &spec.endpoints {
            self.remove_cluster(&spec.name);
            let told = self.discovered_endpoints(endpoints);
            return self.peers.insert(spec, &told, source, peer_table);
        }
        self.peers.remove(&spec.name, peer_table);
        let known = self.remove_cluster(&spec.name).map(|previous| Arc::clone(&previous.endpoints()));
        let (endpoints, direction) = match &spec.endpoints {
            EndpointSource::Static(endpoints) => {
                (EndpointSetSpec { name: spec.name.clone(), endpoints: endpoints.clone() }, Direction::Inbound)
            }
            EndpointSource::Discovered(name) => {
                if *name != spec.name {
                    self.takers.entry(name.clone()).or_default().push(spec.name.clone());
                }
                (self.discovered_endpoints(name), Direction::Outbound)
            }
            // None before somebody calls.
            EndpointSource::OriginalDestination | EndpointSource::AnyPort { .. } => {
                (EndpointSetSpec { name: spec.name.clone(), endpoints: Vec::new() }, Direction::Inbound)
            }
        };
        let set = EndpointSet::build(&endpoints, spec.outlier, known.as_deref(), clock::now());
        Arc::make_mut(&mut self.clusters)
            .insert(spec.name.clone(), Arc::new(Cluster::new(spec, direction, Arc::clone(source), set)));
    }

    /// What was told of the endpoints of this name, for a further cluster that takes them.
    fn discovered_endpoints(&mut self, name: &ClusterName) -> EndpointSetSpec {
        let untaken = self.endpoints.remove(name);
        let taken = || self.takers(name).next().map(|cluster| cluster.endpoints().spec());
        untaken.or_else(taken).unwrap_or_else(|| EndpointSetSpec { name: name.clone(), endpoints: Vec::new() })
    }

    /// What was told of its endpoints stays: they are removed by themselves.
    fn remove_cluster(&mut self, name: &ClusterName) -> Option<Arc<Cluster>> {
        if !self.clusters.contains_key(name) {
            return None;
        }
        let cluster = Arc::make_mut(&mut self.clusters).remove(name)?;
        if let Some(taken) = discovered(&cluster.spec) {
            if let Some(takers) = self.takers.get_mut(taken) {
                takers.retain(|taker| taker != name);
                if takers.is_empty() {
                    self.takers.remove(taken);
                }
            }
            let spec = EndpointSetSpec { name: taken.clone(), ..cluster.endpoints().spec() };
            if self.takers(taken).next().is_none() && !spec.endpoints.is_empty() {
                self.endpoints.insert(taken.clone(), spec);
            }
        }
        Some(cluster)
    }
}

/// The name of the endpoints that a cluster takes.
fn discovered(spec: &ClusterSpec) -> Option<&ClusterName> {
    match &spec.endpoints {
        EndpointSource::Discovered(name) => Some(name),
        // Those of any port are elsewhere.
        EndpointSource::Static(_) | EndpointSource::OriginalDestination | EndpointSource::AnyPort { .. } => None,
    }
}

/// `SERVICE:PORT` from `outbound/NAMESPACE/SERVICE:PORT`; other names as they are.
fn authority(spec: &ListenerSpec) -> Box<str> {
    spec.name.as_str().rsplit('/').next().unwrap_or_default().into()
}
