//! Who is behind an address, for proxies that ask for the addresses their workload calls instead of being told all.
//!
//! `IP:PORT` is an outbound listener's. Services may come to have an address before the last one has given it up: of several
//! listeners the first by name has it, whichever came first, so that all replicas say the same. `IP` alone is a captured
//! workload's; whose, [`super::peers`] knows. The content is the same for all addresses of one listener and of all workloads
//! that are reached in the same way, and is in memory once for them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weft_core::names::SpiffeId;
use weft_proto::names;
use weft_proto::weft::Destination;
use weft_proto::weft::destination::{Peer, Service, Who};

use crate::world::{Change, Kind, Resource};

/// An address, and the name of a listener that listens for it.
pub(super) type Claim = (SocketAddr, Arc<str>);

/// The addresses of outbound listeners.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    claims: BTreeSet<Claim>,
    /// Addresses whose claims have changed, with the listener that had each.
    touched: BTreeMap<SocketAddr, Option<Arc<str>>>,
}

impl Destinations {
    /// Puts the claims of a service in the place of those it had.
    pub(super) fn replace(&mut self, before: &BTreeSet<Claim>, after: &BTreeSet<Claim>) {
        for gone in before.difference(after) {
            self.touch(gone.0);
            self.claims.remove(gone);
        }
        for come in after.difference(before) {
            self.touch(come.0);
            self.claims.insert(come.clone());
        }
    }

    fn touch(&mut self, address: SocketAddr) {
        if !self.touched.contains_key(&address) {
            self.touched.insert(address, self.owner(address));
        }
    }

    fn owner(&self, address: SocketAddr) -> Option<Arc<str>> {
        let first = (address, Arc::default());
        self.claims.range(first..).next().filter(|claim| claim.0 == address).map(|claim| Arc::clone(&claim.1))
    }

    /// Tells of the addresses that are another listener's than when this was called last; how many resources that took.
    pub(super) fn settle(&mut self, change: &mut Change) -> usize {
        let mut made: HashMap<Arc<str>, Resource> = HashMap::new();
        let mut count = 0;
        for (address, had) in std::mem::take(&mut self.touched) {
            let has = self.owner(address);
            if has == had {
                continue;
            }
            let name: Arc<str> = address.to_string().into();
            let Some(listener) = has else {
                change.gone.push((Kind::Destination, name));
                continue;
            };
            count += 1;
            let known = made.entry(listener).or_insert_with_key(|listener| {
                resource(Arc::clone(&name), Who::Service(Service { listener: listener.to_string() }))
            });
            change.shared.push(known.renamed(name));
        }
        count
    }
}

/// A workload of the mesh, whatever its address.
pub(super) fn peer(namespace: &str, identity: &SpiffeId, except: &BTreeSet<u16>) -> Resource {
    let (namespace, spiffe_id) = (namespace.to_owned(), identity.to_string());
    let except_ports = except.iter().map(|port| u32::from(*port)).collect();
    resource(Arc::default(), Who::Peer(Peer { namespace, spiffe_id, except_ports }))
}

/// What the destination of a workload's address is called.
pub(super) fn peer_name(address: IpAddr) -> Arc<str> {
    address.to_canonical().to_string().into()
}

/// An address as it stands in the name of a destination: IPv4 as such, also where it is written as IPv6.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn resource(name: Arc<str>, who: Who) -> Resource {
    Resource::new(names::DESTINATION, name, &Destination { who: Some(who) })
}
