//! What the proxy knows now, and how news reaches it.

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
