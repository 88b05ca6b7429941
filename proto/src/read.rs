//! Reading the messages of resources.
//!
//! prost's readers are generic: they would be compiled into whoever reads, for a speed that configuration does not need.
//! Here they are compiled once, in a crate that is built for size: half a megabyte that every proxy holds.

use prost::{DecodeError, Message};

use crate::envoy::envoy::config::cluster::v3::Cluster;
use crate::envoy::envoy::config::endpoint::v3::ClusterLoadAssignment;
use crate::envoy::envoy::config::listener::v3::Listener;
use crate::envoy::envoy::config::route::v3::RouteConfiguration;
use crate::envoy::envoy::extensions::filters::http::router::v3::Router;
use crate::envoy::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use crate::envoy::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use crate::envoy::envoy::extensions::transport_sockets::tls::v3::{DownstreamTlsContext, UpstreamTlsContext};
use crate::envoy::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use crate::weft::Destination;

/// A message that a resource is, or holds.
pub trait Read: Sized {
    /// # Errors
    /// When the bytes are not such a message.
    fn read(bytes: &[u8]) -> Result<Self, DecodeError>;
}

macro_rules! read {
    ($($message:ty),+ $(,)?) => {
        $(impl Read for $message {
            fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
                Self::decode(bytes)
            }
        })+
    };
}

read!(
    Destination,
    Listener,
    RouteConfiguration,
    Cluster,
    ClusterLoadAssignment,
    HttpConnectionManager,
    Router,
    TcpProxy,
    HttpProtocolOptions,
    UpstreamTlsContext,
    DownstreamTlsContext,
);
