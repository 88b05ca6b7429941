//! Which resources a resource needs.

use std::collections::BTreeSet;
use std::sync::Arc;

use weft_core::model::{Direction, EndpointSource, ListenerSpec, RouteSource, RouteTableSpec, Who};
use weft_core::names::ClusterName;

use crate::xds::decode::Decoded;

/// What a resource names.
#[derive(Debug, Default)]
pub(super) struct References {
    /// The endpoint set of a cluster, the route table of a listener, or the listener of a destination.
    pub(super) resource: Option<Arc<str>>,
    /// Clusters a listener or a route table sends to.
    pub(super) clusters: Box<[Arc<str>]>,
}

impl References {
    pub(super) fn is_empty(&self) -> bool {
        self.resource.is_none() && self.clusters.is_empty()
    }
}

/// What it names.
pub(super) fn references(decoded: &Decoded) -> References {
    match decoded {
        Decoded::Cluster(spec) => match &spec.endpoints {
            EndpointSource::Discovered(name) | EndpointSource::AnyPort { endpoints: name, .. } => {
                References { resource: Some(name.shared()), clusters: Box::default() }
            }
            EndpointSource::Static(_) | EndpointSource::OriginalDestination => References::default(),
        },
        Decoded::Listener(spec) => listener_references(spec),
        Decoded::Routes(spec) => References { resource: None, clusters: route_clusters(spec).into() },
        Decoded::Endpoints(_) => References::default(),
        Decoded::Destination(spec) => match &spec.who {
            Who::Service(listener) => References { resource: Some(listener.shared()), clusters: Box::default() },
            Who::Peer(_) => References::default(),
        },
    }
}

/// Whether it is for our own workload alone: no other proxy has listeners of its ports, and the endpoints of their clusters
/// are not discovered.
pub(in crate::xds::session) fn is_own(decoded: &Decoded) -> bool {
    match decoded {
        Decoded::Listener(spec) => spec.direction == Direction::Inbound,
        Decoded::Cluster(spec) => {
            matches!(spec.endpoints, EndpointSource::Static(_) | EndpointSource::OriginalDestination)
        }
        Decoded::Routes(_) | Decoded::Endpoints(_) | Decoded::Destination(_) => false,
    }
}

fn listener_references(spec: &ListenerSpec) -> References {
    let mut references = References::default();
    let mut clusters = Vec::new();
    match &spec.routes {
        Some(RouteSource::Named(name)) => references.resource = Some(name.shared()),
        Some(RouteSource::Inline(table)) => clusters = route_clusters(table),
        None => {}
    }
    let by_name = spec.server_names.iter().flat_map(|names| &names.clusters).map(|weighted| &weighted.cluster);
    clusters.extend(spec.cluster.iter().chain(by_name).map(ClusterName::shared));
    references.clusters = clusters.into();
    references
}

fn route_clusters(table: &RouteTableSpec) -> Vec<Arc<str>> {
    let routes = table.virtual_hosts.iter().flat_map(|host| &host.routes);
    let shares = routes.flat_map(|route| &route.clusters);
    let clusters: BTreeSet<Arc<str>> = shares.map(|weighted| weighted.cluster.shared()).collect();
    clusters.into_iter().collect()
}
