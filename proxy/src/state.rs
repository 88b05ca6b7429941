//! Stage: route and balance. What the proxy knows now, and how news reaches it.
//!
//! One immutable [`Snapshot`] stands behind one pointer; it is compiled off the request path and swapped whole. The
//! endpoints of a cluster stand behind a pointer of their own, so that a change of endpoints rebuilds nothing else, and
//! what was learned about an endpoint, or about what a port speaks, survives every swap.

mod cluster;
mod demand;
mod destination;
mod detection;
mod peers;
mod snapshot;
mod store;

pub use cluster::{Cluster, Version};
pub use demand::{AskedSummary, Demand, InUse, Kind, Limits, Look, Unasked, Usage, names};
pub use detection::{DecidedBy, Detection};
pub use peers::PeersSummary;
pub use snapshot::{Listener, Snapshot};
pub use store::Store;

use weft_core::model::{ClusterSpec, DestinationSpec, EndpointSetSpec, ListenerSpec, RouteTableSpec};
use weft_core::names::{ClusterName, DestinationName, ListenerName, RouteName};

/// One step from the control plane: everything in it becomes visible together.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Change {
    pub listeners: Vec<ListenerSpec>,
    pub routes: Vec<RouteTableSpec>,
    pub clusters: Vec<ClusterSpec>,
    pub endpoints: Vec<EndpointSetSpec>,
    /// Who is behind addresses that were asked for.
    pub destinations: Vec<DestinationSpec>,
    pub removed_listeners: Vec<ListenerName>,
    pub removed_routes: Vec<RouteName>,
    pub removed_clusters: Vec<ClusterName>,
    pub removed_endpoints: Vec<ClusterName>,
    pub removed_destinations: Vec<DestinationName>,
}

#[cfg(test)]
mod tests;
