#![allow(deprecated, reason = "deprecated fields must be refused by name too")]
#![allow(
    clippy::default_trait_access,
    clippy::unnecessary_wraps,
    reason = "tables of protobuf messages read better so"
)]

use std::time::Duration;

use proptest::prelude::*;
use prost::Message;
use weft_core::model::{Direction, EndpointHealth, EndpointSource, InboundTls, PathMatch, Protocol, RouteSource};
use weft_core::names::SpiffeId;
use weft_proto::envoy::envoy::config::cluster::v3::cluster::ClusterDiscoveryType;
use weft_proto::envoy::envoy::config::cluster::v3::{Cluster, OutlierDetection};
use weft_proto::envoy::envoy::config::core::v3::{
    Address, ConfigSource, HealthCheck, HealthStatus, Pipe, SocketAddress, TrafficDirection, TransportSocket,
    TypedExtensionConfig,
};
use weft_proto::envoy::envoy::config::endpoint::v3::ClusterLoadAssignment;
use weft_proto::envoy::envoy::config::listener::v3::{AdditionalAddress, Listener};
use weft_proto::envoy::envoy::config::route::v3::route_match::PathSpecifier;
use weft_proto::envoy::envoy::config::route::v3::{FilterConfig, RouteAction, RouteConfiguration};
use weft_proto::envoy::google::protobuf::{Any, BoolValue, UInt32Value};

use super::DecodeError;
use crate::xds::ResourceType;
use crate::xds::decode;
use crate::xds::fixtures::*;

mod of_clusters;
mod of_http_options;
mod of_listeners;
mod of_retries;
mod of_routes;
mod of_transports;

/// A resource changed in one place, what the refusal must name, and what it must quote.
type Refused<M> = (&'static str, &'static str, fn(&mut M));

/// Checks that each change is refused at its field, with its finding.
#[track_caller]
fn assert_refused<M: Message + Clone, T: std::fmt::Debug>(
    base: &M,
    read: fn(&[u8]) -> Result<T, DecodeError>,
    cases: &[Refused<M>],
) {
    read(&base.encode_to_vec()).expect("the unchanged resource is accepted");
    for (field, found, change) in cases {
        let mut message = base.clone();
        change(&mut message);
        let error = read(&message.encode_to_vec()).expect_err(field);
        assert_eq!(error.field, *field, "{error}");
        assert!(error.found.contains(found), "{error} does not quote {found}");
    }
}

fn yes() -> Option<BoolValue> {
    Some(BoolValue { value: true })
}

fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

fn any_type(name: &str) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value: Vec::new() }
}

#[test]
fn an_error_names_resource_field_finding_and_remedy() {
    let mut message = cluster("default/orders:80");
    message.lb_policy = 2;
    let error = cluster_error(&message);
    assert_eq!(
        error.to_string(),
        "cluster `default/orders:80`: lb_policy: found RING_HASH; supported: LEAST_REQUEST, ROUND_ROBIN or RANDOM"
    );
}

fn cluster_error(message: &Cluster) -> DecodeError {
    decode::cluster(&message.encode_to_vec()).unwrap_err()
}

#[test]
fn a_resource_is_read_by_the_type_and_name_of_its_response() {
    let body = cluster("a/b:1").encode_to_vec();
    let url = ResourceType::Cluster.url();
    assert_eq!(decode::decode(url, "a/b:1", &body).unwrap().name(), "a/b:1");
    assert_eq!(decode::decode(url, "", &body).unwrap().name(), "a/b:1");
    assert_eq!(decode::decode(url, "other", &body).unwrap_err().field, "name");
    assert_eq!(decode::decode("type.googleapis.com/x.Y", "a/b:1", &body).unwrap_err().field, "type_url");
    assert_eq!(decode::decode(url, "n", b"\xff\xff").unwrap_err().resource, "n");
}

#[test]
fn what_is_quoted_is_bounded_and_printable() {
    let mut message = cluster(&"x".repeat(10_000));
    message.lb_policy = 2;
    assert!(cluster_error(&message).to_string().len() < 400);
    let mut message = cluster("a\n\u{1b}[31mb");
    message.lb_policy = 2;
    assert!(!cluster_error(&message).to_string().contains(char::is_control));
}

#[test]
fn key_material_in_a_refused_resource_is_not_quoted() {
    use weft_proto::envoy::envoy::config::core::v3::DataSource;
    use weft_proto::envoy::envoy::config::core::v3::data_source::Specifier;
    use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::TlsCertificate;
    let mut context = upstream_tls(&[]);
    context.common_tls_context.as_mut().unwrap().tls_certificates.push(TlsCertificate {
        private_key: Some(DataSource {
            specifier: Some(Specifier::InlineString("SECRET".to_owned())),
            ..Default::default()
        }),
        ..Default::default()
    });
    let message = Cluster { transport_socket: Some(socket(&context)), ..cluster("a/b:1") };
    assert!(!cluster_error(&message).to_string().contains("SECRET"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = (decode::listener(&body), decode::route(&body), decode::cluster(&body), decode::endpoints(&body));
        let _ = decode::destination("10.0.0.9", &body);
    }

    /// Close to the real thing, so that the bytes get past the outermost message.
    #[test]
    fn damaged_resources_never_panic(which in 0..ResourceType::ALL.len(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let kind = ResourceType::ALL[which];
        let mut body = match kind {
            ResourceType::Cluster => cluster("a/b:1").encode_to_vec(),
            ResourceType::Endpoints => one_endpoint("a/b:1", 80).encode_to_vec(),
            ResourceType::Listener => http_listener("l", "r").encode_to_vec(),
            ResourceType::Routes => routes("r", "a/b:1").encode_to_vec(),
            ResourceType::Destination => peer_at("orders").encode_to_vec(),
        };
        let at = at.index(body.len());
        body[at] = byte;
        let name = if kind == ResourceType::Destination { "10.0.0.9" } else { "a/b:1" };
        let _ = decode::decode(kind.url(), name, &body);
    }
}
