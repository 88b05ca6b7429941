//! What workloads have been given, of what there is one of each.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};

/// Numbers of pods and ports in use, so that none is given twice.
#[derive(Debug, Default)]
pub(super) struct Taken {
    numbers: Mutex<(BTreeSet<u16>, u16)>,
    ports: Mutex<BTreeSet<u16>>,
}

impl Taken {
    /// The next free number of a pod. Addresses go around once before one comes again, so that nobody's stale
    /// knowledge of a workload hits its successor.
    pub(super) fn number(&self) -> u16 {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let (used, last) = &mut *numbers;
        loop {
            // 0 and 65535 are no host addresses, 1 is the fabric's.
            *last = if *last < 2 || *last >= 65534 { 2 } else { *last + 1 };
            if used.insert(*last) {
                return *last;
            }
        }
    }

    /// A port of the loopback interface that nobody has.
    pub(super) fn port(&self) -> io::Result<u16> {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            // The kernel may name a port again as soon as it is closed.
            if ports.insert(port) {
                return Ok(port);
            }
        }
    }

    /// Takes that very port if nobody has it.
    pub(super) fn claim(&self, port: u16) -> bool {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() && ports.insert(port)
    }

    pub(super) fn loopback_address(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port()?)))
    }

    pub(super) fn release_number(&self, number: u16) {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).0.remove(&number);
    }

    pub(super) fn release_ports(&self, own: impl IntoIterator<Item = u16>) {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        for port in own {
            ports.remove(&port);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_around_before_one_is_used_again() {
        let taken = Taken::default();
        assert_eq!([taken.number(), taken.number(), taken.number()], [2, 3, 4]);
        taken.release_number(3);
        assert_eq!(taken.number(), 5);
        taken.numbers.lock().unwrap().1 = 65534;
        assert_eq!(taken.number(), 3, "2 is taken, 3 was given back");
    }

    #[test]
    fn a_port_is_not_given_twice() {
        let taken = Taken::default();
        let ports: BTreeSet<u16> = (0..100).map(|_| taken.port().unwrap()).collect();
        assert_eq!(ports.len(), 100);
    }
}
