//! Listening sockets: one per address and worker, so that the kernel spreads connections.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::str::FromStr;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::stream::tune;

/// Connections the kernel holds before we accept them; it lowers this to its own limit.
const BACKLOG: i32 = 4096;

/// An address to listen on, and the original destination of what comes there when no kernel rule tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    pub address: SocketAddr,
    pub fixed: Option<SocketAddr>,
}

/// Why a text is not a listen address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a listen address; expected IP:PORT, or IP:PORT=ORIGINAL-IP:PORT where nothing redirects")]
pub struct ParseListenError(String);

impl FromStr for Listen {
    type Err = ParseListenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || ParseListenError(text.to_owned());
        let (address, fixed) = match text.split_once('=') {
            Some((address, fixed)) => (address, Some(fixed.parse().map_err(|_| invalid())?)),
            None => (text, None),
        };
        Ok(Self { address: address.parse().map_err(|_| invalid())?, fixed })
    }
}

/// Binds `count` sockets to one address; port 0 becomes the port the kernel gave the first.
///
/// # Errors
/// What the kernel says: the port is in use, the address is not ours, no permission.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let mut sockets = Vec::with_capacity(count);
    fill(&mut sockets, address, count)?;
    Ok(sockets)
}

/// Binds further sockets to one address until there are `count`.
///
/// # Errors
/// As of [`bind`]; those bound by then stay.
pub fn fill(sockets: &mut Vec<TcpListener>, address: SocketAddr, count: usize) -> io::Result<()> {
    while sockets.len() < count {
        let address = sockets.first().map_or(Ok(address), TcpListener::local_addr)?;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        if address.is_ipv6() {
            // IPv4 has a socket of its own.
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        tune(&SockRef::from(&socket));
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        sockets.push(socket.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listen_address_may_fix_the_original_destination() {
        assert_eq!("127.0.0.1:15001".parse(), Ok(Listen { address: ([127, 0, 0, 1], 15001).into(), fixed: None }));
        assert_eq!(
            "127.0.0.1:4000=10.96.0.2:80".parse(),
            Ok(Listen { address: ([127, 0, 0, 1], 4000).into(), fixed: Some(([10, 96, 0, 2], 80).into()) })
        );
        assert!("[::1]:15001".parse::<Listen>().is_ok());
        for text in ["", "127.0.0.1", "localhost:80", "127.0.0.1:80=", "127.0.0.1:80=x"] {
            assert!(text.parse::<Listen>().is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn all_sockets_of_an_address_share_its_port() {
        let sockets = bind(([127, 0, 0, 1], 0).into(), 3).expect("loopback can be bound");
        let ports: std::collections::HashSet<u16> =
            sockets.iter().map(|s| s.local_addr().expect("bound").port()).collect();
        assert_eq!(ports.len(), 1);
    }
}
