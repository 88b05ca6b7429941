//! Envoy's messages as Weft writes them, encoded. Nothing here decides: it is the rendering alone.
//!
//! | module | renders |
//! |---|---|
//! | `listeners` | listeners, their filter chains and filters |
//! | `routes` | the routes of a service port |
//! | `clusters` | clusters, and the facts of a service that stand in their metadata |
//! | `endpoints` | the endpoints of a cluster |
//! | `policy` | timeouts and retries |
//! | `server_names` | chains by the name a TLS connection asks for |
//! | `tcp` | the filter that carries bytes |
//! | `transport` | how endpoints are reached: by mutual TLS, or in plaintext among others |
//!
//! Encoding must be deterministic, since versions are hashes of it. Maps of the generated types iterate in random
//! order, so a map with more than one key goes through `clusters`' own message, which is sorted.

mod clusters;
mod endpoints;
mod listeners;
mod policy;
pub(in crate::compile) mod routes;
mod server_names;
mod tcp;
mod transport;

use std::collections::HashMap;
use std::net::SocketAddr;

use bytes::Bytes;
use prost::Message;
use weft_proto::envoy::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use weft_proto::envoy::envoy::config::core::v3::socket_address::PortSpecifier;
use weft_proto::envoy::envoy::config::core::v3::transport_socket::ConfigType as SocketConfig;
use weft_proto::envoy::envoy::config::core::v3::{
    self as core, AggregatedConfigSource, ApiVersion, ConfigSource, Metadata, SocketAddress, TransportSocket,
};
use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::{SdsSecretConfig, TlsParameters};
use weft_proto::envoy::google::protobuf::value::Kind as ValueKind;
use weft_proto::envoy::google::protobuf::{Any, Duration, Struct, Value};
use weft_proto::names;

pub(super) use clusters::{
    ServiceFacts, any_port_cluster, discovered_cluster, original_destination_cluster, static_cluster,
};
pub(super) use endpoints::{Endpoint, Health, assignment};
pub(super) use listeners::{Address, Direction, listener};
pub(super) use routes::route_configuration;
pub(super) use server_names::NamedChain;
pub(super) use transport::Protection;

/// Metadata of one fact. One key in each map: there is no order to vary.
fn fact(key: &str, value: &str) -> Metadata {
    let facts = Struct { fields: HashMap::from([(key.to_owned(), text(value))]) };
    Metadata { filter_metadata: HashMap::from([(names::METADATA.to_owned(), facts)]), ..Metadata::default() }
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
