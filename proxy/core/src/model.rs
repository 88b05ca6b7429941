//! What a proxy is told, as plain values: listeners, routes, clusters, endpoints.
//!
//! `weft-proxy` decodes xDS resources into these and the control plane calls the same decoder on what it
//! compiled, so both sides mean the same thing by a resource.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::detection::Verdict;
use crate::names::{ClusterName, DestinationName, ListenerName, RouteName, ServiceRef, SpiffeId, WorkloadName};
use crate::pattern::Pattern;
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

/// Who is behind an address that our workload calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationSpec {
    pub name: DestinationName,
    pub who: Who,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A port of a service: connections to it have this listener.
    Service(ListenerName),
    /// A workload of the mesh, at ports that no service has.
    Peer(PeerSpec),
}

/// A workload that is called by its own address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSpec {
    pub address: IpAddr,
    pub namespace: Arc<str>,
    /// Who must answer there.
    pub identity: SpiffeId,
    /// Ports that its proxy leaves alone.
    pub except: Box<[u16]>,
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

/// A cluster and its share of the connections or requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightedCluster {
    pub cluster: ClusterName,
    /// The share is this of the sum; 0 gets nothing.
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

/// One rule: the first that takes the request decides.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteSpec {
    /// What people call it; `None`: nothing.
    pub name: Option<Arc<str>>,
    pub path: PathMatch,
    /// What else must be true of the request.
    pub conditions: RequestConditions,
    /// Who shares the requests; at least one.
    pub clusters: Vec<WeightedCluster>,
    /// What a request gets whose cluster nobody described.
    pub missing: MissingCluster,
    /// From the request's head to the response's last byte; none by default, as a proxy cannot know
    /// how long a stream may take.
    pub timeout: Option<Duration>,
    /// Without one: once, on another endpoint, where no application can have acted or acting twice is the same as once.
    pub retry: Option<Arc<RetryPolicy>>,
}

impl RouteSpec {
    /// Requests of a path to one cluster, and nothing else said of them.
    pub fn new(path: PathMatch, cluster: impl Into<ClusterName>) -> Self {
        Self {
            name: None,
            path,
            conditions: RequestConditions::default(),
            clusters: vec![WeightedCluster { cluster: cluster.into(), weight: 1 }],
            missing: MissingCluster::default(),
            timeout: None,
            retry: None,
        }
    }
}

/// How a route looks at the path (query excluded).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// Whatever begins so, in the middle of a word too.
    Prefix(String),
    Exact(String),
    /// This path and what is below it: `/a` takes `/a`, `/a/` and `/a/b`, not `/ab`. It does not end in `/`.
    Segments(String),
    /// The whole path.
    Pattern(Pattern),
}

/// What must be true of a request beside its path: all of it. None of it holds for every request.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RequestConditions {
    /// By its exact name, as methods are (RFC 9110 section 9.1).
    pub method: Option<Box<str>>,
    pub headers: Vec<ValueMatch>,
    /// Parameters of the query, as they are written there: nothing is decoded.
    pub query: Vec<ValueMatch>,
}

impl RequestConditions {
    pub fn is_empty(&self) -> bool {
        self.method.is_none() && self.headers.is_empty() && self.query.is_empty()
    }
}

/// What must be true of a named value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueMatch {
    /// Of a header in lower case; `host` is the request's authority as it was sent.
    pub name: Box<str>,
    pub value: TextMatch,
}

/// What a text must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextMatch {
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
    /// The whole text.
    Pattern(Pattern),
    /// Anything, if it is there.
    Present,
    /// Nothing: it must not be there.
    Absent,
}

/// What is answered when a route leads to a cluster nobody described.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MissingCluster {
    /// 503: it may come yet.
    #[default]
    Unavailable,
    /// 404, as if there were no route.
    NotFound,
    /// 500: the route's author named no backend that is valid (Gateway API).
    NoBackend,
}

/// A set of interchangeable endpoints and how to reach them.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterSpec {
    pub name: ClusterName,
    /// What metrics call it.
    pub service: ServiceRef,
    pub endpoints: EndpointSource,
    pub connect_timeout: Duration,
    /// `None`: plaintext for all endpoints (a local application, or a service outside the mesh).
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
    /// Wherever a connection was going before it was captured.
    OriginalDestination,
    /// Any port of the addresses that an endpoint resource of this name has, but for some: a connection goes to the port it
    /// was for.
    AnyPort { endpoints: ClusterName, except: Box<[u16]> },
}

/// Mutual TLS towards the endpoints of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The peer must present one of these.
    pub identities: Vec<SpiffeId>,
    /// Endpoints that may be reached otherwise: of those whose labels an endpoint has, the first decides. None: mutual TLS.
    pub exceptions: Box<[TransportMatch]>,
}

impl UpstreamTls {
    /// Whether an endpoint with these labels is reached by mutual TLS. What nobody says to be plaintext is not.
    pub fn protects(&self, labels: Option<&TransportLabels>) -> bool {
        self.exceptions.iter().find(|rule| rule.takes(labels)).is_none_or(|rule| rule.is_protected)
    }
}

/// How endpoints with some labels are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportMatch {
    /// An endpoint must have all of them; none: every endpoint has.
    pub labels: Option<TransportLabels>,
    /// By mutual TLS, else in plaintext.
    pub is_protected: bool,
}

impl TransportMatch {
    fn takes(&self, labels: Option<&TransportLabels>) -> bool {
        let Some(wanted) = &self.labels else { return true };
        labels.is_some_and(|labels| wanted.0.iter().all(|label| labels.0.contains(label)))
    }
}

/// What an endpoint says of how it is reached: names and values, in order. Shared: endpoints mostly say the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransportLabels(Arc<[(Box<str>, Box<str>)]>);

impl TransportLabels {
    /// `None` when there are none.
    pub fn new(labels: impl IntoIterator<Item = (Box<str>, Box<str>)>) -> Option<Self> {
        let mut labels: Vec<_> = labels.into_iter().collect();
        labels.sort_unstable();
        (!labels.is_empty()).then(|| Self(labels.into()))
    }
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
    /// What its cluster's TLS looks at; most endpoints say nothing.
    pub transport: Option<TransportLabels>,
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
