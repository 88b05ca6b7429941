//! Where the requests of one connection go.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use weft_core::retry::RetryPolicy;

use super::Service;
use crate::failure::Failure;
use crate::state::{Cluster, Listener};
use crate::telemetry::{Edge, EdgeLabels};

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
            let snapshot = service.worker.store.load();
            // A listener that is gone keeps serving its established connections.
            if let Some(listener) = snapshot.listener(service.direction, service.destination) {
                self.listener = Arc::clone(listener);
            }
        }
    }

    /// What the route of a request says of it.
    ///
    /// # Errors
    /// [`Failure::NoRoute`], or [`Failure::NoCluster`].
    pub(super) fn route(&self, authority: &[u8], path: &[u8]) -> Result<Decision, Failure> {
        let routes = self.listener.routes.as_ref().ok_or(Failure::NoRoute)?;
        let route = routes.matches(authority, path).ok_or(Failure::NoRoute)?;
        let cluster = route.target().ok_or(Failure::NoCluster)?;
        Ok(Decision { cluster: Arc::clone(cluster), timeout: route.timeout(), retry: route.retry().cloned() })
    }

    /// The authority of a request that names none.
    pub(super) fn default_authority(&self) -> &[u8] {
        self.listener.authority.as_bytes()
    }

    /// Signals of what is refused before its route is known: those of the listener's service.
    pub(super) fn refusing(&mut self, service: &Service<'_>) -> Rc<Edge> {
        let routed = || self.listener.routes.as_ref().and_then(|routes| routes.targets().next());
        if let Some(cluster) = self.listener.cluster.as_ref().or_else(routed).cloned() {
            return self.edge(service, &cluster);
        }
        let source = service.source.map_or(service.worker.store.source(), |source| source).to_owned();
        let destination = self.listener.spec.name.to_string();
        Rc::new(Edge::new(EdgeLabels { direction: service.direction, source, destination }, service.source.is_some()))
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
