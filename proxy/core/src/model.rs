//! What a proxy is told, as plain values: listeners, routes, clusters, endpoints.
//!
//! `weft-proxy` decodes xDS resources into these and the control plane calls the same decoder on what it
//! compiled, so both sides mean the same thing by a resource.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::detection::Verdict;
use crate::names::{ClusterName, ListenerName, RouteName, ServiceRef, SpiffeId, WorkloadName};
use crate::retry::RetryPolicy;

/// Which way a connection goes, seen from the workload beside the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    Inbound,
    Outbound,
}

/// What a service port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0 and 1.1, balanced and measured per request.
    Http,
    /// Bytes, balanced and measured per connection.
    Tcp,
    /// TLS of the applications' own, passed through to where the name in its ClientHello says; outbound only.
    Tls,
    /// Not declared: both sides are watched and the first speaker decides.
    Detect,
}

/// How a meshed inbound port treats plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InboundTls {
    /// Mutual TLS only; plaintext is refused.
    Strict,
    /// Mutual TLS or plaintext.
    Permissive,
}

/// Where connections of one service port, or of one local port, go.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerSpec {
    pub name: ListenerName,
    pub direction: Direction,
    /// Outbound: the virtual addresses of the service port. Inbound: the workload's own address and port.
    pub addresses: Vec<SocketAddr>,
    pub protocol: Protocol,
    /// Inbound only: how the port treats plaintext.
    pub tls: InboundTls,
    /// Requests (`Http`, `Detect`).
    pub routes: Option<RouteSource>,
    /// Bytes (`Tcp`, `Detect`).
    pub cluster: Option<ClusterName>,
    /// What it says of its clients' connections of HTTP; `None`: nothing.
    pub http: Option<Arc<HttpOptions>>,
    /// TLS by the name it asks for (`Tls`): the most exact name decides, whatever the order. No name stands twice.
    pub server_names: Vec<ServerNameSpec>,
    /// What the port was seen to speak elsewhere (`Detect`): a hint to begin with.
    pub detected: Option<Verdict>,
}

/// Waits and limits of a listener's clients, each in place of the proxy's own setting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpOptions {
    /// From the first byte of a request's head to its last.
    pub head_timeout: Option<Duration>,
    /// A request under way with no byte moved either way.
    pub stream_idle: Option<Duration>,
    /// A connection without a request under way.
    pub idle: Option<Duration>,
    /// Reading the rest of a request that is answered.
    pub linger: Option<Duration>,
    /// Age at which a connection takes no further request; none by default.
    pub connection_age: Option<Duration>,
    /// Requests a connection takes; as many as come by default.
    pub connection_requests: Option<u32>,
    pub head_bytes: Option<u32>,
    pub fields: Option<u32>,
    /// HTTP/2: streams that may be open at once.
    pub streams: Option<u32>,
    /// HTTP/2: bytes that may come before they are used, of one stream and of all.
    pub stream_window: Option<u32>,
    pub connection_window: Option<u32>,
    /// HTTP/2: a connection silent for the first is asked for a sign of life, and given up after the second.
    pub keepalive: Option<(Duration, Duration)>,
}

/// Where TLS connections for some names go, as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerNameSpec {
    /// Lower case: a whole name, or `*.example` for all below `example`. Empty: whatever nobody else names, which may ask
    /// for no name, or be no TLS.
    pub names: Vec<String>,
    /// At least one.
    pub clusters: Vec<WeightedCluster>,
}

/// A cluster and its share of the connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightedCluster {
    pub cluster: ClusterName,
    /// At least 1; the share is this of the sum.
    pub weight: u32,
}

/// Where a listener's routes come from.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteSource {
    /// Its own resource, subscribed by name.
    Named(RouteName),
    /// Within the listener.
    Inline(RouteTableSpec),
}

/// An ordered list of virtual hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteTableSpec {
    pub name: RouteName,
    pub virtual_hosts: Vec<VirtualHostSpec>,
}

/// Routes of some authorities.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualHostSpec {
    /// Authorities without port, lower case; `*` takes any, `*.example` any below `example`.
    pub domains: Vec<String>,
    pub routes: Vec<RouteSpec>,
}

/// One rule: the first whose match holds decides.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteSpec {
    pub path: PathMatch,
    pub cluster: ClusterName,
    /// From the request's head to the response's last byte; none by default, as a proxy cannot know
    /// how long a stream may take.
    pub timeout: Option<Duration>,
    /// Without one: once, on another endpoint, where no application can have acted or acting twice is the same as once.
    pub retry: Option<Arc<RetryPolicy>>,
}

impl RouteSpec {
    /// Requests of a path to one cluster, and nothing else said of them.
    pub fn new(path: PathMatch, cluster: impl Into<ClusterName>) -> Self {
        Self { path, cluster: cluster.into(), timeout: None, retry: None }
    }
}

/// How a route looks at the path (query excluded).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    Prefix(String),
    Exact(String),
}

/// A set of interchangeable endpoints and how to reach them.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterSpec {
    pub name: ClusterName,
    /// What metrics call it.
    pub service: ServiceRef,
    pub endpoints: EndpointSource,
    pub connect_timeout: Duration,
    /// `None`: plaintext (a local application, or a service outside the mesh).
    pub tls: Option<UpstreamTls>,
    /// What the endpoints speak, where they are applications.
    pub protocol: UpstreamProtocol,
    pub outlier: OutlierPolicy,
}

/// The version of HTTP an application is spoken to in.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamProtocol {
    #[default]
    Http1,
    Http2,
    /// What the client spoke.
    AsDownstream,
}

/// Where a cluster's endpoints come from.
#[derive(Debug, Clone, PartialEq)]
pub enum EndpointSource {
    /// An endpoint resource of this name.
    Discovered(ClusterName),
    /// Within the cluster.
    Static(Vec<EndpointSpec>),
}

/// Mutual TLS towards the endpoints of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The peer must present one of these.
    pub identities: Vec<SpiffeId>,
}

/// The endpoints of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSetSpec {
    pub name: ClusterName,
    pub endpoints: Vec<EndpointSpec>,
}

/// One address a cluster's traffic may go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSpec {
    pub address: SocketAddr,
    pub workload: WorkloadName,
    pub health: EndpointHealth,
}

/// Whether an endpoint takes new work, as its source says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndpointHealth {
    Ready,
    /// Finishes what it has, takes nothing new.
    Draining,
    Unhealthy,
}

/// When an endpoint is taken out for a while, and how far that may go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OutlierPolicy {
    /// Failures in a row that eject; 0 switches ejection off. 5, as in the field.
    pub consecutive_failures: u32,
    /// First ejection; doubles with each further one. 1 s: a restarted process is back quickly.
    pub base_ejection: Duration,
    /// Longest ejection. 60 s.
    pub max_ejection: Duration,
    /// Ejected endpoints never exceed this share of the cluster (computed after the ejection).
    /// 50 %: one of two may go, three of five may not.
    pub max_ejected_percent: u32,
}

impl Default for OutlierPolicy {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            base_ejection: Duration::from_secs(1),
            max_ejection: Duration::from_mins(1),
            max_ejected_percent: 50,
        }
    }
}

/// Connect timeout when nobody says otherwise: 10 s, usual in the field, hides dead nodes.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
