//! `Listener`: addresses, and filter chains folded into one of the ways the proxy serves a port.
//!
//! The proxy binds nothing for a listener: its addresses are the original destinations it applies to, so `bind_to_port`
//! is passed over.

#![allow(deprecated, reason = "deprecated fields are read so that they can be refused by name")]

use std::net::SocketAddr;
use std::sync::Arc;

use weft_core::detection::Verdict;
use weft_core::model::{
    Direction, HttpOptions, InboundTls, ListenerSpec, Protocol, RouteSource, ServerNameSpec, WeightedCluster,
};
use weft_core::names::{ClusterName, ListenerName};
use weft_proto::envoy::envoy::config::core::v3::TrafficDirection;
use weft_proto::envoy::envoy::config::listener::v3::filter::ConfigType as FilterConfig;
use weft_proto::envoy::envoy::config::listener::v3::listener_filter::ConfigType as ListenerFilterConfig;
use weft_proto::envoy::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter};
use weft_proto::envoy::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use weft_proto::envoy::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use weft_proto::envoy::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use weft_proto::names;

use super::field::{Decoding, Facts, Refusal, Within, is_true, is_type, lasts, present, type_name, unpack, unset};
use super::{address, http, http_options, server_names, tls};

/// What the proxy does for every connection by itself.
const BUILT_IN_LISTENER_FILTERS: [&str; 3] = [
    "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
    "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
];

/// Reads a listener resource.
pub(super) fn listener(listener: &Listener) -> Decoding<ListenerSpec> {
    present(&listener.name, "name")?;
    whole_listener(listener)?;
    let direction = match TrafficDirection::try_from(listener.traffic_direction) {
        Ok(TrafficDirection::Inbound) => Direction::Inbound,
        // Others than ours rarely say; a listener that takes plaintext from anyone can only be the way out.
        Ok(TrafficDirection::Outbound | TrafficDirection::Unspecified) => Direction::Outbound,
        Err(_) => return Err(Refusal::new("traffic_direction", listener.traffic_direction, "INBOUND or OUTBOUND")),
    };
    let mut chains = Vec::with_capacity(listener.filter_chains.len() + 1);
    for (index, filter_chain) in listener.filter_chains.iter().enumerate() {
        chains.push(chain(filter_chain, &listener.name, false).within_item("filter_chains", index)?);
    }
    if let Some(filter_chain) = &listener.default_filter_chain {
        chains.push(chain(filter_chain, &listener.name, true).within("default_filter_chain")?);
    }
    let (tls, service) = match direction {
        Direction::Outbound => (InboundTls::Strict, outbound(&chains)?),
        Direction::Inbound => inbound(&chains)?,
    };
    Ok(ListenerSpec {
        name: ListenerName::from(listener.name.as_str()),
        direction,
        addresses: addresses(listener, direction)?,
        protocol: service.protocol,
        tls,
        routes: service.routes,
        cluster: service.cluster,
        http: service.http,
        server_names: service.server_names,
        detected: detected(listener).filter(|_| service.protocol == Protocol::Detect),
    })
}

/// What the control plane knows of an undeclared port. Advice alone: one that cannot be read is none.
fn detected(listener: &Listener) -> Option<Verdict> {
    Verdict::of_name(Facts::of(listener.metadata.as_ref())?.text(names::DETECTED).ok()?)
}

fn whole_listener(listener: &Listener) -> Decoding<()> {
    unset(&[
        ("api_listener", listener.api_listener.is_some()),
        ("internal_listener", listener.listener_specifier.is_some()),
        ("udp_listener_config", listener.udp_listener_config.is_some()),
        ("filter_chain_matcher", listener.filter_chain_matcher.is_some()),
        ("fcds_config", listener.fcds_config.is_some()),
        ("use_original_dst", is_true(listener.use_original_dst.as_ref())),
    ])?;
    for (index, filter) in listener.listener_filters.iter().enumerate() {
        listener_filter(filter).within_item("listener_filters", index)?;
    }
    Ok(())
}

fn listener_filter(filter: &ListenerFilter) -> Decoding<()> {
    let found = match &filter.config_type {
        Some(ListenerFilterConfig::TypedConfig(any)) => {
            if BUILT_IN_LISTENER_FILTERS.contains(&type_name(&any.type_url)) {
                return Ok(());
            }
            type_name(&any.type_url)
        }
        Some(ListenerFilterConfig::ConfigDiscovery(_)) => "config_discovery",
        None => filter.name.as_str(),
    };
    Err(Refusal::new("typed_config", found, "tls_inspector, http_inspector or original_dst"))
}

/// On the way in, the unspecified address is the listener of all ports that have none of their own. On the way out there is
/// none: what nobody describes is passed on as it is.
fn addresses(listener: &Listener, direction: Direction) -> Decoding<Vec<SocketAddr>> {
    let read = match direction {
        Direction::Inbound => address::address_or_any,
        Direction::Outbound => address::address,
    };
    let mut addresses = vec![read(listener.address.as_ref(), "address")?];
    for (index, additional) in listener.additional_addresses.iter().enumerate() {
        let address = read(additional.address.as_ref(), "address").within_item("additional_addresses", index)?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses.shrink_to_fit();
    Ok(addresses)
}

/// Which connections a chain takes, by what they start with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Any,
    Tls,
    Plain,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Target {
    Http(Http),
    /// One or, where server names choose, several.
    Tcp(Vec<WeightedCluster>),
}

/// What happens to requests.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Http {
    routes: RouteSource,
    options: Option<Arc<HttpOptions>>,
}

/// A filter chain, read by itself.
pub(super) struct Chain {
    pub(super) transport: Transport,
    /// Takes only connections that speak HTTP/1.
    pub(super) http_only: bool,
    /// Takes only TLS connections that ask for one of these; empty: whatever they ask for.
    pub(super) server_names: Vec<String>,
    /// Terminates mutual TLS.
    tls: bool,
    pub(super) target: Target,
    /// The listener's default chain: takes what no other takes.
    fallback: bool,
}

/// What a listener does with a connection once its transport is settled.
#[derive(Debug, PartialEq)]
pub(super) struct Service {
    pub(super) protocol: Protocol,
    pub(super) routes: Option<RouteSource>,
    pub(super) cluster: Option<ClusterName>,
    pub(super) server_names: Vec<ServerNameSpec>,
    pub(super) http: Option<Arc<HttpOptions>>,
}

fn chain(chain: &FilterChain, listener: &str, fallback: bool) -> Decoding<Chain> {
    unset(&[("use_proxy_proto", is_true(chain.use_proxy_proto.as_ref()))])?;
    let tls = tls::downstream(chain.transport_socket.as_ref()).within("transport_socket")?;
    // The API ignores the match of the default chain.
    let (transport, http_only, server_names) = match &chain.filter_chain_match {
        Some(rule) if !fallback => chain_match(rule).within("filter_chain_match")?,
        _ => (Transport::Any, false, Vec::new()),
    };
    let target = match chain.filters.as_slice() {
        [filter] => target(filter, listener).within("filters[0]")?,
        [] => return Err(Refusal::missing("filters", "http_connection_manager or tcp_proxy")),
        filters => {
            let all: Vec<String> = filters.iter().map(filter_type).collect();
            return Err(Refusal::new("filters", all.join(", "), "http_connection_manager or tcp_proxy alone"));
        }
    };
    Ok(Chain { transport, http_only, server_names, tls, target, fallback })
}

fn chain_match(rule: &FilterChainMatch) -> Decoding<(Transport, bool, Vec<String>)> {
    unset(&[
        ("destination_port", rule.destination_port.is_some()),
        ("prefix_ranges", !rule.prefix_ranges.is_empty()),
        ("address_suffix", !rule.address_suffix.is_empty()),
        ("suffix_len", rule.suffix_len.is_some()),
        ("direct_source_prefix_ranges", !rule.direct_source_prefix_ranges.is_empty()),
        ("source_type", rule.source_type != 0),
        ("source_prefix_ranges", !rule.source_prefix_ranges.is_empty()),
        ("source_ports", !rule.source_ports.is_empty()),
    ])?;
    let server_names = server_names::names(&rule.server_names)?;
    let transport = match rule.transport_protocol.as_str() {
        "" => Transport::Any,
        "tls" => Transport::Tls,
        "raw_buffer" => Transport::Plain,
        other => return Err(Refusal::new("transport_protocol", other, "tls, raw_buffer or nothing")),
    };
    let is_http1 = |protocol: &String| matches!(protocol.as_str(), "http/1.0" | "http/1.1" | "weft/http1");
    match rule.application_protocols.iter().find(|protocol| !is_http1(protocol)) {
        Some(other) => Err(Refusal::new("application_protocols", other, "http/1.0 and http/1.1, or nothing")),
        None => Ok((transport, !rule.application_protocols.is_empty(), server_names)),
    }
}

fn filter_type(filter: &Filter) -> String {
    match &filter.config_type {
        Some(FilterConfig::TypedConfig(any)) => type_name(&any.type_url).to_owned(),
        Some(FilterConfig::ConfigDiscovery(_)) => "config_discovery".to_owned(),
        None => format!("`{}` without configuration", filter.name),
    }
}

fn target(filter: &Filter, listener: &str) -> Decoding<Target> {
    match &filter.config_type {
        Some(FilterConfig::TypedConfig(any)) if is_type(any, names::HTTP_CONNECTION_MANAGER) => {
            let manager: HttpConnectionManager = unpack(any)?;
            let routes = http::routes(&manager, listener)?;
            Ok(Target::Http(Http { routes, options: http_options::options(&manager)? }))
        }
        Some(FilterConfig::TypedConfig(any)) if is_type(any, names::TCP_PROXY) => {
            let proxy: TcpProxy = unpack(any)?;
            tcp_clusters(&proxy).map(Target::Tcp)
        }
        _ => Err(Refusal::new("typed_config", filter_type(filter), "http_connection_manager or tcp_proxy")),
    }
}

fn tcp_clusters(proxy: &TcpProxy) -> Decoding<Vec<WeightedCluster>> {
    unset(&[
        ("on_demand", proxy.on_demand.is_some()),
        ("metadata_match", proxy.metadata_match.is_some()),
        ("tunneling_config", proxy.tunneling_config.is_some()),
        ("max_downstream_connection_duration", lasts(proxy.max_downstream_connection_duration.as_ref())),
        ("proxy_protocol_tlvs", !proxy.proxy_protocol_tlvs.is_empty()),
        ("upstream_connect_mode", proxy.upstream_connect_mode != 0),
    ])?;
    match &proxy.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => {
            present(name, "cluster")?;
            Ok(vec![WeightedCluster { cluster: name.as_str().into(), weight: 1 }])
        }
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            server_names::clusters(weighted).within("weighted_clusters")
        }
        None => Err(Refusal::missing("cluster", "a name")),
    }
}

/// Outbound: plaintext from the workload beside the proxy, whatever it starts with.
fn outbound(chains: &[Chain]) -> Decoding<Service> {
    let by_name = chains.iter().any(|chain| !chain.server_names.is_empty());
    for (index, chain) in chains.iter().enumerate() {
        let refused = match (chain.tls, chain.transport) {
            (true, _) => Err(Refusal::new("transport_socket", "TLS", "none outbound")),
            (false, Transport::Any) => Ok(()),
            // Whoever asks for a name speaks TLS.
            (false, Transport::Tls) if !chain.server_names.is_empty() => Ok(()),
            (false, _) => {
                Err(Refusal::new("filter_chain_match.transport_protocol", "a value", "leaving it out, outbound"))
            }
        };
        refused.within_item("filter_chains", index)?;
    }
    if by_name { server_names::service(chains) } else { service(&chains.iter().collect::<Vec<_>>()) }
}

/// Inbound: mutual TLS, and where plaintext is let in too, it must go the same way.
fn inbound(chains: &[Chain]) -> Decoding<(InboundTls, Service)> {
    for (index, chain) in chains.iter().enumerate() {
        let contradiction = matches!((chain.tls, chain.transport), (true, Transport::Plain) | (false, Transport::Tls));
        if contradiction {
            let refused = Refusal::new(
                "filter_chain_match.transport_protocol",
                if chain.tls { "raw_buffer on a chain with TLS" } else { "tls on a chain without" },
                "tls with a transport_socket, raw_buffer without",
            );
            return Err(refused).within_item("filter_chains", index);
        }
        if !chain.server_names.is_empty() {
            let refused = Refusal::new("filter_chain_match.server_names", "a value", "leaving it out, inbound");
            return Err(refused).within_item("filter_chains", index);
        }
    }
    let (encrypted, plain): (Vec<&Chain>, Vec<&Chain>) = chains.iter().partition(|chain| chain.tls);
    if encrypted.is_empty() {
        return Err(Refusal::missing("filter_chains", "inbound chains with a DownstreamTlsContext"));
    }
    let behind_tls = service(&encrypted)?;
    if plain.is_empty() {
        return Ok((InboundTls::Strict, behind_tls));
    }
    if encrypted.iter().chain(&plain).all(|chain| chain.transport == Transport::Any) {
        return Err(Refusal::new(
            "filter_chains",
            "TLS and plaintext without transport_protocol",
            "transport_protocol tls and raw_buffer",
        ));
    }
    if service(&plain)? != behind_tls {
        return Err(Refusal::new("filter_chains", "plaintext going another way than TLS", "the same filters for both"));
    }
    Ok((InboundTls::Permissive, behind_tls))
}

/// Folds the chains of one transport: HTTP, bytes, or both told apart by who speaks HTTP.
fn service(chains: &[&Chain]) -> Decoding<Service> {
    let refuse = |found: &str, supported| Err(Refusal::new("filter_chains", found, supported));
    let transports = chains.iter().filter(|chain| !chain.fallback).map(|chain| chain.transport);
    let (mut first, mut mixed) = (None, false);
    for transport in transports {
        mixed |= *first.get_or_insert(transport) != transport;
    }
    if mixed {
        return refuse("some with and some without transport_protocol", "one form for all chains of a kind");
    }
    let (for_http, for_all): (Vec<&Chain>, Vec<&Chain>) = chains.iter().copied().partition(|chain| chain.http_only);
    let http = |http: &Http| Service {
        protocol: Protocol::Http,
        routes: Some(http.routes.clone()),
        cluster: None,
        server_names: Vec::new(),
        http: http.options.clone(),
    };
    match (for_http.as_slice(), for_all.as_slice()) {
        ([], []) => Err(Refusal::missing("filter_chains", "at least one")),
        ([] | [_], [_, _, ..]) | ([_, _, ..], _) => refuse("two chains with the same match", "each match once"),
        ([Chain { target: Target::Tcp(_), .. }], _) => {
            refuse("tcp_proxy for HTTP alone", "http_connection_manager where application_protocols is set")
        }
        ([], [Chain { target: Target::Http(one), .. }]) | ([Chain { target: Target::Http(one), .. }], []) => {
            Ok(http(one))
        }
        ([], [Chain { target: Target::Tcp(clusters), .. }]) => Ok(Service {
            protocol: Protocol::Tcp,
            routes: None,
            cluster: Some(only(clusters)?.clone()),
            server_names: Vec::new(),
            http: None,
        }),
        ([Chain { target: Target::Http(one), .. }], [Chain { target: Target::Tcp(clusters), .. }]) => {
            Ok(Service { protocol: Protocol::Detect, cluster: Some(only(clusters)?.clone()), ..http(one) })
        }
        ([Chain { target: Target::Http(one), .. }], [Chain { target: Target::Http(other), .. }]) => {
            if one == other {
                Ok(http(one))
            } else {
                refuse("two http_connection_managers that differ", "one")
            }
        }
    }
}

/// Bytes that nothing is known of go to one cluster.
fn only(clusters: &[WeightedCluster]) -> Decoding<&ClusterName> {
    match clusters {
        [one] => Ok(&one.cluster),
        _ => Err(Refusal::new("filter_chains", "weighted_clusters without server_names", "cluster, or server_names")),
    }
}
