//! How the endpoints of a cluster are reached where they differ.

use weft_core::model::{ClusterSpec, EndpointSetSpec};
use weft_proto::envoy::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use weft_proto::envoy::envoy::config::core::v3::Metadata;
use weft_proto::envoy::envoy::config::core::v3::transport_socket::ConfigType as SocketConfig;
use weft_proto::envoy::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use weft_proto::envoy::google::protobuf::value::Kind;
use weft_proto::envoy::google::protobuf::{Struct, Value};
use weft_proto::names;

use super::*;

const ORDERS: &str = "spiffe://weft.local/ns/default/sa/orders";

fn labels(labels: &[(&str, Kind)]) -> Struct {
    let value = |kind: &Kind| Value { kind: Some(kind.clone()) };
    Struct { fields: labels.iter().map(|(name, kind)| ((*name).to_owned(), value(kind))).collect() }
}

fn text(text: &str) -> Kind {
    Kind::StringValue(text.to_owned())
}

fn when(wanted: Option<Struct>, transport_socket: Option<TransportSocket>) -> TransportSocketMatch {
    TransportSocketMatch { name: "a".to_owned(), r#match: wanted, transport_socket }
}

fn tls() -> Option<TransportSocket> {
    Some(socket(&upstream_tls(&[ORDERS])))
}

fn plain() -> Option<TransportSocket> {
    Some(socket(&RawBuffer::default()))
}

fn read(own: Option<TransportSocket>, matches: Vec<TransportSocketMatch>) -> ClusterSpec {
    let message = Cluster { transport_socket: own, transport_socket_matches: matches, ..cluster("a/b:1") };
    decode::cluster(&message.encode_to_vec()).unwrap()
}

/// An endpoint that says this of how it is reached.
fn endpoint(said: Option<Struct>) -> EndpointSetSpec {
    let mut message = one_endpoint("a/b:1", 80);
    let said = said.map(|said| (names::TRANSPORT_SOCKET_MATCH.to_owned(), said));
    let metadata = Metadata { filter_metadata: said.into_iter().collect(), ..Default::default() };
    message.endpoints[0].lb_endpoints[0].metadata = Some(metadata);
    decode::endpoints(&message.encode_to_vec()).unwrap()
}

/// By mutual TLS, as the proxy asks of a cluster and an endpoint.
fn protects(cluster: &ClusterSpec, said: Option<Struct>) -> bool {
    let endpoints = endpoint(said).endpoints;
    cluster.tls.as_ref().is_some_and(|tls| tls.protects(endpoints[0].transport.as_ref()))
}

#[test]
fn plaintext_is_for_those_who_say_so_and_mutual_tls_for_all_others() {
    let plaintext = || labels(&[(names::PLAINTEXT, Kind::BoolValue(true))]);
    let cluster = read(tls(), vec![when(Some(plaintext()), plain())]);
    let said: [(Option<Struct>, bool); 8] = [
        (None, true),
        (Some(labels(&[])), true),
        (Some(plaintext()), false),
        (Some(labels(&[("other", text("x")), (names::PLAINTEXT, Kind::BoolValue(true))])), false),
        (Some(labels(&[(names::PLAINTEXT, Kind::BoolValue(false))])), true),
        (Some(labels(&[(names::PLAINTEXT, text("true"))])), true),
        (Some(labels(&[(names::PLAINTEXT, Kind::NumberValue(1.0))])), true),
        (Some(labels(&[(names::PLAINTEXT, Kind::StructValue(plaintext()))])), true),
    ];
    for (said, expected) in said {
        assert_eq!(protects(&cluster, said.clone()), expected, "{said:?}");
    }
    // The label means nothing where no match asks for it.
    assert!(protects(&read(tls(), Vec::new()), Some(plaintext())));
    assert!(!protects(&read(None, Vec::new()), None));
}

#[test]
fn the_first_match_decides_and_the_clusters_own_socket_comes_last() {
    let mode = |mode: &str| Some(labels(&[("tlsMode", text(mode))]));
    // As Istio writes it: TLS where it is said, plaintext for all others.
    let istio = read(None, vec![when(mode("istio"), tls()), when(None, plain())]);
    assert!(protects(&istio, mode("istio")) && !protects(&istio, mode("disabled")) && !protects(&istio, None));
    // The same without a match for the others.
    let bare = read(None, vec![when(mode("istio"), tls())]);
    assert!(protects(&bare, mode("istio")) && !protects(&bare, None));
    let reversed = read(tls(), vec![when(Some(labels(&[])), plain()), when(mode("istio"), tls())]);
    assert!(!protects(&reversed, mode("istio")));
    let both = Some(labels(&[("a", text("1")), ("b", text("2"))]));
    let both = read(tls(), vec![when(both.clone(), plain())]);
    assert!(protects(&both, Some(labels(&[("a", text("1"))]))));
    assert!(!protects(&both, Some(labels(&[("b", text("2")), ("a", text("1"))]))));
    // All in plaintext is plaintext.
    assert_eq!(read(None, vec![when(mode("x"), plain())]).tls, None);
}

#[test]
fn what_matches_may_not_say_is_refused_by_name() {
    let base = Cluster {
        transport_socket: tls(),
        transport_socket_matches: vec![when(Some(labels(&[("a", text("b"))])), plain())],
        ..cluster("a/b:1")
    };
    assert_refused(
        &base,
        decode::cluster,
        &[
            ("transport_socket_matches[0].transport_socket", "nothing", |c| {
                c.transport_socket_matches[0].transport_socket = None;
            }),
            ("transport_socket_matches[0].transport_socket", "other identities", |c| {
                let other = upstream_tls(&["spiffe://weft.local/ns/default/sa/other"]);
                c.transport_socket_matches[0].transport_socket = Some(socket(&other));
            }),
            ("transport_socket_matches[0].match", "`a`", |c| {
                c.transport_socket_matches[0].r#match = Some(labels(&[("a", Kind::NullValue(0))]));
            }),
            ("transport_socket_matches[0].transport_socket.typed_config", "x.Y", |c| {
                let foreign = TransportSocket {
                    config_type: Some(SocketConfig::TypedConfig(any_type("x.Y"))),
                    ..Default::default()
                };
                c.transport_socket_matches[0].transport_socket = Some(foreign);
            }),
        ],
    );
}
