//! The client's tickets of one cluster, kept by endpoint: one pod's ticket is never shown to another.
//!
//! The store lives in the TLS configuration of one cluster, protocol and generation, so new credentials or another set
//! of identities begin with none. rustls looks at a ticket's age, and offers it only to the configuration that got it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// Tickets kept per endpoint, the newest. Each is used once, and each connection brings another, so there are as many as
/// connections were ever begun at once: fewer kept, and a burst of connections would be one of full handshakes every time.
const PER_ENDPOINT: usize = 32;
/// Tickets kept per cluster, about 1.5 KiB each; beyond it an endpoint is forgotten and pays a full handshake.
const TICKETS: usize = 1024;

#[derive(Default)]
struct Held {
    by_endpoint: HashMap<ServerName<'static>, VecDeque<Tls13ClientSessionValue>>,
    /// Tickets of all endpoints.
    count: usize,
}

impl Held {
    fn forget(&mut self, server: &ServerName<'static>) {
        self.count -= self.by_endpoint.remove(server).map_or(0, |tickets| tickets.len());
    }

    /// Makes room for one more ticket of `server`: its own oldest goes, or whatever another endpoint has.
    fn make_room(&mut self, server: &ServerName<'static>, most: usize) {
        let own = self.by_endpoint.get_mut(server);
        let is_full = own.as_ref().is_some_and(|tickets| tickets.len() >= PER_ENDPOINT.min(most));
        if is_full {
            self.count -= usize::from(own.and_then(VecDeque::pop_front).is_some());
        } else if self.count >= most
            && let Some(forgotten) = self.by_endpoint.keys().find(|other| *other != server).cloned()
        {
            self.forget(&forgotten);
        }
    }
}

pub(super) struct Sessions {
    held: Mutex<Held>,
    most: usize,
}

impl Default for Sessions {
    fn default() -> Self {
        Self::of(TICKETS)
    }
}

impl Sessions {
    /// For so many tickets.
    pub(super) fn of(most: usize) -> Self {
        Self { held: Mutex::default(), most }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a ticket of this endpoint. Another thread may take it at once.
    pub(super) fn holds(&self, server: &ServerName<'static>) -> bool {
        self.lock().by_endpoint.contains_key(server)
    }

    /// Throws away the tickets of an endpoint.
    pub(super) fn forget(&self, server: &ServerName<'static>) {
        self.lock().forget(server);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let held = self.lock();
        assert_eq!(held.count, held.by_endpoint.values().map(VecDeque::len).sum::<usize>());
        held.count
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secrets.
        f.write_str("Sessions")
    }
}

impl ClientSessionStore for Sessions {
    // The first group is the one all of us support: nothing to remember.
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut held = self.lock();
        held.make_room(&server, self.most);
        held.by_endpoint.entry(server).or_default().push_back(ticket);
        held.count += 1;
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut held = self.lock();
        let tickets = held.by_endpoint.get_mut(server)?;
        let newest = tickets.pop_back();
        if tickets.is_empty() {
            held.by_endpoint.remove(server);
        }
        held.count -= usize::from(newest.is_some());
        newest
    }
}

/// What rustls calls an endpoint. It is neither sent (SNI is off) nor checked: the identity in the certificate is.
/// Address and port as one name, since pods of tests share an address.
pub(super) fn name_of(endpoint: SocketAddr) -> ServerName<'static> {
    let bits = match endpoint.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    let name = format!("{bits:x}-{}.mesh.weft", endpoint.port());
    ServerName::try_from(name).expect("hexadecimal digits, a hyphen and a number are a DNS label")
}
