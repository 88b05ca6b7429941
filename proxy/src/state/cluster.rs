//! A cluster as the request path sees it: endpoints, how to reach them, and the signals of its edge.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use weft_core::balance::EndpointSet;
use weft_core::endpoint::Endpoint;
use weft_core::model::{
    ClusterSpec, Direction, EndpointHealth, EndpointSetSpec, EndpointSource, EndpointSpec, OutlierPolicy,
    UpstreamProtocol,
};
use weft_core::names::SpiffeId;

use crate::clock;
use crate::telemetry::{Edge, EdgeLabels};
use crate::tls::{Credentials, MeshClient, MeshProtocol};

/// Versions of HTTP, as far as they are spoken differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Http1,
    Http2,
}

/// A set of interchangeable endpoints and how to reach them.
#[derive(Debug)]
pub struct Cluster {
    pub spec: ClusterSpec,
    direction: Direction,
    /// `NAMESPACE/SERVICE-ACCOUNT` of our own workload.
    source: Arc<str>,
    /// Made when somebody calls: a proxy knows every service of the mesh and calls few.
    edge: OnceLock<Edge>,
    endpoints: ArcSwap<EndpointSet>,
    /// Boxed: clusters outside the mesh have none.
    tls: Option<Box<TlsConfigs>>,
}

impl Cluster {
    pub fn new(spec: ClusterSpec, direction: Direction, source: Arc<str>, endpoints: EndpointSet) -> Self {
        let tls = spec.tls.as_ref().map(|tls| Box::new(TlsConfigs::new(tls.identities.clone())));
        Self { direction, source, edge: OnceLock::new(), endpoints: ArcSwap::from_pointee(endpoints), tls, spec }
    }

    /// What a cluster whose endpoints are wherever connections were going is for one destination. `port` is what signals call
    /// it where the cluster says none.
    #[must_use]
    pub fn at(&self, direction: Direction, destination: SocketAddr, port: u16) -> Self {
        let endpoint = EndpointSpec {
            address: destination,
            workload: destination.to_string().as_str().into(),
            health: EndpointHealth::Ready,
            transport: None,
        };
        let mut spec = self.spec.clone();
        if spec.service.port == 0 {
            spec.service.port = port;
        }
        // Its only endpoint is never left out.
        spec.outlier = OutlierPolicy { consecutive_failures: 0, ..spec.outlier };
        let set = EndpointSetSpec { name: spec.name.clone(), endpoints: vec![endpoint] };
        let endpoints = EndpointSet::build(&set, spec.outlier, None, clock::now());
        spec.endpoints = EndpointSource::Static(set.endpoints);
        Self::new(spec, direction, Arc::clone(&self.source), endpoints)
    }

    /// Signals of requests from our own workload; inbound ones are measured by who calls.
    pub fn edge(&self) -> &Edge {
        self.edge.get_or_init(|| Edge::new(self.labels(), self.tls.is_some()))
    }

    /// Labels of those signals.
    pub fn labels(&self) -> EdgeLabels {
        EdgeLabels {
            direction: self.direction,
            source: self.source.to_string(),
            destination: self.spec.service.to_string(),
        }
    }

    pub fn endpoints(&self) -> arc_swap::Guard<Arc<EndpointSet>> {
        self.endpoints.load()
    }

    /// New endpoints; what is known of those that stay is kept.
    pub fn replace_endpoints(&self, spec: &EndpointSetSpec, now: Instant) {
        let set = EndpointSet::build(spec, self.spec.outlier, Some(&self.endpoints.load()), now);
        self.endpoints.store(Arc::new(set));
    }

    /// How to open a mesh connection; `None` when the cluster is plaintext.
    pub fn tls(&self, credentials: &Credentials, protocol: MeshProtocol) -> Option<Arc<MeshClient>> {
        self.tls.as_ref().map(|configs| configs.get(credentials, protocol))
    }

    /// What the endpoints are spoken to in, for a client that speaks `downstream`. A proxy of ours takes both: what the
    /// application wants is known beside it. Where some endpoints have a proxy and some have none, all are spoken to as
    /// those without: which of them it will be is not known when the request is written.
    pub fn version(&self, downstream: Version) -> Version {
        match self.spec.protocol {
            _ if self.is_meshed() => downstream,
            UpstreamProtocol::Http1 => Version::Http1,
            UpstreamProtocol::Http2 => Version::Http2,
            UpstreamProtocol::AsDownstream => downstream,
        }
    }

    /// Endpoints are applications that are spoken to in whatever version their client speaks.
    pub fn speaks_both(&self) -> bool {
        !self.is_meshed() && self.spec.protocol == UpstreamProtocol::AsDownstream
    }

    /// The loopback address to call our own application from, where it is called at another one: by that, capture tells
    /// such a call from one that our workload makes to its own service.
    pub fn caller(&self, application: SocketAddr) -> Option<IpAddr> {
        let is_elsewhere = self.direction == Direction::Inbound && !application.ip().to_canonical().is_loopback();
        let loopback = || -> IpAddr {
            if application.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
        };
        is_elsewhere.then(loopback)
    }

    /// All endpoints have a proxy of ours.
    pub fn is_meshed(&self) -> bool {
        self.spec.tls.as_ref().is_some_and(|tls| tls.exceptions.is_empty())
    }

    /// Whether this endpoint is reached by mutual TLS and has a proxy of ours. Never guessed, and never tried: its own
    /// labels say so, and where they say nothing it is.
    pub fn protects(&self, endpoint: &Endpoint) -> bool {
        self.spec.tls.as_ref().is_some_and(|tls| tls.protects(endpoint.transport()))
    }
}

/// TLS configurations of the current certificate, made on first use.
#[derive(Debug)]
struct TlsConfigs {
    identities: Vec<SpiffeId>,
    by_protocol: [ArcSwapOption<(u64, Arc<MeshClient>)>; 5],
}

impl TlsConfigs {
    fn new(identities: Vec<SpiffeId>) -> Self {
        Self { identities, by_protocol: Default::default() }
    }

    fn get(&self, credentials: &Credentials, protocol: MeshProtocol) -> Arc<MeshClient> {
        let slot = &self.by_protocol[protocol as usize];
        if let Some(cached) = &*slot.load()
            && cached.0 == credentials.generation
        {
            return Arc::clone(&cached.1);
        }
        let config = credentials.client_config(&self.identities, protocol.alpn());
        slot.store(Some(Arc::new((credentials.generation, Arc::clone(&config)))));
        config
    }
}
