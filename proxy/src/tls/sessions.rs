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

/// Tickets kept per endpoint, the newest: each is used once, and each connection brings another.
const PER_ENDPOINT: usize = 4;
/// Endpoints remembered per cluster. About 1.5 KiB a ticket; beyond it somebody is forgotten and pays a full handshake.
const ENDPOINTS: usize = 256;

type ByEndpoint = HashMap<ServerName<'static>, VecDeque<Tls13ClientSessionValue>>;

pub(super) struct Sessions {
    by_endpoint: Mutex<ByEndpoint>,
    endpoints: usize,
}

impl Default for Sessions {
    fn default() -> Self {
        Self::of(ENDPOINTS)
    }
}

impl Sessions {
    /// For so many endpoints.
    pub(super) fn of(endpoints: usize) -> Self {
        Self { by_endpoint: Mutex::default(), endpoints }
    }

    fn lock(&self) -> MutexGuard<'_, ByEndpoint> {
        self.by_endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().values().map(VecDeque::len).sum()
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
        let mut sessions = self.lock();
        if sessions.len() >= self.endpoints
            && !sessions.contains_key(&server)
            && let Some(forgotten) = sessions.keys().next().cloned()
        {
            sessions.remove(&forgotten);
        }
        let tickets = sessions.entry(server).or_default();
        if tickets.len() >= PER_ENDPOINT {
            tickets.pop_front();
        }
        tickets.push_back(ticket);
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut sessions = self.lock();
        let tickets = sessions.get_mut(server)?;
        let newest = tickets.pop_back();
        if tickets.is_empty() {
            sessions.remove(server);
        }
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
