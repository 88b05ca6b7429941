//! Proof that the pod is captured, as the proxy itself can see it: without any right, and though it is exempt.
//!
//! A call of the proxy to an address of its own pod is one that its workload makes to its own service: the rules send it to
//! the inbound port, whatever port it was for. Where there are no rules, it is refused, or somebody else takes it. The rules
//! are one table, so that this one stands for all of them; each family has its proof.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;

use super::check::{NOWHERE_PORTS, sockets};
use crate::clock;

/// Within one machine a connection is made at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The kernel's table shows both ends of it a moment later.
const ARRIVAL_TIMEOUT: Duration = Duration::from_millis(500);

/// Why it is not proved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    #[error("this network namespace has no address but loopback's")]
    NoAddress,
    #[error("connections to {0} are not redirected to the proxy: the rules are missing")]
    NotRedirected(IpAddr),
}

/// Proves that connections to the pod's own addresses, one of each family, arrive at the proxy's inbound port.
///
/// Blocks for as long as connections within the machine take.
pub fn prove(inbound_port: u16) -> Result<(), Unproven> {
    let addresses = own_addresses();
    let of_family = |is_ipv4: bool| addresses.iter().copied().find(|address| address.is_ipv4() == is_ipv4);
    let chosen: Vec<IpAddr> = [true, false].into_iter().filter_map(of_family).collect();
    if chosen.is_empty() {
        return Err(Unproven::NoAddress);
    }
    // An excluded port proves nothing; that all of these are excluded, nobody wants.
    let is_redirected =
        |address| NOWHERE_PORTS.iter().any(|&port| arrives(SocketAddr::new(address, port), inbound_port));
    match chosen.into_iter().find(|&address| !is_redirected(address)) {
        Some(address) => Err(Unproven::NotRedirected(address)),
        None => Ok(()),
    }
}

fn arrives(target: SocketAddr, inbound_port: u16) -> bool {
    let Ok(client) = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT) else { return false };
    let Ok(local) = client.local_addr() else { return false };
    sockets::taker(local, clock::now() + ARRIVAL_TIMEOUT) == Some(inbound_port)
}

/// Those by which others reach this namespace.
fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let storage = interface.address?;
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))
    };
    let is_usable = |address: &IpAddr| match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    };
    interfaces.filter_map(address).filter(is_usable).collect()
}
