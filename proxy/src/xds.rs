//! The proxy's xDS v3 client: how news from a control plane becomes a [`Change`](crate::state::Change).
//!
//! | module | does |
//! |---|---|
//! | [`decode`] | Envoy resources to the model, pure; the control plane checks what it compiled with it |
//! | [`session`] | the client side of a delta ADS stream, pure: messages in, messages and changes out |
//! | [`client`] | drives the session over gRPC: connects, reconnects, measures |
//! | [`backoff`] | how long to wait before the next attempt |
//! | [`last_good`] | what the session holds, on disk, for a start without a control plane |
//!
//! The data plane never depends on the stream: when it is lost, everything held stays in force, and a proxy
//! restarted meanwhile serves from its last good snapshot.

pub mod backoff;
pub mod client;
pub mod decode;
#[cfg(test)]
mod fixtures;
pub mod last_good;
pub mod session;

use std::fmt;

use weft_proto::names;

/// The types of resource the proxy reads, in the order in which it asks for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    Cluster,
    Endpoints,
    Listener,
    Routes,
    /// Our own: who is behind an address.
    Destination,
}

impl ResourceType {
    /// All types, in the order in which they are asked for: what is referred to comes before what refers to it.
    pub const ALL: [Self; 5] = [Self::Cluster, Self::Endpoints, Self::Listener, Self::Routes, Self::Destination];

    /// The type URL on the wire.
    pub fn url(self) -> &'static str {
        match self {
            Self::Cluster => names::CLUSTER,
            Self::Endpoints => names::ENDPOINTS,
            Self::Listener => names::LISTENER,
            Self::Routes => names::ROUTE,
            Self::Destination => names::DESTINATION,
        }
    }

    /// The type of a type URL; `None` for one the proxy does not read.
    pub fn from_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.url() == url)
    }

    /// Every resource of the type is wanted, not single names; of a proxy that asks for destinations every one of its own
    /// workload.
    pub fn is_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }

    /// What metrics and messages call it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Endpoints => "endpoints",
            Self::Listener => "listener",
            Self::Routes => "routes",
            Self::Destination => "destination",
        }
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
