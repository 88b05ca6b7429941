//! Stage: route and balance. What the proxy knows now, and how news reaches it.
//!
//! One immutable [`Snapshot`] stands behind one pointer; it is compiled off the request path and swapped whole. The
//! endpoints of a cluster stand behind a pointer of their own, so that a change of endpoints rebuilds nothing else, and
//! what was learned about an endpoint, or about what a port speaks, survives every swap.

mod cluster;
mod destination;
mod detection;
mod peers;
mod snapshot;
mod store;

pub use cluster::{Cluster, Version};
pub use detection::{DecidedBy, Detection};
pub use peers::PeersSummary;
pub use snapshot::{Listener, Snapshot};
pub use store::Store;

use weft_core::model::{ClusterSpec, EndpointSetSpec, ListenerSpec, RouteTableSpec};
use weft_core::names::{ClusterName, ListenerName, RouteName};

/// One step from the control plane: everything in it becomes visible together.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Change {
    pub listeners: Vec<ListenerSpec>,
    pub routes: Vec<RouteTableSpec>,
    pub clusters: Vec<ClusterSpec>,
    pub endpoints: Vec<EndpointSetSpec>,
    pub removed_listeners: Vec<ListenerName>,
    pub removed_routes: Vec<RouteName>,
    pub removed_clusters: Vec<ClusterName>,
    pub removed_endpoints: Vec<ClusterName>,
}

#[cfg(test)]
mod tests;
