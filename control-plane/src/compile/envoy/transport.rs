//! How endpoints are reached: those without a proxy among others that have one.
//!
//! Such an endpoint says of itself that it is reached in plaintext, and the cluster has a match for just that. Whatever says
//! nothing falls through to the cluster's mutual TLS, so that a label that is lost never exposes anything.

use std::collections::HashMap;

use weft_core::names::SpiffeId;
use weft_proto::envoy::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use weft_proto::envoy::envoy::config::core::v3::transport_socket::ConfigType;
use weft_proto::envoy::envoy::config::core::v3::{Metadata, TransportSocket};
use weft_proto::envoy::google::protobuf::value::Kind;
use weft_proto::envoy::google::protobuf::{Any, Struct, Value};
use weft_proto::names;

/// How the endpoints of a service are reached.
#[derive(Clone, Copy)]
pub(in crate::compile) enum Protection<'a> {
    /// All in plaintext: a service outside the mesh.
    Plaintext,
    /// By mutual TLS, from whoever is one of these.
    Mutual(&'a [SpiffeId]),
    /// By mutual TLS, but for the endpoints that have no proxy.
    Mixed(&'a [SpiffeId]),
}

/// The match of a cluster for endpoints without a proxy.
pub(super) fn plaintext_match() -> TransportSocketMatch {
    let raw_buffer = Any { type_url: names::RAW_BUFFER.to_owned(), value: Vec::new() };
    TransportSocketMatch {
        name: "plaintext".to_owned(),
        r#match: Some(label()),
        transport_socket: Some(TransportSocket {
            name: "envoy.transport_sockets.raw_buffer".to_owned(),
            config_type: Some(ConfigType::TypedConfig(raw_buffer)),
        }),
    }
}

/// What one of them says of itself. One key in each map: there is no order to vary.
pub(super) fn plaintext() -> Metadata {
    Metadata {
        filter_metadata: HashMap::from([(names::TRANSPORT_SOCKET_MATCH.to_owned(), label())]),
        ..Metadata::default()
    }
}

fn label() -> Struct {
    let yes = Value { kind: Some(Kind::BoolValue(true)) };
    Struct { fields: HashMap::from([(names::PLAINTEXT.to_owned(), yes)]) }
}
