//! Clusters and their endpoints.

use weft_proto::envoy::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use weft_proto::envoy::envoy::config::cluster::v3::cluster::common_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig,
};
use weft_proto::envoy::envoy::config::cluster::v3::cluster::{
    CommonLbConfig, CustomClusterType, DiscoveryType, LbConfig, LbPolicy, LbSubsetConfig, OriginalDstLbConfig,
};
use weft_proto::envoy::envoy::config::cluster::v3::load_balancing_policy::Policy;
use weft_proto::envoy::envoy::config::cluster::v3::{CircuitBreakers, LoadBalancingPolicy};
use weft_proto::envoy::envoy::config::core::v3::address::Address as Choice;
use weft_proto::envoy::envoy::config::core::v3::socket_address::PortSpecifier;
use weft_proto::envoy::envoy::config::core::v3::{
    BindConfig, Http1ProtocolOptions, Http2ProtocolOptions, Http3ProtocolOptions,
};
use weft_proto::envoy::envoy::config::endpoint::v3::cluster_load_assignment::policy::DropOverload;
use weft_proto::envoy::envoy::config::endpoint::v3::endpoint::AdditionalAddress as MoreAddresses;
use weft_proto::envoy::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use weft_proto::envoy::envoy::config::endpoint::v3::{Endpoint, LbEndpoint, cluster_load_assignment};
use weft_proto::envoy::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, TlsParameters, UpstreamTlsContext,
};
use weft_proto::envoy::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use weft_proto::envoy::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use weft_proto::envoy::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use weft_proto::envoy::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use weft_proto::envoy::envoy::r#type::v3::FractionalPercent;
use weft_proto::envoy::google::protobuf::value::Kind;
use weft_proto::envoy::google::protobuf::{ListValue, Value};
use weft_proto::names;

use super::*;

fn read(message: &Cluster) -> weft_core::model::ClusterSpec {
    decode::cluster(&message.encode_to_vec()).unwrap()
}

fn read_endpoints(message: &ClusterLoadAssignment) -> Vec<weft_core::model::EndpointSpec> {
    decode::endpoints(&message.encode_to_vec()).unwrap().endpoints
}

fn first_endpoint(message: &mut ClusterLoadAssignment) -> &mut LbEndpoint {
    &mut message.endpoints[0].lb_endpoints[0]
}

fn host(message: &mut ClusterLoadAssignment) -> &mut Endpoint {
    match &mut first_endpoint(message).host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint,
        _ => unreachable!("the fixture has an endpoint"),
    }
}

fn socket_address(message: &mut ClusterLoadAssignment) -> &mut SocketAddress {
    match &mut host(message).address.as_mut().unwrap().address {
        Some(Choice::SocketAddress(socket)) => socket,
        _ => unreachable!("the fixture has a socket address"),
    }
}

#[test]
fn a_meshed_cluster_is_read_as_rendered() {
    let spec = read(&cluster("default/orders:80"));
    assert_eq!(spec.name.as_str(), "default/orders:80");
    assert_eq!(spec.service.to_string(), "default/orders:80");
    assert_eq!(spec.endpoints, EndpointSource::Discovered("default/orders:80".into()));
    assert_eq!(spec.connect_timeout, Duration::from_secs(1));
    assert_eq!(spec.outlier, weft_core::model::OutlierPolicy::default());
    assert_eq!(spec.tls.unwrap().identities, [SpiffeId::workload("weft.local", "default", "orders")]);
}

#[test]
fn a_local_cluster_has_its_endpoint_within_and_no_tls() {
    let message = Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        eds_cluster_config: None,
        load_assignment: Some(endpoints("inbound/8080", vec![endpoint("127.0.0.1", 8080, "default/orders-1")])),
        transport_socket: None,
        ..cluster("inbound/8080")
    };
    let spec = read(&message);
    let EndpointSource::Static(endpoints) = spec.endpoints else { panic!("{spec:?}") };
    assert_eq!(endpoints[0].address.to_string(), "127.0.0.1:8080");
    assert_eq!(spec.tls, None);
}

#[test]
fn a_foreign_cluster_gets_the_defaults_of_the_api_or_ours_where_it_says_nothing() {
    let bare = Cluster {
        connect_timeout: None,
        metadata: None,
        outlier_detection: None,
        transport_socket: None,
        lb_policy: LbPolicy::RoundRobin as i32,
        alt_stat_name: "ignored".to_owned(),
        ..cluster("plain")
    };
    let spec = read(&bare);
    assert_eq!(spec.connect_timeout, weft_core::model::DEFAULT_CONNECT_TIMEOUT);
    assert_eq!(spec.service.to_string(), "unknown/plain:0");
    assert_eq!(spec.outlier.consecutive_failures, 0, "no outlier_detection ejects nothing");
    assert_eq!(read(&Cluster { name: "ns/svc:81".to_owned(), ..bare.clone() }).service.to_string(), "ns/svc:81");

    let detection = Cluster { outlier_detection: Some(OutlierDetection::default()), ..bare };
    let outlier = read(&detection).outlier;
    assert_eq!((outlier.consecutive_failures, outlier.max_ejected_percent), (5, 10));
    assert_eq!((outlier.base_ejection.as_secs(), outlier.max_ejection.as_secs()), (30, 300));
}

#[test]
fn endpoints_may_have_another_name_than_their_cluster() {
    let mut message = cluster("a/b:1");
    message.eds_cluster_config.as_mut().unwrap().service_name = "elsewhere".to_owned();
    assert_eq!(read(&message).endpoints, EndpointSource::Discovered("elsewhere".into()));
}

fn add_facts<const N: usize>(message: &mut Cluster, facts: [(&str, Kind); N]) {
    let known = message.metadata.get_or_insert_default().filter_metadata.entry(names::METADATA.to_owned());
    let facts = facts.map(|(name, kind)| (name.to_owned(), Value { kind: Some(kind) }));
    known.or_default().fields.extend(facts);
}

#[test]
fn a_cluster_may_be_of_any_port_but_some_of_its_endpoints_addresses() {
    let mut message = cluster("peers/shop/web");
    let port = |port: f64| Value { kind: Some(Kind::NumberValue(port)) };
    let except = Kind::ListValue(ListValue { values: vec![port(9100.0), port(15020.0)] });
    add_facts(&mut message, [("any_port", Kind::BoolValue(true)), ("except_ports", except)]);
    let any_port =
        |except: &[u16]| EndpointSource::AnyPort { endpoints: message.name.as_str().into(), except: except.into() };
    assert_eq!(read(&message).endpoints, any_port(&[9100, 15020]));
    let mut all = cluster("peers/shop/web");
    add_facts(&mut all, [("any_port", Kind::BoolValue(true))]);
    assert_eq!(read(&all).endpoints, any_port(&[]));
    add_facts(&mut all, [("any_port", Kind::BoolValue(false))]);
    assert_eq!(read(&all).endpoints, EndpointSource::Discovered(message.name.as_str().into()));
}

#[test]
fn a_cluster_may_go_where_each_connection_was_going() {
    let message = Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32)),
        lb_policy: LbPolicy::ClusterProvided as i32,
        eds_cluster_config: None,
        transport_socket: None,
        ..cluster("inbound/8080")
    };
    assert_eq!(read(&message).endpoints, EndpointSource::OriginalDestination);
}

#[test]
fn a_balancing_list_needs_one_policy_that_chooses_freely() {
    let list = |names: &[&str]| {
        let policies = names.iter().map(|name| Policy {
            typed_extension_config: Some(TypedExtensionConfig {
                typed_config: Some(any_type(&format!("envoy.extensions.load_balancing_policies.{name}"))),
                ..Default::default()
            }),
        });
        let policies = policies.collect();
        Cluster { load_balancing_policy: Some(LoadBalancingPolicy { policies }), ..cluster("a/b:1") }
    };
    read(&list(&["least_request.v3.LeastRequest"]));
    read(&list(&["unheard_of.v3.UnheardOf", "round_robin.v3.RoundRobin"]));
    for names in [&["ring_hash.v3.RingHash"][..], &["pick_first.v3.PickFirst"], &[]] {
        assert_eq!(cluster_error(&list(names)).field, "load_balancing_policy.policies");
    }
}

#[test]
fn no_identity_means_nobody_and_not_anybody() {
    let message = Cluster { transport_socket: Some(socket(&upstream_tls(&[]))), ..cluster("a/b:1") };
    assert!(read(&message).tls.unwrap().identities.is_empty());
}

#[test]
fn the_typed_names_win_over_the_deprecated_ones() {
    let mut context = upstream_tls(&["spiffe://t/ns/n/sa/typed"]);
    validation(&mut context).match_subject_alt_names = vec![exact("spiffe://t/ns/n/sa/deprecated")];
    let identity = |context: &UpstreamTlsContext| {
        let message = Cluster { transport_socket: Some(socket(context)), ..cluster("a/b:1") };
        read(&message).tls.unwrap().identities[0].service_account().to_owned()
    };
    assert_eq!(identity(&context), "typed");
    validation(&mut context).match_typed_subject_alt_names.clear();
    assert_eq!(identity(&context), "deprecated");
}

#[test]
fn an_explicit_plaintext_socket_is_plaintext() {
    let message = Cluster { transport_socket: Some(socket(&RawBuffer::default())), ..cluster("a/b:1") };
    assert_eq!(read(&message).tls, None);
}

fn validation(context: &mut UpstreamTlsContext) -> &mut CertificateValidationContext {
    match &mut context.common_tls_context.as_mut().unwrap().validation_context_type {
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            combined.default_validation_context.as_mut().unwrap()
        }
        _ => unreachable!("the fixture has a combined context"),
    }
}

#[test]
fn what_a_cluster_may_not_say_is_refused_by_name() {
    let breakers = |thresholds| Some(CircuitBreakers { thresholds: vec![thresholds], ..Default::default() });
    read(&Cluster {
        circuit_breakers: breakers(Thresholds { max_requests: number(u32::MAX), ..Default::default() }),
        ..cluster("a/b:1")
    });
    assert_refused(
        &cluster("a/b:1"),
        decode::cluster,
        &[
            ("name", "nothing", |c| c.name.clear()),
            ("type", "STRICT_DNS", |c| c.cluster_discovery_type = Some(ClusterDiscoveryType::Type(1))),
            ("type", "LOGICAL_DNS", |c| c.cluster_discovery_type = Some(ClusterDiscoveryType::Type(2))),
            ("lb_policy", "CLUSTER_PROVIDED", |c| c.lb_policy = LbPolicy::ClusterProvided as i32),
            ("original_dst_lb_config", "a value", |c| {
                c.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32));
                let config = OriginalDstLbConfig { use_http_header: true, ..Default::default() };
                c.lb_config = Some(LbConfig::OriginalDstLbConfig(config));
            }),
            ("transport_socket", "plaintext for any port", |c| {
                add_facts(c, [("any_port", Kind::BoolValue(true))]);
                c.transport_socket = None;
            }),
            ("metadata.weft.dev.any_port", "no flag", |c| add_facts(c, [("any_port", Kind::NumberValue(1.0))])),
            ("metadata.weft.dev.except_ports", "no port number", |c| {
                let values = vec![Value { kind: Some(Kind::NumberValue(65536.0)) }];
                let except = Kind::ListValue(ListValue { values });
                add_facts(c, [("any_port", Kind::BoolValue(true)), ("except_ports", except)]);
            }),
            ("type", "77", |c| c.cluster_discovery_type = Some(ClusterDiscoveryType::Type(77))),
            ("cluster_type", "aggregate", |c| {
                let custom = CustomClusterType { name: "aggregate".to_owned(), ..Default::default() };
                c.cluster_discovery_type = Some(ClusterDiscoveryType::ClusterType(custom));
            }),
            ("load_assignment", "nothing", |c| c.cluster_discovery_type = None),
            ("eds_cluster_config", "nothing", |c| c.eds_cluster_config = None),
            ("eds_cluster_config.eds_config", "nothing", |c| {
                c.eds_cluster_config.as_mut().unwrap().eds_config = Some(ConfigSource::default());
            }),
            ("eds_cluster_config.eds_config", "resource_api_version 1", |c| {
                c.eds_cluster_config.as_mut().unwrap().eds_config.as_mut().unwrap().resource_api_version = 1;
            }),
            ("connect_timeout", "0", |c| c.connect_timeout = seconds(0)),
            ("connect_timeout", "-1 s", |c| c.connect_timeout = seconds(-1)),
            ("lb_policy", "RING_HASH", |c| c.lb_policy = LbPolicy::RingHash as i32),
            ("lb_policy", "MAGLEV", |c| c.lb_policy = LbPolicy::Maglev as i32),
            ("lb_policy", "CLUSTER_PROVIDED", |c| c.lb_policy = LbPolicy::ClusterProvided as i32),
            ("lb_subset_config", "", |c| c.lb_subset_config = Some(LbSubsetConfig::default())),
            ("common_lb_config.locality_weighted_lb_config", "", |c| {
                let specifier = LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {});
                c.common_lb_config =
                    Some(CommonLbConfig { locality_config_specifier: Some(specifier), ..Default::default() });
            }),
            ("health_checks", "", |c| c.health_checks.push(HealthCheck::default())),
            ("transport_socket_matcher", "", |c| c.transport_socket_matcher = Some(Default::default())),
            ("upstream_bind_config", "", |c| c.upstream_bind_config = Some(BindConfig::default())),
            ("circuit_breakers.thresholds", "", |c| {
                let limited = Thresholds { max_connections: number(10), ..Default::default() };
                c.circuit_breakers = Some(CircuitBreakers { thresholds: vec![limited], ..Default::default() });
            }),
            ("http2_protocol_options", "", |c| c.http2_protocol_options = Some(Http2ProtocolOptions::default())),
            ("typed_extension_protocol_options.explicit_http_config", "http3", |c| {
                speaks(c, explicit(ProtocolConfig::Http3ProtocolOptions(Http3ProtocolOptions::default())));
            }),
            ("typed_extension_protocol_options", "mongo", |c| {
                c.typed_extension_protocol_options.insert("mongo".to_owned(), any_type("x.Mongo"));
            }),
            ("metadata.weft.dev.service", "no text", |c| c.metadata = facts(&[("namespace", text("a"))])),
            ("metadata.weft.dev.port", "no port", |c| {
                c.metadata = facts(&[("namespace", text("a")), ("service", text("b")), ("port", text("c"))]);
            }),
            ("outlier_detection.max_ejection_percent", "101", |c| detection(c).max_ejection_percent = number(101)),
            ("outlier_detection.enforcing_consecutive_5xx", "50", |c| {
                detection(c).enforcing_consecutive_5xx = number(50);
            }),
            ("outlier_detection.enforcing_success_rate", "", |c| detection(c).enforcing_success_rate = number(100)),
            ("outlier_detection.enforcing_failure_percentage", "", |c| {
                detection(c).enforcing_failure_percentage = number(100);
            }),
            ("outlier_detection.always_eject_one_host", "", |c| detection(c).always_eject_one_host = yes()),
        ],
    );
}

fn detection(cluster: &mut Cluster) -> &mut OutlierDetection {
    cluster.outlier_detection.as_mut().unwrap()
}

#[test]
fn a_tls_context_that_trusts_otherwise_is_refused_by_name() {
    type Change = fn(&mut UpstreamTlsContext);
    let cases: [(&str, Change); 13] = [
        ("common_tls_context", |c| c.common_tls_context = None),
        ("auto_sni_san_validation", |c| c.auto_sni_san_validation = true),
        ("common_tls_context.tls_certificate_sds_secret_configs", |c| {
            c.common_tls_context.as_mut().unwrap().tls_certificate_sds_secret_configs.clear();
        }),
        ("common_tls_context.tls_certificate_sds_secret_configs[0].name", |c| {
            c.common_tls_context.as_mut().unwrap().tls_certificate_sds_secret_configs = vec![secret("ROOTCA")];
        }),
        ("common_tls_context.tls_certificates", |c| {
            c.common_tls_context.as_mut().unwrap().tls_certificates.push(Default::default());
        }),
        ("common_tls_context.tls_params.tls_maximum_protocol_version", |c| {
            let parameters = TlsParameters { tls_maximum_protocol_version: 3, ..Default::default() };
            c.common_tls_context.as_mut().unwrap().tls_params = Some(parameters);
        }),
        ("common_tls_context.validation_context_type", |c| {
            c.common_tls_context.as_mut().unwrap().validation_context_type = None;
        }),
        ("common_tls_context.validation_context_type", |c| {
            c.common_tls_context.as_mut().unwrap().validation_context_type =
                Some(ValidationContextType::ValidationContext(CertificateValidationContext::default()));
        }),
        ("common_tls_context.combined_validation_context.default_validation_context.trusted_ca", |c| {
            validation(c).trusted_ca = Some(Default::default());
        }),
        ("common_tls_context.combined_validation_context.default_validation_context.verify_certificate_hash", |c| {
            validation(c).verify_certificate_hash.push("00".to_owned());
        }),
        ("common_tls_context.match_typed_subject_alt_names[0].san_type", |c| {
            validation(c).match_typed_subject_alt_names[0].san_type = 2;
        }),
        ("common_tls_context.match_typed_subject_alt_names[0].matcher.exact", |c| {
            validation(c).match_typed_subject_alt_names[0].matcher = Some(exact("spiffe://t/other/path"));
        }),
        ("common_tls_context.match_typed_subject_alt_names[0].matcher.match_pattern", |c| {
            let matcher = validation(c).match_typed_subject_alt_names[0].matcher.as_mut().unwrap();
            matcher.match_pattern = Some(MatchPattern::Prefix("spiffe://t/".to_owned()));
        }),
    ];
    for (field, change) in cases {
        let mut context = upstream_tls(&["spiffe://t/ns/n/sa/a"]);
        change(&mut context);
        let message = Cluster { transport_socket: Some(socket(&context)), ..cluster("a/b:1") };
        assert_eq!(cluster_error(&message).field, format!("transport_socket.{field}"));
    }
    let foreign = TransportSocket { config_type: socket(&downstream_tls()).config_type, name: String::new() };
    let message = Cluster { transport_socket: Some(foreign), ..cluster("a/b:1") };
    assert_eq!(cluster_error(&message).field, "transport_socket.typed_config");
}

#[test]
fn health_and_workload_of_an_endpoint_are_read() {
    use EndpointHealth::{Draining, Ready, Unhealthy};
    for (status, health) in [
        (HealthStatus::Unknown, Ready),
        (HealthStatus::Healthy, Ready),
        (HealthStatus::Degraded, Ready),
        (HealthStatus::Draining, Draining),
        (HealthStatus::Unhealthy, Unhealthy),
        (HealthStatus::Timeout, Unhealthy),
    ] {
        let mut message = one_endpoint("a/b:1", 80);
        first_endpoint(&mut message).health_status = status as i32;
        let read = read_endpoints(&message);
        assert_eq!((read[0].health, read[0].workload.as_str()), (health, "default/orders-1"), "{status:?}");
    }
    let mut foreign = one_endpoint("a/b:1", 80);
    first_endpoint(&mut foreign).metadata = None;
    assert_eq!(read_endpoints(&foreign)[0].workload.as_str(), "10.97.0.5:80");
}

#[test]
fn localities_are_one_set_and_an_address_counts_once() {
    let mut message = endpoints("a/b:1", vec![endpoint("10.0.0.1", 1, "w1"), endpoint("fd58::5", 1, "w2")]);
    let other = endpoints("a/b:1", vec![endpoint("10.0.0.2", 1, "w3"), endpoint("10.0.0.1", 1, "w4")]);
    message.endpoints.extend(other.endpoints);
    let workloads: Vec<_> = read_endpoints(&message).iter().map(|endpoint| endpoint.workload.to_string()).collect();
    assert_eq!(workloads, ["w1", "w2", "w3"]);
}

#[test]
fn an_assignment_without_endpoints_is_an_empty_set() {
    assert!(read_endpoints(&endpoints("a/b:1", vec![])).is_empty());
    let none = ClusterLoadAssignment { cluster_name: "a/b:1".to_owned(), ..Default::default() };
    assert!(read_endpoints(&none).is_empty());
}

#[test]
fn what_an_assignment_may_not_say_is_refused_by_name() {
    const ADDRESS: &str = "endpoints[0].lb_endpoints[0].endpoint.address";
    const SOCKET: &str = "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address";
    const PORT: &str = "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value";
    assert_refused(
        &one_endpoint("a/b:1", 80),
        decode::endpoints,
        &[
            ("cluster_name", "nothing", |a| a.cluster_name.clear()),
            ("policy.drop_overloads", "", |a| {
                let drop = DropOverload {
                    drop_percentage: Some(FractionalPercent { numerator: 1, denominator: 0 }),
                    ..Default::default()
                };
                a.policy = Some(cluster_load_assignment::Policy { drop_overloads: vec![drop], ..Default::default() });
            }),
            ("endpoints[0].priority", "1", |a| a.endpoints[0].priority = 1),
            ("endpoints[0].lb_endpoints[1].load_balancing_weight", "3", |a| {
                let mut heavy = endpoint("10.0.0.9", 1, "w");
                heavy.load_balancing_weight = number(3);
                a.endpoints[0].lb_endpoints.push(heavy);
            }),
            ("endpoints[0].lb_endpoints[0].health_status", "99", |a| first_endpoint(a).health_status = 99),
            ("endpoints[0].lb_endpoints[0].endpoint", "nothing", |a| first_endpoint(a).host_identifier = None),
            ("endpoints[0].lb_endpoints[0].endpoint_name", "x", |a| {
                first_endpoint(a).host_identifier = Some(HostIdentifier::EndpointName("x".to_owned()));
            }),
            ("endpoints[0].lb_endpoints[0].endpoint.additional_addresses", "", |a| {
                host(a).additional_addresses.push(MoreAddresses::default());
            }),
            ("endpoints[0].lb_endpoints[0].metadata.weft.dev.workload", "no text", |a| {
                first_endpoint(a).metadata = facts(&[]);
            }),
            (ADDRESS, "nothing", |a| host(a).address = None),
            (ADDRESS, "pipe", |a| {
                host(a).address = Some(Address { address: Some(Choice::Pipe(Pipe::default())) });
            }),
            (SOCKET, "orders.example", |a| socket_address(a).address = "orders.example".to_owned()),
            (SOCKET, "0.0.0.0", |a| socket_address(a).address = "0.0.0.0".to_owned()),
            (SOCKET, "::", |a| socket_address(a).address = "::".to_owned()),
            (PORT, "0", |a| socket_address(a).port_specifier = Some(PortSpecifier::PortValue(0))),
            (PORT, "65536", |a| socket_address(a).port_specifier = Some(PortSpecifier::PortValue(65536))),
            (PORT, "nothing", |a| socket_address(a).port_specifier = None),
            ("endpoints[0].lb_endpoints[0].endpoint.address.socket_address.named_port", "http", |a| {
                socket_address(a).port_specifier = Some(PortSpecifier::NamedPort("http".to_owned()));
            }),
            ("endpoints[0].lb_endpoints[0].endpoint.address.socket_address.protocol", "UDP", |a| {
                socket_address(a).protocol = 1;
            }),
            ("endpoints[0].lb_endpoints[0].endpoint.address.socket_address.resolver_name", "dns", |a| {
                socket_address(a).resolver_name = "dns".to_owned();
            }),
        ],
    );
}

fn explicit(protocol: ProtocolConfig) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(protocol) })
}

fn speaks(cluster: &mut Cluster, protocol: UpstreamProtocolOptions) {
    let options = HttpProtocolOptions { upstream_protocol_options: Some(protocol), ..Default::default() };
    cluster
        .typed_extension_protocol_options
        .insert("envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(), pack(&options));
}

#[test]
fn what_an_application_speaks_is_told_by_its_cluster() {
    use weft_core::model::UpstreamProtocol;
    let table = [
        (None, UpstreamProtocol::Http1),
        (Some(explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default()))), UpstreamProtocol::Http1),
        (
            Some(explicit(ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default()))),
            UpstreamProtocol::Http2,
        ),
        (
            Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig::default())),
            UpstreamProtocol::AsDownstream,
        ),
    ];
    for (protocol, expected) in table {
        let mut message = cluster("default/orders:80");
        if let Some(protocol) = protocol {
            speaks(&mut message, protocol);
        }
        assert_eq!(read(&message).protocol, expected);
    }
}
