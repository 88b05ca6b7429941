//! Addresses: IP and port over TCP, nothing that would need a resolver.

use std::net::{IpAddr, SocketAddr};

use weft_proto::envoy::envoy::config::core::v3::address::Address as Choice;
use weft_proto::envoy::envoy::config::core::v3::socket_address::{PortSpecifier, Protocol};
use weft_proto::envoy::envoy::config::core::v3::{Address, SocketAddress};

use super::field::{Decoding, Refusal, Within};

const SUPPORTED: &str = "socket_address with an IP address and a port_value from 1 to 65535";

/// Reads the address that stands in `field`.
pub(super) fn address(address: Option<&Address>, field: &str) -> Decoding<SocketAddr> {
    let address = address_or_any(address, field)?;
    if address.ip().is_unspecified() {
        let supported = "the address itself; only inbound listeners may be for all";
        return Err(Refusal::new("address", address.ip(), supported)).within("socket_address").within(field);
    }
    Ok(address)
}

/// The same where the unspecified address means something.
pub(super) fn address_or_any(address: Option<&Address>, field: &str) -> Decoding<SocketAddr> {
    match address.and_then(|address| address.address.as_ref()) {
        Some(Choice::SocketAddress(socket)) => socket_address(socket).within("socket_address").within(field),
        Some(Choice::Pipe(_)) => Err(Refusal::new(field, "pipe", SUPPORTED)),
        Some(Choice::EnvoyInternalAddress(_)) => Err(Refusal::new(field, "envoy_internal_address", SUPPORTED)),
        None => Err(Refusal::missing(field, SUPPORTED)),
    }
}

fn socket_address(socket: &SocketAddress) -> Decoding<SocketAddr> {
    if socket.protocol != Protocol::Tcp as i32 {
        return Err(Refusal::new("protocol", "UDP", "TCP"));
    }
    if !socket.resolver_name.is_empty() {
        return Err(Refusal::new("resolver_name", &socket.resolver_name, "an IP address, no resolver"));
    }
    if !socket.network_namespace_filepath.is_empty() {
        return Err(Refusal::new("network_namespace_filepath", "a value", "leaving it out"));
    }
    let ip: IpAddr = socket
        .address
        .parse()
        .map_err(|_| Refusal::new("address", format_args!("`{}`", socket.address), "an IP address, not a host name"))?;
    match socket.port_specifier {
        Some(PortSpecifier::PortValue(port @ 1..=65535)) => Ok(SocketAddr::new(ip, port as u16)),
        Some(PortSpecifier::PortValue(port)) => Err(Refusal::new("port_value", port, "1 to 65535")),
        Some(PortSpecifier::NamedPort(ref name)) => Err(Refusal::new("named_port", name, "port_value")),
        None => Err(Refusal::missing("port_value", "1 to 65535")),
    }
}
