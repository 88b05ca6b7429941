//! The kernel's table of TCP sockets in the calling thread's network namespace: who took a connection of ours.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use crate::clock;

/// The other side of a connection within the machine appears a moment after the first one has it.
const PAUSE: Duration = Duration::from_millis(10);

/// The local port that took the connection from `client`; waits for it until the deadline.
pub(in crate::capture) fn taker(client: SocketAddr, deadline: Instant) -> Option<u16> {
    loop {
        // Connections of IPv4 to a socket of both families stand in the second table.
        let found = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"]
            .iter()
            .filter_map(|path| fs::read_to_string(path).ok())
            .find_map(|table| table.lines().filter_map(line).find(|(_, remote)| *remote == client));
        match found {
            Some((local, _)) => return Some(local.port()),
            None if clock::now() >= deadline => return None,
            None => thread::park_timeout(PAUSE),
        }
    }
}

/// The local and the remote address of a line; nothing for the heading.
fn line(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let mut columns = line.split_ascii_whitespace().skip(1);
    Some((address(columns.next()?)?, address(columns.next()?)?))
}

/// An address as the kernel prints it: 32-bit words of the machine's byte order in hexadecimal, a colon, the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (words, port) = text.split_once(':')?;
    let word = |at: usize| Some(u32::from_str_radix(words.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let address: IpAddr = match words.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let bytes = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_of_the_kernels_table_are_read() {
        let table = [
            ("  sl  local_address rem_address   st tx_queue rx_queue", None),
            (
                "   1: 0100007F:3A99 0100090A:C001 01 00000000:00000000 00:00000000 00000000  0 0 1",
                Some(("127.0.0.1:15001", "10.9.0.1:49153")),
            ),
            (
                "   0: 00000000000000000000000001000000:3A99 B80D0120000000000000000001000000:0009 01 0:0",
                Some(("[::1]:15001", "[2001:db8::1]:9")),
            ),
            (
                "   0: 0000000000000000FFFF00000100007F:3A99 0000000000000000FFFF00000100090A:C001 01 0:0",
                Some(("127.0.0.1:15001", "10.9.0.1:49153")),
            ),
            ("   0: 01:3A99 zz", None),
        ];
        for (text, expected) in table {
            let expected = expected.map(|(local, remote)| (local.parse().unwrap(), remote.parse().unwrap()));
            assert_eq!(line(text), expected, "{text}");
        }
    }

    #[test]
    fn the_port_that_took_a_connection_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = taker(client.local_addr().unwrap(), clock::now() + Duration::from_secs(5));
        assert_eq!(port, Some(listener.local_addr().unwrap().port()));
    }
}
