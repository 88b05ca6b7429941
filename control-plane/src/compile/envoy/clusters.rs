//! Clusters: the upstreams of a service port, and how they are spoken to.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use bytes::Bytes;
use prost::Message;
use weft_core::names::SpiffeId;
use weft_proto::envoy::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy,
};
use weft_proto::envoy::envoy::config::cluster::v3::{Cluster, OutlierDetection};
use weft_proto::envoy::envoy::config::core::v3::{self as core, TransportSocket};
use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SubjectAltNameMatcher, UpstreamTlsContext,
};
use weft_proto::envoy::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use weft_proto::envoy::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use weft_proto::envoy::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use weft_proto::envoy::envoy::r#type::matcher::v3::StringMatcher;
use weft_proto::envoy::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use weft_proto::envoy::google::protobuf::value::Kind as ValueKind;
use weft_proto::envoy::google::protobuf::{Any, ListValue, UInt32Value, Value};
use weft_proto::names;

use super::endpoints::{Endpoint, Health, load_assignment};
use super::transport::{self, Protection};
use super::{alpn, any, over_ads, seconds, secret, text, tls_parameters, tls_socket};
use crate::document::Protocol;

/// What metadata says of a cluster.
pub(in crate::compile) struct ServiceFacts<'a> {
    pub(in crate::compile) namespace: &'a str,
    pub(in crate::compile) service: &'a str,
    pub(in crate::compile) port: u16,
}

/// A cluster whose endpoints come by their own resource.
pub(in crate::compile) fn discovered_cluster(
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
pub(in crate::compile) fn static_cluster(
    name: &str,
    address: SocketAddr,
    facts: &ServiceFacts<'_>,
    protocol: Protocol,
) -> Bytes {
    let endpoint = Endpoint { address, health: Health::Healthy, workload: None, meshed: false, locality: None };
    let cluster = Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        load_assignment: Some(load_assignment(name, &[endpoint], false)),
        ..cluster_of(name, protocol)
    };
    encode_with_facts(&cluster, facts)
}

/// A cluster whose one endpoint is wherever the connection was going: the application beside the proxy, at the address that
/// was called.
pub(in crate::compile) fn original_destination_cluster(
    name: &str,
    facts: &ServiceFacts<'_>,
    protocol: Protocol,
) -> Bytes {
    let cluster = Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32)),
        lb_policy: LbPolicy::ClusterProvided as i32,
        ..cluster_of(name, protocol)
    };
    encode_with_facts(&cluster, facts)
}

/// A cluster for any port of its endpoints' addresses but some. They come by their own resource.
pub(in crate::compile) fn any_port_cluster(
    name: &str,
    facts: &ServiceFacts<'_>,
    except: &[u16],
    identity: &SpiffeId,
) -> Bytes {
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

fn number(number: u16) -> Value {
    Value { kind: Some(ValueKind::NumberValue(f64::from(number))) }
}
