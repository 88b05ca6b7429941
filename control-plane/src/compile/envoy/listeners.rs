//! Listeners: what is done with the connections that are redirected to one address.

use std::net::SocketAddr;

use bytes::Bytes;
use weft_core::detection::Verdict;
use weft_proto::envoy::envoy::config::core::v3::TrafficDirection;
use weft_proto::envoy::envoy::config::listener::v3::filter::ConfigType as FilterConfig;
use weft_proto::envoy::envoy::config::listener::v3::{
    AdditionalAddress, Filter, FilterChain, FilterChainMatch, Listener,
};
use weft_proto::envoy::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use weft_proto::envoy::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType as HttpFilterConfig;
use weft_proto::envoy::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds,
};
use weft_proto::envoy::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier as TcpCluster;
use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::{CommonTlsContext, DownstreamTlsContext};
use weft_proto::envoy::google::protobuf::{Any, BoolValue};
use weft_proto::names;

use super::server_names::{self, NamedChain};
use super::{alpn, any, encode, fact, over_ads, routes, secret, socket_address, tcp, tls_parameters, tls_socket};
use crate::document::Protocol;

/// Where a listener is, at least one address.
#[derive(Clone, Copy)]
pub(in crate::compile) struct Address<'a> {
    pub(in crate::compile) first: SocketAddr,
    pub(in crate::compile) additional: &'a [SocketAddr],
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::compile) enum Direction {
    /// From the workload beside the proxy, in plaintext.
    Outbound,
    /// To it, by mutual TLS, and in plaintext too where that is permitted.
    Inbound { permissive: bool },
}

/// A listener that hands requests or bytes to one cluster; outbound requests by the routes of the cluster's name, TLS by
/// the name it asks for where `by_name` says how. What its port was seen to speak is a hint to our proxies, in metadata
/// others pass over.
pub(in crate::compile) fn listener(
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
    let tcp = || FilterChain {
        filters: vec![tcp::filter_to(cluster, TcpCluster::Cluster(cluster.to_owned()))],
        ..FilterChain::default()
    };
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
        Direction::Inbound { .. } => RouteSpecifier::RouteConfig(routes::to_one(cluster, cluster)),
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
