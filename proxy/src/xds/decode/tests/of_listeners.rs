//! Listeners, their filter chains and the HTTP connection manager.

use weft_core::detection::Verdict;
use weft_proto::envoy::envoy::config::core::v3::ExtensionConfigSource;
use weft_proto::envoy::envoy::config::core::v3::HttpProtocolOptions;
use weft_proto::envoy::envoy::config::core::v3::Metadata;
use weft_proto::envoy::envoy::config::listener::v3::filter::ConfigType as FilterConfigType;
use weft_proto::envoy::envoy::config::listener::v3::listener_filter::ConfigType as ListenerFilterConfig;
use weft_proto::envoy::envoy::config::listener::v3::{
    ApiListener, Filter, FilterChain, ListenerFilter, UdpListenerConfig,
};
use weft_proto::envoy::envoy::extensions::filters::http::router::v3::Router;
use weft_proto::envoy::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, RouteSpecifier, UpgradeConfig,
};
use weft_proto::envoy::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType as HttpFilterConfig;
use weft_proto::envoy::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, ScopedRoutes,
};
use weft_proto::envoy::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use weft_proto::envoy::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, TunnelingConfig, WeightedCluster, weighted_cluster::ClusterWeight,
};
use weft_proto::envoy::google::protobuf;

use weft_core::model::ServerNameSpec;

use super::*;

const NAME: &str = "default/orders:80";

fn read(message: &Listener) -> weft_core::model::ListenerSpec {
    decode::listener(&message.encode_to_vec()).unwrap()
}

fn outbound(chains: Vec<FilterChain>) -> Listener {
    listener("outbound/default/orders:80", TrafficDirection::Outbound, chains)
}

fn inbound(chains: Vec<FilterChain>) -> Listener {
    listener("inbound/8080", TrafficDirection::Inbound, chains)
}

fn inline() -> RouteSpecifier {
    RouteSpecifier::RouteConfig(routes("", "inbound/8080"))
}

fn error(message: &Listener) -> DecodeError {
    decode::listener(&message.encode_to_vec()).unwrap_err()
}

fn named(name: &str) -> Option<RouteSource> {
    Some(RouteSource::Named(name.into()))
}

#[test]
fn an_inbound_listener_may_be_of_all_ports_that_have_none_of_their_own() {
    let mut message = inbound(vec![with_tls(http_chain(inline()))]);
    message.address = Some(address("0.0.0.0", 15006));
    message.additional_addresses =
        vec![AdditionalAddress { address: Some(address("::", 15006)), ..Default::default() }];
    let addresses: Vec<String> = read(&message).addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["0.0.0.0:15006", "[::]:15006"]);
}

#[test]
fn the_three_outbound_forms_are_read_as_rendered() {
    let http = read(&outbound(vec![http_chain(rds(NAME))]));
    assert_eq!((http.protocol, http.routes, http.cluster), (Protocol::Http, named(NAME), None));
    assert_eq!(http.direction, Direction::Outbound);

    let tcp = read(&outbound(vec![tcp_chain(NAME)]));
    assert_eq!((tcp.protocol, tcp.routes, tcp.cluster), (Protocol::Tcp, None, Some(NAME.into())));

    let detect = read(&outbound(vec![when_http(http_chain(rds(NAME))), tcp_chain(NAME)]));
    assert_eq!((detect.protocol, detect.routes, detect.cluster), (Protocol::Detect, named(NAME), Some(NAME.into())));
}

/// A chain for TLS that asks for one of these.
fn named_tls(names: &[&str], mut chain: FilterChain) -> FilterChain {
    let names = names.iter().map(ToString::to_string).collect();
    chain.filter_chain_match.get_or_insert_default().server_names = names;
    chain
}

/// A chain whose connections several clusters share.
fn shared(clusters: &[(&str, u32)]) -> FilterChain {
    let cluster = |(name, weight): &(&str, u32)| ClusterWeight {
        name: (*name).to_owned(),
        weight: *weight,
        ..Default::default()
    };
    let weighted = WeightedCluster { clusters: clusters.iter().map(cluster).collect() };
    let cluster_specifier = Some(ClusterSpecifier::WeightedClusters(weighted));
    chain_of(&TcpProxy { cluster_specifier, ..Default::default() })
}

#[test]
fn chains_with_server_names_pass_tls_through() {
    let of = |names: &[&str], clusters: &[(&str, u32)]| ServerNameSpec {
        names: names.iter().map(ToString::to_string).collect(),
        clusters: clusters
            .iter()
            .map(|(name, weight)| weft_core::model::WeightedCluster { cluster: (*name).into(), weight: *weight })
            .collect(),
    };
    let named = || named_tls(&["a.example", "*.b.example"], tcp_chain(NAME));
    let split = || named_tls(&["c.example"], when_transport(shared(&[("c", 9), ("d", 1)]), "tls"));
    let expected = [of(&["a.example", "*.b.example"], &[(NAME, 1)]), of(&["c.example"], &[("c", 9), ("d", 1)])];
    let spec = read(&outbound(vec![named(), split()]));
    assert_eq!((spec.protocol, spec.routes, spec.cluster), (Protocol::Tls, None, None));
    assert_eq!(spec.server_names, expected);

    let others = of(&[], &[("others", 1)]);
    let expected = [expected.to_vec(), vec![others]].concat();
    assert_eq!(read(&outbound(vec![named(), split(), tcp_chain("others")])).server_names, expected);
    let mut message = outbound(vec![named(), split()]);
    message.default_filter_chain = Some(tcp_chain("others"));
    assert_eq!(read(&message).server_names, expected);
}

#[test]
fn a_hint_counts_where_the_protocol_is_not_declared() {
    let hinted = |chains, text: &str| {
        let value = protobuf::Value { kind: Some(protobuf::value::Kind::StringValue(text.to_owned())) };
        let facts = protobuf::Struct { fields: [("detected".to_owned(), value)].into() };
        let metadata = Metadata { filter_metadata: [("weft.dev".to_owned(), facts)].into(), ..Metadata::default() };
        read(&Listener { metadata: Some(metadata), ..outbound(chains) }).detected
    };
    let undeclared = || vec![when_http(http_chain(rds(NAME))), tcp_chain(NAME)];
    assert_eq!(hinted(undeclared(), "server_first"), Some(Verdict::ServerFirst));
    assert_eq!(hinted(undeclared(), "http1"), Some(Verdict::Http1));
    assert_eq!(hinted(undeclared(), "of a later version"), None);
    assert_eq!(hinted(undeclared(), ""), None);
    assert_eq!(hinted(vec![tcp_chain(NAME)], "http1"), None, "declared");
    assert_eq!(read(&outbound(undeclared())).detected, None);
}

#[test]
fn the_bytes_chain_may_be_the_default_chain() {
    let mut message = outbound(vec![when_http(http_chain(rds(NAME)))]);
    message.default_filter_chain = Some(tcp_chain(NAME));
    assert_eq!(read(&message).protocol, Protocol::Detect);
}

#[test]
fn all_addresses_are_read_once() {
    let mut message = outbound(vec![tcp_chain(NAME)]);
    for ip in ["fd57::2", "10.96.0.2"] {
        let address = Some(address(ip, 80));
        message.additional_addresses.push(AdditionalAddress { address, ..Default::default() });
    }
    let addresses: Vec<_> = read(&message).addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.96.0.2:80", "[fd57::2]:80"]);
}

#[test]
fn strict_and_permissive_inbound_ports_are_read_as_rendered() {
    let http = || http_chain(inline());
    let tcp = || tcp_chain("inbound/8080");
    let tls = |chain| with_tls(when_transport(chain, "tls"));
    let raw = |chain| when_transport(chain, "raw_buffer");
    let both = |chain: fn(RouteSpecifier) -> FilterChain| [tls(chain(inline())), raw(chain(inline()))];
    let cases = [
        (vec![with_tls(http())], InboundTls::Strict, Protocol::Http),
        (vec![with_tls(tcp())], InboundTls::Strict, Protocol::Tcp),
        (vec![with_tls(when_http(http())), with_tls(tcp())], InboundTls::Strict, Protocol::Detect),
        (both(http_chain).to_vec(), InboundTls::Permissive, Protocol::Http),
        (vec![tls(tcp()), raw(tcp())], InboundTls::Permissive, Protocol::Tcp),
        (
            vec![tls(when_http(http())), tls(tcp()), raw(when_http(http())), raw(tcp())],
            InboundTls::Permissive,
            Protocol::Detect,
        ),
    ];
    for (chains, tls, protocol) in cases {
        let spec = read(&inbound(chains));
        assert_eq!((spec.direction, spec.tls, spec.protocol), (Direction::Inbound, tls, protocol));
        if let Some(RouteSource::Inline(table)) = spec.routes {
            assert_eq!(table.name.as_str(), "inbound/8080", "an inline table is called after its listener");
        }
    }
}

#[test]
fn a_listener_that_says_no_direction_is_outbound() {
    let mut message = outbound(vec![tcp_chain(NAME)]);
    message.traffic_direction = TrafficDirection::Unspecified as i32;
    assert_eq!(read(&message).direction, Direction::Outbound);
}

#[test]
fn what_every_proxy_does_anyway_and_what_is_only_tuning_is_passed_over() {
    let mut message = outbound(vec![tcp_chain(NAME)]);
    message.bind_to_port = None;
    message.stat_prefix = "ignored".to_owned();
    message.tcp_backlog_size = number(7);
    for name in ["tls_inspector.v3.TlsInspector", "http_inspector.v3.HttpInspector", "original_dst.v3.OriginalDst"] {
        let any = any_type(&format!("envoy.extensions.filters.listener.{name}"));
        let config_type = Some(ListenerFilterConfig::TypedConfig(any));
        message.listener_filters.push(ListenerFilter { config_type, ..Default::default() });
    }
    read(&message);
    let mut manager = manager(rds(NAME));
    manager.codec_type = CodecType::Http1 as i32;
    manager.stream_idle_timeout = seconds(300);
    manager.upgrade_configs = vec![UpgradeConfig { upgrade_type: "websocket".to_owned(), ..Default::default() }];
    manager.generate_request_id = yes();
    manager.use_remote_address = yes();
    read(&outbound(vec![chain_of(&manager)]));
}

#[test]
fn what_a_listener_may_not_say_is_refused_by_name() {
    assert_refused(
        &outbound(vec![tcp_chain(NAME)]),
        decode::listener,
        &[
            ("name", "nothing", |l| l.name.clear()),
            ("address", "nothing", |l| l.address = None),
            ("address.socket_address.address", "0.0.0.0", |l| l.address = Some(address("0.0.0.0", 80))),
            ("address.socket_address.address", "orders", |l| l.address = Some(address("orders", 80))),
            ("additional_addresses[0].address", "nothing", |l| {
                l.additional_addresses.push(AdditionalAddress::default());
            }),
            ("traffic_direction", "9", |l| l.traffic_direction = 9),
            ("api_listener", "", |l| l.api_listener = Some(ApiListener::default())),
            ("udp_listener_config", "", |l| l.udp_listener_config = Some(UdpListenerConfig::default())),
            ("use_original_dst", "", |l| l.use_original_dst = yes()),
            ("listener_filters[0].typed_config", "ProxyProtocol", |l| {
                let any = any_type("envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol");
                let config_type = Some(ListenerFilterConfig::TypedConfig(any));
                l.listener_filters.push(ListenerFilter { config_type, ..Default::default() });
            }),
            ("listener_filters[0].typed_config", "config_discovery", |l| {
                let config_type = Some(ListenerFilterConfig::ConfigDiscovery(ExtensionConfigSource::default()));
                l.listener_filters.push(ListenerFilter { config_type, ..Default::default() });
            }),
            ("filter_chains", "nothing", |l| l.filter_chains.clear()),
            ("filter_chains", "same match", |l| l.filter_chains.push(tcp_chain(NAME))),
            ("filter_chains", "tcp_proxy for HTTP", |l| l.filter_chains = vec![when_http(tcp_chain(NAME))]),
            ("filter_chains", "differ", |l| {
                l.filter_chains = vec![when_http(http_chain(rds("a"))), http_chain(rds("b"))];
            }),
            ("filter_chains[0].filters", "nothing", |l| l.filter_chains[0].filters.clear()),
            ("filter_chains[0].filters", "RBAC", |l| {
                let rbac = FilterConfigType::TypedConfig(any_type("envoy.extensions.filters.network.rbac.v3.RBAC"));
                l.filter_chains[0].filters.insert(0, Filter { config_type: Some(rbac), ..Default::default() });
            }),
            ("filter_chains[0].filters[0].typed_config", "Echo", |l| {
                let echo = FilterConfigType::TypedConfig(any_type("envoy.extensions.filters.network.echo.v3.Echo"));
                l.filter_chains[0].filters[0].config_type = Some(echo);
            }),
            ("filter_chains[0].filters[0].typed_config", "without configuration", |l| {
                l.filter_chains[0].filters[0].config_type = None;
            }),
            ("filter_chains[0].use_proxy_proto", "", |l| l.filter_chains[0].use_proxy_proto = yes()),
            ("filter_chains[0].transport_socket", "TLS", |l| l.filter_chains = vec![with_tls(tcp_chain(NAME))]),
            ("filter_chains[0].filter_chain_match.transport_protocol", "", |l| {
                l.filter_chains = vec![when_transport(tcp_chain(NAME), "raw_buffer")];
            }),
            ("filter_chains[0].filter_chain_match.transport_protocol", "quic", |l| {
                l.filter_chains = vec![when_transport(tcp_chain(NAME), "quic")];
            }),
            ("filter_chains[0].filter_chain_match.application_protocols", "h2c", |l| {
                l.filter_chains[0].filter_chain_match.get_or_insert_default().application_protocols =
                    vec!["http/1.1".to_owned(), "h2c".to_owned()];
            }),
            ("filter_chains", "weighted_clusters without", |l| l.filter_chains = vec![shared(&[(NAME, 1), ("b", 1)])]),
            ("filter_chains[0].filter_chain_match.server_names[1]", "A.example", |l| {
                l.filter_chains = vec![named_tls(&["a", "A.example"], tcp_chain(NAME))];
            }),
            ("filter_chains[0].filter_chain_match.server_names[0]", "w*.example", |l| {
                l.filter_chains = vec![named_tls(&["w*.example"], tcp_chain(NAME))];
            }),
            ("filter_chains[0].filter_chain_match.server_names[0]", "*", |l| {
                l.filter_chains = vec![named_tls(&["*"], tcp_chain(NAME))];
            }),
            ("filter_chains[1].filter_chain_match.server_names", "b.example", |l| {
                let chain = |names| named_tls(names, tcp_chain(NAME));
                l.filter_chains = vec![chain(&["a.example", "b.example"]), chain(&["c.example", "b.example"])];
            }),
            ("filter_chains[2].filter_chain_match.server_names", "two chains", |l| {
                l.filter_chains = vec![named_tls(&["a"], tcp_chain(NAME)), tcp_chain(NAME), tcp_chain(NAME)];
            }),
            ("filter_chains[0].filters[0]", "http_connection_manager", |l| {
                l.filter_chains = vec![named_tls(&["a"], http_chain(rds(NAME)))];
            }),
            ("filter_chains[0].filter_chain_match.application_protocols", "", |l| {
                l.filter_chains = vec![named_tls(&["a"], when_http(tcp_chain(NAME)))];
            }),
            ("filter_chains[0].filters[0].weighted_clusters.clusters[1].weight", "0", |l| {
                l.filter_chains = vec![named_tls(&["a"], shared(&[(NAME, 1), ("b", 0)]))];
            }),
            ("filter_chains[0].filter_chain_match.transport_protocol", "", |l| {
                l.filter_chains = vec![named_tls(&["a"], when_transport(tcp_chain(NAME), "raw_buffer"))];
            }),
            ("filter_chains[0].filter_chain_match.destination_port", "", |l| {
                l.filter_chains[0].filter_chain_match.get_or_insert_default().destination_port = number(80);
            }),
            ("filter_chains[0].filter_chain_match.source_ports", "", |l| {
                l.filter_chains[0].filter_chain_match.get_or_insert_default().source_ports = vec![80];
            }),
        ],
    );
}

#[test]
fn inbound_chains_that_contradict_each_other_are_refused() {
    let tls = |chain| with_tls(when_transport(chain, "tls"));
    let raw = |chain| when_transport(chain, "raw_buffer");
    let tcp = || tcp_chain("inbound/8080");
    let cases = [
        ("filter_chains", "nothing", vec![tcp()]),
        ("filter_chains", "another way", vec![tls(tcp()), raw(tcp_chain("elsewhere"))]),
        ("filter_chains", "without transport_protocol", vec![with_tls(tcp()), tcp()]),
        ("filter_chains[0].filter_chain_match.transport_protocol", "raw_buffer", vec![with_tls(raw(tcp()))]),
        (
            "filter_chains[1].filter_chain_match.transport_protocol",
            "tls",
            vec![tls(tcp()), when_transport(tcp(), "tls")],
        ),
        ("filter_chains", "some with", vec![tls(when_http(http_chain(inline()))), with_tls(tcp())]),
        ("filter_chains[0].filter_chain_match.server_names", "", vec![with_tls(named_tls(&["a"], tcp()))]),
    ];
    for (field, found, chains) in cases {
        let error = error(&inbound(chains));
        assert_eq!(error.field, field, "{error}");
        assert!(error.found.contains(found), "{error}");
    }
}

#[test]
fn an_inbound_context_that_lets_others_in_or_keeps_some_out_is_refused() {
    let refusal = |context| {
        let mut chain = tcp_chain("inbound/8080");
        chain.transport_socket = Some(socket(&context));
        error(&inbound(vec![chain])).field
    };
    let mut anyone = downstream_tls();
    anyone.require_client_certificate = None;
    assert_eq!(refusal(anyone), "filter_chains[0].transport_socket.require_client_certificate");
    let mut some = downstream_tls();
    some.common_tls_context = upstream_tls(&["spiffe://t/ns/n/sa/a"]).common_tls_context;
    let field = "filter_chains[0].transport_socket.common_tls_context.match_typed_subject_alt_names";
    assert_eq!(refusal(some), field);
}

#[test]
fn what_a_connection_manager_may_not_say_is_refused_by_name() {
    fn router_of(manager: &mut HttpConnectionManager) -> &mut HttpFilter {
        manager.http_filters.last_mut().unwrap()
    }
    fn read_manager(body: &[u8]) -> Result<RouteSource, DecodeError> {
        let manager = HttpConnectionManager::decode(body).unwrap();
        decode::http::routes(&manager, "owner").map_err(|refusal| refusal.of("manager", ""))
    }
    assert_refused(
        &manager(rds(NAME)),
        read_manager,
        &[
            ("codec_type", "2", |m| m.codec_type = CodecType::Http2 as i32),
            ("http_filters", "nothing", |m| m.http_filters.clear()),
            ("http_filters[0].filter", "`cors`", |m| m.http_filters.insert(0, filter("cors"))),
            ("http_filters[0].filter", "Router", |m| m.http_filters.push(filter("cors"))),
            ("http_filters[0].filter", "`cors`", |m| m.http_filters = vec![filter("cors")]),
            ("http_filters[0].filter", "without configuration", |m| router_of(m).config_type = None),
            ("http_filters[0].upstream_http_filters", "`cors`", |m| {
                let router = Router { upstream_http_filters: vec![filter("cors")], ..Default::default() };
                router_of(m).config_type = Some(HttpFilterConfig::TypedConfig(pack(&router)));
            }),
            ("rds", "nothing", |m| m.route_specifier = None),
            ("rds.route_config_name", "nothing", |m| m.route_specifier = Some(rds(""))),
            ("scoped_routes", "", |m| m.route_specifier = Some(RouteSpecifier::ScopedRoutes(ScopedRoutes::default()))),
            ("route_config.virtual_hosts[0].domains", "nothing", |m| {
                let mut table = routes("", "c");
                table.virtual_hosts[0].domains.clear();
                m.route_specifier = Some(RouteSpecifier::RouteConfig(table));
            }),
            ("common_http_protocol_options.max_stream_duration", "", |m| {
                m.common_http_protocol_options =
                    Some(HttpProtocolOptions { max_stream_duration: seconds(3), ..Default::default() });
            }),
            ("xff_num_trusted_hops", "", |m| m.xff_num_trusted_hops = 1),
            ("via", "", |m| m.via = "x".to_owned()),
            ("forward_client_cert_details", "", |m| m.forward_client_cert_details = 2),
            ("upgrade_configs", "", |m| m.upgrade_configs.push(UpgradeConfig::default())),
            ("upgrade_configs", "", |m| {
                m.upgrade_configs.push(UpgradeConfig { upgrade_type: "CONNECT".to_owned(), ..Default::default() });
            }),
            ("normalize_path", "", |m| m.normalize_path = yes()),
            ("merge_slashes", "", |m| m.merge_slashes = true),
            ("path_with_escaped_slashes_action", "", |m| m.path_with_escaped_slashes_action = 2),
            ("strip_matching_host_port", "", |m| m.strip_matching_host_port = true),
            ("local_reply_config", "", |m| m.local_reply_config = Some(Default::default())),
        ],
    );
}

fn filter(name: &str) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(HttpFilterConfig::TypedConfig(any_type("x.Filter"))),
        ..Default::default()
    }
}

#[test]
fn filters_that_say_they_may_be_ignored_are() {
    let mut manager = manager(rds(NAME));
    manager.http_filters.insert(0, HttpFilter { is_optional: true, ..filter("a") });
    manager.http_filters.insert(0, HttpFilter { disabled: true, ..filter("b") });
    assert_eq!(read(&outbound(vec![chain_of(&manager)])).routes, named(NAME));
}

#[test]
fn what_a_tcp_proxy_may_not_say_is_refused_by_name() {
    type Change = fn(&mut TcpProxy);
    let cases: [(&str, Change); 5] = [
        ("cluster", |p| p.cluster_specifier = None),
        ("cluster", |p| p.cluster_specifier = Some(ClusterSpecifier::Cluster(String::new()))),
        ("weighted_clusters.clusters", |p| {
            p.cluster_specifier = Some(ClusterSpecifier::WeightedClusters(WeightedCluster::default()));
        }),
        ("tunneling_config", |p| p.tunneling_config = Some(TunnelingConfig::default())),
        ("upstream_connect_mode", |p| p.upstream_connect_mode = 1),
    ];
    for (field, change) in cases {
        let mut proxy =
            TcpProxy { cluster_specifier: Some(ClusterSpecifier::Cluster(NAME.to_owned())), ..Default::default() };
        change(&mut proxy);
        let error = error(&outbound(vec![chain_of(&proxy)]));
        assert_eq!(error.field, format!("filter_chains[0].filters[0].{field}"));
    }
}
