//! The immutable picture a connection or request reads: listeners with their routes and clusters resolved.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weft_core::model::{Direction, ListenerSpec};
use weft_core::names::ClusterName;
use weft_core::route::RouteTable;
use weft_core::server_name::ServerNames;

use super::{Cluster, Detection, Usage};

/// Where connections to one address go.
#[derive(Debug)]
pub struct Listener {
    pub spec: ListenerSpec,
    /// For requests; `None` until the route configuration came.
    pub routes: Option<Arc<RouteTable<Arc<Cluster>>>>,
    /// For bytes; `None` until the cluster came.
    pub cluster: Option<Arc<Cluster>>,
    /// For TLS that is passed through by name; boxed, as few listeners do that.
    pub server_names: Option<Box<ServerNames<Arc<Cluster>>>>,
    /// What the port was seen to speak; `None` where that is declared.
    pub detection: Option<Arc<Detection>>,
    /// Given to requests that name no host.
    pub authority: Box<str>,
    /// Leads to where each connection was going: what it is for one of them is made when it comes.
    pub by_destination: bool,
    /// Whose connections, where what is not used is given up.
    pub usage: Option<Arc<Usage>>,
}

/// Everything in force at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts up with each snapshot of this process.
    pub version: u64,
    pub(super) outbound: HashMap<SocketAddr, Arc<Listener>>,
    /// By port: the workload may be reached by several addresses.
    pub(super) inbound: HashMap<u16, Arc<Listener>>,
    /// Of our own workload's ports that have none of their own.
    pub(super) any_inbound: Option<Arc<Listener>>,
    pub(super) clusters: Arc<HashMap<ClusterName, Arc<Cluster>>>,
}

impl Snapshot {
    /// The listener of an original destination.
    pub fn listener(&self, direction: Direction, destination: SocketAddr) -> Option<&Arc<Listener>> {
        match direction {
            Direction::Inbound => self.inbound.get(&destination.port()),
            Direction::Outbound => self.outbound.get(&unmapped(destination)),
        }
    }

    pub fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.get(name)
    }

    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.clusters.values()
    }

    /// Listeners of our own workload's ports, each of one of them.
    pub fn inbound(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.inbound.values()
    }

    pub fn listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.outbound.values().chain(self.inbound.values()).chain(&self.any_inbound)
    }
}

/// An IPv4 address inside an IPv6 one (`::ffff:a.b.c.d`) as what it is.
pub(super) fn unmapped(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
        ip @ IpAddr::V4(_) => ip,
    };
    SocketAddr::new(ip, address.port())
}
