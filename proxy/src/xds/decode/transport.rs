//! How the endpoints of a cluster are reached where they differ: the cluster's matches, and what an endpoint says of itself.
//!
//! As in Envoy the first match all of whose labels an endpoint has decides, and without any the cluster's own socket. Only
//! plaintext and one form of mutual TLS can be told apart: the same identities are trusted at all endpoints.

use weft_core::model::{TransportLabels, TransportMatch, UpstreamTls};
use weft_proto::envoy::envoy::config::cluster::v3::Cluster;
use weft_proto::envoy::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use weft_proto::envoy::envoy::config::core::v3::Metadata;
use weft_proto::envoy::google::protobuf::Struct;
use weft_proto::envoy::google::protobuf::value::Kind;
use weft_proto::names;

use super::field::{Decoding, Refusal, Within};
use super::tls;

const FIELD: &str = "transport_socket_matches";

/// Mutual TLS towards the endpoints, or `None` for plaintext towards all of them.
pub(super) fn of_cluster(cluster: &Cluster) -> Decoding<Option<UpstreamTls>> {
    let own = tls::upstream(cluster.transport_socket.as_ref()).within("transport_socket")?;
    if cluster.transport_socket_matches.is_empty() {
        return Ok(own);
    }
    let own_is_protected = own.is_some();
    let mut tls = own;
    let mut exceptions = Vec::with_capacity(cluster.transport_socket_matches.len() + 1);
    for (index, rule) in cluster.transport_socket_matches.iter().enumerate() {
        exceptions.push(exception(rule, &mut tls).within_item(FIELD, index)?);
    }
    let Some(mut tls) = tls else { return Ok(None) };
    if !own_is_protected {
        exceptions.push(TransportMatch { labels: None, is_protected: false });
    }
    tls.exceptions = exceptions.into();
    Ok(Some(tls))
}

/// `known`: the TLS of those before.
fn exception(rule: &TransportSocketMatch, known: &mut Option<UpstreamTls>) -> Decoding<TransportMatch> {
    if rule.transport_socket.is_none() {
        return Err(Refusal::missing("transport_socket", "mutual TLS or raw_buffer"));
    }
    let labels = rule.r#match.as_ref().map_or(Ok(None), labels)?;
    let tls = tls::upstream(rule.transport_socket.as_ref()).within("transport_socket")?;
    let is_protected = tls.is_some();
    if let Some(tls) = tls {
        let known = known.get_or_insert_with(|| tls.clone());
        if known.identities != tls.identities {
            let supported = "the identities of the cluster's other mutual TLS";
            return Err(Refusal::new("transport_socket", "other identities", supported));
        }
    }
    Ok(TransportMatch { labels, is_protected })
}

fn labels(wanted: &Struct) -> Decoding<Option<TransportLabels>> {
    let mut labels = Vec::with_capacity(wanted.fields.len());
    for (name, value) in &wanted.fields {
        let refused = || Refusal::new("match", format_args!("`{name}`"), "text, numbers and flags");
        labels.push((name.as_str().into(), text(value.kind.as_ref()).ok_or_else(refused)?));
    }
    Ok(TransportLabels::new(labels))
}

/// What an endpoint says of how it is reached. What no match can ask for is left out.
pub(super) fn of_endpoint(metadata: Option<&Metadata>) -> Option<TransportLabels> {
    let own = metadata?.filter_metadata.get(names::TRANSPORT_SOCKET_MATCH)?;
    TransportLabels::new(own.fields.iter().filter_map(|(name, value)| {
        let value = text(value.kind.as_ref())?;
        Some((name.as_str().into(), value))
    }))
}

/// A value as it compares: values of two kinds are never the same.
fn text(kind: Option<&Kind>) -> Option<Box<str>> {
    match kind? {
        Kind::StringValue(text) => Some(format!("\"{text}\"").into()),
        Kind::BoolValue(flag) => Some(flag.to_string().into()),
        Kind::NumberValue(number) => Some(number.to_string().into()),
        Kind::NullValue(_) | Kind::StructValue(_) | Kind::ListValue(_) => None,
    }
}
