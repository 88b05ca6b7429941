//! What all that one connection carries has in common.

use std::net::SocketAddr;
use std::rc::Rc;

use weft_core::model::Direction;

use crate::failure::{Failure, Hop};
use crate::state::Cluster;
use crate::telemetry::Edge;
use crate::worker::Worker;

/// Where a connection came from and was going.
#[derive(Debug)]
pub struct Service<'a> {
    pub worker: &'a Rc<Worker>,
    pub direction: Direction,
    /// The listener of the connection; looked up again when the snapshot changed.
    pub destination: SocketAddr,
    /// Inbound: `NAMESPACE/SERVICE-ACCOUNT` of the caller.
    pub source: Option<&'a str>,
    /// Inbound: written as `x-forwarded-client-cert`.
    pub client_certificate: Option<&'a [u8]>,
}

impl Service<'_> {
    /// This proxy, as its answers name it.
    pub fn hop(&self) -> Hop<'_> {
        Hop { direction: self.direction, workload: &self.worker.workload }
    }

    /// Signals of what goes to `cluster` from this connection's source.
    pub fn edge(&self, cluster: &Cluster) -> Rc<Edge> {
        match self.source {
            Some(source) => self.worker.inbound_edge(cluster, source),
            None => Rc::new(cluster.edge.clone()),
        }
    }

    /// A failure as it is told. Beside the application, an endpoint that cannot be reached is the application; the proxy
    /// of the caller may then try another one.
    pub fn seen(&self, failure: Failure) -> Failure {
        match (self.direction, failure) {
            (Direction::Inbound, Failure::ConnectRefused | Failure::ConnectTimeout) => Failure::ApplicationUnreachable,
            _ => failure,
        }
    }
}
