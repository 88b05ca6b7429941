//! Takes changes, keeps what was told, and publishes snapshots.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use weft_core::balance::EndpointSet;
use weft_core::model::{
    ClusterSpec, Direction, EndpointSetSpec, EndpointSource, ListenerSpec, Protocol, RouteSource, RouteTableSpec,
};
use weft_core::names::{ClusterName, ListenerName, RouteName};
use weft_core::route::RouteTable;
use weft_core::server_name::ServerNames;

use super::snapshot::unmapped;
use super::{Change, Cluster, Detection, Listener, Snapshot};
use crate::clock;

/// The current snapshot and the tables it is made from.
#[derive(Debug)]
pub struct Store {
    current: ArcSwap<Snapshot>,
    version: AtomicU64,
    tables: Mutex<Tables>,
    /// `NAMESPACE/SERVICE-ACCOUNT` of our own workload, for the signals of outbound edges.
    source: String,
    /// Something else was seen on a port of our own workload.
    pub seen: Notify,
}

#[derive(Debug, Default)]
struct Tables {
    listeners: HashMap<ListenerName, (ListenerSpec, Option<Arc<Detection>>)>,
    routes: HashMap<RouteName, RouteTableSpec>,
    endpoints: HashMap<ClusterName, EndpointSetSpec>,
    clusters: HashMap<ClusterName, Arc<Cluster>>,
}

impl Store {
    pub fn new(source: String) -> Self {
        Self {
            current: ArcSwap::default(),
            version: AtomicU64::new(0),
            tables: Mutex::default(),
            source,
            seen: Notify::new(),
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

    /// Puts a change in force. A change of endpoints alone makes no new snapshot.
    pub fn apply(&self, change: Change) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let only_endpoints = change.listeners.is_empty()
            && change.routes.is_empty()
            && change.clusters.is_empty()
            && change.removed_listeners.is_empty()
            && change.removed_routes.is_empty()
            && change.removed_clusters.is_empty();
        tables.take(change, &self.source);
        if !only_endpoints {
            let version = self.version() + 1;
            self.current.store(Arc::new(tables.compile(version)));
            self.version.store(version, Ordering::Release);
        }
    }
}

impl Tables {
    fn take(&mut self, change: Change, source: &str) {
        for spec in change.endpoints {
            self.replace_endpoints(spec);
        }
        for name in change.removed_endpoints {
            self.replace_endpoints(EndpointSetSpec { name, endpoints: Vec::new() });
        }
        for spec in change.clusters {
            self.replace_cluster(spec, source);
        }
        self.routes.extend(change.routes.into_iter().map(|spec| (spec.name.clone(), spec)));
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
            self.clusters.remove(&name);
        }
        let clusters = &self.clusters;
        self.endpoints.retain(|name, set| {
            !set.endpoints.is_empty()
                || clusters.values().any(|c| matches!(&c.spec.endpoints, EndpointSource::Discovered(n) if n == name))
        });
    }

    /// What was seen on the port stays known as long as nobody declares its protocol.
    fn replace_listener(&mut self, spec: ListenerSpec) {
        let known = self.listeners.remove(&spec.name).and_then(|(_, detection)| detection);
        let detection = (spec.protocol == Protocol::Detect).then(|| known.unwrap_or_default());
        if let Some(detection) = &detection {
            detection.told(spec.detected);
        }
        self.listeners.insert(spec.name.clone(), (spec, detection));
    }

    fn replace_endpoints(&mut self, spec: EndpointSetSpec) {
        for cluster in self.clusters.values() {
            if matches!(&cluster.spec.endpoints, EndpointSource::Discovered(name) if *name == spec.name) {
                cluster.replace_endpoints(&spec, clock::now());
            }
        }
        self.endpoints.insert(spec.name.clone(), spec);
    }

    fn replace_cluster(&mut self, spec: ClusterSpec, source: &str) {
        let previous = self.clusters.get(&spec.name);
        if previous.is_some_and(|previous| previous.spec == spec) {
            return;
        }
        let endpoints = match &spec.endpoints {
            EndpointSource::Static(endpoints) => {
                EndpointSetSpec { name: spec.name.clone(), endpoints: endpoints.clone() }
            }
            EndpointSource::Discovered(name) => self
                .endpoints
                .get(name)
                .cloned()
                .unwrap_or_else(|| EndpointSetSpec { name: name.clone(), endpoints: Vec::new() }),
        };
        let known = previous.map(|previous| Arc::clone(&previous.endpoints()));
        let set = EndpointSet::build(&endpoints, spec.outlier, known.as_deref(), clock::now());
        let direction = match &spec.endpoints {
            EndpointSource::Static(_) => Direction::Inbound,
            EndpointSource::Discovered(_) => Direction::Outbound,
        };
        let name = spec.name.clone();
        self.clusters.insert(name, Arc::new(Cluster::new(spec, direction, source, set)));
    }

    fn compile(&self, version: u64) -> Snapshot {
        let resolve = |name: &ClusterName| self.clusters.get(name).cloned();
        let tables: HashMap<&RouteName, Arc<RouteTable<Arc<Cluster>>>> =
            self.routes.iter().map(|(name, spec)| (name, Arc::new(RouteTable::compile(spec, resolve)))).collect();
        let mut snapshot = Snapshot { version, clusters: self.clusters.clone(), ..Snapshot::default() };
        for (spec, detection) in self.listeners.values() {
            let routes = match &spec.routes {
                Some(RouteSource::Named(name)) => tables.get(name).cloned(),
                Some(RouteSource::Inline(table)) => Some(Arc::new(RouteTable::compile(table, resolve))),
                None => None,
            };
            let cluster = spec.cluster.as_ref().and_then(resolve);
            let server_names = ServerNames::compile(&spec.server_names, resolve);
            let listener = Arc::new(Listener {
                authority: authority(spec),
                routes,
                cluster,
                server_names,
                detection: detection.clone(),
                spec: spec.clone(),
            });
            for &address in &spec.addresses {
                match spec.direction {
                    Direction::Outbound => snapshot.outbound.insert(unmapped(address), Arc::clone(&listener)),
                    Direction::Inbound => snapshot.inbound.insert(address.port(), Arc::clone(&listener)),
                };
            }
        }
        snapshot
    }
}

/// `SERVICE:PORT` from `outbound/NAMESPACE/SERVICE:PORT`; other names as they are.
fn authority(spec: &ListenerSpec) -> Box<str> {
    spec.name.as_str().rsplit('/').next().unwrap_or_default().into()
}
