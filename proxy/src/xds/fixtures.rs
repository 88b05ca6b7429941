//! Resources as the rendering contract has them, for tests: built with Envoy's types, one function a resource.

#![allow(deprecated, reason = "servers send the deprecated SAN list beside the typed one")]
#![allow(clippy::unnecessary_wraps, reason = "most fields of protobuf messages are optional")]

pub(super) mod control_plane;

use prost::{Message, Name};
use weft_proto::discovery::{Any as Body, DeltaDiscoveryResponse, Resource as Delivered};
use weft_proto::envoy::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy,
};
use weft_proto::envoy::envoy::config::cluster::v3::{Cluster, OutlierDetection};
use weft_proto::envoy::envoy::config::core::v3::address::Address as Choice;
use weft_proto::envoy::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use weft_proto::envoy::envoy::config::core::v3::socket_address::PortSpecifier;
use weft_proto::envoy::envoy::config::core::v3::transport_socket::ConfigType as SocketConfig;
use weft_proto::envoy::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, HealthStatus, Metadata, SocketAddress, TrafficDirection,
    TransportSocket,
};
use weft_proto::envoy::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use weft_proto::envoy::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use weft_proto::envoy::envoy::config::listener::v3::filter::ConfigType as FilterConfig;
use weft_proto::envoy::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener};
use weft_proto::envoy::envoy::config::route::v3::route::Action;
use weft_proto::envoy::envoy::config::route::v3::route_action::ClusterSpecifier;
use weft_proto::envoy::envoy::config::route::v3::route_match::PathSpecifier;
use weft_proto::envoy::envoy::config::route::v3::{Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost};
use weft_proto::envoy::envoy::extensions::filters::http::router::v3::Router;
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
use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, SubjectAltNameMatcher,
    UpstreamTlsContext,
};
use weft_proto::envoy::envoy::r#type::matcher::v3::StringMatcher;
use weft_proto::envoy::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use weft_proto::envoy::google::protobuf::{Any, BoolValue, Duration, Struct, UInt32Value, Value, value::Kind};
use weft_proto::names;
use weft_proto::weft::Destination;
use weft_proto::weft::destination::{self, Who};

use super::ResourceType;

pub(super) fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

pub(super) fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

pub(super) fn ads() -> Option<ConfigSource> {
    Some(ConfigSource {
        resource_api_version: ApiVersion::V3 as i32,
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..Default::default()
    })
}

pub(super) fn address(ip: &str, port: u32) -> Address {
    let socket = SocketAddress {
        address: ip.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port)),
        ..Default::default()
    };
    Address { address: Some(Choice::SocketAddress(socket)) }
}

pub(super) fn facts(facts: &[(&str, Kind)]) -> Option<Metadata> {
    let fields = facts.iter().map(|(key, kind)| ((*key).to_owned(), Value { kind: Some(kind.clone()) })).collect();
    let filter_metadata = [(names::METADATA.to_owned(), Struct { fields })].into();
    Some(Metadata { filter_metadata, ..Default::default() })
}

pub(super) fn text(text: &str) -> Kind {
    Kind::StringValue(text.to_owned())
}

pub(super) fn router() -> HttpFilter {
    HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(HttpFilterConfig::TypedConfig(pack(&Router::default()))),
        ..Default::default()
    }
}

pub(super) fn manager(routes: RouteSpecifier) -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: "weft".to_owned(),
        http_filters: vec![router()],
        route_specifier: Some(routes),
        ..Default::default()
    }
}

pub(super) fn rds(name: &str) -> RouteSpecifier {
    RouteSpecifier::Rds(Rds { config_source: ads(), route_config_name: name.to_owned() })
}

pub(super) fn http_chain(routes: RouteSpecifier) -> FilterChain {
    chain_of(&manager(routes))
}

pub(super) fn tcp_chain(cluster: &str) -> FilterChain {
    let proxy = TcpProxy {
        stat_prefix: "weft".to_owned(),
        cluster_specifier: Some(TcpCluster::Cluster(cluster.to_owned())),
        ..Default::default()
    };
    chain_of(&proxy)
}

pub(super) fn chain_of<M: Message + Name>(filter: &M) -> FilterChain {
    let filter = Filter { name: M::NAME.to_owned(), config_type: Some(FilterConfig::TypedConfig(pack(filter))) };
    FilterChain { filters: vec![filter], ..Default::default() }
}

/// Only for connections that speak HTTP/1.1.
pub(super) fn when_http(mut chain: FilterChain) -> FilterChain {
    let rule = chain.filter_chain_match.get_or_insert_default();
    rule.application_protocols = vec!["http/1.1".to_owned()];
    chain
}

pub(super) fn when_transport(mut chain: FilterChain, transport: &str) -> FilterChain {
    let rule: &mut FilterChainMatch = chain.filter_chain_match.get_or_insert_default();
    rule.transport_protocol = transport.to_owned();
    chain
}

pub(super) fn secret(name: &str) -> SdsSecretConfig {
    SdsSecretConfig { name: name.to_owned(), sds_config: ads() }
}

pub(super) fn socket<M: Message + Name>(context: &M) -> TransportSocket {
    TransportSocket { name: "tls".to_owned(), config_type: Some(SocketConfig::TypedConfig(pack(context))) }
}

pub(super) fn downstream_tls() -> DownstreamTlsContext {
    DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![secret(names::IDENTITY_SECRET)],
            validation_context_type: Some(ValidationContextType::ValidationContextSdsSecretConfig(secret(
                names::BUNDLE_SECRET,
            ))),
            ..Default::default()
        }),
        require_client_certificate: Some(BoolValue { value: true }),
        ..Default::default()
    }
}

pub(super) fn with_tls(mut chain: FilterChain) -> FilterChain {
    chain.transport_socket = Some(socket(&downstream_tls()));
    chain
}

pub(super) fn exact(text: &str) -> StringMatcher {
    StringMatcher { match_pattern: Some(MatchPattern::Exact(text.to_owned())), ..Default::default() }
}

pub(super) fn upstream_tls(identities: &[&str]) -> UpstreamTlsContext {
    let typed = |identity: &&str| SubjectAltNameMatcher {
        san_type: SanType::Uri as i32,
        matcher: Some(exact(identity)),
        ..Default::default()
    };
    let names_to_match = CertificateValidationContext {
        match_typed_subject_alt_names: identities.iter().map(typed).collect(),
        match_subject_alt_names: identities.iter().map(|identity| exact(identity)).collect(),
        ..Default::default()
    };
    let combined = CombinedCertificateValidationContext {
        default_validation_context: Some(names_to_match),
        validation_context_sds_secret_config: Some(secret(names::BUNDLE_SECRET)),
        ..Default::default()
    };
    UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![secret(names::IDENTITY_SECRET)],
            validation_context_type: Some(ValidationContextType::CombinedValidationContext(combined)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(super) fn listener(name: &str, direction: TrafficDirection, chains: Vec<FilterChain>) -> Listener {
    Listener {
        name: name.to_owned(),
        address: Some(address("10.96.0.2", 80)),
        filter_chains: chains,
        bind_to_port: Some(BoolValue { value: false }),
        traffic_direction: direction as i32,
        ..Default::default()
    }
}

/// An outbound HTTP listener whose routes are the resource `routes`.
pub(super) fn http_listener(name: &str, routes: &str) -> Listener {
    listener(name, TrafficDirection::Outbound, vec![http_chain(rds(routes))])
}

/// An outbound TCP listener.
pub(super) fn tcp_listener(name: &str, cluster: &str) -> Listener {
    listener(name, TrafficDirection::Outbound, vec![tcp_chain(cluster)])
}

/// A listener of our own workload's port.
pub(super) fn own_listener(name: &str, cluster: &str) -> Listener {
    listener(name, TrafficDirection::Inbound, vec![with_tls(tcp_chain(cluster))])
}

/// A cluster of our own workload's port.
pub(super) fn own_cluster(name: &str) -> Cluster {
    Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32)),
        lb_policy: LbPolicy::ClusterProvided as i32,
        eds_cluster_config: None,
        transport_socket: None,
        ..cluster(name)
    }
}

/// A port of a service.
pub(super) fn service_at(listener: &str) -> Destination {
    Destination { who: Some(Who::Service(destination::Service { listener: listener.to_owned() })) }
}

/// A workload by its address.
pub(super) fn peer_at(account: &str) -> Destination {
    let spiffe_id = format!("spiffe://weft.local/ns/default/sa/{account}");
    Destination {
        who: Some(Who::Peer(destination::Peer { namespace: "default".to_owned(), spiffe_id, except_ports: vec![22] })),
    }
}

/// A rule of a virtual host.
pub(super) fn rule(path: PathSpecifier, action: RouteAction) -> Route {
    Route {
        r#match: Some(RouteMatch { path_specifier: Some(path), ..Default::default() }),
        action: Some(Action::Route(action)),
        ..Default::default()
    }
}

pub(super) fn to_cluster(cluster: &str) -> RouteAction {
    RouteAction { cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())), ..Default::default() }
}

/// Everything to one cluster.
pub(super) fn routes(name: &str, cluster: &str) -> RouteConfiguration {
    let rules = vec![rule(PathSpecifier::Prefix("/".to_owned()), to_cluster(cluster))];
    let host =
        VirtualHost { name: "all".to_owned(), domains: vec!["*".to_owned()], routes: rules, ..Default::default() };
    RouteConfiguration { name: name.to_owned(), virtual_hosts: vec![host], ..Default::default() }
}

/// A meshed cluster whose endpoints are discovered.
pub(super) fn cluster(name: &str) -> Cluster {
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: ads(), service_name: String::new() }),
        connect_timeout: seconds(1),
        lb_policy: LbPolicy::LeastRequest as i32,
        outlier_detection: Some(OutlierDetection {
            consecutive_5xx: Some(UInt32Value { value: 5 }),
            base_ejection_time: seconds(1),
            max_ejection_time: seconds(60),
            max_ejection_percent: Some(UInt32Value { value: 50 }),
            ..Default::default()
        }),
        metadata: facts(&[
            ("namespace", text("default")),
            ("service", text("orders")),
            ("port", Kind::NumberValue(80.0)),
        ]),
        transport_socket: Some(socket(&upstream_tls(&["spiffe://weft.local/ns/default/sa/orders"]))),
        ..Default::default()
    }
}

pub(super) fn endpoint(ip: &str, port: u32, workload: &str) -> LbEndpoint {
    LbEndpoint {
        health_status: HealthStatus::Healthy as i32,
        metadata: facts(&[("workload", text(workload))]),
        load_balancing_weight: Some(UInt32Value { value: 1 }),
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(address(ip, port)),
            ..Default::default()
        })),
    }
}

pub(super) fn endpoints(name: &str, endpoints: Vec<LbEndpoint>) -> ClusterLoadAssignment {
    let locality = LocalityLbEndpoints {
        lb_endpoints: endpoints,
        load_balancing_weight: Some(UInt32Value { value: 1 }),
        ..Default::default()
    };
    ClusterLoadAssignment { cluster_name: name.to_owned(), endpoints: vec![locality], ..Default::default() }
}

/// One endpoint at a port.
pub(super) fn one_endpoint(name: &str, port: u32) -> ClusterLoadAssignment {
    endpoints(name, vec![endpoint("10.97.0.5", port, "default/orders-1")])
}

/// A destination as it stands in a response.
pub(super) fn delivered_destination(name: &str, version: &str, message: &Destination) -> Delivered {
    Delivered {
        version: version.to_owned(),
        name: name.to_owned(),
        resource: Some(Body { type_url: names::DESTINATION.to_owned(), value: message.encode_to_vec().into() }),
        aliases: Vec::new(),
    }
}

/// A resource as it stands in a response.
pub(super) fn delivered<M: Message + Name>(name: &str, version: &str, message: &M) -> Delivered {
    Delivered {
        version: version.to_owned(),
        name: name.to_owned(),
        resource: Some(Body { type_url: M::type_url(), value: message.encode_to_vec().into() }),
        aliases: Vec::new(),
    }
}

pub(super) fn response(
    kind: ResourceType,
    nonce: &str,
    resources: Vec<Delivered>,
    removed: &[&str],
) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: kind.url().to_owned(),
        nonce: nonce.to_owned(),
        resources,
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}
