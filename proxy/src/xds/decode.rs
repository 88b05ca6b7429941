//! Envoy resources, and one of our own, to the model: what the proxy understands, and a typed refusal for everything else.
//!
//! Three classes of field, decided one by one:
//! - fields that say where traffic goes, who may, or what is sent: read, or the resource is refused by name of the
//!   field. Nothing of this class is dropped in silence;
//! - tuning of the other proxy's own resources (buffers, socket options, its drain, its guards against floods, logs,
//!   statistics, tracing): passed over, because ours has its own; `docs/xds.md` lists what of it is followed all the same;
//! - fields the pinned API version does not know: invisible to a protobuf reader.
//!
//! Pure; never panics, whatever the bytes.

mod address;
mod cluster;
mod destination;
mod endpoint;
mod field;
mod http;
mod http_options;
mod listener;
mod retry;
mod route;
mod route_match;
mod server_names;
mod tls;
mod transport;

use std::sync::Arc;

use weft_core::model::{ClusterSpec, DestinationSpec, EndpointSetSpec, ListenerSpec, RouteTableSpec};
use weft_proto::Read;
use weft_proto::envoy::envoy::config;

use self::field::Refusal;
use super::ResourceType;

/// Why a resource cannot be used: one fault, the first found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} `{resource}`: {field}: found {found}; supported: {supported}")]
pub struct DecodeError {
    /// What the resource is: [`ResourceType::label`], or `resource` when its type is unknown.
    pub kind: &'static str,
    /// The resource's name; empty when not even that could be read.
    pub resource: String,
    /// Path of the field within the resource, in the API's own words: `filter_chains[0].filters[1]`.
    pub field: String,
    /// What stands there: a bounded excerpt, never key material.
    pub found: String,
    /// What could stand there instead.
    pub supported: &'static str,
}

/// A resource of any type.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    Listener(ListenerSpec),
    Routes(RouteTableSpec),
    Cluster(ClusterSpec),
    Endpoints(EndpointSetSpec),
    Destination(DestinationSpec),
}

impl Decoded {
    /// The name within the resource.
    pub fn name(&self) -> &str {
        match self {
            Self::Listener(spec) => spec.name.as_str(),
            Self::Routes(spec) => spec.name.as_str(),
            Self::Cluster(spec) => spec.name.as_str(),
            Self::Endpoints(spec) => spec.name.as_str(),
            Self::Destination(spec) => spec.name.as_str(),
        }
    }
}

impl Decoded {
    /// The name within the resource, shared with it.
    pub fn shared_name(&self) -> Arc<str> {
        match self {
            Self::Listener(spec) => spec.name.shared(),
            Self::Routes(spec) => spec.name.shared(),
            Self::Cluster(spec) => spec.name.shared(),
            Self::Endpoints(spec) => spec.name.shared(),
            Self::Destination(spec) => spec.name.shared(),
        }
    }
}

/// Reads an `envoy.config.listener.v3.Listener`.
pub fn listener(body: &[u8]) -> Result<ListenerSpec, DecodeError> {
    let message: config::listener::v3::Listener = parse(ResourceType::Listener, body)?;
    listener::listener(&message).map_err(|refusal| refusal.of("listener", &message.name))
}

/// Reads an `envoy.config.route.v3.RouteConfiguration`.
pub fn route(body: &[u8]) -> Result<RouteTableSpec, DecodeError> {
    let message: config::route::v3::RouteConfiguration = parse(ResourceType::Routes, body)?;
    field::present(&message.name, "name")
        .and_then(|()| route::route_table(&message))
        .map_err(|refusal| refusal.of("routes", &message.name))
}

/// Reads an `envoy.config.cluster.v3.Cluster`.
pub fn cluster(body: &[u8]) -> Result<ClusterSpec, DecodeError> {
    let message: config::cluster::v3::Cluster = parse(ResourceType::Cluster, body)?;
    cluster::cluster(&message).map_err(|refusal| refusal.of("cluster", &message.name))
}

/// Reads an `envoy.config.endpoint.v3.ClusterLoadAssignment`.
pub fn endpoints(body: &[u8]) -> Result<EndpointSetSpec, DecodeError> {
    let message: config::endpoint::v3::ClusterLoadAssignment = parse(ResourceType::Endpoints, body)?;
    endpoint::endpoint_set(&message).map_err(|refusal| refusal.of("endpoints", &message.cluster_name))
}

/// Reads a `weft.v1.Destination`. Its name is not in its body.
pub fn destination(name: &str, body: &[u8]) -> Result<DestinationSpec, DecodeError> {
    let message: weft_proto::weft::Destination = parse(ResourceType::Destination, body)?;
    destination::destination(name, &message).map_err(|refusal| refusal.of("destination", name))
}

/// Reads a resource as it comes in a discovery response: its type, its name there, its body.
///
/// An empty `name` is taken from the body, where there is one; another name than the body's is refused, because whoever asked for one
/// would get the other.
pub fn decode(type_url: &str, name: &str, body: &[u8]) -> Result<Decoded, DecodeError> {
    let Some(kind) = ResourceType::from_url(type_url) else {
        let supported = "the v3 types of listener, route configuration, cluster and load assignment, and destination";
        return Err(Refusal::new("type_url", type_url, supported).of("resource", name));
    };
    decode_as(kind, name, body)
}

/// [`decode`] for a type that is known.
pub(crate) fn decode_as(kind: ResourceType, name: &str, body: &[u8]) -> Result<Decoded, DecodeError> {
    let decoded = match kind {
        ResourceType::Listener => listener(body).map(Decoded::Listener),
        ResourceType::Routes => route(body).map(Decoded::Routes),
        ResourceType::Cluster => cluster(body).map(Decoded::Cluster),
        ResourceType::Endpoints => endpoints(body).map(Decoded::Endpoints),
        ResourceType::Destination => destination(name, body).map(Decoded::Destination),
    };
    let decoded = decoded.map_err(|mut error| {
        if error.resource.is_empty() {
            error.resource = field::excerpt(name);
        }
        error
    })?;
    if name.is_empty() || name == decoded.name() {
        Ok(decoded)
    } else {
        Err(Refusal::new("name", decoded.name(), "the name the response gives it").of(kind.label(), name))
    }
}

fn parse<M: Read>(kind: ResourceType, body: &[u8]) -> Result<M, DecodeError> {
    M::read(body).map_err(|error| {
        Refusal::new("(whole resource)", format_args!("bytes that cannot be read: {error}"), "its protobuf message")
            .of(kind.label(), "")
    })
}

impl Refusal {
    fn of(self, kind: &'static str, resource: &str) -> DecodeError {
        DecodeError {
            kind,
            resource: field::excerpt(resource),
            field: self.field,
            found: self.found,
            supported: self.supported,
        }
    }
}

#[cfg(test)]
mod tests;
