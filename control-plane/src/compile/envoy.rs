//! Envoy's messages as Weft writes them, encoded. Nothing here decides: it is the rendering alone.
//!
//! Encoding must be deterministic, since versions are hashes of it. Maps of the generated types iterate in random
//! order, so a map with more than one key goes through [`ClusterMetadata`], which is sorted.

mod policy;
pub(in crate::compile) mod routes;
mod server_names;
mod transport;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use bytes::Bytes;
use prost::Message;
use weft_core::detection::Verdict;
use weft_core::names::SpiffeId;
use weft_proto::envoy::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy,
};
use weft_proto::envoy::envoy::config::cluster::v3::{Cluster, OutlierDetection};
use weft_proto::envoy::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use weft_proto::envoy::envoy::config::core::v3::socket_address::PortSpecifier;
use weft_proto::envoy::envoy::config::core::v3::transport_socket::ConfigType as SocketConfig;
use weft_proto::envoy::envoy::config::core::v3::{
    self as core, AggregatedConfigSource, ApiVersion, ConfigSource, HealthStatus, Locality, Metadata, SocketAddress,
    TrafficDirection, TransportSocket,
};
use weft_proto::envoy::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use weft_proto::envoy::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as EndpointMessage, LbEndpoint, LocalityLbEndpoints,
};
use weft_proto::envoy::envoy::config::listener::v3::filter::ConfigType as FilterConfig;
use weft_proto::envoy::envoy::config::listener::v3::{
    AdditionalAddress, Filter, FilterChain, FilterChainMatch, Listener,
};
use weft_proto::envoy::envoy::config::route::v3::route::Action;
use weft_proto::envoy::envoy::config::route::v3::route_action::ClusterSpecifier as RouteCluster;
use weft_proto::envoy::envoy::config::route::v3::route_match::PathSpecifier;
use weft_proto::envoy::envoy::config::route::v3::{Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost};
use weft_proto::envoy::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use weft_proto::envoy::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType as HttpFilterConfig;
use weft_proto::envoy::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds,
};
use weft_proto::envoy::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use weft_proto::envoy::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier as TcpCluster;
use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, SubjectAltNameMatcher,
    TlsParameters, UpstreamTlsContext,
};
use weft_proto::envoy::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use weft_proto::envoy::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use weft_proto::envoy::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use weft_proto::envoy::envoy::r#type::matcher::v3::StringMatcher;
use weft_proto::envoy::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use weft_proto::envoy::google::protobuf::value::Kind as ValueKind;
use weft_proto::envoy::google::protobuf::{Any, BoolValue, Duration, ListValue, Struct, UInt32Value, Value};
use weft_proto::names;

use crate::document::{Protocol, Retries, Timeouts};

pub(super) use server_names::NamedChain;

/// What metadata says of a cluster.
pub(super) struct ServiceFacts<'a> {
    pub(super) namespace: &'a str,
    pub(super) service: &'a str,
    pub(super) port: u16,
}

/// Where a listener is, at least one address.
#[derive(Clone, Copy)]
pub(super) struct Address<'a> {
    pub(super) first: SocketAddr,
    pub(super) additional: &'a [SocketAddr],
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the workload beside the proxy, in plaintext.
    Outbound,
    /// To it, by mutual TLS, and in plaintext too where that is permitted.
    Inbound { permissive: bool },
}

/// One endpoint of an assignment.
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    pub(super) health: Health,
    /// `NAMESPACE/NAME`; `None` outside the mesh.
    pub(super) workload: Option<String>,
    /// It has a proxy of ours. Without one it is reached in plaintext.
    pub(super) meshed: bool,
}

/// How the endpoints of a service are reached.
#[derive(Clone, Copy)]
pub(super) enum Protection<'a> {
    /// All in plaintext: a service outside the mesh.
    Plaintext,
    /// By mutual TLS, from whoever is one of these.
    Mutual(&'a [SpiffeId]),
    /// By mutual TLS, but for the endpoints that have no proxy.
    Mixed(&'a [SpiffeId]),
}

#[derive(Clone, Copy)]
pub(super) enum Health {
    Healthy,
    Draining,
    Unhealthy,
}

/// A listener that hands requests or bytes to one cluster; outbound requests by the routes of the cluster's name, TLS by
/// the name it asks for where `by_name` says how. What its port was seen to speak is a hint to our proxies, in metadata
/// others pass over.
pub(super) fn listener(
    name: &str,
    address: Address<'_>,
    protocol: Protocol,
    cluster: &str,
    direction: Direction,
    by_name: &[NamedChain],
    verdict: Option<Verdict>,
) -> Bytes {
    let plain = if by_name.is_empty() { chains(protocol, cluster, direction) } else { server_names::chains(by_name) };
    let filter_chains = match direction {
        Direction::Outbound => plain,
        Direction::Inbound { permissive: false } => plain.into_iter().map(with_tls).collect(),
        Direction::Inbound { permissive: true } => {
            let tls = plain.iter().cloned().map(with_tls).map(|chain| for_transport(chain, "tls"));
            let raw = plain.iter().cloned().map(|chain| for_transport(chain, "raw_buffer"));
            tls.chain(raw).collect()
        }
    };
    let additional = |address: &SocketAddr| AdditionalAddress {
        address: Some(socket_address(*address)),
        ..AdditionalAddress::default()
    };
    let traffic_direction = match direction {
        Direction::Outbound => TrafficDirection::Outbound,
        Direction::Inbound { .. } => TrafficDirection::Inbound,
    };
    encode(&Listener {
        name: name.to_owned(),
        address: Some(socket_address(address.first)),
        additional_addresses: address.additional.iter().map(additional).collect(),
        filter_chains,
        listener_filters: if by_name.is_empty() { Vec::new() } else { vec![server_names::tls_inspector()] },
        // The proxy's own listeners take the redirected connections; these only say what happens to them.
        bind_to_port: Some(BoolValue { value: false }),
        traffic_direction: traffic_direction as i32,
        metadata: verdict.map(|verdict| fact(names::DETECTED, verdict.name())),
        ..Listener::default()
    })
}

/// The filter chains before anything is said of TLS.
fn chains(protocol: Protocol, cluster: &str, direction: Direction) -> Vec<FilterChain> {
    let http = || FilterChain { filters: vec![http_filter(cluster, direction)], ..FilterChain::default() };
    let tcp = || FilterChain { filters: vec![tcp_filter(cluster)], ..FilterChain::default() };
    match protocol {
        Protocol::Http | Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => vec![http()],
        Protocol::Tcp | Protocol::Tls => vec![tcp()],
        Protocol::Auto => {
            let is_http =
                FilterChainMatch { application_protocols: vec!["http/1.1".to_owned()], ..FilterChainMatch::default() };
            vec![FilterChain { filter_chain_match: Some(is_http), ..http() }, tcp()]
        }
    }
}

fn with_tls(chain: FilterChain) -> FilterChain {
    let context = DownstreamTlsContext {
        require_client_certificate: Some(BoolValue { value: true }),
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(tls_parameters()),
            // Whatever a peer's proxy says it carries; which chain takes it, the filters decide.
            alpn_protocols: [names::ALPN_HTTP1, names::ALPN_HTTP2, names::ALPN_TCP, names::ALPN_DETECT]
                .map(alpn)
                .into(),
            tls_certificate_sds_secret_configs: vec![secret(names::IDENTITY_SECRET)],
            validation_context_type: Some(ValidationContextType::ValidationContextSdsSecretConfig(secret(
                names::BUNDLE_SECRET,
            ))),
            ..CommonTlsContext::default()
        }),
        ..DownstreamTlsContext::default()
    };
    FilterChain { transport_socket: Some(tls_socket(names::DOWNSTREAM_TLS, &context)), ..chain }
}

fn for_transport(mut chain: FilterChain, transport: &str) -> FilterChain {
    transport.clone_into(&mut chain.filter_chain_match.get_or_insert_default().transport_protocol);
    chain
}

fn http_filter(cluster: &str, direction: Direction) -> Filter {
    let routes = match direction {
        Direction::Outbound => {
            RouteSpecifier::Rds(Rds { route_config_name: cluster.to_owned(), config_source: Some(over_ads()) })
        }
        Direction::Inbound { .. } => RouteSpecifier::RouteConfig(routes(cluster, cluster)),
    };
    let router = Any { type_url: names::ROUTER.to_owned(), value: Vec::new() };
    let manager = HttpConnectionManager {
        stat_prefix: cluster.to_owned(),
        route_specifier: Some(routes),
        http_filters: vec![HttpFilter {
            name: "envoy.filters.http.router".to_owned(),
            config_type: Some(HttpFilterConfig::TypedConfig(router)),
            ..HttpFilter::default()
        }],
        ..HttpConnectionManager::default()
    };
    Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(FilterConfig::TypedConfig(any(names::HTTP_CONNECTION_MANAGER, &manager))),
    }
}

fn tcp_filter(cluster: &str) -> Filter {
    tcp_filter_to(cluster, TcpCluster::Cluster(cluster.to_owned()))
}

fn tcp_filter_to(statistics: &str, cluster: TcpCluster) -> Filter {
    let proxy =
        TcpProxy { stat_prefix: statistics.to_owned(), cluster_specifier: Some(cluster), ..TcpProxy::default() };
    Filter {
        name: "envoy.filters.network.tcp_proxy".to_owned(),
        config_type: Some(FilterConfig::TypedConfig(any(names::TCP_PROXY, &proxy))),
    }
}

/// Routes that send everything to one cluster.
pub(super) fn route_configuration(
    name: &str,
    cluster: &str,
    timeouts: Option<Timeouts>,
    retries: Option<&Retries>,
) -> Bytes {
    let mut routes = routes(name, cluster);
    for route in routes.virtual_hosts.iter_mut().flat_map(|host| &mut host.routes) {
        if let Some(Action::Route(action)) = &mut route.action {
            let timeouts = timeouts.unwrap_or_default();
            if let Some(request) = timeouts.request {
                action.timeout = Some(policy::duration(request.duration()));
            }
            action.retry_policy = policy::retries(timeouts.per_try, retries);
        }
    }
    encode(&routes)
}

fn routes(name: &str, cluster: &str) -> RouteConfiguration {
    let action = RouteAction {
        cluster_specifier: Some(RouteCluster::Cluster(cluster.to_owned())),
        // None: left out, Envoy would take 15 s.
        timeout: Some(Duration::default()),
        ..RouteAction::default()
    };
    let all = RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..RouteMatch::default() };
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: "all".to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![Route { r#match: Some(all), action: Some(Action::Route(action)), ..Route::default() }],
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    }
}

/// A cluster whose endpoints come by their own resource.
pub(super) fn discovered_cluster(
    name: &str,
    facts: &ServiceFacts<'_>,
    protocol: Protocol,
    protection: Protection<'_>,
) -> Bytes {
    let (identities, transport_socket_matches) = match protection {
        Protection::Plaintext => (None, Vec::new()),
        Protection::Mutual(identities) => (Some(identities), Vec::new()),
        Protection::Mixed(identities) => (Some(identities), vec![transport::plaintext_match()]),
    };
    let cluster = Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(over_ads()), service_name: String::new() }),
        lb_policy: LbPolicy::LeastRequest as i32,
        outlier_detection: Some(OutlierDetection {
            consecutive_5xx: Some(UInt32Value { value: 5 }),
            base_ejection_time: Some(seconds(1)),
            max_ejection_time: Some(seconds(60)),
            max_ejection_percent: Some(UInt32Value { value: 50 }),
            ..OutlierDetection::default()
        }),
        // What is said of no endpoint in particular: mutual TLS.
        transport_socket: identities.map(|identities| upstream_tls(identities, protocol)),
        transport_socket_matches,
        ..cluster_of(name, protocol)
    };
    encode_with_facts(&cluster, facts)
}

/// A cluster of one address that needs no discovery: the application beside the proxy.
pub(super) fn static_cluster(name: &str, address: SocketAddr, facts: &ServiceFacts<'_>, protocol: Protocol) -> Bytes {
    let endpoint = Endpoint { address, health: Health::Healthy, workload: None, meshed: false };
    let cluster = Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        load_assignment: Some(load_assignment(name, &[endpoint], false)),
        ..cluster_of(name, protocol)
    };
    encode_with_facts(&cluster, facts)
}

/// A cluster whose one endpoint is wherever the connection was going: the application beside the proxy, at the address that
/// was called.
pub(super) fn original_destination_cluster(name: &str, facts: &ServiceFacts<'_>, protocol: Protocol) -> Bytes {
    let cluster = Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32)),
        lb_policy: LbPolicy::ClusterProvided as i32,
        ..cluster_of(name, protocol)
    };
    encode_with_facts(&cluster, facts)
}

/// A cluster for any port of its endpoints' addresses but some. They come by their own resource.
pub(super) fn any_port_cluster(name: &str, facts: &ServiceFacts<'_>, except: &[u16], identity: &SpiffeId) -> Bytes {
    let cluster = Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(over_ads()), service_name: String::new() }),
        transport_socket: Some(upstream_tls(std::slice::from_ref(identity), Protocol::Auto)),
        ..cluster_of(name, Protocol::Auto)
    };
    let except = except.iter().map(|port| number(*port)).collect();
    let except = Value { kind: Some(ValueKind::ListValue(ListValue { values: except })) };
    let any_port = Value { kind: Some(ValueKind::BoolValue(true)) };
    encode_with(&cluster, facts, [(names::ANY_PORT, any_port), (names::EXCEPT_PORTS, except)])
}

fn cluster_of(name: &str, protocol: Protocol) -> Cluster {
    Cluster {
        name: name.to_owned(),
        connect_timeout: Some(seconds(1)),
        typed_extension_protocol_options: protocol_options(protocol),
        ..Cluster::default()
    }
}

/// The version of HTTP an application is spoken to in: where nobody says otherwise its client's, as it was before it had a
/// proxy.
fn protocol_options(protocol: Protocol) -> HashMap<String, Any> {
    let one = core::Http1ProtocolOptions::default;
    let two = core::Http2ProtocolOptions::default;
    let explicit =
        |config| UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) });
    let options = match protocol {
        Protocol::Tcp | Protocol::Tls => return HashMap::new(),
        Protocol::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(one())),
        Protocol::Http2 | Protocol::Grpc => explicit(ProtocolConfig::Http2ProtocolOptions(two())),
        Protocol::Http | Protocol::Auto => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(one()),
                http2_protocol_options: Some(two()),
                ..UseDownstreamHttpConfig::default()
            })
        }
    };
    let options = HttpProtocolOptions { upstream_protocol_options: Some(options), ..HttpProtocolOptions::default() };
    let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned();
    HashMap::from([(name, any(names::HTTP_PROTOCOL_OPTIONS, &options))])
}

fn upstream_tls(identities: &[SpiffeId], protocol: Protocol) -> TransportSocket {
    let exact = |identity: &SpiffeId| StringMatcher {
        match_pattern: Some(MatchPattern::Exact(identity.as_str().to_owned())),
        ..StringMatcher::default()
    };
    let typed = |identity: &SpiffeId| SubjectAltNameMatcher {
        san_type: SanType::Uri as i32,
        matcher: Some(exact(identity)),
        ..SubjectAltNameMatcher::default()
    };
    // gRPC's clients read the older field alone.
    #[allow(deprecated)]
    let names_of_peer = CertificateValidationContext {
        match_typed_subject_alt_names: identities.iter().map(typed).collect(),
        match_subject_alt_names: identities.iter().map(exact).collect(),
        ..CertificateValidationContext::default()
    };
    #[allow(deprecated)]
    let combined = CombinedCertificateValidationContext {
        default_validation_context: Some(names_of_peer),
        validation_context_sds_secret_config: Some(secret(names::BUNDLE_SECRET)),
        ..CombinedCertificateValidationContext::default()
    };
    // Our own proxies say what they carry without being told; others could not be understood at the far end.
    let carried = match protocol {
        Protocol::Http | Protocol::Http1 => names::ALPN_HTTP1,
        Protocol::Http2 | Protocol::Grpc => names::ALPN_HTTP2,
        Protocol::Tcp | Protocol::Tls => names::ALPN_TCP,
        Protocol::Auto => names::ALPN_DETECT,
    };
    let context = UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(tls_parameters()),
            alpn_protocols: vec![alpn(carried)],
            tls_certificate_sds_secret_configs: vec![secret(names::IDENTITY_SECRET)],
            validation_context_type: Some(ValidationContextType::CombinedValidationContext(combined)),
            ..CommonTlsContext::default()
        }),
        ..UpstreamTlsContext::default()
    };
    tls_socket(names::UPSTREAM_TLS, &context)
}

/// The endpoints of a cluster; an empty assignment when there are none.
pub(super) fn assignment(name: &str, endpoints: &[Endpoint], protection: Protection<'_>) -> Bytes {
    encode(&load_assignment(name, endpoints, matches!(protection, Protection::Mixed(_))))
}

/// `is_mixed`: each endpoint has to say whether it is an exception.
fn load_assignment(name: &str, endpoints: &[Endpoint], is_mixed: bool) -> ClusterLoadAssignment {
    let locality = LocalityLbEndpoints {
        // gRPC refuses a locality without the message.
        locality: Some(Locality::default()),
        lb_endpoints: endpoints.iter().map(|endpoint| lb_endpoint(endpoint, is_mixed)).collect(),
        load_balancing_weight: Some(UInt32Value { value: 1 }),
        ..LocalityLbEndpoints::default()
    };
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: if endpoints.is_empty() { Vec::new() } else { vec![locality] },
        ..ClusterLoadAssignment::default()
    }
}

fn lb_endpoint(endpoint: &Endpoint, is_mixed: bool) -> LbEndpoint {
    let health = match endpoint.health {
        Health::Healthy => HealthStatus::Healthy,
        Health::Draining => HealthStatus::Draining,
        Health::Unhealthy => HealthStatus::Unhealthy,
    };
    // One or the other: whoever has a proxy is known by name.
    let metadata = match &endpoint.workload {
        _ if is_mixed && !endpoint.meshed => Some(transport::plaintext()),
        workload => workload.as_ref().map(|workload| fact("workload", workload)),
    };
    LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(EndpointMessage {
            address: Some(socket_address(endpoint.address)),
            ..EndpointMessage::default()
        })),
        health_status: health as i32,
        load_balancing_weight: Some(UInt32Value { value: 1 }),
        metadata,
    }
}

/// Metadata of one fact. One key in each map: there is no order to vary.
fn fact(key: &str, value: &str) -> Metadata {
    let facts = Struct { fields: HashMap::from([(key.to_owned(), text(value))]) };
    Metadata { filter_metadata: HashMap::from([(names::METADATA.to_owned(), facts)]), ..Metadata::default() }
}

/// The field `metadata` of a Cluster with its maps in order. On the wire it is the same message.
#[derive(Clone, PartialEq, prost::Message)]
struct ClusterMetadata {
    #[prost(message, optional, tag = "25")]
    metadata: Option<SortedMetadata>,
}

/// `envoy.config.core.v3.Metadata`.
#[derive(Clone, PartialEq, prost::Message)]
struct SortedMetadata {
    #[prost(btree_map = "string, message", tag = "1")]
    filter_metadata: BTreeMap<String, SortedStruct>,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, prost::Message)]
struct SortedStruct {
    #[prost(btree_map = "string, message", tag = "1")]
    fields: BTreeMap<String, Value>,
}

fn encode_with_facts(cluster: &Cluster, facts: &ServiceFacts<'_>) -> Bytes {
    encode_with(cluster, facts, [])
}

/// A cluster with its metadata. Fields may stand in any order on the wire, so the one is appended to the other.
fn encode_with<const N: usize>(cluster: &Cluster, facts: &ServiceFacts<'_>, further: [(&str, Value); N]) -> Bytes {
    let mut fields = BTreeMap::from([
        ("namespace".to_owned(), text(facts.namespace)),
        ("service".to_owned(), text(facts.service)),
        ("port".to_owned(), number(facts.port)),
    ]);
    fields.extend(further.map(|(name, value)| (name.to_owned(), value)));
    let metadata =
        SortedMetadata { filter_metadata: BTreeMap::from([(names::METADATA.to_owned(), SortedStruct { fields })]) };
    let mut body = cluster.encode_to_vec();
    body.extend(ClusterMetadata { metadata: Some(metadata) }.encode_to_vec());
    body.into()
}

fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

fn any(type_url: &str, message: &impl Message) -> Any {
    Any { type_url: type_url.to_owned(), value: message.encode_to_vec() }
}

fn text(value: &str) -> Value {
    Value { kind: Some(ValueKind::StringValue(value.to_owned())) }
}

fn number(number: u16) -> Value {
    Value { kind: Some(ValueKind::NumberValue(f64::from(number))) }
}

fn seconds(seconds: i64) -> Duration {
    Duration { seconds, nanos: 0 }
}

fn over_ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3 as i32,
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

/// TLS 1.3 alone. Left out, Envoy offers no more than 1.2 as a client.
fn tls_parameters() -> TlsParameters {
    TlsParameters {
        tls_minimum_protocol_version: TlsProtocol::TlSv13 as i32,
        tls_maximum_protocol_version: TlsProtocol::TlSv13 as i32,
        ..TlsParameters::default()
    }
}

fn alpn(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// A secret the proxy holds itself; without a source it is one of the proxy's own.
fn secret(name: &str) -> SdsSecretConfig {
    SdsSecretConfig { name: name.to_owned(), sds_config: None }
}

fn tls_socket(type_url: &str, context: &impl Message) -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(SocketConfig::TypedConfig(any(type_url, context))),
    }
}

fn socket_address(address: SocketAddr) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(SocketAddress {
            address: address.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(u32::from(address.port()))),
            ..SocketAddress::default()
        })),
    }
}
