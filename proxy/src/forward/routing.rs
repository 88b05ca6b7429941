//! Where the requests of one connection go.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use weft_core::model::MissingCluster;
use weft_core::names::ClusterName;
use weft_core::retry::RetryPolicy;
use weft_core::route::{Request, Route};

use super::Service;
use crate::failure::{Failed, Failure};
use crate::http1;
use crate::http2;
use crate::state::{Cluster, Listener};
use crate::telemetry::{Edge, EdgeLabels};

impl Request for http1::RequestHead<'_, '_> {
    fn authority(&self) -> &[u8] {
        self.authority
    }

    fn path(&self) -> &[u8] {
        self.path()
    }

    fn query(&self) -> Option<&[u8]> {
        self.query()
    }

    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }

    fn values<'r>(&'r self, name: &'r str) -> impl Iterator<Item = &'r [u8]> {
        self.values(name)
    }
}

impl Request for http2::RequestHead<'_> {
    fn authority(&self) -> &[u8] {
        self.authority
    }

    fn path(&self) -> &[u8] {
        self.path()
    }

    fn query(&self) -> Option<&[u8]> {
        self.query()
    }

    fn method(&self) -> &[u8] {
        // What the handshake is in HTTP/1.
        if self.is_websocket { b"GET" } else { self.method.as_bytes() }
    }

    fn values<'r>(&'r self, name: &'r str) -> impl Iterator<Item = &'r [u8]> {
        self.values(name)
    }
}

/// What a route says of a request.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) cluster: Arc<Cluster>,
    pub(super) timeout: Option<Duration>,
    pub(super) retry: Option<Arc<RetryPolicy>>,
}

/// Routes of the connection's listener, and the signals resolved last.
#[derive(Debug)]
pub(super) struct Routing {
    version: u64,
    listener: Arc<Listener>,
    edge: Option<(Arc<Cluster>, Rc<Edge>)>,
}

impl Routing {
    pub(super) fn new(service: &Service<'_>, listener: Arc<Listener>) -> Self {
        Self { version: service.worker.store.version(), listener, edge: None }
    }

    pub(super) fn into_listener(self) -> Arc<Listener> {
        self.listener
    }

    /// Follows the snapshot: a request sees the newest routes even on an old connection.
    pub(super) fn refresh(&mut self, service: &Service<'_>) {
        let version = service.worker.store.version();
        if version != self.version {
            self.version = version;
            // A listener that is gone keeps serving its established connections.
            if let Some(listener) = service.worker.store.described_at(service.direction, service.destination) {
                self.listener = listener;
            }
        }
    }

    /// What the route of a request says of it. Where several clusters share the route one is drawn, for all tries.
    ///
    /// # Errors
    /// [`Failure::NoRoute`], or that the route leads nowhere.
    pub(super) fn route(&self, service: &Service<'_>, request: &impl Request) -> Result<Decision, Failed> {
        let routes = self.listener.routes.as_ref().ok_or(Failure::NoRoute)?;
        let route = routes.matches(request).ok_or(Failure::NoRoute)?;
        let picked = route.split().pick(|bound| service.worker.chance(|chance| chance.u64(..bound)));
        let Some((_, Some(cluster))) = picked else {
            return Err(leads_nowhere(route, picked.map(|(cluster, _)| cluster)));
        };
        Ok(Decision { cluster: Arc::clone(cluster), timeout: route.timeout(), retry: route.retry().cloned() })
    }

    /// The authority of a request that names none.
    pub(super) fn default_authority(&self) -> &[u8] {
        self.listener.authority.as_bytes()
    }

    /// Signals of what is refused before it is known who gets it: those of the listener's service.
    pub(super) fn refusing(&mut self, service: &Service<'_>) -> Rc<Edge> {
        if let Some(cluster) = self.own_cluster(service) {
            return self.edge(service, &cluster);
        }
        let source = service.source.map_or(service.worker.store.source(), |source| source).to_owned();
        let destination = self.listener.spec.name.to_string();
        Rc::new(Edge::new(EdgeLabels { direction: service.direction, source, destination }, service.source.is_some()))
    }

    /// The cluster of the listener's service, which routes may pass by. Theirs are called as it is.
    fn own_cluster(&self, service: &Service<'_>) -> Option<Arc<Cluster>> {
        if let Some(cluster) = &self.listener.cluster {
            return Some(Arc::clone(cluster));
        }
        let routes = self.listener.routes.as_ref()?;
        let snapshot = service.worker.store.load();
        snapshot.cluster(routes.name().as_str()).or_else(|| routes.targets().next()).cloned()
    }

    /// Signals of requests to `cluster` from this connection.
    pub(super) fn edge(&mut self, service: &Service<'_>, cluster: &Arc<Cluster>) -> Rc<Edge> {
        match &self.edge {
            Some((known, edge)) if Arc::ptr_eq(known, cluster) => Rc::clone(edge),
            _ => {
                let edge = service.edge(cluster);
                self.edge = Some((Arc::clone(cluster), Rc::clone(&edge)));
                edge
            }
        }
    }
}

/// How a request fails whose route has nobody to send it to. `cluster`: the one nobody described.
fn leads_nowhere<T>(route: &Route<T>, cluster: Option<&ClusterName>) -> Failed {
    let failure = match (route.missing(), cluster) {
        (_, None) | (MissingCluster::NoBackend, _) => Failure::NoBackend,
        (MissingCluster::Unavailable, _) => Failure::NoCluster,
        (MissingCluster::NotFound, _) => Failure::NoRoute,
    };
    let route = route.name().map(|name| format!("route {name}"));
    let cluster = cluster.map(|cluster| format!("cluster {cluster}"));
    failure.with(route.into_iter().chain(cluster).collect::<Vec<_>>().join(", "))
}
